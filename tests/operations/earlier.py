"""Fill a database as earlier versions did, migrate it, and print what is in it then, as JSON.

Run in a process of its own by test_upgrades.py, on an empty database in DATABASE_URL: data
migrations read the default database.
"""

import json
import sys
from typing import Any

import django
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from django.utils import timezone

#: The first state that had the whole loop (2026-11-24), before imports, queues and gold.
FIRST = {
    "accounts": "0002_initial",
    "feedback": "0001_initial",
    "training": "0001_initial",
    "serving": "0001_initial",
}
#: Before Resolution and Seat were renamed, and sampled answers had a source of their own.
SECOND = {
    "accounts": "0005_api_receipts",
    "feedback": "0018_version_uploaded_index",
    "training": "0004_erasure_claims",
    "serving": "0006_live_version_claim",
}


def main() -> None:
    django.setup()
    fill_first(state_at(FIRST))
    fill_second(state_at(SECOND))
    call_command("migrate", verbosity=0, interactive=False)
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)
    json.dump(facts(), sys.stdout)


def state_at(targets: dict[str, str]) -> Any:
    """Migrate to a state and return its models."""
    executor = MigrationExecutor(connection)
    executor.loader = one_by_one()
    executor.migrate(list(targets.items()))
    return executor.loader.project_state(list(targets.items())).apps


def one_by_one() -> MigrationLoader:
    """Return the migrations without the squashed ones, which would lead past earlier states."""
    loader = MigrationLoader(connection, replace_migrations=False)
    for node, migration in loader.disk_migrations.items():
        if migration.replaces:
            loader.graph.remove_replacement_node(node, migration.replaces)
            loader.applied_migrations.pop(node, None)
    return loader


def fill_first(apps: Any) -> None:
    """Votes, examples, a run, an adapter that is live, and a conversation."""
    get = apps.get_model
    user = get("accounts", "User").objects.create(email="ann@example.com", password="x")
    project = get("feedback", "Project").objects.create(
        slug="bot", name="Bot", base_model="tiny", guidelines="Be kind.", live_version="bot@1"
    )
    get("accounts", "Membership").objects.create(project=project, user=user, role="owner")
    sampling = get("feedback", "Sampling").objects.create(project=project, total=2, done=2)
    completions = []
    for number, (version, of, verdicts) in enumerate(
        [
            ("base", sampling, ["up"]),
            ("bot@12", sampling, ["up", "down"]),
            ("import", None, ["down"]),
        ]
    ):
        prompt = get("feedback", "Prompt").objects.create(
            project=project,
            messages=[{"role": "user", "content": f"Question {number}?"}],
            content_hash=f"{number:064}",
            topic="bread",
            split="heldout" if number == 2 else "train",
        )
        completion = get("feedback", "Completion").objects.create(
            project=project,
            prompt=prompt,
            text=f"Answer {number}.",
            version=version,
            finish_reason="stop",
            source="import",
            sampling=of,
            queued=of is not None,
            token_ids=[1, 2, 3],
            vote_count=len(verdicts),
        )
        completions.append(completion)
        for voter, verdict in enumerate(verdicts):
            person = user
            if voter:
                person = get("accounts", "User").objects.create(email="bob@example.com")
            both = {"completion": completion, "user": person, "verdict": verdict}
            get("feedback", "Vote").objects.create(**both, project=project, source="annotate")
            get("feedback", "VoteEvent").objects.create(**both, source="annotate")
        if len(verdicts) == 1:
            get("feedback", "Example").objects.create(
                completion=completion,
                project=project,
                desirable=verdicts == ["up"],
                weight=1,
                split=prompt.split,
            )
    snapshot = get("training", "Snapshot").objects.create(
        project=project, train_up=1, train_down=0, heldout_up=0, heldout_down=1, sha256="a" * 64
    )
    get("training", "SnapshotItem").objects.create(
        snapshot=snapshot, completion=completions[0], desirable=True, weight=1, split="train"
    )
    run = get("training", "Run").objects.create(
        project=project, number=1, snapshot=snapshot, trigger="person", status="succeeded"
    )
    adapter = get("training", "Adapter").objects.create(
        project=project, run=run, name="bot@1", path="adapters/bot@1", sha256="b" * 64
    )
    get("serving", "Release").objects.create(project=project, adapter=adapter, released_by=user)
    conversation = get("serving", "Conversation").objects.create(project=project, user=user)
    get("serving", "Turn").objects.create(
        conversation=conversation, position=0, user_message="Hello", completion=completions[0]
    )


def fill_second(apps: Any) -> None:
    """A verdict on the contested completion, a traffic split and one of its answers."""
    get = apps.get_model
    project = get("feedback", "Project").objects.get()
    contested = get("feedback", "Completion").objects.get(version="bot@12")
    get("feedback", "Resolution").objects.create(
        completion=contested, project=project, verdict="up", resolved_at=timezone.now()
    )
    contested.decided = "up"
    contested.save()
    get("feedback", "Example").objects.create(
        completion=contested, project=project, desirable=True, weight=1, split="train"
    )
    split = get("serving", "TrafficSplit").objects.create(
        project=project,
        candidate=get("training", "Adapter").objects.get(),
        live_version="base",
        percent=20,
    )
    seat = get("serving", "Seat").objects.create(
        split=split, key="k", candidate=True, percent=20, verdict="up", counted=1
    )
    get("serving", "SeatAnswer").objects.create(
        seat=seat, completion=contested, end="whole", seconds=1.5
    )


def facts() -> dict[str, Any]:
    """Read everything through the models of today."""
    from feedback_app.feedback.models import Adjudication, Completion, GuidelinesVersion, Vote
    from feedback_app.feedback.votes.services import vote_cast
    from feedback_app.operations.doctor.checks import feedback
    from feedback_app.serving.models import AssignmentAnswer, Conversation, Release
    from feedback_app.training.models import Adapter, Run, Snapshot, SnapshotItem

    found: dict[str, Any] = {
        "completions": {
            row.version: [row.source, row.topic, row.version_number, row.contested, row.token_ids]
            for row in Completion.objects.order_by("pk")
        },
        "hashes": sorted(map(len, Completion.objects.values_list("content_hash", flat=True))),
        "guidelines": list(GuidelinesVersion.objects.values_list("number", "text")),
        "votes": sorted(Vote.objects.values_list("verdict", "guidelines_number", "user__email")),
        "verdict": Adjudication.objects.get().verdict,
        "answer": [
            f"{one.assignment.version} {one.assignment.verdict} {one.seconds}"
            for one in AssignmentAnswer.objects.select_related("assignment__split__candidate")
        ],
        "live": [str(release) for release in Release.objects.filter(live=True)],
        "adapter": Adapter.objects.get().name,
        "run": [Run.objects.get().status, SnapshotItem.objects.count()],
        # its one held-out item is not among the items: it counts as erased
        "snapshot": Snapshot.objects.values(
            "train_up", "validation_up", "validation_down", "test_up", "test_down"
        ).get(),
        "turns": Conversation.objects.get().turns.get().as_messages(),
        "problems": [
            problem.what
            for check in (
                feedback.votes_and_examples,
                feedback.splits_of_prompts,
                feedback.live_versions,
            )
            for problem in check()
        ],
    }
    vote = Vote.objects.get(completion__version="import")
    vote_cast(completion=vote.completion, verdict="up", by=vote.user, source="annotate")
    found["a vote changes its example"] = vote.completion.example.desirable
    return found


if __name__ == "__main__":
    main()
