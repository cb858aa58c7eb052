"""The chance to pass the gate, told before a run and scored afterwards."""

import math
from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django.fixtures import DjangoAssertNumQueries

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project
from feedback_app.training.gate.chance import FEWEST_RUNS, MOST_RUNS, chance, chance_of
from feedback_app.training.models import Adapter, PairBatch, Run, Snapshot
from feedback_app.training.runs.config import RunConfig
from feedback_app.training.runs.services import run_request

As = Callable[[User], Client]


def runs_ended(
    project: Project, outcomes: str, *, forecast: float | None = None, trigger: str = "person"
) -> None:
    """Create a run that passed for each +, failed for each −, and was undecided for each ?."""
    names = {"+": "passed", "-": "failed", "?": "undecided"}
    first = project.runs.count() + 1
    for number, outcome in enumerate(outcomes, first):
        run = Run.objects.create(
            project=project,
            number=number,
            snapshot=Snapshot.objects.create(project=project, train_up=1, train_down=1),
            trigger=trigger,
            status="succeeded",
            config=RunConfig().as_json(),
            forecast=None if forecast is None else {"minutes": 3.0, "value": forecast},
        )
        Adapter.objects.create(
            project=project,
            run=run,
            name=project.adapter_name(number),
            path=f"adapters/{number}",
            sha256="0" * 64,
            gate_outcome=names[outcome],
            gate_won=outcome == "+",
        )


def test_chance_is_that_of_jeffreys() -> None:
    found = chance_of([True, True, True, False, False], [])
    assert found.value == pytest.approx(3.5 / 6)
    # scipy.stats.beta.ppf([0.025, 0.975], 3.5, 2.5)
    assert (found.low, found.high) == pytest.approx((0.2094, 0.9056), abs=1e-4)


@pytest.mark.parametrize("passed", [True, False])
def test_interval_is_closed_where_all_runs_ended_alike(passed: bool) -> None:
    found = chance_of([passed] * 6, [])
    assert (found.high if passed else found.low) == float(passed)
    assert 0 < (found.low if passed else found.high) < 1  # type: ignore[operator]


def test_too_few_runs_have_no_forecast() -> None:
    found = chance_of([True] * (FEWEST_RUNS - 1), [])
    assert (found.runs, found.value, found.brier) == (FEWEST_RUNS - 1, None, None)
    assert chance_of([True] * FEWEST_RUNS, []).value is not None


def test_interval_covers_the_true_chance() -> None:
    """Exactly, by the binomial distribution."""
    intervals = [chance_of([True] * k + [False] * (20 - k), []) for k in range(21)]
    covered = []
    for percent in range(5, 96):
        p = percent / 100
        covered.append(
            sum(
                math.comb(20, k) * p**k * (1 - p) ** (20 - k)
                for k, found in enumerate(intervals)
                if found.low <= p <= found.high  # type: ignore[operator]
            )
        )
    assert sum(covered) / len(covered) == pytest.approx(0.95, abs=0.01)
    assert min(covered) > 0.85


def test_brier_score_of_earlier_forecasts() -> None:
    assert chance_of([], [(1.0, True), (0.0, False)]).brier == 0
    assert chance_of([], [(0.5, True), (0.5, False)]).brier == 0.25
    assert chance_of([], [(0.8, False), (0.8, True)]).brier == pytest.approx(0.34)


@pytest.mark.django_db
def test_only_runs_that_say_something_about_the_next_one_count(project: Project) -> None:
    runs_ended(project, "++-?", forecast=0.5)
    runs_ended(project, "+++", trigger="erasure")
    Run.objects.create(
        project=project,
        number=8,
        snapshot=Snapshot.objects.first(),
        trigger="person",
        status="failed",
    )
    assert (chance(project).runs, chance(project).value) == (4, None)
    runs_ended(project, "")
    other = Adapter.objects.filter(gate_outcome="undecided").get()
    batch = PairBatch.objects.create(adapter=other, project=project)
    assert chance(project).runs == 3, "people have not decided yet"
    PairBatch.objects.filter(pk=batch.pk).update(decided_at="2026-11-30T00:00:00Z", end="judged")
    found = chance(project)
    assert (found.runs, found.forecasts, found.brier) == (4, 4, 0.25)


@pytest.mark.django_db
def test_newest_runs_count_in_one_query(
    project: Project, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    runs_ended(project, "-" * 10 + "+" * MOST_RUNS)
    with django_assert_num_queries(1):
        found = chance(project)
    assert (found.runs, found.high) == (MOST_RUNS, 1.0)


@pytest.mark.django_db
def test_page_says_when_runs_are_too_few(voted_project: Project, admin: User, as_user: As) -> None:
    page = as_user(admin).get(reverse("runs", args=[voted_project.slug])).content.decode()
    assert "Not enough past runs for a forecast: 0 of the 5" in " ".join(page.split())
    run = run_request(project=voted_project, by=admin)
    assert run.forecast is not None
    assert (run.forecast["value"], run.forecast["runs"]) == (None, 0)
    assert run.forecast["minutes"] > 0


@pytest.mark.django_db
def test_forecast_is_shown_stored_with_the_run_and_scored(
    voted_project: Project, admin: User, as_user: As
) -> None:
    runs_ended(voted_project, "+-++-", forecast=0.7)
    client = as_user(admin)
    text = " ".join(client.get(reverse("runs", args=[voted_project.slug])).content.decode().split())
    assert '<strong class="num">58 %</strong>, between 21 % and 91 %' in text
    assert 'Brier score of 5 earlier forecasts: <span class="num">0.25</span>' in text

    run = run_request(project=voted_project, by=admin)

    assert run.forecast is not None
    assert run.forecast["value"] == pytest.approx(3.5 / 6)
    page = client.get(reverse("run", args=[voted_project.slug, run.number])).content.decode()
    assert "58 % to pass the gate (between 21 % and 91 %)" in " ".join(page.split())
