"""Votes, agreement and up-rates by day."""

import datetime as dt

import pytest
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.figures import services as figures
from feedback_app.feedback.models import Completion, Project, Source, Verdict, Vote
from feedback_app.serving.models import Release
from feedback_app.serving.project_home import history as history_module
from feedback_app.serving.project_home.history import DAYS, history, history_count
from feedback_app.training.models import Adapter, Run, Snapshot
from tests.conftest import MakeCompletions

pytestmark = pytest.mark.django_db

UP, DOWN = Verdict.UP, Verdict.DOWN


def day(days_ago: int) -> dt.datetime:
    noon = timezone.now().replace(hour=12, minute=0, second=0, microsecond=0)
    return noon - dt.timedelta(days=days_ago)


def cast(
    completion: Completion,
    by: User,
    verdict: Verdict,
    *,
    days_ago: int,
    source: Source = Source.ANNOTATE,
) -> None:
    vote = Vote.objects.create(
        completion=completion,
        project=completion.project,
        user=by,
        verdict=verdict,
        source=source,
    )
    Vote.objects.filter(pk=vote.pk).update(created_at=day(days_ago))


def released(project: Project, number: int, *, days_ago: int, until: int | None = None) -> Adapter:
    """Make a version that went live so many days ago, without its files."""
    run = Run.objects.create(
        project=project,
        number=number,
        snapshot=Snapshot.objects.create(project=project, train_up=1, train_down=1),
        trigger=Run.Trigger.PERSON,
        status=Run.Status.SUCCEEDED,
    )
    adapter = Adapter.objects.create(
        project=project, run=run, name=project.adapter_name(number), path="x", sha256="x"
    )
    release = Release.objects.create(project=project, adapter=adapter, live=until is None)
    Release.objects.filter(pk=release.pk).update(
        since=day(days_ago), until=None if until is None else day(until)
    )
    return adapter


def test_votes_are_counted_by_day_without_imports_and_old_ones(
    project: Project, annotator: User, make_completions: MakeCompletions
) -> None:
    first, second, third, old, imported = make_completions(5)
    cast(first, annotator, UP, days_ago=2)
    cast(second, annotator, DOWN, days_ago=2)
    cast(third, annotator, UP, days_ago=1)
    cast(old, annotator, UP, days_ago=DAYS + 1)
    cast(imported, annotator, UP, days_ago=1, source=Source.IMPORT)

    found = history(project)

    assert found.votes == [
        [day(2).date().isoformat(), 1, 1],
        [day(1).date().isoformat(), 1, 0],
    ]
    assert found.known


def test_agreement_counts_pairs_of_verdicts_on_the_day_of_the_last(
    project: Project,
    annotator: User,
    second_annotator: User,
    admin: User,
    make_completions: MakeCompletions,
) -> None:
    same, mixed, alone = make_completions(3)
    for person in (annotator, second_annotator):
        cast(same, person, UP, days_ago=3)
    for person, verdict, ago in (
        (annotator, UP, 5),
        (second_annotator, UP, 4),
        (admin, DOWN, 3),
    ):
        cast(mixed, person, verdict, days_ago=ago)
    cast(alone, annotator, UP, days_ago=3)

    found = history(project)

    # of the three pairs on the mixed answer one agrees
    assert found.agreement == [[day(3).date().isoformat(), 2, 4]]
    assert found.agreed == 0.5


def test_rates_are_those_of_versions_that_were_live_in_these_days(
    project: Project, annotator: User, make_completions: MakeCompletions
) -> None:
    released(project, 1, days_ago=DAYS + 50, until=DAYS + 10)
    released(project, 2, days_ago=DAYS + 10, until=4)
    released(project, 3, days_ago=4)
    completions = make_completions(6)
    for completion, number in zip(completions, (1, 2, 2, 3, 3, 9), strict=True):
        completion.version = project.adapter_name(number)
        completion.save(update_fields=["version"])
        cast(completion, annotator, UP if number == 3 else DOWN, days_ago=number)
    gold = make_completions(1)[0]
    Completion.objects.filter(pk=gold.pk).update(gold=True, version=project.adapter_name(3))
    cast(gold, annotator, DOWN, days_ago=3)

    found = history(project)

    assert found.rates == {
        project.adapter_name(2): [[day(2).date().isoformat(), 0, 2]],
        project.adapter_name(3): [[day(3).date().isoformat(), 2, 2]],
    }
    assert found.releases == [(day(4), project.adapter_name(3))]
    # a worker stores no others: there may be hundreds
    assert set(history_count(project)["rates"]) == set(found.rates)


def test_base_is_live_until_the_first_release(voted_project: Project) -> None:
    today = timezone.now().date().isoformat()
    assert history(voted_project).rates == {"base": [[today, 20, 60]]}
    released(voted_project, 1, days_ago=2)
    assert list(history(voted_project).rates) == ["base"]
    Release.objects.update(since=day(DAYS + 1))
    assert history(voted_project).rates == {}


def test_votes_that_are_set_aside_do_not_count(
    project: Project, annotator: User, make_completions: MakeCompletions
) -> None:
    [completion] = make_completions()
    cast(completion, annotator, UP, days_ago=1)
    pause = project.pauses.create(user=annotator, right=0, of=5)
    Vote.objects.update(set_aside=pause)

    assert history(project).votes == []


def test_large_project_is_counted_by_a_worker(
    voted_project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "figures_small", lambda rows: False)

    assert not history(voted_project).known
    [due] = figures.figures_due(history_module.NAME)
    assert figures.figures_count(pk=due.pk, count=history_count)
    found = history(voted_project)
    assert found.known
    assert [row[1:] for row in found.votes] == [[20, 40]]
    assert found.counted_at is not None
