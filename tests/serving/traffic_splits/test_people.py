"""A traffic split counts one vote a person, and promotes only what passed the gate."""

import datetime as dt
from typing import Any

import pytest
from django.db import IntegrityError
from django.utils import timezone
from pytest_django import Settings

from feedback_app.accounts.models import Scope, User
from feedback_app.feedback.models import Pause, Project
from feedback_app.feedback.tokens.services import token_create, voter_of
from feedback_app.serving.models import Assignment, TrafficSplit
from feedback_app.serving.share_links.services import link_create, visitor_create
from feedback_app.serving.traffic_splits import services
from feedback_app.serving.traffic_splits.report import split_report
from feedback_app.serving.traffic_splits.services import (
    SETTLE,
    split_change,
    split_start,
    split_watch,
    votes_count,
)
from feedback_app.training.models import Adapter, Run, Snapshot
from feedback_app.web.errors import UserError
from tests.serving.traffic_splits.split_votes import vote_on

pytestmark = [pytest.mark.django_db, pytest.mark.slow]


def adapter_of(project: Project, *, gate_won: bool) -> Adapter:
    run = Run.objects.create(
        project=project,
        number=1,
        snapshot=Snapshot.objects.create(
            project=project, train_up=1, train_down=1, test_up=1, test_down=1
        ),
        trigger=Run.Trigger.PERSON,
        status=Run.Status.SUCCEEDED,
    )
    return Adapter.objects.create(
        project=project, run=run, name=project.adapter_name(1), path="bot@1", gate_won=gate_won
    )


def split_of(adapter: Adapter, by: User, **fields: Any) -> TrafficSplit:
    return TrafficSplit.objects.create(
        project=adapter.project,
        candidate=adapter,
        live_version="base",
        percent=50,
        started_by=by,
        **fields,
    )


@pytest.fixture
def split(project: Project, admin: User) -> TrafficSplit:
    return split_of(adapter_of(project, gate_won=True), admin, auto_promote=True)


def later(seconds: int = 0) -> dt.datetime:
    return timezone.now() + SETTLE + dt.timedelta(seconds=seconds)


@pytest.fixture
def promoted(monkeypatch: pytest.MonkeyPatch) -> list[Adapter]:
    """The versions that a split promotes; no engine is asked."""
    found: list[Adapter] = []
    monkeypatch.setattr(services, "release_promote", lambda **given: found.append(given["adapter"]))
    return found


def test_votes_of_one_person_count_once(
    split: TrafficSplit, viewer: User, promoted: list[Adapter]
) -> None:
    vote_on(split, candidate=True, verdicts="+" * 12, by=viewer)
    vote_on(split, candidate=False, verdicts="-" * 12, by=viewer)
    split_watch(split=split, now=later())

    assert split.assignments.exclude(counted=None).count() == 1
    assert promoted == []
    assert split_report(split).verdict == "No difference yet"
    # nor at a later tick, when another of the person's votes is old enough
    vote_on(split, candidate=True, verdicts="+", by=viewer)
    assert votes_count(split=split, now=later()) == 0


def test_first_vote_of_a_person_is_the_one_that_counts(split: TrafficSplit, viewer: User) -> None:
    vote_on(split, candidate=False, verdicts="-", by=viewer)
    vote_on(split, candidate=True, verdicts="+++", by=viewer)

    assert votes_count(split=split, now=later()) == 1
    counted = Assignment.objects.get(counted=1)
    assert (counted.candidate, counted.verdict) == (False, "down")


def test_vote_that_is_set_aside_is_not_counted(split: TrafficSplit, viewer: User) -> None:
    vote_on(split, candidate=True, verdicts="+", by=viewer)
    pause = Pause.objects.create(project=split.project, user=viewer, right=0, of=3)
    viewer.votes.update(set_aside=pause)
    assert votes_count(split=split, now=later()) == 0

    viewer.votes.update(set_aside=None)
    assert votes_count(split=split, now=later()) == 1


def test_votes_of_many_people_decide(split: TrafficSplit, promoted: list[Adapter]) -> None:
    vote_on(split, candidate=True, verdicts="+" * 12)
    vote_on(split, candidate=False, verdicts="-" * 12)
    split_watch(split=split, now=later())

    assert promoted == [split.candidate]


def test_visitors_of_a_share_link_count_as_one_person(split: TrafficSplit, admin: User) -> None:
    for label in ("one", "two"):
        link, _ = link_create(
            project=split.project,
            label=label,
            choice="live",
            days=1,
            messages_limit=100,
            messages_each=10,
            votes_limit=100,
            by=admin,
        )
        for _ in range(3):
            vote_on(split, candidate=True, verdicts="+", by=visitor_create(link).user)

    assert votes_count(split=split, now=later()) == 2


def test_people_of_a_product_count_by_name_and_otherwise_as_their_token(
    split: TrafficSplit, admin: User
) -> None:
    tokens = [
        token_create(project=split.project, name=name, scopes=[Scope.FEEDBACK], by=admin)[0]
        for name in ("Shop", "Desk")
    ]
    for name in (None, None, "ann", "ben", "ann"):
        for token in tokens:
            vote_on(split, candidate=True, verdicts="+", by=voter_of(token=token, name=name))

    # two tokens, and two names that belong to the project
    assert votes_count(split=split, now=later()) == 4


def test_second_counted_vote_of_a_person_is_impossible(split: TrafficSplit, viewer: User) -> None:
    vote_on(split, candidate=True, verdicts="++", by=viewer)
    votes_count(split=split, now=later())

    with pytest.raises(IntegrityError):
        Assignment.objects.filter(counted=None).update(counted=2, verdict="up")


def test_counting_takes_as_many_queries_for_many_votes(
    split: TrafficSplit, viewer: User, django_assert_max_num_queries: Any
) -> None:
    vote_on(split, candidate=True, verdicts="+" * 40, by=viewer)
    vote_on(split, candidate=False, verdicts="-" * 40)

    with django_assert_max_num_queries(8):
        votes_count(split=split, now=later())
    with django_assert_max_num_queries(1):
        votes_count(split=split, now=later())


# -- the gate


def test_split_never_promotes_what_did_not_pass_the_gate(
    project: Project, admin: User, promoted: list[Adapter], settings: Settings
) -> None:
    failed = adapter_of(project, gate_won=False)
    # as stored before the check existed
    split = split_of(failed, admin, auto_promote=True)
    vote_on(split, candidate=True, verdicts="+" * 12)
    vote_on(split, candidate=False, verdicts="-" * 12)
    split_watch(split=split, now=later())
    assert promoted == []

    with pytest.raises(UserError, match="did not pass the gate"):
        split_change(split=split, percent=50, auto_promote=True, auto_stop=True, by=admin)
    split_change(split=split, percent=50, auto_promote=False, auto_stop=True, by=admin)
    TrafficSplit.objects.all().delete()
    with pytest.raises(UserError, match="did not pass the gate"):
        split_start(project=project, adapter=failed, percent=50, by=admin, auto_promote=True)
    assert not TrafficSplit.objects.exists()
