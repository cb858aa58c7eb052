"""The rows of a vote, locked, read and written in as few statements as possible."""

import datetime as dt
from functools import cache
from typing import Any

from django.db import connection
from django.db.models import OuterRef, QuerySet, Subquery
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.db.prepared import STORED, Prepared, Statement, insertion, run_if_new
from feedback_app.feedback.examples.services import example_insertion
from feedback_app.feedback.models import (
    Completion,
    CompletionQuerySet,
    Lease,
    Project,
    Skip,
    Vote,
    VoteEvent,
)
from feedback_app.web.text.reasoning import answer_of

#: Faster than anybody reads; fast skimming reaches about half of it.
WORDS_PER_SECOND = 15
#: How long after its lease an item accepts a vote: browsers keep votes while they are offline.
GRACE = dt.timedelta(days=7)
#: Columns that no vote needs.
UNUSED = (
    *("token_ids", "prompt_token_ids", "content_hash", "system_prompt", "created_at"),
    *("prompt__content_hash", "prompt__created_at"),
)


def annotate_lease(rows: CompletionQuerySet, user: User) -> CompletionQuerySet:
    """Annotate each row with the lease of `user`, and `shown_at`.

    `leased_until` is None without a lease, and `lease_front` also where the browser keeps the item
    ahead. Items are handed out one ahead, so the person's latest lease was taken when this item
    appeared on the screen; what is kept ahead is taken again when it is handed out.
    """
    mine = Lease.objects.filter(user=user)
    here = mine.filter(completion=OuterRef("pk"))
    mine = mine.filter(ahead=False)
    return rows.annotate(
        leased_until=Subquery(here.values("expires_at")[:1]),
        lease_front=Subquery(here.filter(ahead=False).values("front")[:1]),
        shown_at=Subquery(mine.order_by("-taken_at").values("taken_at")[:1]),
    )


def locking(*, user: Any, **values: Any) -> QuerySet[Completion]:
    """Return the queryset of `completion_lock`."""
    light = Completion.objects.select_related("prompt").defer(*UNUSED)
    return annotate_lease(light.filter(**values), user).select_for_update(of=("self",))


LOCKED = Prepared(locking)


def completion_lock(pk: int, *, by: User, **within: Project) -> Completion:
    """Lock and return a completion with its prompt and the time since which `by` has seen it.

    Raise Completion.DoesNotExist.
    """
    inside = {name: project.pk for name, project in within.items()}
    found = LOCKED.first(pk=pk, user=by.pk, **inside)
    if found is None:
        raise Completion.DoesNotExist("No such completion.")
    return found


def handed_out_lock(pk: int, *, project: Project, by: User, voting: bool) -> Completion:
    """Lock and return a completion that was handed out to this person.

    That is an item that they hold, one that they have voted on, or one that they held until GRACE
    ago; if `voting`, the latter must still need votes. Raise Completion.DoesNotExist for any other:
    a person must not read or change what was never shown to them.
    """
    locked = completion_lock(pk, by=by, project=project)
    locked.project = project
    until: dt.datetime | None = locked.leased_until  # type: ignore[attr-defined]
    now = timezone.now()
    if until is not None and until > now - GRACE:
        # others may have judged it since; gold takes no slot
        needed = locked.gold or locked.vote_count < project.overlap
        if until > now or needed or not voting:
            return locked
    if Vote.objects.filter(completion=locked, user=by).exists():
        return locked
    raise Completion.DoesNotExist("No such completion.")


def is_hasty(locked: Completion, *, now: dt.datetime | None = None) -> bool:
    """Return whether a verdict at `now` comes sooner than the answer can be read.

    False for items without a lease, such as answers in the demo, and for those that were judged
    without a connection from what the browser kept ahead.
    """
    # an item that came back by undo has been read before
    if getattr(locked, "lease_front", None) is not False:
        return False
    shown_at: dt.datetime = locked.shown_at  # type: ignore[attr-defined]
    seconds = ((now or timezone.now()) - shown_at).total_seconds()
    return seconds * WORDS_PER_SECOND < len(answer_of(locked.text).split())


def vote_first(*, completion: Completion, vote: Vote) -> bool:
    """Store the first vote on a locked completion without votes that count.

    Write the vote, its event and its example, and delete the person's lease and skip. Return False
    and store nothing if the person has a vote there that was set aside.
    """
    event = VoteEvent(
        completion=completion,
        user_id=vote.user_id,
        verdict=vote.verdict,
        source=vote.source,
        guidelines_number=vote.guidelines_number,
    )
    counted = f"UPDATE {table(Completion)} SET vote_count = 1, contested = %s WHERE id = %s"  # noqa: S608
    belonging: list[Statement] = [
        insertion(event, where=STORED),
        (f"{counted} AND {STORED}", [False, completion.pk]),
        of_person(Lease, vote),
        # a vote replaces a skip, but no flag, or flags would not be counted
        of_person(Skip, vote, "AND NOT flag"),
    ]
    example = example_insertion(completion, [vote.verdict], where=STORED)
    if example is not None:
        belonging.append(example)
    stored = run_if_new(insertion(vote, unique=["completion", "user"]), *belonging)
    if not stored:
        return False
    ((vote.pk,),) = stored
    vote._state.adding = False
    completion.vote_count, completion.contested = 1, False
    return True


def of_person(model: type[Lease | Skip], vote: Vote, only: str = "") -> Statement:
    """Return the statement that deletes the person's row, if the vote is stored."""
    theirs = f"completion_id = %s AND user_id = %s {only}"
    return (
        f"DELETE FROM {table(model)} WHERE {theirs} AND {STORED}",  # noqa: S608
        [vote.completion_id, vote.user_id],
    )


@cache
def table(model: type[Completion | Lease | Skip]) -> str:
    return connection.ops.quote_name(model._meta.db_table)
