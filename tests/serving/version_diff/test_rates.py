"""The up-rates on the page of a version diff: for admins only, as on Releases."""

from typing import Any

import pytest
from django.urls import reverse

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Completion, Project
from feedback_app.training.runs.claims import run_claim
from feedback_app.training.runs.services import run_finish, run_request
from tests.training.gate.reports import gate_report

pytestmark = pytest.mark.django_db


def test_version_diff_shows_admins_the_up_rates(
    voted_project: Project, admin: User, viewer: User, as_user: Any
) -> None:
    claim = run_claim(run_request(project=voted_project, by=admin).pk)
    assert claim is not None
    name = voted_project.adapter_name(claim.row.number)
    run_finish(claim=claim, path="p", sha256="0", report=gate_report(name), fit={})
    Completion.objects.filter(votes__isnull=False).update(
        version=name, source="api", user_group="free"
    )
    url = reverse("changes", args=[voted_project.slug, name])

    shown = as_user(admin).get(url).content.decode()
    hidden = as_user(viewer).get(url).content.decode()

    assert "Share of ups" in shown
    assert "representative <strong>" in shown
    assert "Share of ups" not in hidden
