"""Host names: a page of another site must not reach local servers under a name of its own (DNS
rebinding), nor have its name written into mails."""

import asyncio
from typing import Any

import httpx
import pytest
from django.conf import settings
from django.core import mail
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import User
from trainer.engine.http.server import create_app

LOCAL = ["localhost", "127.0.0.1", "[::1]", "localhost:8001", "127.0.0.1:8001", "[::1]:8001"]
REBOUND = ["attacker.example", "attacker.example:8001", "localhost.attacker.example", "10.0.0.9"]


def engine_answer(host: str, **options: Any) -> httpx.Response:
    def never() -> Any:
        raise AssertionError("without its lifespan the app loads nothing")

    app = create_app("tiny", never, on_failure=lambda error: None, **options)

    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.get("/health", headers={"Host": host})

    return asyncio.run(get())


@pytest.mark.parametrize("host", LOCAL)
def test_engine_answers_to_names_of_this_machine(host: str) -> None:
    assert engine_answer(host).json()["status"] == "loading"


@pytest.mark.parametrize("host", REBOUND)
def test_engine_refuses_other_hosts(host: str) -> None:
    answer = engine_answer(host)

    assert answer.status_code == 400
    assert "host" in answer.text


def test_engine_answers_to_configured_hosts() -> None:
    assert engine_answer("engine:8001", hosts=["engine"]).json()["status"] == "loading"
    assert engine_answer("attacker.example", hosts=["engine"]).status_code == 400


@pytest.mark.parametrize("host", REBOUND)
def test_local_web_refuses_other_hosts(host: str, annotator: User) -> None:
    client = Client(HTTP_HOST=host)

    assert client.get(reverse("account_login")).status_code == 400
    asked = client.post(reverse("account_reset_password"), {"email": annotator.email})
    assert asked.status_code == 400
    assert mail.outbox == []


@pytest.mark.parametrize("host", LOCAL)
def test_local_web_answers_to_names_of_this_machine(host: str, db: None) -> None:
    assert Client(HTTP_HOST=host).get(reverse("account_login")).status_code == 200
    assert "*" not in settings.ALLOWED_HOSTS
