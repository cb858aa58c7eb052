"""deploy/monitoring: files that Prometheus and Grafana can read, about metrics that exist."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from django.conf import settings
from django.urls import get_resolver
from prometheus_client.parser import text_string_to_metric_families

from feedback_app.feedback.models import Source, Verdict
from feedback_app.monitoring import heartbeats, metrics, readiness, requests, task_counts, totals
from feedback_app.training.models import Run

DIRECTORY = Path(settings.BASE_DIR) / "deploy" / "monitoring"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((DIRECTORY / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((DIRECTORY / "dashboard.json").read_text())
QUERIES = [rule["expr"] for rule in RULES] + [
    target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]
]


def selectors(query: str) -> Iterator[promql_parser.VectorSelector]:
    """Yield the metrics that a query reads. Raises ValueError for a syntax error."""
    found: list[promql_parser.VectorSelector] = []

    def visit(expression: object) -> bool:
        if isinstance(expression, promql_parser.MatrixSelector):
            found.append(expression.vector_selector)
        elif isinstance(expression, promql_parser.VectorSelector):
            found.append(expression)
        return True

    promql_parser.walk(promql_parser.parse(query), visit)
    yield from found


@pytest.fixture
def exported(db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of all samples of /metrics after one request."""
    monkeypatch.setattr(requests, "metrics_directory", lambda: tmp_path)
    monkeypatch.setattr(readiness, "_probes", {})
    monkeypatch.setattr(readiness, "database_fault", lambda: None)
    monkeypatch.setattr(settings, "METRICS_TOKEN", "a-token")
    monkeypatch.setattr(
        totals,
        "compute",
        lambda: totals.Totals(
            waiting=1,
            leases=1,
            runs=dict.fromkeys(Run.Status.values, 1),
            run_seconds=dict.fromkeys(Run.Status.values, 1.0),
            run_heartbeat_age=1.0,
            gate={"passed": 1, "failed": 1, "undecided": 1},
            votes={("up", "demo"): 1},
        ),
    )
    heartbeats.beat("gpu")
    task_counts.add("training.train_run", state="SUCCESS", seconds=1)
    requests.web_metrics.cache_clear()
    own = requests.web_metrics()
    assert own is not None
    own.requests.labels("home", "GET", 200).inc()
    own.seconds.labels("home").observe(1)
    own.open_answers.inc()
    text = metrics.metrics_text().decode()
    os.close(own.lock)
    requests.web_metrics.cache_clear()
    return {
        sample.name for family in text_string_to_metric_families(text) for sample in family.samples
    }


def test_every_metric_of_dashboard_and_alerts_is_exported(exported: set[str]) -> None:
    named = {selector.name for query in QUERIES for selector in selectors(query)}
    assert len(named) >= 14
    assert named - exported == {"up"}, "`up` is Prometheus' own"


def test_every_metric_is_on_the_dashboard(exported: set[str]) -> None:
    shown = {
        selector.name
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
        for selector in selectors(target["expr"])
    }
    families = {name for name in exported if not re.search(r"_(created|sum|count)$", name)}
    assert families - shown == set()


@pytest.mark.parametrize("query", QUERIES)
def test_labels_of_a_query_have_such_values(query: str) -> None:
    views = {key for key in get_resolver().reverse_dict if isinstance(key, str)}
    known = {
        "view": views,
        "source": set(Source.values),
        "verdict": {*Verdict.values, totals.UNDONE},
        "result": {"passed", "failed", "undecided"},
        "state": {"succeeded", "failed", "retried"},
        "status": {*Run.Status.values, "5.."},
        "job": {"prospect"},
    }
    for selector in selectors(query):
        for matcher in selector.matchers.matchers:
            assert set(matcher.value.split("|")) <= known[matcher.name]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alert_is_complete_and_documented(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"Prospect[A-Za-z]+", rule["alert"])
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["annotations"]["summary"].endswith(".")
    assert re.fullmatch(r"\d+[mhd]", rule.get("for", "1m"))
    operations = (Path(settings.BASE_DIR) / "docs" / "operations.md").read_text()
    assert f"| `{rule['alert']}` |" in operations, "docs/operations.md does not explain it"


def test_alerts_have_unique_names() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(names) == len(set(names))


def test_dashboard_has_what_grafana_needs() -> None:
    assert DASHBOARD["uid"] and DASHBOARD["title"] and DASHBOARD["schemaVersion"] >= 36
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    covered: set[tuple[int, int]] = set()
    for panel in panels:
        assert {"title", "type", "targets", "gridPos"} <= set(panel)
        assert panel["datasource"]["uid"] == "${datasource}", "a variable of the dashboard"
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not covered & cells, f"{panel['title']} lies on another panel"
        covered |= cells


def test_scrape_configuration_names_the_page_and_the_rules() -> None:
    config = yaml.safe_load((DIRECTORY / "prometheus.yml").read_text())
    [job] = config["scrape_configs"]
    assert job["metrics_path"] == "/metrics"
    assert job["job_name"] == "prospect"
    assert all((DIRECTORY / name).exists() for name in config["rule_files"])
