"""A judge's part of an evaluation, from votes and answers to the gate's verdict."""

import json
from pathlib import Path
from typing import Any

import pytest
from django.db.models import F, Value
from django.db.models.functions import Concat
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Completion, Project, Split
from feedback_app.training.gate.evaluation import evaluation_directory, evaluation_read
from feedback_app.training.gate.judge.evaluation import judge_evaluate, vote_pairs
from feedback_app.training.gate.judge.interview import Interrupted
from feedback_app.training.gate.judge.services import judge_save
from feedback_app.training.gate.services import gate_of_report, gate_settings_save
from feedback_app.training.gate.settings import GateSettings
from feedback_app.training.models import GateOutcome, Judge, Run
from feedback_app.training.runs.services import run_request
from tests.training.gate.judge.server import (
    Asked,
    JudgeServer,
    Reply,
    choose,
    first_position,
    kind,
)
from tests.training.gate.judge.world import PROMPTS, report_write, votes_for_good_answers

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

SETTINGS = GateSettings(primary="judge")
KEY = "sk-very-secret"


@pytest.fixture
def run(project: Project, annotator: User, admin: User, settings: Settings, tmp_path: Path) -> Run:
    """A run whose evaluation has ended: the new version's answers are good in four of five prompts,
    and live's in one."""
    settings.ARTIFACT_ROOT = tmp_path / "artifacts"
    votes_for_good_answers(project, annotator)
    run = run_request(project=project, by=admin)
    report_write(run)
    return run


@pytest.fixture
def judge(run: Run, admin: User, server: JudgeServer) -> Judge:
    server.behaviour = kind
    return judge_save(project=run.project, url=server.url, model="judge-1", api_key=KEY, by=admin)


def evaluated(run: Run, seconds: float = 60, settings: GateSettings = SETTINGS) -> dict[str, Any]:
    judge_evaluate(run=run, settings=settings, seconds=seconds)
    found: dict[str, Any] = evaluation_read(run)["judge"]
    return found


def outcome(run: Run, settings: GateSettings = SETTINGS) -> tuple[GateOutcome, str]:
    name = run.project.adapter_name(run.number)
    rule = gate_of_report(evaluation_read(run), settings, candidate=name).rules[0]
    assert (rule.key, rule.label, rule.primary) == ("judge", "Judge model", True)
    return rule.outcome, rule.text


def test_judge_that_agrees_with_people_decides(run: Run, judge: Judge, server: JudgeServer) -> None:
    found = evaluated(run)
    assert found["model"] == "judge-1"
    assert found["kappa"] == 1
    assert 0.3 < found["kappa_low"] < 1
    assert 20 < found["pairs"] <= 60
    values = list(found["prompts"].values())
    assert (values.count(1), values.count(0), len(values)) == (48, 12, PROMPTS)
    assert found["failures"] == 0
    assert outcome(run) == (
        GateOutcome.PASSED,
        "better than the base: preferred to the base on 80% of 60 prompts",
    )
    # nothing else is asked, and nothing twice
    asked = len(server.asked)
    assert asked == 2 * (found["pairs"] + PROMPTS)
    assert evaluated(run) == found
    assert len(server.asked) == asked


def test_version_that_the_judge_likes_less_fails(run: Run, judge: Judge) -> None:
    report_write(run, good=0.2)
    evaluated(run)
    verdict, text = outcome(run)
    assert verdict == GateOutcome.FAILED
    assert text == "worse than the base: preferred to the base on 20% of 60 prompts"


def test_equal_version_is_undecided_and_says_how_many_prompts_would_do(
    run: Run, judge: Judge
) -> None:
    report_write(run, good=0.6)
    evaluated(run)
    verdict, text = outcome(run)
    assert verdict == GateOutcome.UNDECIDED
    assert "preferred to the base on 60% of 60 prompts; about" in text


