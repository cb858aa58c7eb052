"""/metrics: closed by default, complete, cheap, and added up over processes."""

import datetime as dt
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as configured
from django.core.cache import cache
from django.core.cache.backends.dummy import DummyCache
from django.db import OperationalError
from django.http import HttpResponse, StreamingHttpResponse
from django.test import Client
from django.utils import timezone
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import Settings
from structlog.testing import capture_logs

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project, Source, Verdict, VoteEvent
from feedback_app.feedback.votes.services import vote_cast
from feedback_app.monitoring import heartbeats, readiness, requests, task_counts, totals
from feedback_app.training.models import Adapter, Run, Snapshot
from tests.conftest import MakeCompletions, hand_out

TOKEN = "a-token-of-an-operator"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(autouse=True)
def own_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> Iterator[None]:
    """Web metrics of this test only, and parts that are all ready."""
    settings.METRICS_TOKEN = TOKEN
    monkeypatch.setattr(requests, "metrics_directory", lambda: tmp_path / "metrics")
    monkeypatch.setattr(readiness, "_probes", {})
    for name in ("database_fault", "broker_fault", "dispatch_fault"):
        monkeypatch.setattr(readiness, name, lambda: None)
    for name in ("engine_fault", "worker_fault"):
        monkeypatch.setattr(readiness, name, lambda argument: None)
    requests.web_metrics.cache_clear()
    yield
    metrics = requests.web_metrics()
    assert metrics is not None
    os.close(metrics.lock)
    requests.web_metrics.cache_clear()


