"""Claims on rows: one worker at a time, and takeover of a stale claim."""

import datetime as dt
import threading

import pytest
from django.db import connection
from django.db.models import Q
from django.utils import timezone
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.db.claims import Claim, Claimable
from feedback_app.feedback.models import Figures, ImportJob, Project, ProjectDeletion, Sampling
from feedback_app.serving.models import ChangeReport, LiveVersionClaim
from feedback_app.training.models import Erasure, InfluenceReport, Run, Snapshot, VersionPush
from tests.engines import wait_until

SamplingClaim = Claim[Sampling]


@pytest.fixture
def sampling(project: Project) -> Sampling:
    return Sampling.objects.create(project=project)


def take(row: Claimable, **options: object) -> Claim | None:
    return Claim.take(type(row).objects.filter(pk=row.pk), **options)


def heartbeat_stops(row: Claimable, settings: Settings) -> None:
    """Let the claim become stale by setting the last heartbeat far enough back."""
    stale = timezone.now() - dt.timedelta(seconds=settings.RUN_STALE_SECONDS + 1)
    type(row).objects.filter(pk=row.pk).update(heartbeat_at=stale)


def test_all_long_work_uses_the_shared_claims() -> None:
    users = {Run, Sampling, ImportJob, Erasure, ChangeReport, LiveVersionClaim, Figures}
    users |= {ProjectDeletion, InfluenceReport, Snapshot, VersionPush}
    assert set(Claimable.__subclasses__()) == users


def test_claim_raises_the_attempt_and_sets_the_fields(sampling: Sampling) -> None:
    claim = take(sampling, error="none")
    assert claim is not None
    sampling.refresh_from_db()
    assert (sampling.status, sampling.attempt, sampling.error) == ("running", 1, "none")
    assert sampling.heartbeat_at is not None
    assert (claim.row, claim.row.status, claim.attempt) == (sampling, "running", 1)
    assert take(sampling) is None, "a second delivery must not get the claim"


def test_stale_claim_is_taken_over_and_can_no_longer_write(
    sampling: Sampling, settings: Settings
) -> None:
    first = take(sampling)
    assert first is not None
    heartbeat_stops(sampling, settings)
    second = take(sampling)
    assert second is not None
    assert second.attempt == 2
    assert not first.update(done=0, total=7)
    assert not first.heartbeat()
    assert not first.held().exists()
    assert second.update(total=3)
    sampling.refresh_from_db()
    assert sampling.total == 3


def test_ended_work_is_not_claimable_and_its_claim_is_lost(
    sampling: Sampling, settings: Settings
) -> None:
    claim = take(sampling)
    assert claim is not None
    assert claim.update(status=Sampling.Status.DONE)
    heartbeat_stops(sampling, settings)
    assert take(sampling) is None
    assert not claim.heartbeat()


def test_condition_replaces_the_claimable_rows(sampling: Sampling) -> None:
    first = take(sampling)
    second = take(sampling, condition=Q(status="running"))
    assert first is not None
    assert second is not None
    assert not first.heartbeat()


def test_work_without_a_status_is_claimed_and_ended(project: Project, settings: Settings) -> None:
    erasure = Erasure.objects.create(project=project, person=1, account=False)
    assert take(erasure) is not None
    assert take(erasure) is None
    heartbeat_stops(erasure, settings)
    claim = take(erasure)
    assert claim is not None
    assert claim.update(finished_at=timezone.now())
    heartbeat_stops(erasure, settings)
    assert take(erasure) is None
    assert not claim.heartbeat()


@pytest.mark.django_db(transaction=True)
def test_one_of_two_concurrent_workers_gets_the_claim(admin: User, project: Project) -> None:
    sampling = Sampling.objects.create(project=project)
    both = threading.Barrier(2)
    claims: list[Claim | None] = []

    def work() -> None:
        try:
            both.wait(60)
            claims.append(take(sampling))
        finally:
            connection.close()

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert sorted(claim is None for claim in claims) == [False, True]


@pytest.mark.django_db(transaction=True)
def test_heartbeats_are_written_until_the_block_ends(project: Project, settings: Settings) -> None:
    settings.RUN_STALE_SECONDS = 0.12
    sampling = Sampling.objects.create(project=project)
    claim = take(sampling)
    assert claim is not None
    began = timezone.now()

    def beaten() -> bool:
        sampling.refresh_from_db()
        return sampling.heartbeat_at is not None and sampling.heartbeat_at > began

    with claim.kept_alive() as heartbeat:
        wait_until(beaten, what="a heartbeat")
        Sampling.objects.update(attempt=9)
        wait_until(lambda: heartbeat.lost, what="the loss")
