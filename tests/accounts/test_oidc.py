"""Sign-in by an OpenID Connect server: a small real one on loopback that signs its tokens."""

import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount
from cryptography.hazmat.primitives.asymmetric import rsa
from django.contrib.auth import get_user
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from feedback_app.accounts.models import Invitation, Membership, Role, User
from feedback_app.feedback.members.services import invitation_create
from feedback_app.feedback.models import Project
from tests.conftest import PASSWORD

pytestmark = [pytest.mark.django_db, pytest.mark.slow]
LOGIN = "/accounts/oidc/oidc/login/"


class Server(ThreadingHTTPServer):
    """Knows one person; `claims` are the claims about them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.claims: dict[str, Any] = {}
        self.asked: list[dict[str, list[str]]] = []

    def id_token(self) -> str:
        now = int(time.time())
        claims = {"iss": self.url, "aud": "prospect", "iat": now, "exp": now + 60, **self.claims}
        return jwt.encode(claims, self.key, algorithm="RS256", headers={"kid": "1"})


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        url = self.server.url
        answers = {
            "/.well-known/openid-configuration": {
                "issuer": url,
                "authorization_endpoint": f"{url}/authorize",
                "token_endpoint": f"{url}/token",
                "userinfo_endpoint": f"{url}/userinfo",
                "jwks_uri": f"{url}/jwks",
                "token_endpoint_auth_methods_supported": ["client_secret_post"],
            },
            "/userinfo": self.server.claims,
        }
        self.answer(answers.get(self.path))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.asked.append(parse_qs(body))
        token = {"access_token": "a", "token_type": "Bearer", "id_token": self.server.id_token()}
        self.answer(token if self.path == "/token" else None)

    def answer(self, data: Any) -> None:
        body = json.dumps(data or {}).encode()
        self.send_response(404 if data is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(settings: Settings) -> Iterator[Server]:
    with Server() as running:
        Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        app = {
            "provider_id": "oidc",
            "name": "Example SSO",
            "client_id": "prospect",
            "secret": "hush",
            "settings": {"server_url": running.url},
        }
        settings.SOCIALACCOUNT_PROVIDERS = {
            "openid_connect": {"OAUTH_PKCE_ENABLED": True, "APPS": [app]}
        }
        yield running
        running.shutdown()


SignIn = Callable[..., Any]


@pytest.fixture
def sign_in(server: Server) -> SignIn:
    """Return a function that signs in through the server with the given claims."""

    def go(
        client: Client,
        claims: dict[str, Any],
        *,
        to: str = LOGIN,
        state: str = "",
        method: str = "get",
    ) -> Any:
        server.claims = {"sub": "4711", **claims}
        away = getattr(client, method)(to)
        sent = parse_qs(urlsplit(away["Location"]).query)
        assert away["Location"].startswith(f"{server.url}/authorize?")
        assert sent["code_challenge_method"] == ["S256"]
        back = {"code": "c", "state": state or sent["state"][0]}
        return client.get(f"{LOGIN}callback/", back)

    return go


def verified(email: str, **claims: Any) -> dict[str, Any]:
    return {"email": email, "email_verified": True, "name": "Jo Newcomer", **claims}


def test_person_with_the_verified_address_is_signed_in(
    annotator: User, sign_in: SignIn, server: Server
) -> None:
    client = Client()

    sign_in(client, verified("Ann@Example.com"))

    assert get_user(client) == annotator
    [asked] = server.asked
    assert asked["client_secret"] == ["hush"]
    assert len(asked["code_verifier"][0]) > 40
    assert User.objects.filter(email__startswith="ann").count() == 1


@pytest.mark.parametrize(
    "claims",
    [
        verified("nobody@example.com"),
        {"email": "ann@example.com", "email_verified": False},
        {"email": "ann@example.com", "email_verified": "false"},
        {"email": "ann@example.com"},
        {},
    ],
    ids=["unknown", "unverified", "unverified as text", "no claim", "no address"],
)
def test_other_claims_are_refused(claims: dict[str, Any], annotator: User, sign_in: SignIn) -> None:
    client = Client()
    people = User.objects.count()

    answer = sign_in(client, claims)

    assert not get_user(client).is_authenticated
    assert b"By invitation only" in answer.content
    assert User.objects.count() == people


def test_deactivated_person_is_refused(annotator: User, sign_in: SignIn) -> None:
    User.objects.filter(pk=annotator.pk).update(is_active=False)
    client = Client()

    sign_in(client, verified(annotator.email))

    assert not get_user(client).is_authenticated


def test_callback_without_a_login_request_is_refused(annotator: User, sign_in: SignIn) -> None:
    client = Client()

    answer = sign_in(client, verified(annotator.email), state="made-up")

    assert b"did not work" in answer.content
    assert not get_user(client).is_authenticated


def link_of(admin: User, **given: Any) -> str:
    actor = Membership.objects.select_related("project").get(user=admin, project__slug="bot")
    _, secret = invitation_create(role=Role.VIEWER, days=1, max_uses=1, actor=actor, **given)
    return reverse("invitation", args=[secret])


def test_invited_person_gets_an_account_and_uses_the_invitation(
    project: Project, admin: User, sign_in: SignIn
) -> None:
    link, client = link_of(admin), Client()
    page = client.get(link).content.decode()
    assert "Continue with Example SSO" in page

    answer = sign_in(client, verified("Jo@example.com"), to=f"{LOGIN}?next={link}")

    jo = User.objects.get(email="jo@example.com")
    assert (get_user(client), jo.name, jo.has_usable_password()) == (jo, "Jo Newcomer", False)
    assert Membership.objects.get(user=jo).role == "viewer"
    assert client.get(answer["Location"])["Location"] == "/", "the used link redirects to home"
    assert Invitation.objects.get().used == 1
    outsider = Client()
    assert outsider.get(link).status_code == 404
    sign_in(outsider, verified("mo@example.com", sub="2"))
    assert not User.objects.filter(email="mo@example.com").exists()


@pytest.mark.parametrize(
    "claims",
    [verified("mo@example.com"), {"email": "jo@example.com", "email_verified": False}],
    ids=["another address", "unverified"],
)
def test_invitation_for_an_address_is_refused_for_others(
    claims: dict[str, Any], project: Project, admin: User, sign_in: SignIn
) -> None:
    client = Client()
    client.get(link_of(admin, email="jo@example.com"))

    sign_in(client, claims)

    assert not get_user(client).is_authenticated
    assert User.objects.count() == 1
    assert Invitation.objects.get().used == 0


# -- account capture: addresses that somebody claimed, identities that somebody else linked


@pytest.mark.parametrize(
    "path",
    [
        "email/",
        "confirm-email/",
        "confirm-email/abc/",
        "signup/",
        "login/code/confirm/",
        "3rdparty/",
        "3rdparty/signup/",
        "social/connections/",
        "social/signup/",
    ],
)
def test_pages_that_claim_addresses_or_link_identities_do_not_exist(
    path: str, server: Server, annotator: User, as_user: Callable[[User], Client]
) -> None:
    client = as_user(annotator)

    assert client.get(f"/accounts/{path}").status_code == 404
    added = client.post(f"/accounts/{path}", {"email": "boss@example.com", "action_add": ""})
    assert added.status_code == 404
    assert not EmailAddress.objects.exists()


@pytest.mark.parametrize("proven", [False, True])
def test_claimed_address_never_signs_in_to_the_account_that_claimed_it(
    proven: bool, project: Project, admin: User, outsider: User, sign_in: SignIn
) -> None:
    EmailAddress.objects.create(user=outsider, email="jo@example.com", verified=proven)
    client = Client()

    answer = sign_in(client, verified("jo@example.com"))

    assert not get_user(client).is_authenticated
    assert b"By invitation only" in answer.content
    assert not SocialAccount.objects.exists()

    client.get(link_of(admin))
    sign_in(client, verified("jo@example.com"))
    assert get_user(client) == User.objects.get(email="jo@example.com")


def test_taken_address_signs_in_to_its_own_account(
    annotator: User, outsider: User, sign_in: SignIn
) -> None:
    for proven in (False, True):
        EmailAddress.objects.all().delete()
        SocialAccount.objects.all().delete()
        EmailAddress.objects.create(user=outsider, email=annotator.email, verified=proven)
        client = Client()

        sign_in(client, verified("ANN@example.com"))

        assert get_user(client) == annotator


def test_first_sign_in_ends_sessions_of_whoever_had_registered_the_address(
    annotator: User, sign_in: SignIn
) -> None:
    squatter, owner = Client(), Client()
    squatter.post(reverse("account_login"), {"login": annotator.email, "password": PASSWORD})
    assert get_user(squatter) == annotator

    sign_in(owner, verified(annotator.email))

    assert get_user(owner) == annotator
    assert squatter.get("/me/").status_code == 302
    squatter.post(reverse("account_login"), {"login": annotator.email, "password": PASSWORD})
    assert not get_user(squatter).is_authenticated


@pytest.mark.parametrize("process", ["connect", "redirect"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_no_request_links_an_identity_to_the_account_that_is_signed_in(
    process: str, method: str, annotator: User, sign_in: SignIn, as_user: Callable[[User], Client]
) -> None:
    client = as_user(annotator)

    answer = sign_in(
        client, verified("eve@elsewhere.com"), to=f"{LOGIN}?process={process}", method=method
    )

    assert b"did not work" in answer.content
    assert not SocialAccount.objects.exists()


def test_second_factor_is_required_after_oidc(annotator: User, sign_in: SignIn) -> None:
    from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret

    TOTP.activate(annotator, generate_totp_secret())
    client = Client()

    answer = sign_in(client, verified(annotator.email))

    assert answer["Location"] == reverse("mfa_authenticate")
    assert not get_user(client).is_authenticated


def test_no_button_and_no_url_without_a_server(db: None, annotator: User) -> None:
    client = Client()

    assert b"Continue with" not in client.get(reverse("account_login")).content
    assert client.get(LOGIN).status_code == 404
    client.post(reverse("account_login"), {"login": annotator.email, "password": PASSWORD})
    assert get_user(client) == annotator
