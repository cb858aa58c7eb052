"""Second factors: set-up, sign-in, recovery, and encryption in the database."""

import re
from io import StringIO

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import (
    format_hotp_value,
    hotp_value,
    yield_hotp_counters_from_time,
)
from cryptography.fernet import InvalidToken
from django.contrib.auth import get_user
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.accounts.sealing import seal, unseal
from tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db


def code_of(secret: str) -> str:
    """Return the code that an authenticator app shows now.

    The middle one of those that are accepted: the one before may be refused a second later.
    """
    _, now, _ = yield_hotp_counters_from_time()
    return format_hotp_value(hotp_value(secret, now))


def sign_in(client: Client, user: User) -> str:
    answer = client.post(reverse("account_login"), {"login": user.email, "password": PASSWORD})
    return str(answer["Location"])


@pytest.fixture
def enrolled(annotator: User) -> tuple[User, str]:
    """Return a person who has set up an app through the pages, and its secret."""
    client = Client()
    sign_in(client, annotator)
    activate = reverse("mfa_activate_totp")
    assert b"Is it you?" in client.get(activate, follow=True).content
    again = {"password": PASSWORD, "next": activate}
    page = client.post(reverse("account_reauthenticate"), again, follow=True).content.decode()
    found = re.search(r'<code class="secret">(\w+)</code>', page)
    assert found
    assert 'src="data:image/svg+xml' in page
    done = client.post(activate, {"code": code_of(found[1])})
    assert done.status_code == 302
    return annotator, found[1]


def test_password_alone_does_not_sign_in_after_an_app_is_set_up(enrolled: tuple[User, str]) -> None:
    user, secret = enrolled
    client = Client()

    assert sign_in(client, user) == reverse("mfa_authenticate")

    assert not get_user(client).is_authenticated
    assert client.get("/").status_code == 302
    wrong = client.post(reverse("mfa_authenticate"), {"code": "000000"})
    assert b'class="errors"' in wrong.content
    assert not get_user(client).is_authenticated
    client.post(reverse("mfa_authenticate"), {"code": code_of(secret)})
    assert get_user(client) == user


def test_used_code_is_refused(enrolled: tuple[User, str]) -> None:
    user, secret = enrolled
    code = code_of(secret)

    let_in = []
    for _ in range(2):
        client = Client()
        sign_in(client, user)
        client.post(reverse("mfa_authenticate"), {"code": code})
        let_in.append(get_user(client).is_authenticated)
    assert let_in == [True, False], "a code is accepted once"


def test_recovery_code_signs_in_once(enrolled: tuple[User, str]) -> None:
    user, _ = enrolled
    rows = Authenticator.objects.filter(type=Authenticator.Type.RECOVERY_CODES)
    code = rows.get().wrap().get_unused_codes()[0]

    client = Client()
    sign_in(client, user)
    client.post(reverse("mfa_authenticate"), {"code": code})
    assert get_user(client) == user
    assert code not in client.get(reverse("mfa_view_recovery_codes")).content.decode()
    again = Client()
    sign_in(again, user)
    again.post(reverse("mfa_authenticate"), {"code": code})
    assert not get_user(again).is_authenticated


def test_factors_are_encrypted_in_the_database(enrolled: tuple[User, str]) -> None:
    stored = str(list(Authenticator.objects.values_list("data", flat=True)))

    assert enrolled[1] not in stored
    totp = Authenticator.objects.get(type=Authenticator.Type.TOTP)
    assert unseal(totp.data["secret"]) == enrolled[1]


def test_factors_are_decrypted_with_earlier_keys_and_no_other(settings: Settings) -> None:
    sealed = seal("hush")
    old, settings.SECRET_KEY = settings.SECRET_KEY, "another-secret-0123456789-0123456789"

    with pytest.raises(InvalidToken):
        unseal(sealed)
    settings.SECRET_KEY_FALLBACKS = [old]
    assert unseal(sealed) == "hush"


def test_removed_factors_keep_the_password(enrolled: tuple[User, str]) -> None:
    call_command("forget_factors", "Ann@example.com", stdout=StringIO())

    client = Client()
    sign_in(client, enrolled[0])
    assert get_user(client) == enrolled[0]
