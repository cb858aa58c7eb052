"""Every check of the soak finds a planted fault, and nothing without one."""

import datetime as dt
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from django.utils import timezone
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.feedback.models import (
    Completion,
    Example,
    Project,
    Sampling,
    Source,
    Verdict,
    Vote,
    VoteEvent,
)
from feedback_app.feedback.prompts.completions import Answer, completion_create, sampling_request
from feedback_app.feedback.queue.services import lease_take
from feedback_app.feedback.votes.services import vote_cast, vote_undo
from feedback_app.serving.models import OpenAnswer, Release, ShareLink
from feedback_app.training.models import Run
from tests.conftest import hand_out
from tests.served import MakeAdapter
from tests.soak import checks
from tests.soak.ledger import Ledger, events_of
from tests.soak.measure import Figures
from tests.soak.measure import one as figures_of

pytestmark = [pytest.mark.django_db, pytest.mark.slow]
Expected = dict[checks.Key, list[str]]


@pytest.fixture
def cast(project: Project, annotator: User, voted_project: Project) -> Expected:
    """Three more verdicts, changed and undone, and what the ledger says of all."""
    ledger = Ledger()
    for vote in Vote.objects.filter(project=project).order_by("pk"):
        ledger.accept(("user", annotator.pk), vote.completion_id, vote.verdict)
    for pk, verdict in zip(list(ledger.accepted)[:3], ("down", "up", ""), strict=False):
        completion = Completion.objects.select_related("project", "prompt").get(pk=pk[1])
        if verdict:
            vote_cast(
                completion=completion,
                verdict=Verdict(verdict),
                by=annotator,
                source=Source.ANNOTATE,
            )
        else:
            vote_undo(completion=completion, by=annotator, source=Source.ANNOTATE)
        ledger.accept(*pk, verdict)
    return checks.expected_votes(ledger, project)


def one(found: list[str], *words: str) -> None:
    """Require one difference, which names these words."""
    assert len(found) == 1, found
    for word in words:
        assert word in found[0]


def test_events_of_repeated_verdicts() -> None:
    assert events_of(["up", "up", "down", "", "", "down"]) == ["up", "down", "", "down"]
    assert events_of([""]) == []


def test_votes(cast: Expected, project: Project) -> None:
    assert checks.votes(cast, project) == []
    first, second = [key for key, verdicts in cast.items() if verdicts[-1] == "down"][:2]
    Vote.objects.filter(completion=first[0]).delete()
    one(checks.votes(cast, project), "accepted but not stored", str(first[0]))
    del cast[first]
    Vote.objects.filter(completion=second[0]).update(verdict="up")
    one(checks.votes(cast, project), "stored as up, but last accepted: down", str(second[0]))
    del cast[second]
    one(checks.votes(cast, project), "stored but not accepted", str(second[0]))


def test_events(cast: Expected, project: Project) -> None:
    assert checks.events(cast, project) == []
    event = VoteEvent.objects.order_by("pk")[5]
    event.pk = None
    event.save()
    one(checks.events(cast, project), str(event.completion_id))


def test_examples(cast: Expected, project: Project) -> None:
    assert checks.examples(cast, project) == []
    example = Example.objects.order_by("pk")[3]
    Example.objects.filter(pk=example.pk).update(weight=0.5)
    one(checks.examples(cast, project), f"completion {example.pk}")
    Example.objects.filter(pk=example.pk).update(weight=example.weight)
    Completion.objects.filter(pk=example.pk).update(vote_count=2)
    one(checks.examples(cast, project), f"completion {example.pk} counts 2")


def test_link_counts(project: Project, admin: User) -> None:
    link = ShareLink.objects.create(
        project=project,
        label="x",
        digest="x",
        choice="live",
        messages_limit=9,
        messages_each=9,
        votes_limit=9,
        expires_at=timezone.now(),
    )
    assert checks.link_counts({}, link) == []
    ShareLink.objects.update(votes_used=1)
    one(checks.link_counts({}, link), "1 votes counted, 0 cast")


def test_runs_and_live(
    make_adapter: MakeAdapter, served: Project, settings: Settings, tmp_path: Path
) -> None:
    settings.ARTIFACT_ROOT = tmp_path
    (tmp_path / "adapters").mkdir()
    assert checks.runs(served, tmp_path) == []
    assert checks.live(served, Ledger()) == []
    (tmp_path / "adapters" / "bot@9").mkdir()
    one(checks.runs(served, tmp_path), "directory of no version: bot@9")
    (tmp_path / "adapters" / "bot@9").rmdir()
    adapter = make_adapter(1)
    one(checks.runs(served, tmp_path), "no readable manifest")
    adapter.delete()
    one(checks.runs(served, tmp_path), "Run 1 is succeeded")
    Run.objects.update(status=Run.Status.RUNNING)
    one(checks.runs(served, tmp_path), "still running")
    release = Release.objects.create(project=served, adapter=make_adapter(2))
    one(checks.live(served, Ledger()), "the project answers with base")
    Project.objects.update(live_version=release.version)
    one(checks.live(served, Ledger()), "base was released last")
    assert checks.live(served, Ledger(releases=[release.version])) == []


