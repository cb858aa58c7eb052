"""Fault 13: posts of other sites, and tokens that expired while somebody annotated."""

import pytest
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Completion, Project, Vote
from tests.conftest import PASSWORD, MakeCompletions

pytestmark = pytest.mark.django_db


@pytest.fixture
def browser(annotator: User) -> Client:
    """Return a client that signed in through the page and whose posts need a CSRF token."""
    client = Client(enforce_csrf_checks=True)
    client.get(reverse("account_login"))
    sign_in(client, annotator)
    return client


@pytest.fixture
def vote_url(make_completions: MakeCompletions, project: Project, annotator: User) -> str:
    [completion] = make_completions()
    as_annotator = Client()
    as_annotator.force_login(annotator)
    as_annotator.get(reverse("annotate", args=["bot"]))  # a vote needs an item that was shown
    assert Completion.objects.get() == completion
    return reverse("vote", args=["bot", completion.pk])


def token_of(client: Client) -> str:
    return client.cookies["csrftoken"].value


def sign_in(client: Client, user: User) -> None:
    values = {"login": user.email, "password": PASSWORD, "csrfmiddlewaretoken": token_of(client)}
    assert client.post(reverse("account_login"), values).status_code == 302


def vote(client: Client, url: str, token: str, **headers: str) -> int:
    values = {"verdict": "up", "csrfmiddlewaretoken": token}
    return client.post(url, values, headers=headers).status_code


@pytest.mark.parametrize("origin", ["https://attacker.example", "http://testserver:81", "null"])
def test_post_of_another_origin_is_refused_despite_cookie_and_token(
    origin: str, browser: Client, vote_url: str
) -> None:
    assert vote(browser, vote_url, token_of(browser), origin=origin) == 403
    assert vote(browser, reverse("account_logout"), token_of(browser), origin=origin) == 403
    assert not Vote.objects.exists()

    assert vote(browser, vote_url, token_of(browser), origin="http://testserver") < 400
    assert Vote.objects.count() == 1


def test_post_over_https_without_origin_and_referrer_is_refused(
    browser: Client, vote_url: str
) -> None:
    values = {"verdict": "up", "csrfmiddlewaretoken": token_of(browser)}

    assert browser.post(vote_url, values, secure=True).status_code == 403
    assert not Vote.objects.exists()


@pytest.mark.parametrize("content_type", ["text/plain", "application/json"])
def test_post_in_another_format_needs_the_token_too(
    content_type: str, browser: Client, vote_url: str
) -> None:
    body = b'{"verdict": "up"}'

    assert browser.post(vote_url, body, content_type=content_type).status_code == 403
    assert not Vote.objects.exists()


def test_cookies_are_not_sent_by_posts_of_other_sites(browser: Client) -> None:
    session, token = browser.cookies["sessionid"], browser.cookies["csrftoken"]

    assert (session["samesite"], token["samesite"]) == ("Lax", "Lax")
    assert session["httponly"]


def test_vote_with_an_expired_token_is_accepted_once_after_a_fresh_sign_in(
    browser: Client, vote_url: str, annotator: User
) -> None:
    expired = token_of(browser)
    Session.objects.all().delete()
    browser.get(reverse("account_login"))
    sign_in(browser, annotator)
    assert token_of(browser) != expired

    assert vote(browser, vote_url, expired) == 403
    assert not Vote.objects.exists()
    for _ in range(2):
        assert vote(browser, vote_url, token_of(browser)) < 400
    assert Vote.objects.count() == 1


def test_vote_after_the_session_ended_is_accepted_after_a_fresh_sign_in(
    browser: Client, vote_url: str, annotator: User
) -> None:
    Session.objects.all().delete()

    assert vote(browser, vote_url, token_of(browser)) == 302
    assert not Vote.objects.exists()
    sign_in(browser, annotator)
    assert vote(browser, vote_url, token_of(browser)) < 400
    assert Vote.objects.count() == 1
