"""Freezing a project's examples into a snapshot."""

from collections.abc import Iterable

from django.db import connection
from django.db.models import Count

from feedback_app.db.batches import batched
from feedback_app.feedback.models import Example, Project
from feedback_app.training.models import (
    Snapshot,
    SnapshotItem,
)
from feedback_app.training.snapshots.caps import PersonCap, SnapshotTotals
from feedback_app.training.snapshots.follow_ups import follow_ups_add
from feedback_app.training.snapshots.reliability import items_weigh

CHUNK = 500


def snapshot_freeze(*, project: Project, cap: PersonCap, totals: SnapshotTotals) -> Snapshot:
    """Copy every example as it is now, under the cap on one person's votes; ties that are an
    example under the cap as well, with weights by reliability where the project wants that.

    Call it in the transaction that creates the run, with the cap and totals computed there.
    """
    snapshot = Snapshot.objects.create(
        project=project,
        left_out=totals.left_out,
        left_out_people=totals.people,
        **totals.counts,
    )
    items_copy(project, snapshot=snapshot)
    for chunk in batched(sorted(cap.examples), CHUNK):
        # those that the cap changes are written again, with their own split
        replaced = SnapshotItem.objects.filter(snapshot=snapshot, completion__in=chunk)
        splits = dict(replaced.values_list("completion_id", "split"))
        replaced.delete()
        items_create(
            item(snapshot, pk, splits[pk], values.desirable, values.weight)
            for pk in chunk
            if pk in splits and (values := cap.examples[pk]) is not None
        )
    for chunk in batched(sorted(cap.restored), CHUNK):
        items_create(
            item(snapshot, pk, example.split, example.values.desirable, example.values.weight)
            for pk in chunk
            for example in [cap.restored[pk]]
        )
    items_weigh(snapshot)
    follow_ups_add(snapshot, project)
    return snapshot


def items_copy(project: Project, *, snapshot: Snapshot) -> None:
    """Copy the examples into items inside the database: a million take no memory here."""
    quote = connection.ops.quote_name
    items, examples = quote(SnapshotItem._meta.db_table), quote(Example._meta.db_table)
    copy = f"""
        INSERT INTO {items} (snapshot_id, completion_id, desirable, weight, split)
        SELECT %s, completion_id, desirable, weight, split FROM {examples}
        WHERE project_id = %s ORDER BY completion_id
    """  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(copy, [snapshot.pk, project.pk])


def snapshot_copy(snapshot: Snapshot) -> Snapshot:
    """Copy a snapshot with its examples as they are now. Call it in a transaction.

    The copy keeps the time: it says which votes the examples follow from.
    """
    copy = Snapshot.objects.create(
        project_id=snapshot.project_id,
        train_up=0,
        train_down=0,
        left_out=snapshot.left_out,
        left_out_people=snapshot.left_out_people,
    )
    quote = connection.ops.quote_name
    items = quote(SnapshotItem._meta.db_table)
    statement = f"""
        INSERT INTO {items} (snapshot_id, completion_id, desirable, weight, split, implicit)
        SELECT %s, completion_id, desirable, weight, split, implicit FROM {items}
        WHERE snapshot_id = %s ORDER BY completion_id
    """  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(statement, [copy.pk, snapshot.pk])
    counted = copy.items.order_by().values_list("split", "desirable").annotate(n=Count("pk"))
    for split, desirable, n in counted:
        setattr(copy, f"{split}_{'up' if desirable else 'down'}", n)
    copy.created_at = snapshot.created_at
    copy.follow_ups = copy.items.filter(implicit=True).count()
    copy.save()
    return copy


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
