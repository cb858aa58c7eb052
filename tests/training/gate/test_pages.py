"""The page of a gate's rules: sentences with margins, saved as versions, tried on old versions."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import AuditEvent, User
from feedback_app.feedback.models import Project
from feedback_app.training.gate.forms import GateRulesForm
from feedback_app.training.gate.services import gate_settings
from feedback_app.training.gate.settings import GUARDS, GateSettings
from feedback_app.training.models import GateRules
from feedback_app.training.runs.claims import run_claim
from feedback_app.training.runs.services import run_finish, run_request
from tests.training.gate.reports import gate_report

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]
HTMX = {"HX-Request": "true"}


def form_values(settings: GateSettings | None = None) -> dict[str, Any]:
    form = GateRulesForm.of(settings or GateSettings())
    return {
        name: "on" if value is True else value
        for name, value in form.initial.items()
        if value is not False
    }


def url(name: str, project: Project) -> str:
    return reverse(name, args=[project.slug])


@pytest.fixture
def judged(voted_project: Project, admin: User) -> Project:
    """A project with a version whose share of finished answers fell from 80 to 70 %."""
    claim = run_claim(run_request(project=voted_project, by=admin).pk)
    assert claim is not None
    report = gate_report("bot@1", finished=0.62, prompts=300)
    assert run_finish(claim=claim, path="p", sha256="0", report=report, fit={}) is not None
    return voted_project


def test_defaults_are_shown_as_sentences(project: Project, admin: User, as_user: As) -> None:
    page = as_user(admin).get(url("gate-rules", project)).content.decode()
    assert "The share of answers that end by themselves falls by less than" in page
    assert 'name="margin_finished" value="10"' in page
    assert 'name="margin_kl" value="0.5"' in page
    assert all(f'name="on_{key}" id="id_on_{key}" checked' in page for key in GUARDS)
    assert gate_settings(project) == GateSettings()


def test_unchanged_form_is_the_settings(project: Project, admin: User, as_user: As) -> None:
    form = GateRulesForm(form_values())
    assert form.is_valid(), form.errors
    assert form.settings() == GateSettings()
    as_user(admin).post(url("gate-rules", project), form_values())
    assert not GateRules.objects.exists()


def test_saving_adds_a_version_with_its_author(project: Project, admin: User, as_user: As) -> None:
    client = as_user(admin)
    values = form_values() | {"margin_finished": "25", "primary": "ranking"}
    del values["on_kl"]
    client.post(url("gate-rules", project), values)
    saved = gate_settings(project)
    assert saved.margins["finished"] == 0.25
    assert "kl" not in saved.margins
    assert saved.primary == "ranking"
    client.post(url("gate-rules", project), form_values())
    assert [rules.number for rules in project.gate_rules.order_by("pk")] == [1, 2]
    assert set(project.gate_rules.values_list("saved_by", flat=True)) == {admin.pk}
    assert AuditEvent.objects.filter(action="gate.rules").count() == 2
    page = client.get(url("gate-rules", project)).content.decode()
    assert "Version 2,\n            saved by" in page


def test_reset_puts_the_defaults_in_force(project: Project, admin: User, as_user: As) -> None:
    client = as_user(admin)
    client.post(url("gate-rules", project), form_values() | {"prompts": "80"})
    client.post(url("gate-rules-reset", project))
    assert gate_settings(project) == GateSettings()
    assert project.gate_rules.count() == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("margin_finished", "0"),
        ("margin_finished", "nan"),
        ("margin_longer", "20"),
        ("prompts", "3"),
        ("minutes", "1e9"),
        ("primary", "none"),
        ("margin_kl", ""),
        ("surprise", "1"),
    ],
)
def test_impossible_rules_are_refused_beside_their_field(
    project: Project, admin: User, as_user: As, name: str, value: str
) -> None:
    values = form_values() | {name: value, "margin_refusal": "33"}
    response = as_user(admin).post(url("gate-rules", project), values)
    assert response.status_code == 400
    page = response.content.decode()
    assert 'class="errors"' in page or 'role="alert"' in page
    assert 'name="margin_refusal" value="33"' in page
    assert not GateRules.objects.exists()


def test_preview_says_what_other_rules_would_have_said(
    judged: Project, admin: User, as_user: As
) -> None:
    client = as_user(admin)
    assert judged.adapters.get().gate_outcome == "failed"
    values = form_values() | {"margin_finished": "40"}
    page = client.post(url("gate-rules-preview", judged), values, headers=HTMX).content.decode()
    assert "<!doctype" not in page
    assert "bot@1" in page
    assert page.index("Failed") < page.index("Passed")
    assert "It passed the gate and can be released." in page
    whole = client.post(url("gate-rules-preview", judged), values).content.decode()
    assert "It passed the gate and can be released." in whole
    assert 'name="margin_finished" value="40"' in whole
    assert not GateRules.objects.exists()
    assert judged.adapters.get().gate_outcome == "failed"


def test_preview_without_versions_says_so(project: Project, admin: User, as_user: As) -> None:
    page = as_user(admin).post(url("gate-rules-preview", project), form_values()).content.decode()
    assert "No version has been judged yet" in page


def test_versions_of_earlier_reports_are_listed_without_a_verdict(
    judged: Project, admin: User, as_user: As
) -> None:
    judged.adapters.update(report={"candidates": {"bot@1": {}, "base": {}}, "answers": []})
    page = as_user(admin).post(url("gate-rules-preview", judged), form_values()).content.decode()
    assert "Evaluated before these rules existed." in page


def test_annotators_see_no_rules(project: Project, annotator: User, as_user: As) -> None:
    assert as_user(annotator).get(url("gate-rules", project)).status_code == 403
