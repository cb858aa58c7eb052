"""Automatic releases and traffic splits are claimed once, even if the broker delivers twice."""

import datetime as dt
import threading

import pytest
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project
from feedback_app.serving import tasks
from feedback_app.serving.engine.client import EngineError
from feedback_app.serving.models import LiveVersionClaim, Release, TrafficSplit
from feedback_app.serving.releases import automatic
from feedback_app.serving.releases.automatic import live_version_claimed
from feedback_app.serving.releases.services import release_flip
from feedback_app.training.models import Adapter
from tests.served import MakeAdapter

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


@pytest.fixture
def winner(make_adapter: MakeAdapter) -> Adapter:
    return make_adapter(1, auto_release=True)


@pytest.fixture
def split(served: Project, make_adapter: MakeAdapter, admin: User) -> TrafficSplit:
    return TrafficSplit.objects.create(
        project=served,
        candidate=make_adapter(2),
        live_version="base",
        percent=50,
        started_by=admin,
    )


def test_second_delivery_of_a_release_does_nothing(
    winner: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted: list[Adapter] = []

    def promote(*, project: Project, adapter: Adapter, by: None, reason: str) -> None:
        promoted.append(adapter)
        if len(promoted) == 1:
            other = threading.Thread(target=delivered)
            other.start()
            other.join(120)
        release_flip(project=project, adapter=adapter, before=None, by=by, reason=reason)

    def delivered() -> None:
        try:
            tasks.release_automatically(winner.pk)
        finally:
            connection.close()

    monkeypatch.setattr(automatic, "release_promote", promote)
    tasks.release_automatically(winner.pk)
    tasks.release_automatically(winner.pk)
    assert promoted == [winner], "a second delivery must do nothing, during the work or after it"
    assert Release.objects.get(live=True).adapter == winner


def test_release_of_a_killed_worker_is_taken_over(
    winner: Adapter, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    promoted: list[Adapter] = []
    monkeypatch.setattr(
        automatic, "release_promote", lambda **given: promoted.append(given["adapter"])
    )
    claim = LiveVersionClaim.objects.create(
        project=winner.project, attempt=1, heartbeat_at=timezone.now()
    )
    tasks.release_automatically(winner.pk)
    assert promoted == [], "another worker holds the claim"
    stale = timezone.now() - dt.timedelta(seconds=settings.RUN_STALE_SECONDS + 1)
    LiveVersionClaim.objects.update(heartbeat_at=stale)
    tasks.release_automatically(winner.pk)
    assert promoted == [winner]
    claim.refresh_from_db()
    assert (claim.attempt, claim.heartbeat_at) == (2, None)


def test_failed_release_releases_the_claim_for_the_next_tick(
    winner: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[int] = []

    def promote(**_: object) -> None:
        attempts.append(1)
        raise EngineError("The engine is down.")

    monkeypatch.setattr(automatic, "release_promote", promote)
    tasks.release_automatically(winner.pk)
    tasks.release_automatically(winner.pk)
    assert len(attempts) == 2


def test_second_delivery_of_a_split_check_does_nothing(
    split: TrafficSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched: list[TrafficSplit] = []

    def delivered() -> None:
        try:
            tasks.watch_split(split.pk)
        finally:
            connection.close()

    def watch(*, split: TrafficSplit) -> None:
        watched.append(split)
        other = threading.Thread(target=delivered)
        other.start()
        other.join(120)

    monkeypatch.setattr(automatic, "split_watch", watch)
    tasks.watch_split(split.pk)
    assert watched == [split]


def test_ended_split_is_not_checked(split: TrafficSplit, monkeypatch: pytest.MonkeyPatch) -> None:
    watched: list[TrafficSplit] = []
    monkeypatch.setattr(automatic, "split_watch", lambda *, split: watched.append(split))
    TrafficSplit.objects.update(status=TrafficSplit.Status.STOPPED)
    tasks.watch_split(split.pk)
    assert watched == []


def test_release_and_split_of_one_project_exclude_each_other(
    served: Project, split: TrafficSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched: list[TrafficSplit] = []
    monkeypatch.setattr(automatic, "split_watch", lambda *, split: watched.append(split))
    with live_version_claimed(served.pk) as claimed:
        assert claimed
        tasks.watch_split(split.pk)
        assert watched == []
    tasks.watch_split(split.pk)
    assert watched == [split]


def test_dispatch_sends_ids_and_does_no_work(
    winner: Adapter, split: TrafficSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, int]] = []
    for task in (
        tasks.sample_answers,
        tasks.release_automatically,
        tasks.request_version_diff,
        tasks.write_version_diff,
        tasks.watch_split,
    ):
        monkeypatch.setattr(
            task,
            "apply_async",
            lambda args, name=task.name, **_: sent.append((name, *args)),
        )
    tasks.dispatch()
    assert ("serving.release_automatically", winner.pk) in sent
    assert ("serving.watch_split", split.pk) in sent
    assert not Release.objects.exists()
