"""A session's text is read once a process, and nobody sees another reader's changes."""

from typing import Any

import pytest

from feedback_app.accounts.sessions import SessionStore

pytestmark = pytest.mark.django_db


def stored(**values: Any) -> SessionStore:
    session = SessionStore()
    session.update(values)
    session.save()
    return session


def test_readers_have_a_session_each_and_see_what_is_saved() -> None:
    key = stored(methods=["password"]).session_key
    one, other = SessionStore(key), SessionStore(key)

    one["methods"].append("totp")
    assert other["methods"] == ["password"]
    one.save()

    assert SessionStore(key)["methods"] == ["password", "totp"]


def test_text_that_is_not_ours_is_an_empty_session(caplog: pytest.LogCaptureFixture) -> None:
    text = stored(_auth_user_id="1").encode({"_auth_user_id": "1"})

    assert SessionStore().decode(text) == {"_auth_user_id": "1"}
    assert SessionStore().decode(text[:-1] + ("a" if text[-1] != "a" else "b")) == {}
    assert "corrupted" in caplog.text
