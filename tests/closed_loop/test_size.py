"""The proof's size: large enough to show a rise, and small enough for the machine's time limit."""

import random
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from feedback_app.closed_loop import measure
from feedback_app.closed_loop.measure import Side, gain
from feedback_app.closed_loop.proof import ClosedLoop, Deadline, LoopBroken
from feedback_app.closed_loop.rule import Finding
from feedback_app.closed_loop.size import (
    BASE_UP_RATE,
    EXPECTED_RISE,
    LEAST_PATIENCE_SECONDS,
    LEAST_PROMPTS,
    LoopSize,
    Speed,
    TimeLeft,
    least_unseen,
    minutes_for,
    patience_for,
    seconds_for,
    size_for,
)
from feedback_app.closed_loop.speed import SpeedUnknown, example_seconds, speed_measure
from feedback_app.config.management.commands.closed_loop import Command, plan_lines
from feedback_app.feedback.models import Project
from feedback_app.serving.engine.client import EngineError
from tests.engines import RunningEngine

pytestmark = pytest.mark.slow

#: Two idle cores, with AVX2 only and with AVX512-BF16.
OLD, NEW = Speed(120, 1.2), Speed(315, 0.15)
SNAIL = Speed(1, 60)


def test_number_of_unseen_prompts_follows_the_power_formula() -> None:
    # (1.960 + 1.282)² · (0.65 · 0.35 + 0.825 · 0.175) / 2 / 0.175² = 10.507 · 0.18594 / 0.030625
    assert least_unseen(2) == 64
    assert least_unseen(4) == 32, "only the number of answers counts"
    assert least_unseen(2, rise=0.15) == 91
    assert least_unseen(2, power=0.8) < 64


@pytest.mark.parametrize(("share", "low", "high"), [(1.0, 0.86, 1.0), (0.25, 0.0, 0.6)])
def test_bootstrap_has_the_expected_power(
    monkeypatch: pytest.MonkeyPatch, share: float, low: float, high: float
) -> None:
    """The rise is found in 90 % of cases with the least number of prompts, seldom with a fourth."""
    monkeypatch.setattr(measure, "BOOTSTRAP", 400)
    draw = random.Random(4)

    def side(rate: float) -> Side:
        ups = [[draw.random() < rate for _ in range(2)] for _ in range(round(64 * share))]
        findings = [[Finding(up, True, True, True, 40) for up in group] for group in ups]
        return Side("x", findings, [])

    found = [
        gain(side(BASE_UP_RATE), side(BASE_UP_RATE + EXPECTED_RISE), seed=number).significant
        for number in range(150)
    ]
    assert low <= sum(found) / len(found) <= high


def test_ordinary_machines_run_the_full_size_within_their_budgets() -> None:
    assert size_for(OLD, 25) == LoopSize()
    assert minutes_for(LoopSize(), OLD) < 25
    assert size_for(NEW, 6) == LoopSize()
    assert minutes_for(LoopSize(), NEW) < 6


def test_slower_machine_gets_a_smaller_but_sufficient_size() -> None:
    full, slower = LoopSize(), Speed(OLD.answer_tokens / 1.4, OLD.example_seconds * 1.4)
    size = size_for(slower, 21)
    assert LEAST_PROMPTS < size.prompts < full.prompts
    assert least_unseen(2) <= size.unseen_prompts < full.unseen_prompts
    assert minutes_for(size, slower) <= 21
    assert size_for(slower, 40) == full


def test_least_size_is_used_if_none_fits_and_the_time_is_reported() -> None:
    size = size_for(SNAIL, 25)
    assert (size.prompts, size.unseen_prompts) == (LEAST_PROMPTS, least_unseen(2))
    *_, last = plan_lines(size, SNAIL, 25)
    assert "more than the budget of 25 minutes" in last
    assert not any("budget" in line for line in plan_lines(LoopSize(), NEW, 25))
    assert f"about {minutes_for(LoopSize(), NEW):.0f} minutes" in "".join(
        plan_lines(LoopSize(), NEW, 25)
    )


def test_timeout_grows_with_the_longest_step() -> None:
    size = LoopSize()
    assert patience_for(size, NEW) == LEAST_PATIENCE_SECONDS
    # the first of sixteen answers at one token per second takes 1,040 s, 75 test examples 4,500
    assert patience_for(size, Speed(1, 0.1)) == 5 * 1040
    assert patience_for(size, Speed(100, 60)) == 5 * 4500


def test_time_without_progress_is_limited_by_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    deadline = Deadline("No answer was sampled", 900)
    deadline.check(1)
    now[0] = 890.0
    deadline.check(1)
    deadline.check(2)
    now[0] = 1780.0
    deadline.check(2)
    now[0] = 1800.0
    with pytest.raises(LoopBroken, match="No answer was sampled for 900 s"):
        deadline.check(2)


