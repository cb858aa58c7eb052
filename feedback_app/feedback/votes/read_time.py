"""Whether an answer was on the screen long enough to be read."""

import datetime as dt

from django.db.models import OuterRef, Subquery
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Completion, CompletionQuerySet, Lease

#: Faster than anybody reads; fast skimming reaches about half of it.
WORDS_PER_SECOND = 15


def annotate_shown_at(rows: CompletionQuerySet, user: User) -> CompletionQuerySet:
    """Annotate each row with `held`, a first-time lease of `user`, and `shown_at`.

    Items are handed out one ahead, so the person's latest lease was taken when this item appeared
    on the screen.
    """
    mine = Lease.objects.filter(user=user)
    # an item that came back by undo has been read before
    held = mine.filter(completion=OuterRef("pk"), front=False)
    return rows.annotate(
        held=Subquery(held.values("pk")[:1]),
        shown_at=Subquery(mine.order_by("-taken_at").values("taken_at")[:1]),
    )


def is_hasty(locked: Completion, *, now: dt.datetime | None = None) -> bool:
    """Return whether a verdict at `now` comes sooner than the answer can be read.

    False for items that the person does not hold (an expired lease, a vote in the demo).
    """
    if getattr(locked, "held", None) is None:
        return False
    shown_at: dt.datetime = locked.shown_at  # type: ignore[attr-defined]
    seconds = ((now or timezone.now()) - shown_at).total_seconds()
    return seconds * WORDS_PER_SECOND < len(locked.text.split())
