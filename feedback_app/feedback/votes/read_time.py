"""Whether an answer can have been read in the time that it was on the screen."""

import datetime as dt

from django.db.models import OuterRef, Subquery
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Completion, CompletionQuerySet, Lease

#: Nobody reads faster; the quickest skim at about half of it.
WORDS_PER_SECOND = 15


def annotate_shown_at(rows: CompletionQuerySet, user: User) -> CompletionQuerySet:
    """Each row with `held`, whether `user` has it on hand for the first time, and `shown_at`.

    Items are handed out one ahead: what a person was handed last tells when they had done with
    the item before this one, and so when this one came onto the screen.
    """
    mine = Lease.objects.filter(user=user)
    # what came back by undo has been read before
    held = mine.filter(completion=OuterRef("pk"), front=False)
    return rows.annotate(
        held=Subquery(held.values("pk")[:1]),
        shown_at=Subquery(mine.order_by("-taken_at").values("taken_at")[:1]),
    )


def is_hasty(locked: Completion, *, now: dt.datetime | None = None) -> bool:
    """Whether a verdict given now comes sooner than the answer can be read. What the person does
    not hold (a lease that ran out, a thumb in the demo) is not judged."""
    if getattr(locked, "held", None) is None:
        return False
    shown_at: dt.datetime = locked.shown_at  # type: ignore[attr-defined]
    seconds = ((now or timezone.now()) - shown_at).total_seconds()
    return seconds * WORDS_PER_SECOND < len(locked.text.split())