def test_few_prompts_decide_nothing(run: Run, judge: Judge) -> None:
    report_write(run, prompts=8)
    evaluated(run)
    assert outcome(run) == (GateOutcome.UNDECIDED, "there were too few prompts to measure it")


def test_judge_does_not_see_the_reasoning_of_voted_answers(run: Run) -> None:
    Completion.objects.update(text=Concat(Value("<think>\nwell\n</think>\n\n"), F("text")))
    pairs = vote_pairs(run)
    assert pairs
    for pair in pairs:
        assert pair.first.startswith("A good answer")
        assert pair.second.startswith("Some bad answer")


def test_no_test_vote_is_sent(run: Run, judge: Judge, server: JudgeServer) -> None:
    test = set(run.project.prompts.filter(split=Split.TEST).values_list("pk", flat=True))
    assert test
    pairs = vote_pairs(run)
    assert not {pair.key for pair in pairs} & {str(pk) for pk in test}
    assert len({pair.key for pair in pairs}) == len(pairs)
    assert all("good" in pair.first and "bad" in pair.second for pair in pairs)
    questions = {run.project.prompts.get(pk=pk).messages[-1]["content"] for pk in test}
    evaluated(run)
    sent = {asked.compared["conversation"][-1]["content"] for asked in server.asked}
    assert not sent & questions


def test_judge_of_a_position_does_not_count(run: Run, judge: Judge, server: JudgeServer) -> None:
    server.behaviour = first_position
    found = evaluated(run)
    assert found["kappa"] == pytest.approx(0)
    assert found["prompts"] == {}
    verdict, text = outcome(run)
    assert verdict == GateOutcome.UNDECIDED
    assert "κ of 0.00" in text
    assert "it counts from 0.3 on" in text
    # the test prompts were not sent, as the answers would not count
    assert len(server.asked) == 2 * found["pairs"]


def test_judge_against_people_does_not_count(run: Run, judge: Judge, server: JudgeServer) -> None:
    def contrary(asked: Asked) -> Reply:
        return choose("B" if "good" in asked.answers[0] else "A")

    server.behaviour = contrary
    assert evaluated(run)["kappa"] == -1
    assert outcome(run)[0] == GateOutcome.UNDECIDED


def test_position_bias_on_test_prompts_is_no_preference(
    run: Run, judge: Judge, server: JudgeServer
) -> None:
    server.behaviour = lambda asked: (
        kind(asked) if "Voted" in str(asked.compared) else first_position(asked)
    )
    found = evaluated(run)
    assert found["kappa"] == 1
    assert set(found["prompts"].values()) == {0.5}
    assert outcome(run)[0] != GateOutcome.PASSED


def test_garbage_on_test_prompts_is_no_evidence(
    run: Run, judge: Judge, server: JudgeServer
) -> None:
    def sometimes(asked: Asked) -> Reply:
        word, number, *_ = asked.compared["conversation"][-1]["content"].split()
        garbled = word == "Question" and int(number) % 4 == 0
        return Reply("Well…") if garbled else kind(asked)

    server.behaviour = sometimes
    found = evaluated(run)
    assert found["failures"] == 15
    assert len(found["prompts"]) == 45
    verdict, text = outcome(run)
    assert verdict == GateOutcome.UNDECIDED
    assert text == "it gave no valid answer on 15 of 60 prompts"


def test_garbage_from_the_beginning_leaves_the_agreement_unknown(
    run: Run, judge: Judge, server: JudgeServer
) -> None:
    server.behaviour = lambda asked: Reply("Both are fine.")
    assert evaluated(run)["kappa"] is None
    verdict, text = outcome(run)
    assert verdict == GateOutcome.UNDECIDED
    assert "agreement with people is unknown" in text


@pytest.mark.parametrize("status", [401, 503])
def test_judge_that_is_down_leaves_the_rule_undecided(
    run: Run, judge: Judge, server: JudgeServer, status: int
) -> None:
    server.behaviour = lambda asked: Reply(status=status)
    assert evaluated(run)["error"] == f"The server answered {status}"
    verdict, text = outcome(run)
    assert verdict == GateOutcome.UNDECIDED
    assert text == f"the judge model gave no verdict: The server answered {status}"
    # it is well again, and the run is resumed
    server.behaviour = kind
    assert evaluated(run)["error"] == ""
    assert outcome(run)[0] == GateOutcome.PASSED


