"""Fill a database as the last version with two splits did, migrate it to three splits and back,
and print what is in it, as JSON.

Run in a process of its own by test_upgrades.py, on an empty database in DATABASE_URL.
"""

import json
import sys
from collections import Counter
from importlib import import_module
from typing import Any

import django
from django.core.management import call_command
from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from tests.operations.earlier import state_at

BEFORE = {
    "accounts": "0005_api_receipts",
    "feedback": "0025_indexes_at_scale",
    "training": "0006_run_fit",
    "serving": "0010_comparison_judged",
}
#: Between the steps of the migration: divided, and nothing removed yet.
DIVIDED = {"feedback": "0027_divide_held_out_prompts", "training": "0008_divide_held_out_items"}
HELD_OUT, TRAINED = 300, 100
ITEMS, ERASED = 100, 5


def main() -> None:
    django.setup()
    fill(state_at(BEFORE))
    with CaptureQueriesContext(connection) as queries:
        apps = state_at(DIVIDED)
    found = facts(apps)
    words = ("UPDATE", "DELETE", "INSERT")
    changes = [q["sql"] for q in queries if q["sql"].startswith(words)]
    found["statements"] = sum("django_migrations" not in statement for statement in changes)
    found["the same after an interruption"] = divided_again(apps)
    call_command("migrate", verbosity=0, interactive=False)
    found["reversed"] = reversed_facts(state_at(BEFORE))
    json.dump(found, sys.stdout)


def fill(apps: Any) -> None:
    """Held-out and training prompts with an example each, a snapshot, and stored figures."""
    get = apps.get_model
    projects = [
        get("feedback", "Project").objects.create(
            slug=slug, name=slug, base_model="tiny", heldout_percent=percent, split_key=slug * 8
        )
        for slug, percent in (("bot", 20), ("small", 5), ("large", 50))
    ]
    project = projects[0]
    get("feedback", "Figures").objects.create(project=project, name="snapshot", value={})
    snapshot = get("training", "Snapshot").objects.create(
        project=project,
        train_up=10,
        train_down=0,
        heldout_up=ITEMS // 2,
        heldout_down=ITEMS // 2,
    )
    for number in range(HELD_OUT + TRAINED):
        split = "heldout" if number < HELD_OUT else "train"
        prompt = get("feedback", "Prompt").objects.create(
            project=project, messages=[], content_hash=f"{number:064}", split=split
        )
        completion = get("feedback", "Completion").objects.create(
            project=project, prompt=prompt, text="Answer.", version="base", finish_reason="stop"
        )
        label = {"desirable": number % 2 == 0, "weight": 1, "split": split}
        get("feedback", "Example").objects.create(completion=completion, project=project, **label)
        if ERASED <= number < ITEMS or HELD_OUT <= number < HELD_OUT + 10:
            get("training", "SnapshotItem").objects.create(
                snapshot=snapshot, completion=completion, **label
            )


def facts(apps: Any) -> dict[str, Any]:
    prompts = apps.get_model("feedback", "Prompt").objects
    examples = apps.get_model("feedback", "Example").objects
    items = apps.get_model("training", "SnapshotItem").objects
    snapshot = apps.get_model("training", "Snapshot").objects.get()
    trained = prompts.filter(split="train").values_list("content_hash", flat=True)
    moved = [rows.exclude(split=F("completion__prompt__split")) for rows in (examples, items)]
    return {
        "percent": {
            project.slug: [project.validation_percent, project.test_percent]
            for project in apps.get_model("feedback", "Project").objects.all()
        },
        "training prompts stay": set(map(int, trained)) == set(range(HELD_OUT, HELD_OUT + TRAINED)),
        "divided": dict(Counter(prompts.exclude(split="train").values_list("split", flat=True))),
        "examples or items in another split than their prompt": sum(rows.count() for rows in moved),
        "snapshot": {
            "sum": [
                snapshot.validation_up + snapshot.test_up,
                snapshot.validation_down + snapshot.test_down,
            ],
            "test": [snapshot.test_up, snapshot.test_down],
            "test items": [
                items.filter(split="test", desirable=desirable).count()
                for desirable in (True, False)
            ],
        },
        "stored figures": apps.get_model("feedback", "Figures").objects.count(),
    }


def divided_again(apps: Any) -> bool:
    """Return whether rows that were not divided yet come to the same when it is repeated."""
    prompts = apps.get_model("feedback", "Prompt").objects
    examples = apps.get_model("feedback", "Example").objects
    before = facts(apps), list(prompts.order_by("pk").values_list("split", flat=True))
    late = prompts.exclude(split="train").order_by("-pk")[:50]
    pks = list(late.values_list("pk", flat=True))
    prompts.filter(pk__in=pks).update(split="heldout")
    examples.filter(completion__prompt__in=pks).update(split="heldout")
    for app, name in DIVIDED.items():
        import_module(f"feedback_app.{app}.migrations.{name}").divide(apps, None)
    return (facts(apps), list(prompts.order_by("pk").values_list("split", flat=True))) == before


def reversed_facts(apps: Any) -> dict[str, Any]:
    get = apps.get_model
    return {
        name: dict(Counter(get(app, model).objects.values_list("split", flat=True)))
        for name, app, model in (
            ("splits", "feedback", "Prompt"),
            ("examples", "feedback", "Example"),
            ("items", "training", "SnapshotItem"),
        )
    } | {
        "percent": list(
            get("feedback", "Project")
            .objects.order_by("pk")
            .values_list("heldout_percent", flat=True)
        ),
        "snapshot": list(
            get("training", "Snapshot").objects.values_list("heldout_up", "heldout_down").get()
        ),
    }


if __name__ == "__main__":
    main()