@pytest.fixture
def settle(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let the cached figures expire, and count events at once."""

    def forget() -> None:
        cache.delete(totals.TOTALS_KEY)

    monkeypatch.setattr(totals, "SETTLED", dt.timedelta(0))
    return forget


def scrape() -> Samples:
    answer = Client(headers={"Authorization": f"Bearer {TOKEN}"}).get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.content.decode())
        for sample in family.samples
    }


def value(samples: Samples, metric: str, /, **labels: str) -> float | None:
    return samples.get((metric, frozenset(labels.items())))


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer ", f"Basic {TOKEN}", TOKEN])
def test_metrics_are_closed_without_the_token(header: str | None) -> None:
    client = Client(headers={"Authorization": header} if header else {})
    assert client.get("/metrics").status_code == 403


def test_metrics_are_closed_when_no_token_is_set(settings: Settings) -> None:
    settings.METRICS_TOKEN = ""
    assert Client(headers={"Authorization": "Bearer "}).get("/metrics").status_code == 403
    settings.MODE = "production"
    assert Client().get("/metrics").status_code == 403


@pytest.mark.django_db
def test_metrics_need_no_token_on_the_machine_itself(settings: Settings) -> None:
    settings.METRICS_TOKEN = ""
    settings.MODE = "local"
    assert Client().get("/metrics").status_code == 200
    assert Client(REMOTE_ADDR="192.0.2.1").get("/metrics").status_code == 403


def test_requests_are_counted_by_the_name_of_their_view(db: None) -> None:
    Client().get("/healthz")
    Client().get("/healthz")
    Client().get("/no/such/page/of-a-secret")
    found = scrape()
    counted = "prospect_http_requests_total"
    assert value(found, counted, view="healthz", method="GET", status="200") == 2
    assert value(found, counted, view="unmatched", method="GET", status="404") == 1
    assert value(found, "prospect_http_request_seconds_count", view="healthz") == 2
    assert "secret" not in str(found)


def test_unknown_methods_share_one_label(db: None) -> None:
    Client().generic("BREW", "/healthz")
    assert (
        value(
            scrape(), "prospect_http_requests_total", view="healthz", method="other", status="200"
        )
        == 1
    )


def test_answer_counts_as_open_while_it_is_streamed(db: None) -> None:
    gauge = Gauge("open", "", registry=None)

    def open_answers() -> float:
        [metric] = gauge.collect()
        return metric.samples[0].value

    for end in ("read", "closed"):
        response = StreamingHttpResponse(iter([b"a", b"b"]), content_type="text/event-stream")
        requests.count_while_open(response, gauge)
        assert open_answers() == 0
        pieces = iter(response)
        assert next(pieces) == b"a"
        assert open_answers() == 1
        if end == "read":
            assert list(pieces) == [b"b"]
        response.close()
        assert open_answers() == 0


def test_only_event_streams_are_answers() -> None:
    assert requests.is_event_stream(StreamingHttpResponse(content_type="text/event-stream"))
    assert not requests.is_event_stream(StreamingHttpResponse(content_type="text/csv"))
    assert not requests.is_event_stream(HttpResponse())


def test_log_line_of_a_request_has_no_path() -> None:
    with capture_logs() as logs:
        Client().post("/s/a-secret-of-a-link/?token=another-secret")
        Client().get("/healthz")
    [line] = [line for line in logs if line["event"] == "request"]
    assert line["method"] == "POST"
    assert "secret" not in str(line)


COUNT = """
import django; django.setup()
from django.test import Client
for _ in range(3):
    assert Client().get("/healthz", headers={"Host": "localhost"}).status_code == 200
"""


@pytest.mark.slow
def test_processes_are_added_up_and_a_restart_continues_their_counters(tmp_path: Path) -> None:
    def run() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", COUNT],
            cwd=configured.BASE_DIR,
            env={
                **os.environ,
                "PROSPECT_VAR": str(tmp_path),
                "METRICS_TOKEN": TOKEN,
                "DJANGO_SETTINGS_MODULE": "feedback_app.config.settings",
                "DATABASE_URL": "sqlite:////nowhere",
            },
        )

    directory = tmp_path / "run" / "metrics"
    together = [run(), run()]
    assert [process.wait() for process in together] == [0, 0]
    assert run().wait() == 0

    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(directory))
    labels = {"view": "healthz", "method": "GET", "status": "200"}
    assert registry.get_sample_value("prospect_http_requests_total", labels) == 9
    assert len(list(directory.glob("counter_*.db"))) <= 2


def test_slot_of_an_ended_process_is_used_again(tmp_path: Path) -> None:
    first, lock = requests.claim_slot(tmp_path)
    second, other = requests.claim_slot(tmp_path)
    assert (first, second) == (0, 1)
    (tmp_path / "gauge_sum_0.db").touch()
    (tmp_path / "counter_0.db").touch()
    os.close(lock)
    third, again = requests.claim_slot(tmp_path)
    assert third == 0
    assert not (tmp_path / "gauge_sum_0.db").exists(), "its open answers have ended"
    assert (tmp_path / "counter_0.db").exists()
    os.close(other)
    os.close(again)


def test_site_works_where_metrics_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(requests, "metrics_directory", lambda: tmp_path / "file" / "metrics")
    requests.web_metrics.cache_clear()
    assert requests.web_metrics() is None
    assert Client().get("/healthz").status_code == 200
    requests.web_metrics.cache_clear()
    monkeypatch.setattr(requests, "metrics_directory", lambda: tmp_path / "metrics")


def test_votes_are_counted_by_verdict_and_source(
    annotator: User, make_completions: MakeCompletions, settle: Callable[[], None]
) -> None:
    first, second = make_completions(2)
    hand_out(annotator, first, second)
    vote_cast(completion=first, verdict=Verdict.UP, by=annotator, source=Source.ANNOTATE)
    up = {"verdict": "up", "source": "annotate"}
    assert value(scrape(), "prospect_votes_total", **up) == 0, "counting begins with this scrape"

    vote_cast(completion=second, verdict=Verdict.UP, by=annotator, source=Source.ANNOTATE)
    vote_cast(completion=first, verdict=Verdict.DOWN, by=annotator, source=Source.ANNOTATE)
    settle()
    found = scrape()
    assert value(found, "prospect_votes_total", **up) == 1
    assert value(found, "prospect_votes_total", verdict="down", source="annotate") == 1
    assert value(found, "prospect_votes_total", verdict="undone", source="annotate") == 0

    settle()
    assert value(scrape(), "prospect_votes_total", **up) == 1, "no event is counted twice"


def test_young_vote_events_are_left_for_the_next_scrape(
    annotator: User, make_completions: MakeCompletions, settle: Callable[[], None]
) -> None:
    [completion] = make_completions(1)
    totals.votes_counted(timezone.now())
    now = timezone.now()
    event = VoteEvent.objects.create(
        completion=completion, user=annotator, verdict="", source=Source.DEMO
    )
    VoteEvent.objects.filter(pk=event.pk).update(created_at=now + dt.timedelta(seconds=1))
    undone = ("undone", Source.DEMO.value)
    assert totals.votes_counted(now)[undone] == 0
    assert totals.votes_counted(now + dt.timedelta(seconds=2))[undone] == 1


def test_scrape_reads_a_bounded_number_of_vote_events(
    annotator: User,
    make_completions: MakeCompletions,
    settle: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(totals, "EVENTS", 2)
    [completion] = make_completions(1)
    totals.votes_counted(timezone.now())
    for _ in range(3):
        VoteEvent.objects.create(
            completion=completion, user=annotator, verdict="up", source=Source.API
        )
    counted = [totals.votes_counted(timezone.now())["up", Source.API.value] for _ in range(2)]
    assert counted == [2, 3]


def test_queue_runs_gate_workers_and_engines_are_exported(
    voted_project: Project,
    annotator: User,
    make_completions: MakeCompletions,
    settings: Settings,
) -> None:
    settings.ENGINES = {"tiny": ["http://user:password@engine-1:8001/", "http://engine-2:8001"]}
    waiting = make_completions(3)
    hand_out(annotator, waiting[0])
    snapshot = Snapshot.objects.create(project=voted_project, train_up=1, train_down=1)
    start = timezone.now() - dt.timedelta(seconds=90)
    for number, won in ((1, True), (2, False), (3, False)):
        run = Run.objects.create(
            project=voted_project,
            number=number,
            snapshot=snapshot,
            trigger=Run.Trigger.PERSON,
            status=Run.Status.SUCCEEDED,
            started_at=start,
            finished_at=start + dt.timedelta(seconds=20),
        )
        Adapter.objects.create(
            project=voted_project,
            run=run,
            name=f"bot@{number}",
            path="p",
            gate_won=won,
            gate_outcome="passed" if won else "failed",
        )
    Run.objects.create(
        project=voted_project,
        number=4,
        snapshot=snapshot,
        trigger=Run.Trigger.PERSON,
        status=Run.Status.RUNNING,
        heartbeat_at=start,
    )
    task_counts.add("training.train_run", state="SUCCESS", seconds=1.5)
    task_counts.add("training.train_run", state="FAILURE", seconds=0.5)
    heartbeats.beat("gpu")

    found = scrape()

    assert value(found, "prospect_queue_items_waiting") == 3
    assert value(found, "prospect_queue_leases") == 1
    assert value(found, "prospect_runs", status="succeeded") == 3
    assert value(found, "prospect_runs", status="running") == 1
    assert value(found, "prospect_runs", status="failed") == 0
    assert value(found, "prospect_run_seconds_total", status="succeeded") == 60
    age = value(found, "prospect_run_heartbeat_age_seconds")
    assert age is not None and age >= 90
    assert value(found, "prospect_gate_decisions_total", result="passed") == 1
    assert value(found, "prospect_gate_decisions_total", result="failed") == 2
    train = {"task": "training.train_run"}
    assert value(found, "prospect_tasks_total", state="succeeded", **train) == 1
    assert value(found, "prospect_tasks_total", state="failed", **train) == 1
    assert value(found, "prospect_task_seconds_total", **train) == 2
    assert value(found, "prospect_heartbeat_timestamp_seconds", name="gpu")
    assert value(found, "prospect_part_ready", part="broker") == 1
    assert value(found, "prospect_engine_up", engine="engine-1:8001", base_model="tiny") == 1
    assert "password" not in str(found)


def test_items_waiting_are_counted_up_to_a_limit_of_each_project(
    voted_project: Project,
    outsider: User,
    make_completions: MakeCompletions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert totals.items_waiting() == 0
    make_completions(3)
    make_completions(1, of=Project.objects.get(slug="other"))
    assert totals.items_waiting() == 4
    monkeypatch.setattr(totals, "ITEMS", 2)
    assert totals.items_waiting() == 3


def test_scrape_costs_few_queries_and_none_again_within_a_quarter_of_a_minute(
    voted_project: Project, django_assert_num_queries: Any
) -> None:
    with django_assert_num_queries(5):  # waiting, leases, runs, gate, vote events
        scrape()
    with django_assert_num_queries(0):
        scrape()


def test_counters_are_left_out_while_the_cache_cannot_be_reached(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_counts.add("training.train_run", state="SUCCESS", seconds=1)
    assert any(name == "prospect_votes_total" for name, _ in scrape())
    unreachable = DummyCache("", {})
    monkeypatch.setattr(totals, "cache", unreachable)
    monkeypatch.setattr(task_counts, "cache", unreachable)
    names = {name for name, _ in scrape()}
    assert "prospect_runs" in names
    assert not names & {"prospect_votes_total", "prospect_tasks_total"}


def test_metrics_without_database_have_the_other_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> None:
        raise OperationalError("password=secret")

    monkeypatch.setattr(readiness, "database_fault", gone)
    found = scrape()
    assert value(found, "prospect_part_ready", part="database") == 0
    assert value(found, "prospect_queue_items_waiting") is None
