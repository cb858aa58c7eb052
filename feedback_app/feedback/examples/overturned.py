"""Votes that changed the label which earlier votes of other people had given."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from itertools import groupby

from django.db.models import F, OuterRef, Subquery

from feedback_app.feedback.models import Project, Verdict, Vote, VoteEvent


def overturned_by_person(
    project: Project, *, among: Collection[int] | None = None
) -> dict[int, set[int]]:
    """Return, by user id, the completions whose label the person's vote turned into another or a
    tie, without those that an admin decided; only those `among` some, by id, where it is given.

    Only completions with ups and downs can have one.
    """
    rows = project.completions.filter(contested=True, decided="").values_list("pk", flat=True)
    # read first where they are limited: with a subquery PostgreSQL reads all votes
    contested = rows if among is None else list(rows.filter(pk__in=among).order_by())
    verdict_events = VoteEvent.objects.filter(
        completion=OuterRef("completion"), user=OuterRef("user"), verdict__gt=""
    )
    votes = (
        Vote.objects.standing()
        .filter(completion__in=contested)
        .annotate(event=Subquery(verdict_events.order_by("-pk").values("pk")[:1]))
        # votes without an event are the oldest
        .order_by("completion", F("event").asc(nulls_first=True), "pk")
        .values_list("completion", "user", "verdict")
        # a million votes do not fit into memory at once
        .iterator(chunk_size=2_000)
    )
    found: dict[int, set[int]] = defaultdict(set)
    for completion, given in groupby(votes, key=lambda row: row[0]):
        for user in changed_by((user, verdict) for _, user, verdict in given):
            found[user].add(completion)
    return found


def changed_by(verdicts: Iterable[tuple[int, str]]) -> set[int]:
    """Return the people whose verdict changed the label of the verdicts before it.

    `verdicts` are pairs of user id and verdict in the order in which they were given.
    """
    people = set()
    balance = 0
    for user, verdict in verdicts:
        before = balance
        balance += 1 if verdict == Verdict.UP else -1
        # a single verdict moves the majority from a label to a tie at most
        if before and not balance:
            people.add(user)
    return people
