"""Services of comparisons: two versions answer the same question and are judged blind.

The better answer counts as an up vote and the other as a down vote, as the KTO paper splits
preference pairs (Ethayarajh et al. 2024).
"""

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from django.core.cache import cache
from django.db import transaction

from feedback_app.accounts.models import User
from feedback_app.db import bounded_count
from feedback_app.feedback.models import Completion, Project, Source, Verdict
from feedback_app.feedback.prompts.services import Message
from feedback_app.feedback.votes.services import vote_cast, vote_undo
from feedback_app.serving.demo.conversations import MESSAGE_LIMIT, version_exists
from feedback_app.serving.demo.generation import answer_stream, member_is_active, streamed_store
from feedback_app.serving.engine.client import Streamed
from feedback_app.serving.models import Comparison
from feedback_app.training.stats.sequential import Reading, read
from feedback_app.web.errors import UserError

Side = Literal["left", "right"]
SIDES: tuple[Side, Side] = ("left", "right")
RESULTS_SHOWN = 20
CACHE_SECONDS = 60

UP, DOWN = Verdict.UP, Verdict.DOWN
#: The verdicts of a choice on the left and the right answer.
VERDICTS: dict[str, tuple[Verdict, Verdict]] = {
    Comparison.Choice.LEFT: (UP, DOWN),
    Comparison.Choice.RIGHT: (DOWN, UP),
    Comparison.Choice.BOTH: (UP, UP),
    Comparison.Choice.NEITHER: (DOWN, DOWN),
}


def comparison_begin(
    *, project: Project, user: User, question: str, versions: tuple[str, str]
) -> Comparison:
    """Create a comparison of two versions in random order. Raises UserError."""
    question = question.strip()
    if not question:
        raise UserError("Write something first.")
    if len(question) > MESSAGE_LIMIT:
        raise UserError(f"A message has at most {MESSAGE_LIMIT:,} characters.")
    if unknown := sorted(name for name in set(versions) if not version_exists(project, name)):
        raise UserError(f"This project has no version {', '.join(unknown)}.")
    if versions[0] == versions[1]:
        raise UserError("Choose two different versions.")
    left, right = versions if secrets.randbelow(2) else versions[::-1]
    return Comparison.objects.create(
        project=project, user=user, question=question, left_version=left, right_version=right
    )


def side_is_open(comparison: Comparison, side: Side) -> bool:
    """Return whether this answer is missing or incomplete, and nothing is judged yet."""
    answer: Completion | None = getattr(comparison, side)
    broken = answer is None or answer.finish_reason == Completion.Finish.ABORTED
    return broken and not comparison.choice


def side_stream(*, comparison: Comparison, side: Side) -> Iterator[str]:
    """Yield one side's answer as the engine generates it, then store it.

    Raises UserError if the answer is complete, or the version was discarded since; EngineError if
    the engine failed.
    """
    if not side_is_open(comparison, side):
        raise UserError("This answer is complete.")
    project = comparison.project
    messages: list[Message] = [{"role": "user", "content": comparison.question}]
    version: str = getattr(comparison, f"{side}_version")
    if not version_exists(project, version):
        # not its name: nothing is judged yet
        raise UserError("A version of this comparison was discarded: it cannot be used any more.")
    own = Comparison.objects.filter(pk=comparison.pk)

    def store(streamed: Streamed) -> None:
        with transaction.atomic():
            locked = own.select_for_update(of=("self",)).select_related("left", "right").get()
            if side_is_open(locked, side):  # of two concurrent answers the first is kept
                answer = streamed_store(
                    project=project,
                    messages=messages,
                    streamed=streamed,
                    reader=comparison.user_id,
                )
                own.update(**{side: answer, f"{side}_error": ""})

    return answer_stream(
        project=project,
        messages=messages,
        version=version,
        may_read=member_is_active(comparison.user_id, comparison.project),
        store=store,
        fail=lambda why: own.update(**{f"{side}_error": why}),
    )


