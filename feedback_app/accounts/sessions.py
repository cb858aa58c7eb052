"""Signing a person out everywhere."""

from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.models import Session
from django.utils import timezone

from feedback_app.accounts.models import User


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
