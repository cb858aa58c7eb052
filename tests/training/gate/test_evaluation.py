"""What an evaluation samples: the first look, and the second where that can decide something."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project
from feedback_app.feedback.prompts.tools import tools_text, with_tools
from feedback_app.training.gate.evaluation import (
    MOST_ANSWERS,
    MOST_PROMPTS,
    TEST_FILE,
    Look,
    evaluation_write,
    first_look,
    prompts_available,
    second_look,
)
from feedback_app.training.gate.measures import Measures
from feedback_app.training.gate.rules import GateResult, gate_decide
from feedback_app.training.gate.settings import GateSettings
from feedback_app.training.models import Run
from feedback_app.training.runs.execution.inputs import prepare
from feedback_app.training.runs.services import run_request
from tests.training.gate.reports import gate_report
from trainer.evaluation.config import EvalConfig, read_prompts

SETTINGS = GateSettings()


def judged(**changed: float) -> GateResult:
    report = gate_report(prompts=12, **changed)
    return gate_decide(Measures(report, "bot@1", "base"), SETTINGS)


def after(result: GateResult, *, seconds: float = 10, available: int = 500) -> Look | None:
    return second_look(Look(12), result, SETTINGS, seconds=seconds, available=available)


def test_first_look_is_that_of_the_settings() -> None:
    assert first_look(GateSettings(prompts=25)) == Look(25, 2)


def test_second_look_asks_as_many_prompts_as_the_open_rules_need() -> None:
    result = judged()
    needed = max(rule.needed or 0 for rule in result.rules if rule.counted == "prompts")
    more = after(result)
    assert more is not None
    assert more == Look(min(needed, MOST_PROMPTS), 2)


def test_second_look_gives_people_enough_pairs_and_no_second_answers() -> None:
    settings = replace(SETTINGS, primary="people", margins={})
    result = gate_decide(Measures(gate_report(prompts=12), "bot@1", "base"), settings)
    assert second_look(Look(12), result, settings, seconds=1, available=400) == Look(114)
    assert second_look(Look(200), result, settings, seconds=1, available=400) is None


def test_second_look_stays_within_prompts_and_minutes() -> None:
    assert after(judged(), available=20) == Look(20, 2)
    # 10 minutes for 5 minutes a look: once more as many prompts
    assert after(judged(), seconds=300) == Look(24, 2)
    assert after(judged(), seconds=600) is None


def test_without_more_prompts_each_gets_more_answers() -> None:
    assert after(judged(), available=12) == Look(12, MOST_ANSWERS)


def test_distance_to_the_base_that_is_open_is_estimated_on_more_prompts() -> None:
    report = gate_report(prompts=100)
    report["kl"]["bot@1"] = [0.1, 0.8] * 8
    result = gate_decide(Measures(report, "bot@1", "base"), SETTINGS)
    (rule,) = [rule for rule in result.rules if rule.outcome == "undecided"]
    assert (rule.key, rule.n) == ("kl", 16)
    assert rule.needed is not None
    assert rule.needed > 100
    more = second_look(Look(100), result, SETTINGS, seconds=1, available=400)
    assert more == Look(min(rule.needed, 400), kl=min(rule.needed, 400))
    assert second_look(Look(100), result, SETTINGS, seconds=1, available=100) == Look(100, kl=100)
    # nothing is left to look at
    looked = Look(100, kl=100)
    assert second_look(looked, result, SETTINGS, seconds=1, available=100) is None


def test_fixed_texts_that_leave_the_gate_open_are_no_reason_to_sample() -> None:
    report = gate_report(prompts=300)
    report["sycophancy"]["bot@1"] = [-0.2, 0.7] * 30
    result = gate_decide(Measures(report, "bot@1", "base"), SETTINGS)
    assert result.outcome == "undecided"
    assert after(result) is None


def test_decided_gate_looks_once() -> None:
    failed, passed = (
        gate_decide(Measures(gate_report(prompts=300, **changed), "bot@1", "base"), SETTINGS)
        for changed in ({"repeats": 0.9}, {})
    )
    assert (failed.outcome, passed.outcome) == ("failed", "passed")
    assert after(failed) is None
    assert after(passed) is None


def test_open_rule_about_votes_samples_nothing() -> None:
    report = gate_report(prompts=300, auc=None, votes=4)
    result = gate_decide(Measures(report, "bot@1", "base"), SETTINGS)
    assert result.outcome == "undecided"
    assert after(result) is None


@pytest.fixture
def run(voted_project: Project, admin: User, tmp_path: Path, settings: Settings) -> Run:
    settings.ARTIFACT_ROOT = tmp_path
    made = run_request(project=voted_project, by=admin)
    prepare(made)
    return made


@pytest.mark.django_db
def test_larger_look_adds_to_a_smaller_one(run: Run) -> None:
    def prompts(count: int) -> list[str]:
        directory = evaluation_write(run, Look(count), base_model="model")
        lines = (directory / "prompts.jsonl").read_text().splitlines()
        return [json.loads(line)["id"] for line in lines]

    available = prompts_available(run.project)
    few, many = prompts(3), prompts(available + 5)
    assert len(few) == 3
    assert many[:3] == few
    assert len(set(many)) == available
    test = run.project.prompts.filter(split="test").values_list("pk", flat=True)
    assert set(many) == {str(pk) for pk in test}


@pytest.mark.django_db
def test_prediction_learns_from_training_and_validation_votes_only(run: Run) -> None:
    directory = evaluation_write(run, Look(3, 4), base_model="model")
    config = json.loads((directory / "evaluate.json").read_text())
    assert config["answers_per_prompt"] == 4
    assert config["kl_prompts"] == 16

    def ids(name: str) -> set[str]:
        lines = (directory / name).read_text().splitlines()
        return {json.loads(line)["id"] for line in lines}

    by_split = {
        split: {
            str(pk)
            for pk in run.snapshot.items.filter(split=split).values_list("completion", flat=True)
        }
        for split in ("train", "validation", "test")
    }
    assert ids("votes.jsonl") == by_split["train"] | by_split["validation"]
    assert ids("test.jsonl") == by_split["test"]


@pytest.mark.django_db
@pytest.mark.parametrize("quantisation", [None, "4bit"])
def test_versions_are_compared_on_the_base_that_the_run_trained_on(
    run: Run, quantisation: str | None
) -> None:
    run.config = {**run.config, "quantisation": quantisation}
    directory = evaluation_write(run, Look(3), base_model="model")
    assert EvalConfig.read(directory / "evaluate.json").quantisation == quantisation


@pytest.mark.django_db
def test_large_snapshots_are_sampled(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feedback_app.training.gate.evaluation.VOTES_SCORED", 7)
    directory = evaluation_write(run, Look(3), base_model="model")
    first = (directory / "votes.jsonl").read_text()
    assert len(first.splitlines()) == 7
    evaluation_write(run, Look(9), base_model="model")
    assert (directory / "votes.jsonl").read_text() == first


@pytest.mark.django_db
def test_definitions_of_tools_are_beside_the_messages(run: Run) -> None:
    tools = [{"type": "function", "function": {"name": "weather"}}]
    for prompt in run.project.prompts.all():
        prompt.messages = with_tools(prompt.messages, tools_text(tools))
        prompt.save()
    directory = evaluation_write(run, Look(5), base_model="model")
    lines = [json.loads(line) for line in (directory / TEST_FILE).read_text().splitlines()]
    assert lines
    for line in lines:
        assert line["tools"] == tools
        assert all("tools" not in message for message in line["prompt"])
    assert {len(prompt.tools) for prompt in read_prompts(directory / "prompts.jsonl")} == {1}