def test_time_left_is_the_estimate_until_the_pace_is_slower() -> None:
    left = TimeLeft({"annotate": 100, "train": 200, "measure": 50})
    left.begin("annotate", now=1000)
    assert left.left("voted", 0, 10, now=1000) == (100, 350)
    # a tenth in ten seconds: as estimated
    assert left.left("voted", 1, 10, now=1010) == (90, 340)
    # three tenths in 150 s: 350 s more, not the 50 s of the estimate that were left
    step, whole = left.left("voted", 3, 10, now=1150)
    assert step == pytest.approx(350)
    assert whole == pytest.approx(600)
    left.begin("train", now=1500)
    assert left.left("training", 4, 40, now=1500) == (200, 250), "a phase may start halfway"
    assert left.left("training", 8, 40, now=1600) == (800, 850)
    left.begin("measure", now=3000)
    assert left.left("answered", 9, 10, now=3060) == (0, 0), "late by an unknown time"


@pytest.mark.parametrize("given", ["0", "-3", "soon", "inf", "nan"])
def test_budget_is_a_number_of_minutes(given: str) -> None:
    with pytest.raises(CommandError, match="not a number of minutes above 0"):
        call_command("closed_loop", "--budget", given)


def test_seconds_of_all_steps_are_listed_in_order() -> None:
    steps = seconds_for(LoopSize(), OLD)
    assert list(steps) == ["annotate", "train", "release", "measure"]
    assert seconds_for(LoopSize(epochs=4), OLD)["train"] > steps["train"]
    assert seconds_for(LoopSize(unseen_prompts=160), OLD)["measure"] == 2 * steps["measure"]


@pytest.mark.django_db
def test_options_override_the_size_derived_from_the_speed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = "feedback_app.config.management.commands.closed_loop"
    asked: list[LoopSize] = []

    def run(self: ClosedLoop, *, base_model: str) -> None:
        asked.append(self.size)
        raise LoopBroken("far enough")

    monkeypatch.setattr(f"{command}.speed_measure", lambda *, base_model: SNAIL)
    monkeypatch.setattr(ClosedLoop, "run", run)
    for options in ((), ("--prompts", "30", "--epochs", "1", "--answers", "3")):
        with pytest.raises(CommandError, match="far enough"):
            call_command("closed_loop", "--url", "http://127.0.0.1:9", *options)
    least, given = asked
    assert least == size_for(SNAIL, 25)
    assert (given.prompts, given.epochs, given.answers_per_prompt) == (30, 1, 3)
    assert given.unseen_prompts == least.unseen_prompts
    said = capsys.readouterr().out
    assert "Measured: 1 tokens/s" in said
    assert f"about {minutes_for(least, SNAIL):.0f} minutes" in said
    assert "more than the budget of 25 minutes" in said


# -- measured on a real engine and with a real plan


@pytest.mark.long
@pytest.mark.django_db
def test_speed_is_measured_on_the_engine_and_by_a_plan(
    served: Project, engine: RunningEngine, settings: object
) -> None:
    settings.MODELS_ROOT = engine.model.parent  # type: ignore[attr-defined]
    speed = speed_measure(base_model=served.base_model)
    assert speed.answer_tokens > 1
    assert 0 < speed.example_seconds < 10


@pytest.mark.django_db
def test_unreachable_engine_is_reported(settings: object) -> None:
    settings.ENGINES = {"tiny": "http://127.0.0.1:9"}  # type: ignore[attr-defined]
    with pytest.raises(EngineError, match="does not answer"):
        speed_measure(base_model="tiny")


@pytest.mark.long
def test_failed_plan_reports_the_reason(tmp_path: Path, settings: object) -> None:
    settings.MODELS_ROOT = tmp_path  # type: ignore[attr-defined]
    (tmp_path / "broken").mkdir()
    answer = [{"role": "assistant", "content": "So."}]
    examples = [
        {"prompt": [{"role": "user", "content": text}], "completion": answer}
        for text in ("Why?", "When?")
    ]
    with pytest.raises(SpeedUnknown, match=r"training speed could not be measured: \w+"):
        example_seconds("broken", examples)


def test_each_line_of_progress_shows_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    command = Command()
    command.started = command.shown = 0.0
    command.ended = ("", 0)
    command.progress("voted", 3, 10, 42.4, 600.0)
    assert "voted: 3 of 10 (42 s left of this step, 10 min in all)" in capsys.readouterr().out
    for _ in range(3):
        command.progress("voted", 10, 10, 0, 558)
    assert capsys.readouterr().out.count("voted: 10 of 10") == 1
