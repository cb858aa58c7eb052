"""Fault 11: a webhook never reaches a private address, for any spelling, redirect or DNS change."""

import datetime as dt
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import certifi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project
from feedback_app.feedback.models.webhooks import Event, Webhook, WebhookDelivery
from feedback_app.feedback.webhooks.addresses import target_of
from feedback_app.feedback.webhooks.delivery import webhook_work
from feedback_app.feedback.webhooks.services import ping_write, webhook_create
from feedback_app.web.errors import UserError
from tests.feedback.webhooks.receiver import Receiver, receiving

pytestmark = [pytest.mark.django_db, pytest.mark.slow]
As = Callable[[User], Client]
PUBLIC = "93.184.215.14"

PRIVATE = [
    "127.0.0.1", "127.1", "0x7f.1", "2130706433", "0177.0.0.1", "localhost", "0.0.0.0",  # noqa: S104
    "10.0.0.7", "172.16.0.1", "192.168.1.1", "169.254.169.254", "198.18.0.1", "198.19.255.255",
    "100.64.0.1", "192.0.2.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
    "[::1]", "[::]", "[fe80::1]", "[fc00::1]", "[fd12:3456::1]", "[fec0::1]", "[ff02::1]",
    "[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]", "[::ffff:a9fe:a9fe]", "[::127.0.0.1]",
    "[2002:7f00:1::]", "[64:ff9b::7f00:1]", "[64:ff9b:1::a00:1]", "[2001:db8::1]",
]  # fmt: skip


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as server:
        yield server


def answers(monkeypatch: pytest.MonkeyPatch, *rounds: list[str]) -> list[str]:
    """Make the name server answer hooks.example with `rounds` in turn; return the names that are
    looked up."""
    real, asked = socket.getaddrinfo, []
    left = list(rounds)

    def resolve(host: Any, port: Any, *args: Any, **more: Any) -> Any:
        if host not in ("hooks.example", b"hooks.example"):
            return real(host, port, *args, **more)
        asked.append("hooks.example")
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in (left.pop(0) if len(left) > 1 else left[0])
        ]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked


@pytest.mark.parametrize("host", PRIVATE)
def test_private_address_is_refused_when_saved(
    host: str, project: Project, admin: User, receiver: Receiver
) -> None:
    url = f"http://{host}:{receiver.server_port}/"

    with pytest.raises(UserError, match=r"public address|can not be found"):
        webhook_create(project=project, url=url, events=list(Event), by=admin)

    assert not Webhook.objects.exists()


@pytest.mark.parametrize("address", [PUBLIC, "[2606:2800:21f:cb07:6820:80da:af6b:8b2c]"])
def test_public_address_is_accepted(address: str) -> None:
    target = target_of(f"https://{address}/hook")
    assert str(target.address) == address.strip("[]")


def test_one_private_address_among_public_ones_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers(monkeypatch, [PUBLIC, "10.0.0.1"])

    with pytest.raises(UserError, match="public address"):
        target_of("https://hooks.example/")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://hooks.example/",
        "file:///etc/passwd",
        "http://user:pass@hooks.example/",
        "http://hooks.example/#x",
        "http://hooks.example:99999/",
        "http:///nowhere",
        "http://[::1",
    ],
)
def test_url_of_another_scheme_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, [PUBLIC])

    with pytest.raises(UserError):
        target_of(url)


def test_production_sends_over_tls_only(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, [PUBLIC])
    settings.PRODUCTION = True

    with pytest.raises(UserError, match="must start with https"):
        target_of("http://hooks.example/")
    assert target_of("https://hooks.example/").host == "hooks.example"


def test_page_shows_the_reason_and_keeps_the_input(
    project: Project, admin: User, as_user: As
) -> None:
    body = {"url": "http://169.254.169.254/latest/meta-data/", "events": "vote.cast"}

    answer = as_user(admin).post(reverse("webhooks", args=["bot"]), body)

    assert answer.status_code == 400
    assert b"must point to a public address" in answer.content
    assert b"169.254.169.254/latest" in answer.content
    assert not Webhook.objects.exists()


def test_name_resolving_to_loopback_after_saving_is_refused_when_sending(
    project: Project, admin: User, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, [PUBLIC], ["127.0.0.1"])
    url = f"http://hooks.example:{receiver.server_port}/"
    webhook, _ = webhook_create(project=project, url=url, events=list(Event), by=admin)
    ping_write(webhook=webhook)

    webhook_work(webhook.pk)

    assert receiver.received == []
    delivery = WebhookDelivery.objects.get()
    assert (delivery.status, delivery.error) == (
        "waiting",
        "A webhook must point to a public address.",
    )


def test_name_is_resolved_once_and_the_checked_address_is_used(
    project: Project,
    admin: User,
    receiver: Receiver,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.WEBHOOK_NETWORKS = ["127.0.0.1/32"]
    url = f"http://hooks.example:{receiver.server_port}/a?b=c"
    # a second look-up while sending would return another address
    asked = answers(monkeypatch, ["127.0.0.1"], ["127.0.0.1"], ["10.0.0.1"])
    webhook, _ = webhook_create(project=project, url=url, events=list(Event), by=admin)
    ping_write(webhook=webhook)

    webhook_work(webhook.pk)

    [request] = receiver.received
    assert (request.path, request.headers["Host"]) == (
        "/a?b=c",
        f"hooks.example:{receiver.server_port}",
    )
    assert len(asked) == 2, "one look-up when saved, one when sent"


def test_redirect_is_not_followed(
    project: Project, admin: User, receiver: Receiver, settings: Settings
) -> None:
    settings.WEBHOOK_NETWORKS = ["127.0.0.1/32"]
    with receiving() as inside:
        receiver.answers = [(302, inside.url), (307, inside.url)]
        webhook, _ = webhook_create(project=project, url=receiver.url, events=list(Event), by=admin)
        for _ in range(2):
            ping_write(webhook=webhook)

        webhook_work(webhook.pk)

        assert inside.received == []
    errors = set(WebhookDelivery.objects.values_list("error", flat=True))
    assert errors == {"The server answered 302.", "The server answered 307."}


def certificate(directory: Path, name: str) -> Path:
    """Write a file with a new key and a self-signed certificate for `name`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = directory / f"{name}.pem"
    pem = serialization.Encoding.PEM
    file.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(pem)
    )
    return file


@pytest.mark.parametrize(
    ("name", "error"), [("hooks.example", ""), ("evil.example", "ConnectError")]
)
def test_tls_verifies_the_name_when_connecting_by_address(
    name: str,
    error: str,
    project: Project,
    admin: User,
    receiver: Receiver,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    settings.WEBHOOK_NETWORKS = ["127.0.0.1/32"]
    answers(monkeypatch, ["127.0.0.1"])
    file = certificate(tmp_path, name)
    monkeypatch.setattr(certifi, "where", lambda: str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    receiver.socket = context.wrap_socket(receiver.socket, server_side=True)
    url = f"https://hooks.example:{receiver.server_port}/"
    webhook, _ = webhook_create(project=project, url=url, events=list(Event), by=admin)
    ping_write(webhook=webhook)

    webhook_work(webhook.pk)

    assert WebhookDelivery.objects.get().error.endswith(f"{error}." if error else "")
    assert len(receiver.received) == (0 if error else 1)
