"""Freezing a project's examples into a snapshot."""

import datetime as dt
from collections.abc import Iterable
from typing import Any

from django.db import connection
from django.db.models import Count, Max, Q
from django.utils import timezone

from feedback_app.db.batches import batched
from feedback_app.db.bounded_count import counted
from feedback_app.feedback.models import Example, Project, Split, Vote, VoteEvent
from feedback_app.training.models import (
    Snapshot,
    SnapshotItem,
)
from feedback_app.training.snapshots.caps import PersonCap, SnapshotTotals
from feedback_app.training.snapshots.follow_ups import follow_ups_add
from feedback_app.training.snapshots.pieces import WHOLE, Pieces
from feedback_app.training.snapshots.reliability import items_weigh

CHUNK = 500
#: A project with more votes or examples has its snapshots taken by a worker, not in the request.
AT_ONCE = 1_000


def copied_at_once(snapshot: Snapshot) -> bool:
    """Return whether a snapshot is so small that a request may copy it."""
    total = snapshot.train_total + snapshot.validation_total + snapshot.test_total
    return total <= AT_ONCE


def taken_at_once(project: Project) -> bool:
    """Return whether the project is so small that a request may take its snapshot."""
    rows = (project.votes.all(), project.examples.all())
    return all(counted(each, most=AT_ONCE) <= AT_ONCE for each in rows)


def snapshot_queue(project: Project, *, without: dict[str, Any] | None = None) -> Snapshot:
    """Create a snapshot that a worker takes (runs/execution/taking.py); `without`: a copy of
    another one, as Snapshot.without says."""
    return Snapshot.objects.create(
        project=project,
        status=Snapshot.Status.QUEUED,
        train_up=0,
        train_down=0,
        without=without,
    )


def snapshot_freeze(
    *,
    project: Project,
    cap: PersonCap,
    totals: SnapshotTotals,
    queued: Snapshot | None = None,
    pieces: Pieces = WHOLE,
) -> Snapshot:
    """Copy every example as it is now, under the cap on one person's votes; ties that are an
    example under the cap as well, with weights by reliability where the project wants that.

    Call it in the transaction that creates the run, or that takes the `queued` snapshot, with the
    cap and totals computed there. It does not write the status of `queued`. In `pieces` it is
    called outside a transaction, and votes of meanwhile are in the snapshot or not.
    """
    begun, last_event = timezone.now(), VoteEvent.objects.aggregate(last=Max("pk"))["last"] or 0
    snapshot = queued or Snapshot(project=project)
    snapshot.left_out, snapshot.left_out_people = totals.left_out, totals.people
    for name, count in totals.counts.items():
        setattr(snapshot, name, count)
    if queued is None:
        snapshot.save()
    else:
        snapshot.created_at = timezone.now()
    for after, upto in pieces.ranges(project):
        with pieces.part():
            items_copy(project, snapshot=snapshot, after=after, upto=upto)
    cap_apply(snapshot, cap, pieces)
    items_weigh(snapshot, pieces)
    follow_ups_add(snapshot, project, pieces)
    if queued is not None:
        if pieces.rows is not None:
            with pieces.part():
                # an erasure looks for votes in the snapshots that were taken after them
                snapshot.created_at = timezone.now()
                withdrawn_leave_out(snapshot, since=begun, after_event=last_event)
        # votes of meanwhile may have changed what was counted
        counts_take(snapshot)
        with pieces.part():
            # at the end: before that a lock on the row would hold up its heartbeats
            snapshot_counts_save(snapshot)
    return snapshot


def withdrawn_leave_out(snapshot: Snapshot, *, since: dt.datetime, after_event: int) -> None:
    """Leave out answers of which a vote was undone or set aside while they were copied.

    The copy may have the vote. When its person is erased, it counted for nothing at the time of the
    snapshot, so that nobody would look for it there.
    """
    undone = VoteEvent.objects.filter(
        pk__gt=after_event, verdict="", completion__project=snapshot.project_id
    )
    aside = Vote.objects.filter(project=snapshot.project_id, set_aside__created_at__gte=since)
    withdrawn = Q(completion__in=undone.order_by().values("completion"))
    withdrawn |= Q(completion__in=aside.values("completion"))
    snapshot.items.filter(withdrawn).delete()


