"""Checks of votes, examples, splits and releases against each other."""

from collections import defaultdict
from collections.abc import Iterator

from django.db.models import Count, F, Max

from feedback_app.feedback.examples.rule import example_values
from feedback_app.feedback.models import BASE_VERSION, Completion, Example, Project, Vote
from feedback_app.operations.doctor.findings import Problem, listed
from feedback_app.serving.models import Release
from feedback_app.training.models import Snapshot, SnapshotItem

#: Completions whose votes are compared with their example: the newest and the oldest.
SAMPLE = 500


def votes_and_examples() -> Iterator[Problem]:
    voted = Completion.objects.filter(vote_count__gt=0).defer("token_ids", "prompt_token_ids")
    rows = {row.pk: row for order in ("-pk", "pk") for row in voted.order_by(order)[:SAMPLE]}
    verdicts: dict[int, list[str]] = defaultdict(list)
    counted = Vote.objects.standing().filter(completion__in=rows)
    for pk, verdict in counted.values_list("completion_id", "verdict"):
        verdicts[pk].append(verdict)
    examples = {example.pk: example for example in Example.objects.filter(completion__in=rows)}
    differ = []
    for pk, row in rows.items():
        values, example = example_values(row, verdicts[pk]), examples.get(pk)
        there = None if example is None else (example.desirable, example.weight)
        due = None if values is None else (values.desirable, values.weight)
        if there != due or row.vote_count != len(verdicts[pk]):
            differ.append(pk)
    if differ:
        yield Problem(
            f"Votes and examples of {len(differ)} of {len(rows)} completions do not agree: "
            f"{listed(differ)}.",
            "Report this as a bug. To repair: `from feedback_app.feedback.examples.services import "
            "examples_refresh` in `manage.py shell`, inside transaction.atomic().",
        )


def splits_of_prompts() -> Iterator[Problem]:
    moved = Example.objects.exclude(split=F("completion__prompt__split")).order_by("pk")
    if found := list(moved.values_list("pk", flat=True)[:SAMPLE]):
        yield Problem(
            f"Examples in another split than their prompt: {listed(found)}.",
            "Report this as a bug: the gate could see what was trained on.",
        )
    latest = Snapshot.objects.order_by().values("project").annotate(last=Max("pk")).values("last")
    both = (
        SnapshotItem.objects.filter(snapshot__in=latest)
        .order_by()
        .values("snapshot", "completion__prompt")
        .annotate(splits=Count("split", distinct=True))
        .filter(splits__gt=1)
    )
    if prompts := sorted(both.values_list("completion__prompt", flat=True)[:SAMPLE]):
        yield Problem(
            f"The latest snapshot has prompts in more than one split: {listed(prompts)}.",
            "Do not release that run's adapter; start a new run, and report this as a bug.",
        )


def live_versions() -> Iterator[Problem]:
    releases = Release.objects.filter(live=True).select_related("adapter")
    live = {release.project_id: release.version for release in releases}
    for project in Project.objects.filter(deletion=None).order_by("pk"):
        released = live.get(project.pk, BASE_VERSION)
        if project.live_version != released:
            yield Problem(
                f"{project.slug} answers as {project.live_version}, but its live release is "
                f"{released}.",
                "Release the version that should be live once more.",
            )