def test_address_that_is_not_allowed_any_more_is_not_asked(
    run: Run, judge: Judge, server: JudgeServer, settings: Settings
) -> None:
    settings.JUDGE_NETWORKS = []
    assert "public address" in evaluated(run)["error"]
    assert server.asked == []
    assert outcome(run)[0] == GateOutcome.UNDECIDED


def test_key_of_another_secret_key_leaves_the_rule_undecided(
    run: Run, judge: Judge, server: JudgeServer, settings: Settings
) -> None:
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "another" * 8, []
    assert "save it again" in evaluated(run)["error"]
    assert server.asked == []


def test_project_without_a_judge_is_undecided(run: Run) -> None:
    assert outcome(run) == (GateOutcome.UNDECIDED, "the judge model was not asked")
    assert evaluated(run)["error"] == "none is set up"
    assert outcome(run)[0] == GateOutcome.UNDECIDED


def test_time_that_is_over_leaves_the_rule_undecided(
    run: Run, judge: Judge, server: JudgeServer
) -> None:
    server.behaviour = lambda asked: (
        kind(asked) if "Voted" in str(asked.compared) else Reply(silent=True)
    )
    found = evaluated(run, seconds=4)
    assert (found["late"], found["prompts"], found["kappa"]) == (True, {}, 1)
    verdict, text = outcome(run)
    assert verdict == GateOutcome.UNDECIDED
    assert "its time was over" in text


def test_interruption_is_passed_on(run: Run, judge: Judge) -> None:
    with pytest.raises(Interrupted):
        judge_evaluate(run=run, settings=SETTINGS, seconds=60, stopped=lambda: True)


def test_key_is_in_no_file(run: Run, judge: Judge, server: JudgeServer) -> None:
    server.behaviour = lambda asked: Reply(
        status=401, raw=json.dumps({"error": {"message": f"bad key {KEY}"}})
    )
    assert evaluated(run)["error"] == "The server answered 401: bad key [API key]"
    assert not any(
        KEY.encode() in path.read_bytes()
        for path in evaluation_directory(run).rglob("*")
        if path.is_file()
    )


def test_automatic_rule_never_takes_the_judge(run: Run, judge: Judge, admin: User) -> None:
    evaluated(run)
    name = run.project.adapter_name(run.number)
    report = evaluation_read(run)
    for auc in (0.9, 0.5):
        report["up_model"]["auc"] = auc
        assert gate_of_report(report, GateSettings(), candidate=name).rules[0].key != "judge"


def test_minimum_of_the_project_counts(run: Run, judge: Judge, server: JudgeServer) -> None:
    def often(asked: Asked) -> Reply:
        voted = asked.compared["conversation"][-1]["content"]
        wrong = "Voted" in voted and sum(map(ord, voted)) % 4 == 0
        return first_position(asked) if wrong else kind(asked)

    server.behaviour = often
    kappa = evaluated(run)["kappa"]
    assert 0.5 < kappa < 0.95
    assert outcome(run)[0] == GateOutcome.PASSED
    strict = GateSettings(primary="judge", minimum_kappa=0.95)
    assert outcome(run, strict)[0] == GateOutcome.UNDECIDED
    # what would not count is not asked
    assert evaluated(run, settings=strict)["prompts"] == {}


def test_saved_rules_with_a_judge_are_read_back(run: Run, admin: User) -> None:
    saved = GateSettings(primary="judge", minimum_kappa=0.5, judge_minutes=3)
    rules = gate_settings_save(project=run.project, settings=saved, by=admin)
    assert rules is not None
    rules.refresh_from_db()
    assert GateSettings.from_json(rules.rules) == saved
