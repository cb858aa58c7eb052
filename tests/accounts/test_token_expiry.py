"""API tokens with a last day."""

import datetime as dt
from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feedback_app.accounts.models import ApiToken, Scope, User
from feedback_app.feedback.models import Project
from feedback_app.feedback.tokens.services import token_create, token_revoke
from tests.api.gateway_client import Program, fault

pytestmark = pytest.mark.django_db
As = Callable[[User], Client]


@pytest.fixture
def program(project: Project, admin: User) -> Program:
    soon = timezone.now() + dt.timedelta(hours=1)
    return Program(
        *token_create(project=project, name="Trial", scopes=list(Scope), by=admin, expires_at=soon)
    )


def expire(program: Program) -> None:
    past = timezone.now() - dt.timedelta(seconds=1)
    ApiToken.objects.filter(pk=program.token.pk).update(expires_at=past)


def test_token_works_until_its_date_and_is_refused_after_it(program: Program) -> None:
    assert program.get("/v1/models").status_code == 200
    assert program.get("/api/v1/projects/bot/prompts").status_code == 200

    expire(program)

    for path in ("/v1/models", "/api/v1/projects/bot/prompts"):
        refused = program.get(path)
        assert fault(refused)[:2] == (401, "expired_api_key")
        assert "expired at" in refused.json()["error"]["message"]


def test_expired_token_is_not_valid_and_can_be_revoked(program: Program, admin: User) -> None:
    expire(program)

    assert not ApiToken.objects.valid().exists()
    assert token_revoke(token=program.token, by=admin)
    assert fault(program.get("/v1/models"))[1] == "invalid_api_key"


def test_page_takes_a_last_day_and_shows_it(project: Project, admin: User, as_user: As) -> None:
    client, target = as_user(admin), reverse("tokens", args=[project.slug])
    today = timezone.now().date()
    body = {"name": "Trial", "scopes": ["chat"]}

    late = client.post(target, body | {"last_day": str(today - dt.timedelta(days=1))})
    made = client.post(target, body | {"last_day": str(today)})

    assert late.status_code == 400
    assert "Choose today or a later day." in late.content.decode()
    token = ApiToken.objects.get()
    assert token.expires_at == dt.datetime.combine(today, dt.time(), dt.UTC) + dt.timedelta(days=1)
    assert "expires" in made.content.decode()
    client.post(target, body)
    assert ApiToken.objects.filter(expires_at=None).exists()


def test_page_marks_an_expired_token(
    program: Program, project: Project, admin: User, as_user: As
) -> None:
    expire(program)

    page = as_user(admin).get(reverse("tokens", args=[project.slug])).content.decode()

    assert "Expired" in page
    assert "Revoke now" not in page
