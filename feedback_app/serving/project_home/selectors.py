"""What waits for people in a project, and the first steps of a new one."""

from collections.abc import Iterator
from dataclasses import dataclass

from django.urls import reverse

from feedback_app.accounts.models import Role
from feedback_app.db.bounded_count import LISTED, counted
from feedback_app.feedback.adjudication.selectors import waiting
from feedback_app.feedback.gold.selectors import pauses_open
from feedback_app.feedback.models import BASE_VERSION, Project
from feedback_app.feedback.prompts.completions import version_number
from feedback_app.feedback.prompts.selectors import sampling_stuck
from feedback_app.serving.models import Release
from feedback_app.serving.releases.timeline import fallback_of, timeline
from feedback_app.training.forgetting.erased_votes import erased_votes
from feedback_app.training.models import Adapter, BlindPair, GateOutcome, PairBatch, Run

#: Versions that wait for a release are listed up to this number.
VERSIONS_LISTED = 3


@dataclass(frozen=True)
class Task:
    """Something that somebody has to do; `url` is the page where it is done."""

    text: str
    url: str
    bad: bool = False


@dataclass(frozen=True)
class Step:
    """A step towards the first better version."""

    title: str
    text: str
    url: str
    link: str
    done: bool


def several(count: int, one: str, many: str = "") -> str:
    """Return 'n things', or 'more than n things' for a count that was stopped at its bound."""
    bounded = f"More than {LISTED:,}" if count > LISTED else f"{count:,}"
    return f"{bounded} {one if count == 1 else many or one + 's'}"


def tasks_of_admins(project: Project) -> list[Task]:
    """Return what waits for an admin, failures first."""
    return [*_failures(project), *_decisions(project), *_versions_to_release(project)]


def _failures(project: Project) -> Iterator[Task]:
    slug = project.slug
    if fallback := fallback_of(timeline(project, {})[:1]):
        text = f"{fallback.version} is live because the version before it could not be served"
        yield Task(text, reverse("releases", args=[slug]), bad=True)
    last = project.runs.evaluated().newest_first().first()
    if last is not None and last.status == Run.Status.FAILED:
        yield Task(f"Run {last.number} failed", reverse("run", args=[slug, last.number]), bad=True)
    if sampling_stuck(project):
        yield Task(
            "Answers cannot be generated", reverse("project-settings", args=[slug]), bad=True
        )
    if votes := erased_votes(project):
        yield Task(
            f"{project.live_version} learned from {several(votes, 'vote')} of people who are "
            "erased since: train again and release",
            reverse("runs", args=[slug]),
            bad=True,
        )


def _decisions(project: Project) -> Iterator[Task]:
    slug = project.slug
    found = waiting(project)
    if found.contested:
        text = several(found.contested, "disagreement")
        yield Task(f"{text} to decide", reverse("resolve", args=[slug]))
    if found.asked:
        text = several(found.asked, "answer")
        yield Task(f"{text} sent back for a decision", reverse("resolve", args=[slug]))
    if flags := counted(project.completions.filter(flagged=True), most=LISTED):
        yield Task(f"{several(flags, 'flagged answer')} to look at", reverse("flags", args=[slug]))
    if pauses := counted(pauses_open(project), most=LISTED):
        people = several(pauses, "person is paused", "people are paused")
        yield Task(f"{people} after wrong gold answers", reverse("gold", args=[slug]))


def _versions_to_release(project: Project) -> Iterator[Task]:
    """Yield the versions that were trained after the live one, passed the gate and never were
    live."""
    live = version_number(project.live_version) or 0
    versions = (
        project.adapters.usable()
        .filter(gate_outcome=GateOutcome.PASSED, run__number__gt=live, releases=None)
        .select_related("run")
        .only("name", "run__number")
        .newest_first()[:VERSIONS_LISTED]
    )
    for version in versions:
        yield Task(
            f"{version.name} passed the gate and is not released",
            reverse("run", args=[project.slug, version.run.number]),
        )


def tasks_of_annotators(project: Project) -> list[Task]:
    """Return what waits for annotators."""
    found = []
    queue = project.completions.in_queue().filter(vote_count=0)
    if unjudged := counted(queue, most=LISTED):
        url = reverse("annotate", args=[project.slug])
        found.append(Task(f"{several(unjudged, 'answer')} without a vote", url))
    open_batches = PairBatch.objects.open().filter(project=project)
    pairs = BlindPair.objects.filter(batch__in=open_batches.values("pk"), votes=None)
    if unjudged := counted(pairs, most=LISTED):
        url = reverse("pairs", args=[project.slug])
        found.append(Task(f"{several(unjudged, 'blind pair')} to judge", url))
    return found


def first_steps(project: Project) -> list[Step]:
    """Return the steps of a project that has never released a version, else an empty list."""
    if Release.objects.filter(project=project, adapter__isnull=False).exists():
        return []
    slug = project.slug
    has_prompts = project.prompts.exists()
    voted = project.votes.exists()
    trained = Adapter.objects.filter(project=project).exists()
    return [
        Step(
            "Add prompts",
            "Paste questions, or import a file, also with answers that people voted on elsewhere.",
            reverse("prompts", args=[slug]),
            "Prompts",
            has_prompts,
        ),
        Step(
            "Generate answers",
            f"{BASE_VERSION.capitalize()} answers every prompt; annotators judge the answers.",
            reverse("prompts", args=[slug]),
            "Sample answers",
            project.completions.exists(),
        ),
        Step(
            "Invite annotators",
            "Each answer gets a thumb up or down. You can judge answers yourself, too.",
            reverse("people", args=[slug]),
            "Invite people",
            project.memberships.exclude(role=Role.VIEWER).count() > 1,
        ),
        Step(
            "Vote",
            "Fifty votes, ups and downs, are enough for a first try.",
            reverse("annotate", args=[slug]),
            "Annotate",
            voted,
        ),
        Step(
            "Train",
            "A run learns from the votes, and the gate compares the new version with the live one.",
            reverse("runs", args=[slug]),
            "Train",
            trained,
        ),
        Step(
            "Release",
            "A version that passed the gate answers in the demo; votes there feed the next run.",
            reverse("releases", args=[slug]),
            "Releases",
            False,
        ),
    ]
