"""Sessions and users read with prepared SQL, and ending all sessions of a user."""

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


@lru_cache(maxsize=1_000)  # read at every request, written at few
def _decoded(session_data: bytes | str) -> str:
    """Return a session's data, its signature checked, as JSON: each caller gets its own copy."""
    return json.dumps(db.SessionStore().decode(session_data))


class Backend(AuthenticationBackend):  # type: ignore[misc]  # allauth has no types
    """allauth's backend, with users read by prepared SQL."""

    def get_user(self, user_id: Any) -> User | None:
        user = USER.first(pk=user_id)
        return user if user is not None and self.user_can_authenticate(user) else None


def sessions_end(user: User) -> int:
    """Delete every session of the user; return how many there were.

    Sessions have no index by user, so all current ones are read. This happens only when an account
    is closed.
    """
    running = Session.objects.filter(expire_date__gt=timezone.now())
    mine = [
        session.pk
        for session in running.iterator(chunk_size=500)
        if session.get_decoded().get(SESSION_KEY) == str(user.pk)
    ]
    return Session.objects.filter(pk__in=mine).delete()[0]
