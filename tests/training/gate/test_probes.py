"""Probes on their way through an evaluation: written for the trainer, matched by the worker."""

import json
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Probe, Project
from feedback_app.feedback.probes.patterns import pattern_faults
from feedback_app.feedback.probes.services import probe_add, probe_retire
from feedback_app.training.gate.evaluation import (
    Look,
    evaluation_directory,
    evaluation_read,
    evaluation_write,
)
from feedback_app.training.gate.probes import SECONDS, probe_kept, probes_judged
from feedback_app.training.models import Run
from feedback_app.training.runs.services import run_request

Kind = Probe.Kind
#: A pattern that tries an exponential number of ways on its text.
SLOW, SLOW_TEXT = "(a|aa)+$", "a" * 80 + "!"


def add(project: Project, by: User, pattern: str, kind: Probe.Kind = Kind.CONTAINS) -> Probe:
    messages = [{"role": "user", "content": f"About {pattern}?"}]
    return probe_add(project=project, by=by, messages=messages, kind=kind, pattern=pattern)


@pytest.mark.parametrize(
    ("kind", "pattern", "text", "kept"),
    [
        (Kind.CONTAINS, "9 EUROS", "It costs 9 euros.", True),
        (Kind.CONTAINS, "Straße", "STRASSE", True),
        (Kind.CONTAINS, "9.*", "9 euros", False),
        (Kind.CONTAINS, "x", "", False),
        (Kind.LACKS, "sorry", "Sorry, no.", False),
        (Kind.LACKS, "sorry", "No.", True),
        (Kind.MATCHES, r"\b\d+ euros\b", "It costs 9 euros.", True),
        (Kind.MATCHES, "It", "it", False),
        (Kind.MATCHES, "(?i)It", "it", True),
        (Kind.NOT_MATCHES, "^Yes", "Well. Yes", True),
        (Kind.NOT_MATCHES, "(?m)^Yes", "Well.\nYes", False),
    ],
)
def test_kinds(kind: Probe.Kind, pattern: str, text: str, kept: bool) -> None:
    assert probe_kept(kind, pattern, text) is kept


@pytest.mark.parametrize("kind", [Kind.MATCHES, Kind.NOT_MATCHES])
@pytest.mark.parametrize("pattern", ["(a+)+$", SLOW, r"^(\w+\s?)+(\w+\s?)+$", "(.*a){25}b"])
def test_catastrophic_pattern_ends(kind: Probe.Kind, pattern: str) -> None:
    """Python's own module would need years for most of them."""
    assert pattern_faults(kind, pattern) == []
    started = monotonic()
    kept = probe_kept(kind, pattern, SLOW_TEXT)
    assert monotonic() - started < 60
    if pattern == SLOW:
        assert kept is None
    else:  # the package may find out in time
        assert kept in (None, kind == Kind.NOT_MATCHES)


def report_of(*probes: Probe, texts: dict[str, list[str]]) -> dict[str, Any]:
    return {
        "probes": [
            {
                "id": str(probe.pk),
                "messages": probe.messages,
                "answers": {
                    version: [{"text": text, "finish_reason": "stop"} for text in each]
                    for version, each in texts.items()
                },
            }
            for probe in probes
        ]
    }


@pytest.mark.django_db
def test_outcomes_are_stored_with_the_answers(project: Project, admin: User) -> None:
    probe = add(project, admin, "rice")
    texts = {"bot@1": ["Rice!", "No."], "base": []}
    (found,) = probes_judged(project, report_of(probe, texts=texts))["probes"]
    assert found["answers"] == {
        "bot@1": [
            {"text": "Rice!", "finish_reason": "stop", "kept": True},
            {"text": "No.", "finish_reason": "stop", "kept": False},
        ],
        "base": [],
    }


@pytest.mark.django_db
def test_after_a_timeout_a_version_is_not_matched_any_more(project: Project, admin: User) -> None:
    probe = add(project, admin, SLOW, Kind.NOT_MATCHES)
    texts = {"bot@1": [SLOW_TEXT] * 100 + ["b"], "base": ["b", "a"]}
    started = monotonic()
    (found,) = probes_judged(project, report_of(probe, texts=texts))["probes"]
    assert monotonic() - started < 60 * SECONDS, "a hundred timeouts would take longer"
    assert all(
        (answer["kept"], answer["timed_out"]) == (False, True)
        for answer in found["answers"]["bot@1"]
    )
    assert [answer["kept"] for answer in found["answers"]["base"]] == [True, False]
    assert "timed_out" not in found["answers"]["base"][0]


@pytest.mark.django_db
def test_probe_that_was_deleted_meanwhile_leaves_the_report(project: Project, admin: User) -> None:
    kept, gone = add(project, admin, "rice"), add(project, admin, "secret")
    report = report_of(kept, gone, texts={"bot@1": ["Rice."]})
    gone.delete()
    assert [entry["id"] for entry in probes_judged(project, report)["probes"]] == [str(kept.pk)]


@pytest.fixture
def run(voted_project: Project, admin: User, settings: Settings, tmp_path: Path) -> Run:
    settings.ARTIFACT_ROOT = tmp_path
    run = run_request(project=voted_project, by=admin)
    run.directory.mkdir(parents=True)
    return run


@pytest.mark.django_db
def test_active_probes_are_written_for_the_trainer(run: Run, admin: User) -> None:
    file = evaluation_directory(run) / "probes.jsonl"
    evaluation_write(run, Look(10), base_model="model")
    assert not file.exists()
    first, second = add(run.project, admin, "one"), add(run.project, admin, "two")
    evaluation_write(run, Look(10), base_model="model")
    system = {"role": "system", "content": "Be brief."}
    assert [json.loads(line) for line in file.read_text().splitlines()] == [
        {"id": str(probe.pk), "messages": [system, *probe.messages]} for probe in (first, second)
    ]
    assert "About one?" not in (evaluation_directory(run) / "prompts.jsonl").read_text()
    for probe in (first, second):
        probe_retire(probe=probe, by=admin)
    evaluation_write(run, Look(10), base_model="model")
    assert not file.exists(), "an interrupted attempt had some"


@pytest.mark.django_db
def test_report_is_read_with_outcomes(run: Run, admin: User) -> None:
    directory = evaluation_write(run, Look(10), base_model="model")
    probe = add(run.project, admin, "rice")
    report = report_of(probe, texts={"bot@1": ["Rice\x00"]})
    (directory / "report.json").write_text(json.dumps(report))
    (found,) = evaluation_read(run)["probes"]
    assert found["answers"]["bot@1"][0]["kept"] is True
    (directory / "report.json").write_text("{}")
    assert evaluation_read(run) == {"probes": []}, "of a version before probes"
