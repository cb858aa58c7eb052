"""The primary rule: a test that a version is better than live, by the project's measure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from feedback_app.feedback.models import BASE_VERSION
from feedback_app.training.gate.judge.agreement import counts
from feedback_app.training.gate.measures import Measures
from feedback_app.training.gate.people.rule import people_decide
from feedback_app.training.gate.results import LEAST_PROMPTS, RuleResult, finite, named
from feedback_app.training.gate.settings import GateSettings
from feedback_app.training.gate.statistics import (
    MeanTest,
    area,
    area_by_prompt,
    p_better_than_chance,
    prompts_needed,
    votes_needed,
)
from feedback_app.training.models import GateOutcome
from feedback_app.web.text.plurals import number_of

#: Fewest test votes of each class for a statement about ranking against another adapter.
LEAST_OF_A_CLASS = 10
#: From this many on the area's own error is enough: a permutation test of a thousand takes 0.2 s.
MANY_OF_A_CLASS = 50
#: Prompts that a judge model is asked about at most, and the largest share of them without a valid
#: answer: a version whose answers confuse the judge must not win by that.
MOST_JUDGED, MOST_FAILURES = 200, 0.2


def primary_decide(
    measures: Measures, settings: GateSettings, level: float, seed: int
) -> RuleResult:
    """Return the result of the project's primary measure; `auto` takes the predicted up-rate where
    it can be trusted, else the ranking of test votes."""
    model = measures.up_model
    # without anything to find, a calibrated model can be worse than always saying the mean
    trusted = (
        model is not None
        and model["auc"] >= settings.minimum_auc
        and model["brier"] < model["brier_of_mean"]
    )
    if settings.primary == "people":
        # the level of one look: the sequential test may be read after every vote
        return people_decide(measures.asked_people, measures.live, level)
    if settings.primary == "judge":
        return _judge(measures, settings, level, seed)
    if settings.primary == "up" and not trusted:
        return _up_untrusted(model, settings)
    if settings.primary == "up" or (settings.primary == "auto" and trusted):
        return _up_rate(measures, settings, level, seed)
    return _ranking(measures, settings, level, seed)


_UP_LABEL = "Predicted up-rate"
_UP_ADVICE = (
    "More votes on prompts of the training and validation splits make the prediction better and "
    "give training more to learn from; a higher learning rate or more epochs change more."
)


def _up_untrusted(model: Mapping[str, Any] | None, settings: GateSettings) -> RuleResult:
    if model is None:
        text = "there are too few votes to predict from"
    elif model["auc"] >= settings.minimum_auc:
        text = "the prediction of unseen votes is no better than their mean"
    else:
        text = (
            f"the prediction ranks unseen votes right in {model['auc']:.0%} of pairs; it counts "
            f"from {settings.minimum_auc:.0%} on"
        )
    return RuleResult(
        "up",
        _UP_LABEL,
        GateOutcome.UNDECIDED,
        text,
        n=0 if model is None else model["ups"] + model["downs"],
        counted="votes",
        advice=_UP_ADVICE,
    )


def _up_rate(measures: Measures, settings: GateSettings, level: float, seed: int) -> RuleResult:
    result = _up_against(measures, measures.live, 0.0, settings, level, seed)
    if measures.live == BASE_VERSION or settings.against_live == "better":
        return result
    kept = _up_against(measures, measures.live, -settings.worthwhile, settings, level, seed)
    gained = _up_against(measures, BASE_VERSION, 0.0, settings, level, seed)
    if kept.outcome != GateOutcome.PASSED:
        return kept
    return replace(gained, text=f"not worse than live, and {gained.text}")


def _up_against(
    measures: Measures,
    other: str,
    border: float,
    settings: GateSettings,
    level: float,
    seed: int,
) -> RuleResult:
    """Test whether the predicted up-rate minus `other`'s is above `border`."""
    values = measures.paired("up", other)
    result = RuleResult(
        "up", _UP_LABEL, GateOutcome.UNDECIDED, "", border=border, n=len(values), advice=_UP_ADVICE
    )
    if len(values) < LEAST_PROMPTS:
        return replace(
            result, text="there were too few prompts to measure it", needed=LEAST_PROMPTS
        )
    test = MeanTest(values, seed=seed)
    estimate = test.estimate(level)
    result = replace(
        result,
        value=test.mean,
        low=finite(float, estimate.low),
        high=finite(float, estimate.high),
    )
    against = f"{100 * test.mean:+.1f} points against {named(other)}".replace("-", "−")
    if test.p_above(border) <= level:
        word = "better than" if border == 0 else "not worse than"
        return replace(result, outcome=GateOutcome.PASSED, text=f"{word} {named(other)}: {against}")
    if test.p_below(border + settings.worthwhile) <= level:
        text = f"worse than {named(other)}"
        if border == 0 and test.p_below(0) > level:
            text = f"not better than {named(other)} by {100 * settings.worthwhile:g} points"
        return replace(result, outcome=GateOutcome.FAILED, text=f"{text}: {against}")
    needed = prompts_needed(
        deviation=test.deviation,
        distance=_distance(test.mean - border, settings.worthwhile),
        level=level,
    )
    return replace(
        result,
        text=f"{against}; about {max(needed, test.n + 1)} prompts would decide",
        needed=max(needed, test.n + 1),
    )


