"""The primary measure People: do people prefer the candidate's answers to live's, asked blind?"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from feedback_app.training.gate.people.counts import FAILED, PairCounts
from feedback_app.training.gate.results import LEAST_PROMPTS, LEVEL, RuleResult, named
from feedback_app.training.models import GateOutcome, PairBatch
from feedback_app.training.stats.sequential import FAR, Reading, State, comparisons_to_go, read
from feedback_app.web.text.plurals import number_of

_ADVICE = (
    "More test prompts give more pairs: raise “Test prompts at first”. Where people often see no "
    "difference, training has changed little."
)


_ONE_PERSON_ADVICE = "Ask other annotators to judge the pairs of the next run."
#: The preference that a batch should be large enough for.
SHARE = 0.65


def people_read(counts: PairCounts, *, level: float = LEVEL) -> Reading:
    """Return the sequential test after these votes. It may be read after each of them.

    The test is two-sided: an equal version passes with a probability of `level`, and fails with the
    same.
    """
    return read(counts.wins, counts.losses, alpha=2 * level)


def pairs_enough(*, level: float = LEVEL) -> int:
    """Return how many pairs decide if people prefer one version on SHARE of them, without ties."""
    return 1 + (comparisons_to_go(SHARE, 1 - SHARE, alpha=2 * level) or FAR)


def people_decide(found: Mapping[str, Any] | None, live: str, level: float = LEVEL) -> RuleResult:
    """Return the rule's result for the part "people" of a report (counts.PairCounts)."""
    result = RuleResult(
        "people",
        "People",
        GateOutcome.UNDECIDED,
        "",
        border=0.5,
        counted="pairs",
        advice=_ADVICE,
    )
    if found is None:
        # also while the evaluation may still sample more: each prompt is a pair
        enough = pairs_enough(level=level)
        return replace(result, text="people were not asked", counted="prompts", needed=enough)
    counts = PairCounts(**found)
    if counts.end == FAILED:
        return replace(result, text="people were not asked, as a guard has failed")
    if counts.pairs < LEAST_PROMPTS:
        text = (
            f"it answers {counts.pairs} of {counts.pairs + counts.same} imported test prompts "
            f"unlike {named(live)}; people are asked from {LEAST_PROMPTS} on"
        )
        return replace(result, n=counts.pairs, text=text)
    reading = people_read(counts, level=level)
    decided = counts.wins + counts.losses
    result = replace(
        result,
        n=counts.judged,
        value=counts.wins / decided if decided else None,
        low=reading.low if decided else None,
        high=reading.high if decided else None,
    )
    said = f"preferred to {named(live)} on {_of_pairs(counts)}"
    if counts.of_one_person and reading.state != State.OPEN and counts.end:
        text = f"{said}, but one person judged {counts.largest} of {counts.judged} pairs"
        return replace(result, text=text, advice=_ONE_PERSON_ADVICE)
    if reading.state == State.BETTER and not counts.of_one_person:
        text = f"better than {named(live)}: {said}"
        return replace(result, outcome=GateOutcome.PASSED, text=text)
    if reading.state == State.WORSE and not counts.of_one_person:
        text = f"worse than {named(live)}: {said}"
        return replace(result, outcome=GateOutcome.FAILED, text=text)
    progress = f"people have judged {counts.judged} of {number_of(counts.pairs, 'pair')}"
    if not counts.end:
        return replace(result, text=progress, advice="")
    if counts.end == PairBatch.End.CLOSED:
        progress += ", then an admin closed them"
    needed = _needed(counts, reading)
    more = (
        f"about {number_of(needed, 'pair')} would decide"
        if needed
        else "more pairs would hardly decide"
    )
    text = f"{progress}: {said}; {more}" if decided else progress
    return replace(result, text=text, needed=needed)


def _of_pairs(counts: PairCounts) -> str:
    decided = counts.wins + counts.losses
    share = counts.wins / decided if decided else 0.0
    text = f"{share:.0%} of {round(decided)} pairs"
    return f"{text}, with {counts.ties} ties" if counts.ties else text


def _needed(counts: PairCounts, reading: Reading) -> int | None:
    """Return how many pairs would decide, if people went on as until now."""
    decided = counts.wins + counts.losses
    if not decided or reading.to_go is None:
        return None
    return math.ceil((decided + reading.to_go) * counts.judged / decided)
