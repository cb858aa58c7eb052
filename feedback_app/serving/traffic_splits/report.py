"""The report of a split: its verdict, and both sides next to each other."""

import statistics
from dataclasses import dataclass

from django.core.cache import cache

from feedback_app.db.bounded_count import counted
from feedback_app.feedback.models import Project, Verdict
from feedback_app.serving.models import AssignmentAnswer, TrafficSplit
from feedback_app.serving.releases.figures import UpRate
from feedback_app.serving.stats.two_rates import Reading
from feedback_app.serving.traffic_splits.assignments import RUNNING
from feedback_app.serving.traffic_splits.services import split_read
from feedback_app.training.stats.sequential import State, interval
from feedback_app.web.text.plurals import number_of

#: The newest answers of a side that medians and shares are computed from.
ANSWERS_READ = 2_000
ENDED_SHOWN = 5
#: Ended splits change only when a person is erased.
CACHE_SECONDS = 600


@dataclass(frozen=True)
class Side:
    """One side. Times in seconds; None where nothing was measured yet.

    `asked_again` is the share of answers that were generated again for the same message, `left` of
    those that the reader stopped or left, `failed` of those that the engine did not finish.
    """

    version: str
    conversations: int
    rate: UpRate | None
    answers: int
    first_seconds: float | None
    seconds: float | None
    words: float | None
    asked_again: float | None
    left: float | None
    failed: float | None


@dataclass(frozen=True)
class SplitReport:
    """A split with its test and its two sides, the candidate first."""

    split: TrafficSplit
    reading: Reading
    verdict: str
    sides: list[Side]


def running_split(project: Project) -> TrafficSplit | None:
    splits = project.traffic_splits.select_related("candidate", "started_by")
    split = splits.filter(status=RUNNING).first()
    if split is not None:
        split.project = project
    return split


def ended_splits(project: Project) -> list[SplitReport]:
    """Return the latest ended splits, newest first."""
    splits = project.traffic_splits.exclude(status=RUNNING).select_related("candidate")
    return [split_report(split) for split in splits.order_by("-pk")[:ENDED_SHOWN]]


def split_report(split: TrafficSplit) -> SplitReport:
    """Return the report; what it counts is cached until there is something new to count."""
    key = state_key(split)
    known: tuple[Reading, list[Side]] | None = cache.get(key)
    if known is None:
        sides = [side(split, candidate=True), side(split, candidate=False)]
        known = split_read(split), sides
        cache.set(key, known, CACHE_SECONDS)
    reading, sides = known
    return SplitReport(split, reading, verdict(split, reading), sides)


def state_key(split: TrafficSplit) -> str:
    """Return a key that changes with every new conversation, answer and counted vote of a split
    that is running."""
    answers = AssignmentAnswer.objects.filter(assignment__split=split)
    rows = (
        split.assignments.exclude(counted=None).order_by("-counted").values_list("counted"),
        split.assignments.order_by("-pk").values_list("pk"),
        answers.order_by("-pk").values_list("pk"),
    )
    newest = [found[0] if (found := each.first()) else 0 for each in rows] if split.running else []
    return f"split:{split.pk}:{split.status}:{newest}".replace(" ", "")


def verdict(split: TrafficSplit, reading: Reading) -> str:
    """Return the verdict as text."""
    if reading.state == State.BETTER:
        return "Candidate better"
    if reading.state == State.WORSE:
        return "Worse: stopped" if not split.running else "Worse than live"
    if not split.running:
        return "No difference shown"
    if reading.to_go is None:
        return "No difference yet"
    return f"No difference yet, about {number_of(reading.to_go, 'person', 'people')} to go"


def side(split: TrafficSplit, *, candidate: bool) -> Side:
    """Return one side, in three queries."""
    assignments = split.assignments.filter(candidate=candidate)
    verdicts = list(assignments.exclude(counted=None).values_list("verdict", flat=True))
    ups = verdicts.count(Verdict.UP)
    rate = None
    if verdicts:
        low, high = interval(ups, len(verdicts) - ups)
        rate = UpRate(ups, len(verdicts), low, high)
    rows = list(
        AssignmentAnswer.objects.filter(assignment__split=split, assignment__candidate=candidate)
        .order_by("-pk")
        .values_list(
            "end",
            "first_seconds",
            "seconds",
            "words",
            "assignment",
            "assignment__key",
            "completion__prompt",
        )[:ANSWERS_READ]
    )
    whole = [row for row in rows if row[0] == AssignmentAnswer.End.WHOLE]
    # without a user name the same first message may come from many people
    chats = [row for row in rows if row[6] is not None and not row[5].startswith("said:")]
    questions = {(assignment, prompt) for *_, assignment, _, prompt in chats}

    def share(end: AssignmentAnswer.End) -> float | None:
        return sum(row[0] == end for row in rows) / len(rows) if rows else None

    return Side(
        version=split.candidate.name if candidate else split.live_version,
        conversations=counted(assignments),
        rate=rate,
        answers=len(rows),
        first_seconds=median([row[1] for row in rows if row[1] is not None]),
        seconds=median([row[2] for row in whole]),
        words=median([float(row[3]) for row in whole]),
        asked_again=1 - len(questions) / len(chats) if chats else None,
        left=share(AssignmentAnswer.End.LEFT),
        failed=share(AssignmentAnswer.End.FAILED),
    )


def median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None