def test_leases(cast: Expected, project: Project, annotator: User, admin: User) -> None:
    assert checks.leases(project) == []
    voted = Vote.objects.filter(user=annotator).select_related("completion").first()
    assert voted is not None
    hand_out(annotator, voted.completion)
    found = checks.leases(project)
    assert any("still holds it" in line for line in found)
    assert any("1 votes and 1 leases, overlap 1" in line for line in found)


def test_leases_that_expired_hold_nothing(project: Project, voted_project: Project) -> None:
    vote = Vote.objects.select_related("completion", "user").first()
    assert vote is not None
    lease = lease_take(completion=vote.completion, by=vote.user)
    lease.expires_at = timezone.now() - dt.timedelta(seconds=1)
    lease.save()
    assert checks.leases(project) == []


def test_samplings(project: Project, voted_project: Project) -> None:
    assert checks.samplings(project) == []
    sampling = sampling_request(project=project, answers_per_prompt=1)
    Sampling.objects.filter(pk=sampling.pk).update(started_at=timezone.now())
    assert any("still queued" in line for line in checks.samplings(project))
    Sampling.objects.filter(pk=sampling.pk).update(status=Sampling.Status.DONE)
    assert checks.samplings(project) == []
    prompt = project.prompts.first()
    assert prompt is not None
    for _ in range(2):
        completion_create(
            project=project,
            prompt=prompt,
            answer=Answer("Twice.", "base", "stop", None, None),
            source=Source.SAMPLED,
            sampling=sampling,
        )
    one(checks.samplings(project), f"{{{prompt.pk}: 2}}")


def test_open_answers() -> None:
    past = timezone.now() - dt.timedelta(seconds=1)
    OpenAnswer.objects.create(key="user-1", number=0, until=past)
    assert checks.open_answers() == []
    later = timezone.now() + dt.timedelta(minutes=1)
    OpenAnswer.objects.create(key="user-1", number=1, until=later)
    assert checks.open_answers() == ["user-1 1"]


def test_files_left(tmp_path: Path) -> None:
    (tmp_path / "whole.json").touch()
    assert checks.files_left(tmp_path) == []
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "half.json.partial").touch()
    one(checks.files_left(tmp_path), "half.json.partial")


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(
        [sys.executable, "-c", "input()"],
        stdin=subprocess.PIPE,
        env={**os.environ, "PROSPECT_VAR": str(tmp_path / "web")},
    )
    yield child
    child.communicate(b"\n")


def test_processes_left(process: subprocess.Popen[bytes], tmp_path: Path) -> None:
    one(checks.processes_left(tmp_path), f"{process.pid}: ")
    assert checks.processes_left(tmp_path / "elsewhere") == []


def test_growth_and_connections() -> None:
    old = Figures(pid=1, began=1, memory=100, threads=9, descriptors=50, files=3, sockets=40)

    def growth(name: str, new: Figures, ended: Collection[str] = ()) -> list[str]:
        return checks.growth({name: old}, {name: new}, memory=True, ended=ended)

    def found(**changes: int) -> list[str]:
        return growth("beat", replace(old, **changes))

    assert found(memory=105, descriptors=60, threads=20) == []
    web = replace(old, sockets=26, descriptors=36)
    assert growth("web-2", web) == []
    web = replace(old, sockets=27, descriptors=37)
    one(growth("web-2", web), "sockets")
    assert growth("worker-default", replace(old, sockets=49, descriptors=59)) == []
    one(growth("worker-default", replace(old, sockets=50, descriptors=60)), "sockets")
    one(found(memory=106), "memory")
    one(found(files=4), "open files")
    one(found(sockets=43), "sockets")
    one(found(descriptors=70), "descriptors")
    one(found(pid=2), "restarted")
    assert growth("beat", replace(old, pid=2), ended={"beat"}) == []
    one(checks.growth({"beat": old}, {}, memory=True, ended=()), "not there")


def test_sockets_whose_connection_was_reset_are_counted() -> None:
    this = psutil.Process()
    with socket.create_server(("127.0.0.1", 0)) as server:
        mine = socket.create_connection(server.getsockname())
        other, _ = server.accept()
        before = figures_of(this)
        # closed without a goodbye: the kernel sends a reset
        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        other.close()
        with pytest.raises(ConnectionResetError):
            mine.recv(1)
        after = figures_of(this)
        mine.close()
    assert after.sockets == before.sockets - 1


def test_connections_are_bounded_by_the_threads_of_the_web() -> None:
    before = {"web-broker": 10, "broker": 30, "workers-broker": 20, "web-engine": 0}

    def found(**after: int) -> list[str]:
        named = {name.replace("_", "-"): count for name, count in after.items()}
        return checks.more(before, named, threads=15)

    assert found(web_broker=17, broker=37, workers_broker=22, web_engine=2) == []
    one(found(web_broker=18), "web-broker: 10 connections, then 18")
    one(found(broker=38), "broker: 30")
    one(found(workers_broker=23), "workers-broker")
    one(found(web_engine=3), "web-engine")


def test_shown_is_bounded() -> None:
    assert checks.shown(["x"] * 30)[-1] == "and 10 more"
    assert checks.shown(["x"]) == ["x"]