def cap_apply(snapshot: Snapshot, cap: PersonCap, pieces: Pieces) -> None:
    """Write the examples that the cap changes again, and those that are ties without it."""
    for chunk in batched(sorted(cap.examples), CHUNK):
        with pieces.part():
            # with their own split
            replaced = SnapshotItem.objects.filter(snapshot=snapshot, completion__in=chunk)
            splits = dict(replaced.values_list("completion_id", "split"))
            replaced.delete()
            items_create(
                item(snapshot, pk, splits[pk], values.desirable, values.weight)
                for pk in chunk
                if pk in splits and (values := cap.examples[pk]) is not None
            )
    for chunk in batched(sorted(cap.restored), CHUNK):
        with pieces.part():
            # a vote of meanwhile may have made a tie an example
            SnapshotItem.objects.filter(snapshot=snapshot, completion__in=chunk).delete()
            items_create(
                item(snapshot, pk, example.split, example.values.desirable, example.values.weight)
                for pk in chunk
                for example in [cap.restored[pk]]
            )


def snapshot_keep_test(snapshot: Snapshot, pieces: Pieces = WHOLE) -> None:
    """Leave only the test examples, for a version that learned from none of the others."""
    unused = snapshot.items.exclude(split=Split.TEST)
    for after, upto in pieces.ranges(snapshot.project):
        with pieces.part():
            unused.filter(completion__gt=after, completion__lte=upto).delete()
    names = ("train_up", "train_down", "validation_up", "validation_down", "left_out")
    for name in (*names, "left_out_people", "follow_ups"):
        setattr(snapshot, name, 0)
    with pieces.part():
        snapshot_counts_save(snapshot)


def items_copy(project: Project, *, snapshot: Snapshot, after: int, upto: int) -> None:
    """Copy the examples of a range of answers into items inside the database: a million take no
    memory here."""
    quote = connection.ops.quote_name
    items, examples = quote(SnapshotItem._meta.db_table), quote(Example._meta.db_table)
    copy = f"""
        INSERT INTO {items} (snapshot_id, completion_id, desirable, weight, split)
        SELECT %s, completion_id, desirable, weight, split FROM {examples}
        WHERE project_id = %s AND completion_id > %s AND completion_id <= %s
        ORDER BY completion_id
    """  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(copy, [snapshot.pk, project.pk, after, upto])


def snapshot_copy(snapshot: Snapshot, *, queued: Snapshot | None = None) -> Snapshot:
    """Copy a snapshot with its examples as they are now, into the `queued` one if there is one.
    Call it in a transaction.

    The copy keeps the time: it says which votes the examples follow from.
    """
    copy = queued or Snapshot.objects.create(
        project_id=snapshot.project_id, train_up=0, train_down=0
    )
    copy.left_out, copy.left_out_people = snapshot.left_out, snapshot.left_out_people
    quote = connection.ops.quote_name
    items = quote(SnapshotItem._meta.db_table)
    statement = f"""
        INSERT INTO {items} (snapshot_id, completion_id, desirable, weight, split, implicit)
        SELECT %s, completion_id, desirable, weight, split, implicit FROM {items}
        WHERE snapshot_id = %s ORDER BY completion_id
    """  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(statement, [copy.pk, snapshot.pk])
    counts_take(copy)
    copy.created_at = snapshot.created_at
    copy.follow_ups = copy.items.filter(implicit=True).count()
    if queued is None:
        copy.save()
    else:
        snapshot_counts_save(copy)
    return copy


def counts_take(snapshot: Snapshot) -> None:
    """Set the numbers of examples by split and label to those of the items, without saving."""
    found = snapshot.items.order_by().values_list("split", "desirable").annotate(n=Count("pk"))
    counts = {(split, desirable): n for split, desirable, n in found}
    for split in Split.values:
        for desirable in (True, False):
            name = f"{split}_{'up' if desirable else 'down'}"
            setattr(snapshot, name, counts.get((split, desirable), 0))


def snapshot_counts_save(snapshot: Snapshot) -> None:
    """Save what a worker found, and nothing of its claim, which a thread keeps alive."""
    counts = (f"{split}_{label}" for split in Split.values for label in ("up", "down"))
    left_out = ("left_out", "left_out_people", "follow_ups")
    snapshot.save(update_fields=[*counts, *left_out, "created_at"])


def items_create(items: Iterable[SnapshotItem]) -> None:
    SnapshotItem.objects.bulk_create(list(items))


def item(
    snapshot: Snapshot, completion: int, split: str, desirable: bool, weight: float
) -> SnapshotItem:
    return SnapshotItem(
        snapshot=snapshot,
        completion_id=completion,
        desirable=desirable,
        weight=weight,
        split=split,
    )
