"""Limits on a person's flags, and restoring what was flagged."""

import datetime as dt
from collections.abc import Iterable

from django.db import transaction
from django.utils import timezone

from feedback_app.accounts.audit import audit, person_name
from feedback_app.accounts.models import Membership, User
from feedback_app.feedback.examples.services import completions_lock
from feedback_app.feedback.models import Completion, Project, Skip
from feedback_app.web.errors import UserError

FLAGS_PER_HOUR = 20
#: One person's flags that no admin has restored are at most one item in this many of the queue, …
QUEUE_SHARE = 20
#: … but this many in any case.
FLAGS_ALWAYS = 3


def flag_check(*, completion: Completion, by: User) -> None:
    """Raise UserError if this person may not flag the item.

    A flag takes an item from everyone: without limits one person could empty the queue.
    """
    project = completion.project
    # two flags at the same time must see each other
    Membership.objects.select_for_update().filter(project=project, user=by).first()
    flags = Skip.objects.filter(user=by, flag=True, completion__project=project)
    if flags.filter(completion=completion).exists():
        if completion.flagged:
            return  # a retry or a double click
        raise UserError("An admin has put this item back into the queue. You can skip it instead.")
    if (
        flags.filter(created_at__gt=timezone.now() - dt.timedelta(hours=1)).count()
        >= FLAGS_PER_HOUR
    ):
        raise UserError(
            f"You have flagged {FLAGS_PER_HOUR} items in the last hour. Tell an admin of this "
            "project; until then you can skip items."
        )
    waiting = flags.filter(completion__flagged=True).count()
    enough = QUEUE_SHARE * (waiting + 1)
    if waiting >= FLAGS_ALWAYS and project.completions.in_queue()[:enough].count() < enough:
        raise UserError(
            f"{waiting} items that you flagged wait for an admin of this project. Until then you "
            "can skip items."
        )


def flag_restore(*, completion: Completion, by: User) -> bool:
    """Put a flagged item back into the queue; return False if it was not flagged.

    The flag stays in the list of restored ones.
    """
    return bool(_flagged_set(completion, flagged=False, by=by, action="flag.restore"))


def flag_again(*, completion: Completion, by: User) -> bool:
    """Undo `flag_restore`; return False if the item is flagged, or never was."""
    if not Skip.objects.filter(completion=completion, flag=True).exists():
        return False
    return _flagged_set(completion, flagged=True, by=by, action="flag.again")


def _flagged_set(completion: Completion, *, flagged: bool, by: User, action: str) -> bool:
    with transaction.atomic():
        rows = Completion.objects.filter(pk=completion.pk, flagged=not flagged)
        changed = rows.update(flagged=flagged)
        if changed:
            audit(project=completion.project, actor=by, action=action, target=str(completion.pk))
    return bool(changed)


def flags_restore(*, project: Project, of: User, by: User) -> int:
    """Restore every item that this person has flagged; return their number."""
    with transaction.atomic():
        theirs = Skip.objects.filter(
            user=of, flag=True, completion__project=project, completion__flagged=True
        )
        ids: Iterable[int] = list(theirs.values_list("completion_id", flat=True))
        completions_lock(ids)
        restored = Completion.objects.filter(pk__in=ids, flagged=True).update(flagged=False)
        if restored:
            target = f"{restored} of {person_name(of)}"
            audit(project=project, actor=by, action="flag.restore", target=target)
    return restored
