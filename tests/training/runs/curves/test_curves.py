"""The curves of a long run: few points, and nothing that stands out is lost."""

import csv
import math
from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django.fixtures import DjangoAssertNumQueries

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project
from feedback_app.training.models import Run, RunMetric
from feedback_app.training.runs.curves.selectors import MOST_POINTS
from feedback_app.training.runs.services import run_request

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]
STEPS = 10_000
#: A step at which one curve stands out for one step, and the value.
SPIKES = {"loss": (7_777, 9.5), "kl_unclamped": (123, -42.0), "reward_desirable": (4_000, 31.0)}


@pytest.fixture
def long_run(voted_project: Project, admin: User) -> Run:
    run = run_request(project=voted_project, by=admin)
    values = {
        step: {
            "loss": 0.5 + 0.1 * math.sin(step / 50),
            "kl_unclamped": step / STEPS,
            # a batch without a liked answer has no reward of one
            "reward_desirable": None if step % 7 == 0 else step / 1_000,
        }
        for step in range(1, STEPS + 1)
    }
    for name, (step, value) in SPIKES.items():
        values[step][name] = value
    RunMetric.objects.bulk_create(
        RunMetric(
            run=run, step=step, kl=0.0, reward_undesirable=-step / 1_000, completion_tokens=60,
            learning_rate=2e-4, grad_norm=1.0, seconds=1.0, **of_step,
        )
        for step, of_step in values.items()
    )  # fmt: skip
    return run


def test_long_run_has_a_bounded_number_of_points_and_every_extreme(
    long_run: Run,
    admin: User,
    as_user: As,
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    client = as_user(admin)
    url = reverse("run-metrics", args=[long_run.project.slug, long_run.number])
    with django_assert_max_num_queries(6):
        data = client.get(url).json()

    assert data["total"] == data["after"] == STEPS
    assert MOST_POINTS / 4 < len(data["steps"]) <= MOST_POINTS
    assert data["steps"] == sorted(set(data["steps"]))
    assert (data["steps"][0], data["steps"][-1]) == (1, STEPS)
    assert {len(column) for column in data.values() if isinstance(column, list)} == {
        len(data["steps"])
    }
    for name, (step, value) in SPIKES.items():
        assert data[name][data["steps"].index(step)] == value


def test_new_steps_of_a_long_run_come_as_they_are(long_run: Run, admin: User, as_user: As) -> None:
    url = reverse("run-metrics", args=[long_run.project.slug, long_run.number])
    data = as_user(admin).get(url, {"after": STEPS - 3}).json()
    assert data["steps"] == [STEPS - 2, STEPS - 1, STEPS]
    assert (data["total"], data["active"]) == (3, True)


def test_all_steps_are_downloaded_as_numbers(long_run: Run, admin: User, as_user: As) -> None:
    url = reverse("run-metrics-csv", args=[long_run.project.slug, long_run.number])

    answer = as_user(admin).get(url)

    rows = list(csv.DictReader(answer.getvalue().decode().splitlines()))
    assert len(rows) == STEPS
    assert [int(row["step"]) for row in (rows[0], rows[-1])] == [1, STEPS]
    assert float(rows[122]["kl_unclamped"]) == -42.0
    assert rows[6]["reward_desirable"] == "", "this step had no liked answer"
    assert "attachment" in answer["Content-Disposition"]
