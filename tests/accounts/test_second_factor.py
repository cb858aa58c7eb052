"""Second factors: set-up, sign-in, recovery, and encryption in the database."""

import re
from html import unescape
from io import StringIO

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import (
    TOTP,
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


OTHER = "another-secret-0123456789-0123456789"


def test_factor_of_a_lost_key_is_refused_with_the_reason_until_it_is_removed(
    enrolled: tuple[User, str], settings: Settings
) -> None:
    user, secret = enrolled
    settings.SECRET_KEY = OTHER
    client = Client()
    sign_in(client, user)

    answer = client.post(reverse("mfa_authenticate"), {"code": code_of(secret)})

    assert answer.status_code == 200
    assert "SECRET_KEY has changed. Ask whoever runs the server" in unescape(
        answer.content.decode()
    )
    assert not get_user(client).is_authenticated
    call_command("forget_factors", "--unreadable", stdout=StringIO())
    client = Client()
    sign_in(client, user)
    assert get_user(client) == user


def test_only_factors_that_cannot_be_read_are_removed(
    enrolled: tuple[User, str], admin: User, viewer: User, settings: Settings
) -> None:
    RecoveryCodes.activate(viewer)
    settings.SECRET_KEY = OTHER
    TOTP.activate(viewer, "SECRET")
    TOTP.activate(admin, "SECRET")
    RecoveryCodes.activate(admin)

    out = StringIO()
    call_command("forget_factors", "--unreadable", stdout=out)

    left = Authenticator.objects.order_by("user", "type").values_list("user__email", "type")
    assert sorted(left) == sorted(
        [(admin.email, "totp"), (admin.email, "recovery_codes"), (viewer.email, "totp")]
    )
    assert "2 people had unreadable second factors." in out.getvalue()


def test_pages_of_a_person_who_is_signed_in_open_with_a_lost_key(
    enrolled: tuple[User, str], settings: Settings
) -> None:
    """The session outlives the key: it is signed anew while the old one is a fallback."""
    user, _ = enrolled
    settings.SECRET_KEY = OTHER
    client = Client()
    client.force_login(user)

    assert client.get(reverse("mfa_index")).status_code == 200
    again = {"password": PASSWORD, "next": reverse("mfa_view_recovery_codes")}
    codes = client.post(reverse("account_reauthenticate"), again, follow=True)
    assert codes.status_code == 403
    assert "Turn two-factor authentication off and set it up again." in codes.content.decode()