def comparison_judge(*, comparison: Comparison, choice: str) -> None:
    """Store the choice and cast its two votes.

    Raises UserError while an answer is missing, and after the names have been shown.
    """
    if choice not in VERDICTS:
        raise UserError("Choose one of: " + ", ".join(VERDICTS) + ".")
    with transaction.atomic():
        locked = (
            Comparison.objects.select_for_update(of=("self",))
            .select_related("left__project", "right__project", "user")
            .get(pk=comparison.pk)
        )
        if locked.choice == choice:
            return  # a double click
        if locked.choice:
            raise UserError("You have judged this comparison already.")
        if not locked.ready:
            raise UserError("An answer is missing: wait for it, or generate it again.")
        for side, verdict in zip(SIDES, VERDICTS[choice], strict=True):
            vote_cast(
                completion=getattr(locked, side),
                verdict=verdict,
                by=locked.user,
                source=Source.DEMO,
            )
        Comparison.objects.filter(pk=locked.pk).update(choice=choice)
    cache.delete(results_key(comparison.project))


def comparison_withdraw(*, comparison: Comparison) -> None:
    """Withdraw the judgement and its votes, for good: the names are known. Raises UserError."""
    with transaction.atomic():
        withdrawn = Comparison.objects.filter(pk=comparison.pk, choice__in=list(VERDICTS)).update(
            choice=Comparison.Choice.WITHDRAWN
        )
        if not withdrawn:
            raise UserError("There is no judgement to undo.")
        for answer in (comparison.left, comparison.right):
            if answer is not None:
                vote_undo(completion=answer, by=comparison.user, source=Source.DEMO)
    cache.delete(results_key(comparison.project))


@dataclass(frozen=True)
class ComparisonResult:
    """The results of two versions against each other: the numbers of comparisons; and `share`, the
    share of people whose first decided comparison `first` won, with `reading`, its test.

    The test assumes independent choices: those of one person are not, so it takes one of each.
    """

    first: str
    second: str
    wins: int
    losses: int
    both: int
    neither: int
    share: float | None
    reading: Reading

    @property
    def judged(self) -> int:
        return self.wins + self.losses + self.both + self.neither


def results(project: Project) -> list[ComparisonResult]:
    """Return the judged pairs, most judged first; the live version comes first in its pairs.

    They are of the newest `bounded_count.COUNTED` comparisons, and cached until one is judged.
    """
    key = results_key(project)
    found: list[ComparisonResult] | None = cache.get(key)
    if found is None:
        found = results_count(project)
        cache.set(key, found, CACHE_SECONDS)
    return found


def results_key(project: Project) -> str:
    return f"comparison-results:{project.pk}:{project.live_version}"


def results_count(project: Project) -> list[ComparisonResult]:
    judged = project.comparisons.filter(choice__in=list(VERDICTS)).order_by("-created_at", "-pk")
    rows = judged.values_list("left_version", "right_version", "choice", "user")
    newest = list(rows[: bounded_count.COUNTED])[::-1]
    counts = wins_by_pair(project, (row[:3] for row in newest))
    # of each person the first decided comparison of two versions
    firsts: dict[tuple[int, str, str], tuple[str, str, str]] = {}
    for left, right, choice, user in newest:
        if choice in (Comparison.Choice.LEFT, Comparison.Choice.RIGHT):
            pair = (user, min(left, right), max(left, right))
            firsts.setdefault(pair, (left, right, choice))
    people = wins_by_pair(project, firsts.values())
    found = [
        comparison_result(first, second, pair, people.get((first, second), {}))
        for (first, second), pair in counts.items()
    ]
    return sorted(found, key=lambda each: (-each.judged, each.first, each.second))[:RESULTS_SHOWN]


def wins_by_pair(
    project: Project, rows: Iterable[tuple[str, str, str]]
) -> dict[tuple[str, str], dict[str, int]]:
    """Return by pair how often each version won, or both or neither were good."""
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for left, right, choice in rows:
        first, second = sorted((left, right), key=lambda name: (name != project.live_version, name))
        winners: dict[str, str] = {Comparison.Choice.LEFT: left, Comparison.Choice.RIGHT: right}
        won = winners.get(choice, choice)
        pair = counts.setdefault((first, second), {})
        pair[won] = pair.get(won, 0) + 1
    return counts


def comparison_result(
    first: str, second: str, pair: dict[str, int], people: dict[str, int]
) -> ComparisonResult:
    wins, losses = people.get(first, 0), people.get(second, 0)
    return ComparisonResult(
        first,
        second,
        pair.get(first, 0),
        pair.get(second, 0),
        pair.get(Comparison.Choice.BOTH, 0),
        pair.get(Comparison.Choice.NEITHER, 0),
        wins / (wins + losses) if wins + losses else None,
        read(wins, losses),
    )