def _distance(gain: float, worthwhile: float) -> float:
    """Return how far the true gain is taken to be from what would decide: from 0, which it has to
    be above, or from `worthwhile`, which it has to be below to fail."""
    return max(gain, worthwhile - gain, worthwhile)


_JUDGE_LABEL = "Judge model"
_JUDGE_ADVICE = (
    "More test prompts could decide it. A judge that agrees too little with people's votes can be "
    "replaced by another model, or another rule can be the primary one."
)


def _judge(measures: Measures, settings: GateSettings, level: float, seed: int) -> RuleResult:
    """Test whether the judge prefers the candidate's answers to live's on more than half of the
    prompts, ties counted half, if the judge agrees with people."""
    judge = measures.judge
    result = RuleResult(
        "judge", _JUDGE_LABEL, GateOutcome.UNDECIDED, "", border=0.5, advice=_JUDGE_ADVICE
    )
    if judge is None:
        return replace(result, text="the judge model was not asked")
    values = list(judge["prompts"].values())
    result = replace(result, n=len(values))
    if doubt := _judge_doubted(judge, settings):
        return replace(result, text=doubt)
    if len(values) < LEAST_PROMPTS:
        late = "its time was over before it had judged enough prompts"
        few = "there were too few prompts to measure it"
        if judge["late"]:
            return replace(result, text=late)
        return replace(result, text=few, needed=LEAST_PROMPTS)
    # centred on no preference, as are the pseudo-observations of a known range
    test = MeanTest([value - 0.5 for value in values], reach=0.5, seed=seed)
    estimate = test.estimate(level)
    share = 0.5 + test.mean
    result = replace(result, value=share, low=0.5 + estimate.low, high=0.5 + estimate.high)
    live = named(measures.live)
    against = f"preferred to {live} on {share:.0%} of {test.n} prompts"
    if test.p_above(0) <= level:
        return replace(result, outcome=GateOutcome.PASSED, text=f"better than {live}: {against}")
    if test.p_below(settings.worthwhile) <= level:
        text = f"worse than {live}"
        if test.p_below(0) > level:
            text = f"not better than {live} by {100 * settings.worthwhile:g} points"
        return replace(result, outcome=GateOutcome.FAILED, text=f"{text}: {against}")
    distance = _distance(test.mean, settings.worthwhile)
    wanted = prompts_needed(deviation=test.deviation_assumed, distance=distance, level=level)
    wanted = max(wanted, test.n + 1)
    text = f"{against}; about {wanted} prompts would decide"
    if judge["late"]:
        text += ", but the judge's time was over"
    elif wanted > MOST_JUDGED:
        text += f", but a judge is asked about {MOST_JUDGED} at most"
    more = test.n < MOST_JUDGED and not judge["late"]
    needed = min(wanted, MOST_JUDGED) if more else None
    return replace(result, text=text, needed=needed)


def _judge_doubted(judge: Mapping[str, Any], settings: GateSettings) -> str:
    """Return why a judge's preferences do not count, or "" if they do."""
    if judge["error"]:
        return f"the judge model gave no verdict: {judge['error']}"
    kappa, pairs = judge["kappa"], judge["pairs"]
    if kappa is None:
        return (
            "its agreement with people is unknown: too few prompts of the training and validation "
            "splits have a liked and a disliked answer that it compared"
        )
    if not counts(kappa, judge["kappa_low"], settings.minimum_kappa):
        text = f"it agrees with people's votes with a κ of {kappa:.2f} on {pairs} pairs"
        if kappa < settings.minimum_kappa:
            return f"{text}; it counts from {settings.minimum_kappa:g} on"
        return f"{text}, which may be chance"
    asked = len(judge["prompts"]) + judge["failures"]
    if judge["failures"] > MOST_FAILURES * asked:
        return f"it gave no valid answer on {judge['failures']} of {asked} prompts"
    return ""


