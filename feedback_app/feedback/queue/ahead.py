"""Items that a browser keeps for the time without a connection.

They are leased like the one on the screen, gold items among them, so that the browser's list and
what the server hands out next are the same: a difference would show which items are gold.
"""

import datetime as dt
import secrets

from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.db.write_lock import write_transaction
from feedback_app.feedback.gold.insertion import gold_lease
from feedback_app.feedback.models import Completion, Project
from feedback_app.feedback.models.queue import parts_of
from feedback_app.feedback.queue.services import (
    EVERYTHING,
    LEASE_MINUTES,
    OPEN,
    items_held,
    leases_take,
    shown_item,
    with_prompt,
)

#: Items that a person holds at most: the two of the page, and fifty ahead.
AHEAD = 52


def items_ahead(*, project: Project, by: User) -> list[Completion]:
    """Lease more items, which the browser keeps for the time without a connection; return all that
    the person holds, in the order in which they come.

    They hold AHEAD at most, and take half of what is open, so that others find items too. Those who
    find none get what others hold ahead (`ahead_end`).
    """
    with write_transaction():
        items = items_held(
            project=project, by=by, count=AHEAD, topic="", elsewhere=(), ahead=True, showing=False
        )
        now = timezone.now()
        queue = Completion.objects.filter(project=project)
        free = queue.to_hand_out(by, overlap=project.overlap, now=now)
        room = min(AHEAD - len(items), free.order_by()[: 2 * AHEAD].count() // 2)
        order = EVERYTHING.order_in(project)
        for part in range(parts_of(order)):
            if room <= 0:
                break
            values = {"project": project.pk, "user": by.pk, "now": now}
            found = OPEN.rows(order, part, project.overlap, room, False, **values)
            taken = ahead_take(found, items, project=project, by=by)
            items += taken
            room -= len(taken)
    for item in items:
        item.project = project
    return items


def ahead_take(
    found: list[Completion], held: list[Completion], *, project: Project, by: User
) -> list[Completion]:
    """Lease and return those of the locked rows that are still open, with gold items among them at
    random as `gold_insert` has them. An expiry that is a little later keeps the order."""
    until = timezone.now() + dt.timedelta(minutes=LEASE_MINUTES)
    taken: list[Completion] = []
    for number, row in enumerate(found):
        if project.gold_every and not secrets.randbelow(project.gold_every):
            known = [item.pk for item in (*held, *taken)]
            at = until + dt.timedelta(microseconds=2 * number)
            gold = gold_lease(known, topic="", project=project, by=by, until=at, ahead=True)
            taken += [] if gold is None else [shown_item(gold)]
        at = until + dt.timedelta(microseconds=2 * number + 1)
        new = leases_take([row], project=project, by=by, until=at, ahead=True)
        taken += map(with_prompt, new)
    return taken
