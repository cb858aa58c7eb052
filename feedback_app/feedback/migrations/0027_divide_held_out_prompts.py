"""Divides what was held out into validation and test. Training prompts keep their split.

A second number from the digest that drew a prompt's split decides, so that nobody can choose a side
here either. Of the project's old percentage two thirds go to the test split.

The rows are changed in batches, each in its own transaction, and only those that are still held
out: an interrupted migration goes on where it was.
"""

import hashlib
import hmac

from django.db import migrations
from django.db.models import OuterRef, Subquery

BATCH = 2_000
VALIDATION, TEST = (5, 30), (5, 50)


def shares(heldout):
    """Returns (validation, test) in percent, each within its bounds."""
    test = min(max(round(heldout * 2 / 3), TEST[0]), TEST[1])
    return min(max(heldout - test, VALIDATION[0]), VALIDATION[1]), test


def split_of(digest, *, key, validation, test):
    """Returns 'validation' or 'test' for a prompt that was held out."""
    drawn = hmac.new(key.encode(), digest.encode(), hashlib.sha256).digest()
    place = int.from_bytes(drawn[8:16], "big") % (validation + test)
    return "test" if place < test else "validation"


def divide(apps, schema_editor):
    Project = apps.get_model("feedback", "Project")
    for project in Project.objects.order_by("pk"):
        validation, test = shares(project.heldout_percent)
        Project.objects.filter(pk=project.pk).update(
            validation_percent=validation, test_percent=test
        )
        prompts_divide(apps, project, validation=validation, test=test)
    examples_follow(apps, {"split": "heldout"})
    # counts of the Train page, kept by the names of the old splits: a worker counts them again
    apps.get_model("feedback", "Figures").objects.filter(name="snapshot").delete()


def prompts_divide(apps, project, *, validation, test):
    Prompt = apps.get_model("feedback", "Prompt")
    rows = Prompt.objects.filter(project=project, split="heldout").order_by("pk")
    last = 0
    while found := list(rows.filter(pk__gt=last).values_list("pk", "content_hash")[:BATCH]):
        of = {"validation": [], "test": []}
        for pk, digest in found:
            split = split_of(digest, key=project.split_key, validation=validation, test=test)
            of[split].append(pk)
        for split, pks in of.items():
            Prompt.objects.filter(pk__in=pks).update(split=split)
        last = found[-1][0]


def examples_follow(apps, wanted):
    """Gives examples the split of their prompt."""
    Example = apps.get_model("feedback", "Example")
    Prompt = apps.get_model("feedback", "Prompt")
    of_prompt = Prompt.objects.filter(completions=OuterRef("pk")).values("split")[:1]
    rows = Example.objects.filter(**wanted).order_by("pk")
    last = 0
    while pks := list(rows.filter(pk__gt=last).values_list("pk", flat=True)[:BATCH]):
        Example.objects.filter(pk__in=pks).update(split=Subquery(of_prompt))
        last = pks[-1]


def unite(apps, schema_editor):
    Project = apps.get_model("feedback", "Project")
    Prompt = apps.get_model("feedback", "Prompt")
    for project in Project.objects.order_by("pk"):
        both = min(project.validation_percent + project.test_percent, 50)
        Project.objects.filter(pk=project.pk).update(heldout_percent=both)
    rows = Prompt.objects.filter(split__in=("validation", "test")).order_by("pk")
    last = 0
    while pks := list(rows.filter(pk__gt=last).values_list("pk", flat=True)[:BATCH]):
        Prompt.objects.filter(pk__in=pks).update(split="heldout")
        last = pks[-1]
    examples_follow(apps, {"split__in": ("validation", "test")})
    apps.get_model("feedback", "Figures").objects.filter(name="snapshot").delete()


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("feedback", "0026_three_splits")]

    operations = [migrations.RunPython(divide, unite, elidable=True)]
