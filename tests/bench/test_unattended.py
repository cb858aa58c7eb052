"""`make bench-unattended`: its votes, the times of each part, and a small form of it."""

import datetime as dt

import pytest

from bench.unattended.__main__ import table
from bench.unattended.measure import MOMENTS, Timeline, answer_pair, measure
from feedback_app.closed_loop.rule import judge
from feedback_app.feedback.models import Project
from feedback_app.feedback.projects.starter import starter_prompts
from feedback_app.localstack.stack import Stack
from feedback_app.training.gate.settings import GateSettings
from feedback_app.training.models import Run
from feedback_app.training.runs.config import RunConfig
from tests.stacks import TINY


def test_annotators_like_the_first_answer_of_each_pair() -> None:
    for _, messages in starter_prompts():
        question = str(messages[-1]["content"])
        verdicts = [
            judge(question=question, answer=answer, complete=True).up
            for answer in answer_pair(question)
        ]
        assert verdicts == [True, False], question


def test_parts_add_up_to_the_whole() -> None:
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    moments = [start + dt.timedelta(seconds=number**2) for number in range(7)]
    seconds = Timeline(*moments).seconds()
    parts = [*MOMENTS, "answered"]
    assert seconds == dict(zip(parts, (1, 3, 5, 7, 9, 11), strict=True)) | {"total": 36}
    row = table({"votes": 120, "cores": 2, "load": [0.5, 2.0], "seconds": seconds})
    assert row.splitlines()[2] == (
        "| 120 | 1.0 | 3.0 | 5.0 | 7.0 | 9.0 | 11.0 | 36.0 | 2 | 0.5 to 2.0 |"
    )


@pytest.mark.long
@pytest.mark.django_db(transaction=True)
def test_version_of_the_schedule_goes_live_with_nobody_there(stack: Stack) -> None:
    times = measure(
        stack.url,
        base_model=TINY,
        votes=150,
        config=RunConfig(epochs=5, learning_rate=5e-3, kl_brake=None, patience=None),
        gate=GateSettings(primary="ranking", margins={}, prompts=10, minutes=0),
    )
    run = Run.objects.get()
    assert (run.trigger, run.auto_release) == (Run.Trigger.SCHEDULE, True)
    assert Project.objects.get().live_version == run.adapter.name
    assert all(seconds >= 0 for seconds in times.seconds().values())
