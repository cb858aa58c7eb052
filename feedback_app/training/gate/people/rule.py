"""The primary measure People: do people prefer the candidate's answers to live's, asked blind?"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from feedback_app.training.gate.people.tally import FAILED, Tally
from feedback_app.training.gate.results import LEAST_PROMPTS, LEVEL, RuleResult, named
from feedback_app.training.models import GateOutcome, PairBatch
from feedback_app.training.stats.sequential import FAR, Reading, State, comparisons_to_go, read

_ADVICE = (
    "More test prompts give more pairs: raise “Test prompts at first”. Where people often see no "
    "difference, training has changed little."
)


#: The preference that a batch should be large enough for.
SHARE = 0.65


def people_read(tally: Tally, *, level: float = LEVEL) -> Reading:
    """Return the sequential test after these votes. It may be read after each of them.

    The test is two-sided: an equal version passes with a probability of `level`, and fails with the
    same.
    """
    return read(tally.wins, tally.losses, alpha=2 * level)


def pairs_enough(*, level: float = LEVEL) -> int:
    """Return how many pairs decide if people prefer one version on SHARE of them, without ties."""
    return 1 + (comparisons_to_go(SHARE, 1 - SHARE, alpha=2 * level) or FAR)


def people_decide(found: Mapping[str, Any] | None, live: str, level: float = LEVEL) -> RuleResult:
    """Return the rule's result for the part "people" of a report (tally.Tally)."""
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
    tally = Tally(**found)
    if tally.end == FAILED:
        return replace(result, text="people were not asked, as a guard has failed")
    if tally.pairs < LEAST_PROMPTS:
        text = (
            f"it answers {tally.pairs} of {tally.pairs + tally.same} imported test prompts unlike "
            f"{named(live)}; people are asked from {LEAST_PROMPTS} on"
        )
        return replace(result, n=tally.pairs, text=text)
    reading = people_read(tally, level=level)
    decided = tally.wins + tally.losses
    result = replace(
        result,
        n=tally.judged,
        value=tally.wins / decided if decided else None,
        low=reading.low if decided else None,
        high=reading.high if decided else None,
    )
    said = f"preferred to {named(live)} on {_of_pairs(tally)}"
    if reading.state == State.BETTER:
        text = f"better than {named(live)}: {said}"
        return replace(result, outcome=GateOutcome.PASSED, text=text)
    if reading.state == State.WORSE:
        text = f"worse than {named(live)}: {said}"
        return replace(result, outcome=GateOutcome.FAILED, text=text)
    progress = f"people have judged {tally.judged} of {tally.pairs} pairs"
    if not tally.end:
        return replace(result, text=progress, advice="")
    if tally.end == PairBatch.End.CLOSED:
        progress += ", then an admin closed them"
    needed = _needed(tally, reading)
    more = f"about {needed} pairs would decide" if needed else "more pairs would hardly decide"
    text = f"{progress}: {said}; {more}" if decided else progress
    return replace(result, text=text, needed=needed)


def _of_pairs(tally: Tally) -> str:
    decided = tally.wins + tally.losses
    share = tally.wins / decided if decided else 0.0
    text = f"{share:.0%} of {round(decided)} pairs"
    return f"{text}, with {tally.ties} ties" if tally.ties else text


def _needed(tally: Tally, reading: Reading) -> int | None:
    """Return how many pairs would decide, if people went on as until now."""
    decided = tally.wins + tally.losses
    if not decided or reading.to_go is None:
        return None
    return math.ceil((decided + reading.to_go) * tally.judged / decided)
