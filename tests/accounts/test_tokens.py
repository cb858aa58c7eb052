"""API tokens: shown once, stored as a hash, created and revoked by admins, rate-limited."""

import datetime as dt
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth import authenticate
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from feedback_app.accounts.models import ApiToken, AuditEvent, Membership, Role, Scope, User
from feedback_app.accounts.tokens import token_find, token_use
from feedback_app.feedback.models import Project
from feedback_app.feedback.tokens.services import token_create, token_revoke, voter_of

pytestmark = pytest.mark.django_db
As = Callable[[User], Client]


@pytest.fixture
def made(project: Project, admin: User) -> tuple[ApiToken, str]:
    return token_create(project=project, name="Shop", scopes=list(Scope), by=admin)


def page_url(project: Project) -> str:
    return reverse("tokens", args=[project.slug])


# -- the secret


def test_secret_authenticates_and_is_not_in_the_database(made: tuple[ApiToken, str]) -> None:
    token, secret = made

    assert token_find(secret) == token
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM accounts_apitoken")
        stored = " ".join(str(value) for row in cursor.fetchall() for value in row)
    assert token.prefix in stored
    assert secret not in stored
    assert secret[len(token.prefix) :] not in stored


@pytest.mark.parametrize("change", [lambda s: s[:-1], lambda s: s + "x", str.upper, lambda s: ""])
def test_another_secret_is_refused(
    made: tuple[ApiToken, str], change: Callable[[str], str]
) -> None:
    assert token_find(change(made[1])) is None


def test_revoked_token_is_refused_and_is_revoked_once(
    made: tuple[ApiToken, str], admin: User
) -> None:
    token, secret = made

    assert token_revoke(token=token, by=admin)
    assert not token_revoke(token=token, by=admin)

    assert token_find(secret) is None
    done = AuditEvent.objects.order_by("pk").values_list("action", "actor", "target")
    target = f"Shop ({token.prefix}…)"
    assert list(done) == [
        ("token.create", admin.pk, target),
        ("token.revoke", admin.pk, target),
    ]
    assert secret not in target


def test_service_user_cannot_sign_in(made: tuple[ApiToken, str]) -> None:
    user = made[0].user

    assert not user.has_usable_password()
    assert authenticate(None, email=user.email, password="") is None
    user.set_password("correct horse battery")
    user.save()
    client = Client()
    client.post("/accounts/login/", {"login": user.email, "password": "correct horse battery"})
    assert client.get("/").status_code == 302, "it cannot sign in even with a password"


# -- voters


def test_voter_is_the_token_or_the_named_person(
    made: tuple[ApiToken, str], project: Project, admin: User
) -> None:
    token = made[0]
    other, _ = token_create(project=project, name="App", scopes=[Scope.FEEDBACK], by=admin)

    jo = voter_of(token=token, name="jo")

    assert voter_of(token=token, name=None) == token.user
    assert voter_of(token=other, name=None) == other.user
    assert voter_of(token=token, name="jo") == jo
    assert voter_of(token=other, name="jo") == jo, "people of the product are kept across tokens"
    assert voter_of(token=token, name="flo") not in (jo, token.user)


def test_voter_of_another_project_is_another_person(
    made: tuple[ApiToken, str], outsider: User
) -> None:
    theirs, _ = token_create(
        project=Project.objects.get(slug="other"), name="Spy", scopes=list(Scope), by=outsider
    )

    assert voter_of(token=made[0], name="jo") != voter_of(token=theirs, name="jo")


# -- rate limit


