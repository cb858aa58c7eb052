"""Who a request is from, read with SQL that is built once, and signing a person out everywhere."""

import json
from functools import lru_cache
from typing import Any

from allauth.account.auth_backends import AuthenticationBackend
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends import db
from django.contrib.sessions.models import Session
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.db.prepared import Prepared

SESSION = Prepared[Session](
    lambda **values: Session.objects.filter(
        session_key=values["key"], expire_date__gt=values["now"]
    ).only("session_data")
)
USER = Prepared[User](lambda **values: User.objects.filter(**values))


class SessionStore(db.SessionStore):
    """Sessions in the database."""

    def _get_session_from_db(self) -> Session | None:
        found = SESSION.first(key=self.session_key, now=timezone.now())
        if found is None:
            self._session_key = None
        return found

    def decode(self, session_data: bytes | str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(_decoded(session_data))
        return found


@lru_cache(maxsize=1_000)  # a session is read at each request and written at a few
def _decoded(session_data: bytes | str) -> str:
    """What a session's text holds, its signature checked; as JSON, so that each has their own."""
    return json.dumps(db.SessionStore().decode(session_data))


class Backend(AuthenticationBackend):  # type: ignore[misc]  # allauth has no types
    """allauth's, with people read by SQL that is built once."""

    def get_user(self, user_id: Any) -> User | None:
        user = USER.first(pk=user_id)
        return user if user is not None and self.user_can_authenticate(user) else None


def sessions_end(user: User) -> int:
    """Deletes every session of the person; returns how many there were.

    A session does not know its person, so all that are running are read. It happens when an
    account is closed: seldom.
    """
    running = Session.objects.filter(expire_date__gt=timezone.now())
    mine = [
        session.pk
        for session in running.iterator(chunk_size=500)
        if session.get_decoded().get(SESSION_KEY) == str(user.pk)
    ]
    return Session.objects.filter(pk__in=mine).delete()[0]
