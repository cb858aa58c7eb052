"""Fault 35: codes used twice, guesses spread over processes, and owners locked out by others."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from allauth.mfa.totp.internal.auth import (
    TOTP,
    format_hotp_value,
    generate_totp_secret,
    hotp_value,
    yield_hotp_counters_from_time,
)
from django.contrib.auth import get_user
from django.core.cache import cache, caches
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.localstack.stack import Stack
from tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db
OWNER, ATTACKER = "198.51.100.7", "203.0.113.9"


def sign_in(email: str, password: str, *, ip: str, **headers: str) -> Client:
    client = Client(REMOTE_ADDR=ip)
    values = {"login": email, "password": password}
    client.post(reverse("account_login"), values, headers=headers)
    return client


def guess(email: str, *, times: int, ip: str, **headers: str) -> None:
    for number in range(times):
        sign_in(email, f"guess {number}", ip=ip, **headers)


# -- sign-in


def test_stranger_does_not_lock_the_owner_out(admin: User) -> None:
    guess(admin.email, times=6, ip=ATTACKER)

    assert get_user(sign_in(admin.email, PASSWORD, ip=OWNER)) == admin
    assert not get_user(sign_in(admin.email, PASSWORD, ip=ATTACKER)).is_authenticated


@pytest.mark.parametrize(
    "changed",
    [
        {"host": "other.example.com"},
        {"x-forwarded-for": "192.0.2.1"},
        {"x-real-ip": "192.0.2.1"},
        {"forwarded": "for=192.0.2.1"},
    ],
    ids=str,
)
def test_limit_is_not_evaded_by_a_header(
    changed: dict[str, str], admin: User, settings: Settings
) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    guess(admin.email, times=5, ip=ATTACKER)

    late = sign_in(admin.email.upper(), PASSWORD, ip=ATTACKER, **changed)

    assert not get_user(late).is_authenticated


def test_limit_counts_an_ipv6_network_as_one_address(admin: User) -> None:
    for number in range(5):
        guess(admin.email, times=1, ip=f"2001:db8::{number}")

    assert not get_user(sign_in(admin.email, PASSWORD, ip="2001:db8::99")).is_authenticated
    assert get_user(sign_in(admin.email, PASSWORD, ip="2001:db8:1::1")) == admin


def test_clients_behind_trusted_proxies_are_told_apart(admin: User, settings: Settings) -> None:
    settings.ALLAUTH_TRUSTED_PROXY_COUNT = 1
    proxy = "10.0.0.1"
    forged = {"x-forwarded-for": f"{OWNER}, {ATTACKER}"}
    guess(admin.email, times=5, ip=proxy, **forged)

    owner = sign_in(admin.email, PASSWORD, ip=proxy, **{"x-forwarded-for": OWNER})

    assert get_user(owner) == admin
    assert not get_user(sign_in(admin.email, PASSWORD, ip=proxy, **forged)).is_authenticated


@pytest.fixture
def shared_cache(tmp_path: Path, settings: Settings) -> Iterator[None]:
    """Use the cache of production, in a Valkey of this test."""
    env = {"PROSPECT_VAR": str(tmp_path), "PROSPECT_ENV": "test", "REDIS_URL": None}
    with Stack(env, ["valkey"]) as stack:
        settings.CACHES = {
            "default": {
                "BACKEND": "feedback_app.config.cache.TolerantRedisCache",
                "LOCATION": stack.redis_url,
            }
        }
        yield


def as_another_process() -> None:
    """Forget what this process keeps of the cache."""
    del caches["default"]


@pytest.mark.slow
def test_guesses_spread_over_processes_are_counted_together(
    shared_cache: None, admin: User
) -> None:
    for _ in range(5):
        guess(admin.email, times=1, ip=ATTACKER)
        as_another_process()

    assert not get_user(sign_in(admin.email, PASSWORD, ip=ATTACKER)).is_authenticated
    assert get_user(sign_in(admin.email, PASSWORD, ip=OWNER)) == admin


# -- codes


@pytest.fixture
def secret(annotator: User) -> str:
    """Return the secret of the annotator's authenticator app."""
    secret = generate_totp_secret()
    TOTP.activate(annotator, secret)
    return secret


def codes_of(secret: str) -> list[str]:
    """Return the codes that are accepted now, oldest first."""
    return [format_hotp_value(hotp_value(secret, n)) for n in yield_hotp_counters_from_time()]


def is_accepted(user: User, code: str) -> bool:
    # the cache forgets a code while it is still valid
    cache.clear()
    client = sign_in(user.email, PASSWORD, ip=OWNER)
    client.post(reverse("mfa_authenticate"), {"code": code})
    return bool(get_user(client).is_authenticated)


def test_code_and_those_before_it_are_accepted_once(annotator: User, secret: str) -> None:
    before, now, after = codes_of(secret)

    assert is_accepted(annotator, now)
    for code in (now, before):
        assert not is_accepted(annotator, code)
    assert is_accepted(annotator, f"{after[:3]} {after[3:]}")
    assert not is_accepted(annotator, after)


def test_code_that_signed_in_does_not_confirm_an_action(
    annotator: User, secret: str, settings: Settings
) -> None:
    code = codes_of(secret)[1]
    client = sign_in(annotator.email, PASSWORD, ip=OWNER)
    client.post(reverse("mfa_authenticate"), {"code": code})
    cache.clear()

    def confirm(code: str) -> Any:
        return client.post(reverse("mfa_reauthenticate"), {"code": code, "next": "/me/"})

    assert b'class="errors"' in confirm(code).content
    assert confirm(codes_of(secret)[2]).status_code == 302
