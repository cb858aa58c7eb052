"""Ending all sessions of a user."""

from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.models import Session
from django.utils import timezone

from feedback_app.accounts.models import User


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
