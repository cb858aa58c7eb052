"""Held-out items of snapshots get the split that their prompt has now.

In runs that ended before this migration these items did two things: early stopping chose the
adapter by them, and the gate judged it by them. The gate reports of those runs stay as they are:
their figures were computed on both splits together. An item whose prompt is a training prompt (no
earlier version made such items) becomes a validation item: it was not trained on.

Counts of a snapshot keep their sum: items that were erased since count as validation examples.
"""

from django.db import migrations
from django.db.models import Case, Count, F, OuterRef, Q, Subquery, Value, When
from django.db.models.functions import Coalesce, Greatest

BATCH = 2_000
SNAPSHOTS = 200


def batches(rows, size):
    """Yields the keys of rows in batches; what is changed meanwhile does not matter."""
    last = 0
    while pks := list(rows.order_by("pk").filter(pk__gt=last).values_list("pk", flat=True)[:size]):
        yield pks
        last = pks[-1]


def divide(apps, schema_editor):
    Prompt = apps.get_model("feedback", "Prompt")
    Snapshot = apps.get_model("training", "Snapshot")
    SnapshotItem = apps.get_model("training", "SnapshotItem")
    of_prompt = Prompt.objects.filter(completions=OuterRef("completion_id")).annotate(
        of_item=Case(When(split="test", then=Value("test")), default=Value("validation"))
    )
    for pks in batches(SnapshotItem.objects.filter(split="heldout"), BATCH):
        SnapshotItem.objects.filter(pk__in=pks).update(split=Subquery(of_prompt.values("of_item")))
    # a snapshot with counts here is divided already, or was taken since
    undivided = Q(validation_up=0, validation_down=0, test_up=0, test_down=0)
    for pks in batches(Snapshot.objects.filter(undivided), SNAPSHOTS):
        up, down = (
            tested(SnapshotItem.objects, desirable=desirable) for desirable in (True, False)
        )
        Snapshot.objects.filter(pk__in=pks).update(
            test_up=up,
            test_down=down,
            validation_up=Greatest(F("heldout_up") - up, 0),
            validation_down=Greatest(F("heldout_down") - down, 0),
        )


def tested(items, *, desirable):
    """Returns the number of a snapshot's test items with this label, as an expression."""
    items = items.filter(snapshot=OuterRef("pk"), split="test", desirable=desirable).order_by()
    return Coalesce(Subquery(items.values("snapshot").annotate(n=Count("pk")).values("n")), 0)


def unite(apps, schema_editor):
    Snapshot = apps.get_model("training", "Snapshot")
    SnapshotItem = apps.get_model("training", "SnapshotItem")
    for pks in batches(SnapshotItem.objects.filter(split__in=("validation", "test")), BATCH):
        SnapshotItem.objects.filter(pk__in=pks).update(split="heldout")
    Snapshot.objects.update(
        heldout_up=F("validation_up") + F("test_up"),
        heldout_down=F("validation_down") + F("test_down"),
    )


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("training", "0007_three_splits"),
        ("feedback", "0027_divide_held_out_prompts"),
    ]

    operations = [migrations.RunPython(divide, unite, elidable=True)]