_RANKING_LABEL = "Liked answers ranked above disliked ones"
_RANKING_ADVICE = (
    "More votes could decide it. If ranking is poor with many votes, look at the examples that fit "
    "worst: their labels may be wrong."
)


def _ranking(measures: Measures, settings: GateSettings, level: float, seed: int) -> RuleResult:
    """Rank the test votes by reward: better than chance, and against a live adapter better or not
    worse than it, by `worthwhile`."""
    votes = measures.votes(measures.candidate)
    n = len(votes.labels)
    result = RuleResult(
        "ranking",
        _RANKING_LABEL,
        GateOutcome.UNDECIDED,
        "",
        border=0.5,
        n=n,
        counted="votes",
        advice=_RANKING_ADVICE,
    )
    if votes.fewest == 0:
        missing = "liked" if not any(votes.labels) else "disliked"
        return replace(
            result, text=f"the test split has no {missing} answer", needed=_votes(0.65, 0.5, level)
        )
    value = area(votes.scores, votes.labels)
    share = sum(votes.labels) / n
    result = replace(result, value=value)
    if votes.spread < LEAST_PROMPTS:
        # however many answers they have, a few prompts say nothing about others
        spread_enough = math.ceil(LEAST_PROMPTS * n / votes.spread)
        return replace(
            result,
            text=f"the test votes are spread like those on {number_of(int(votes.spread), 'prompt')}"
            f"; they count from {LEAST_PROMPTS} on",
            needed=max(n + 1, spread_enough, _votes(max(value, 0.6), share, level)),
        )
    by_prompt = area_by_prompt(votes)
    test = MeanTest(by_prompt, seed=seed)
    if votes.fewest >= 2:
        estimate = test.estimate(level)
        result = replace(
            result,
            low=max(0.0, estimate.low) if math.isfinite(estimate.low) else None,
            high=min(1.0, estimate.high) if math.isfinite(estimate.high) else None,
        )
    chance = test.p_above(0.5)
    if votes.fewest < MANY_OF_A_CLASS:
        # permuting labels within one prompt may show something of that prompt alone
        chance = max(chance, p_better_than_chance(votes, seed=seed))
    if chance > level:
        if votes.fewest >= LEAST_OF_A_CLASS and test.p_below(0.55) <= level:
            return replace(result, outcome=GateOutcome.FAILED, text="no better than chance")
        needed = max(n + 1, _votes(max(value, 0.6), share, level))
        return replace(
            result, text=f"may be chance; about {needed} test votes would decide", needed=needed
        )
    if measures.live == BASE_VERSION:
        return replace(result, outcome=GateOutcome.PASSED, text="better than chance")
    return _ranking_against_live(measures, settings, result, by_prompt, level, seed)


def _ranking_against_live(
    measures: Measures,
    settings: GateSettings,
    result: RuleResult,
    by_prompt: Sequence[float],
    level: float,
    seed: int,
) -> RuleResult:
    live = measures.votes(measures.live)
    if live.fewest < LEAST_OF_A_CLASS:
        needed = math.ceil(LEAST_OF_A_CLASS * len(live.labels) / live.fewest)
        return replace(
            result,
            text=f"too few test votes to compare with live; about {needed} would do",
            needed=needed,
        )
    differences = [a - b for a, b in zip(by_prompt, area_by_prompt(live), strict=True)]
    test = MeanTest(differences, seed=seed)
    better = settings.against_live == "better"
    border = 0.0 if better else -settings.worthwhile
    estimate = test.estimate(level)
    result = replace(
        result,
        value=test.mean,
        low=finite(float, estimate.low),
        high=finite(float, estimate.high),
        border=border,
    )
    against = f"{test.mean:+.2f} against live".replace("-", "−")
    if test.p_above(border) <= level:
        word = "better than live" if better else "not worse than live"
        return replace(result, outcome=GateOutcome.PASSED, text=f"{word}: {against}")
    if test.p_below(border + settings.worthwhile) <= level:
        return replace(result, outcome=GateOutcome.FAILED, text=f"not better than live: {against}")
    distance = _distance(test.mean - border, settings.worthwhile)
    votes = prompts_needed(deviation=test.deviation, distance=distance, level=level)
    votes = max(math.ceil(votes * len(live.labels) / test.n), len(live.labels) + 1)
    return replace(result, text=f"{against}; about {votes} test votes would decide", needed=votes)


def _votes(value: float, share: float, level: float) -> int:
    return votes_needed(area=min(value, 0.95), liked_share=share, level=level)