def test_use_counts_up_to_the_limit_and_restarts_each_minute(
    made: tuple[ApiToken, str], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, settings.API_REQUESTS_PER_MINUTE = made[0], 3
    now = dt.datetime(2026, 1, 1, 12, 0, 50, tzinfo=dt.UTC)
    monkeypatch.setattr(timezone, "now", lambda: now)

    assert [token_use(token) for _ in range(4)] == [0, 0, 0, 10]
    now += dt.timedelta(seconds=10)
    assert [token_use(token) for _ in range(4)] == [0, 0, 0, 60]
    token.refresh_from_db()
    assert token.last_used_at == now


def test_tokens_have_separate_limits(
    made: tuple[ApiToken, str], project: Project, admin: User, settings: Settings
) -> None:
    settings.API_REQUESTS_PER_MINUTE = 1
    other, _ = token_create(project=project, name="App", scopes=list(Scope), by=admin)

    assert token_use(made[0]) == 0
    assert token_use(made[0]) > 0
    assert token_use(other) == 0


@pytest.mark.django_db(transaction=True)
def test_concurrent_use_never_exceeds_the_limit(
    made: tuple[ApiToken, str], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, settings.API_REQUESTS_PER_MINUTE = made[0], 20
    now = timezone.now()
    monkeypatch.setattr(timezone, "now", lambda: now)

    def use(_: int) -> int:
        try:
            return token_use(token)
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        waits = list(pool.map(use, range(60)))

    assert waits.count(0) == 20


# -- the page


def test_page_shows_the_secret_once(project: Project, admin: User, as_user: As) -> None:
    client = as_user(admin)

    made = client.post(page_url(project), {"name": "Shop", "scopes": ["chat"]})
    later = client.get(page_url(project))

    token = ApiToken.objects.get()
    secret = made.content.decode().split("<code>")[1].split("</code>")[0]
    assert token_find(secret) == token
    assert "no-store" in made["Cache-Control"]
    assert (token.scopes, token.created_by, token.project) == (["chat"], admin, project)
    assert secret not in later.content.decode()
    assert token.prefix in later.content.decode()
    assert "Shop" in later.content.decode()


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "", "scopes": ["chat"]},
        {"name": "Shop"},
        {"name": "Shop", "scopes": ["admin"]},
        {"name": "x" * 61, "scopes": ["chat"]},
        {"name": "Shop", "scopes": ["chat"], "project": "1"},
        {"name": "Shop", "scopes": ["chat"], "created_by": "1"},
    ],
)
def test_page_refuses_invalid_forms(
    fields: dict[str, Any], project: Project, admin: User, as_user: As
) -> None:
    answer = as_user(admin).post(page_url(project), fields)

    assert answer.status_code == 400
    assert b'class="errors"' in answer.content or b'role="alert"' in answer.content
    assert not ApiToken.objects.exists()


def test_page_is_for_admins_and_404_for_non_members(
    project: Project,
    made: tuple[ApiToken, str],
    annotator: User,
    viewer: User,
    outsider: User,
    as_user: As,
) -> None:
    revoke = reverse("token-revoke", args=[project.slug, made[0].pk])
    new = {"name": "Mine", "scopes": ["chat"]}

    for person, status in ((annotator, 403), (viewer, 403), (outsider, 404)):
        client = as_user(person)
        assert client.get(page_url(project)).status_code == status
        assert client.post(page_url(project), new).status_code == status
        assert client.post(revoke).status_code == status
    assert Client().get(page_url(project)).status_code == 302
    assert ApiToken.objects.valid().get() == made[0]


def test_revoke_through_another_project_is_404(
    made: tuple[ApiToken, str], outsider: User, as_user: As
) -> None:
    revoke = reverse("token-revoke", args=["other", made[0].pk])

    assert as_user(outsider).post(revoke).status_code == 404
    assert ApiToken.objects.valid().exists()


def test_revoke_by_an_admin_shows_the_token_as_revoked(
    project: Project, made: tuple[ApiToken, str], annotator: User, as_user: As
) -> None:
    Membership.objects.filter(user=annotator).update(role=Role.ADMIN)
    revoke = reverse("token-revoke", args=[project.slug, made[0].pk])

    page = as_user(annotator).post(revoke, follow=True).content.decode()

    assert "Shop is revoked" in page
    assert "Revoke now" not in page
    assert token_find(made[1]) is None


def test_list_has_pages_and_its_queries_do_not_grow(
    project: Project, admin: User, as_user: As, django_assert_max_num_queries: Any
) -> None:
    for number in range(30):
        token_create(project=project, name=f"Token {number}.", scopes=list(Scope), by=admin)
    client = as_user(admin)

    with django_assert_max_num_queries(6):
        first = client.get(page_url(project)).content.decode()
    second = client.get(page_url(project) + "?page=2").content.decode()
    assert "Token 29." in first and "Token 5." in first and "Token 4." not in first
    assert "Token 4." in second and "Token 0." in second and "Token 5." not in second
