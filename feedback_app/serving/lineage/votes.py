"""The votes on completions as they were at a time, from the events of votes.

A vote that was changed or undone later still decided the examples of the snapshots before that.
"""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from feedback_app.accounts.models import User
from feedback_app.feedback.models import VoteEvent

#: Events of one page that are read at most; gold items have a vote of every annotator.
EVENTS_READ = 5_000


@dataclass(frozen=True)
class VoteThen:
    """One person's vote on a completion, as it was; `since` is when it was cast or changed."""

    user: User
    verdict: str
    source: str
    since: dt.datetime


#: The events of each completion, oldest first.
Events = dict[int, list[VoteEvent]]


def events_of(completions: Iterable[int]) -> Events:
    """Return the events of these completions with their people, in one query."""
    rows = VoteEvent.objects.filter(completion__in=list(completions)).select_related("user")
    found: Events = defaultdict(list)
    for event in rows.order_by("created_at", "pk")[:EVENTS_READ]:
        found[event.completion_id].append(event)
    return found


def votes_then(events: Iterable[VoteEvent], when: dt.datetime) -> list[VoteThen]:
    """Return the votes that counted at a time, in the order in which people first voted."""
    votes: dict[int, VoteThen | None] = {}
    for event in events:
        if event.created_at > when:
            break
        votes[event.user_id] = (
            VoteThen(event.user, event.verdict, event.get_source_display(), event.created_at)
            if event.verdict
            else None
        )
    return [vote for vote in votes.values() if vote is not None]
