"""The gate: what an adapter must show on the test split before it may go live.

- One primary rule says that the adapter is better than live. Several guards say that it has lost
  nothing else; each is a test of non-inferiority with a margin.
- A rule is passed if its interval lies on the right side of its border, failed if it lies on the
  wrong side, and undecided otherwise.
- The adapter passes if every rule is passed. All of them have to hold at once, so no correction is
  needed: the chance to pass wrongly is at most the level of one rule (intersection-union test,
  Berger 1982).
- It fails if any rule is failed. There are many chances for that, so the guards' p-values are
  adjusted (Holm 1979).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from textwrap import shorten
from typing import Any

from feedback_app.feedback.models import BASE_VERSION
from feedback_app.training.gate.judge.agreement import counts
from feedback_app.training.gate.measures import Measures
from feedback_app.training.gate.settings import GUARDS, GateSettings
from feedback_app.training.gate.statistics import (
    MeanTest,
    area,
    area_by_prompt,
    holm,
    p_better_than_chance,
    prompts_needed,
    votes_needed,
)
from feedback_app.training.models import GateOutcome

#: Chance of a wrong statement of one rule at each of two looks at growing data: 5 % together at
#: most. The bounds are those of a two-sided interval of 95 %.
LEVEL = 0.025
#: Fewest test votes of each class for a statement about ranking against another adapter.
LEAST_OF_A_CLASS = 10
#: From this many on the area's own error is used: a permutation test of a thousand takes 0.2 s.
MANY_OF_A_CLASS = 50
#: A phrase counts as inserted from this many words and this log-odds score on.
PHRASE_SEGMENTS, PHRASE_Z = 4, 3.0
LEAST_PROMPTS = 10
LEAST_PEOPLE = 3
#: Prompts that a judge model is asked about at most, and the largest share of them without a valid
#: answer: a version whose answers confuse the judge must not win by that.
MOST_JUDGED, MOST_FAILURES = 200, 0.2


@dataclass(frozen=True)
class RuleResult:
    """One rule's outcome, with all that its row on the page shows.

    `value`, `low`, `high` (one-sided bounds) and `border` are in the measure's own unit, None where
    there is none. `passes_above`: the right side of the border. `n` prompts or votes; `needed` as
    many would decide it, if nothing changes but their number.
    """

    key: str
    label: str
    outcome: GateOutcome
    text: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    border: float | None = None
    passes_above: bool = True
    n: int = 0
    counted: str = "prompts"
    needed: int | None = None
    primary: bool = False
    advice: str = ""


@dataclass(frozen=True)
class GateResult:
    """All rules with their outcome, and the settings that they used."""

    candidate: str
    opponent: str
    outcome: GateOutcome
    rules: list[RuleResult]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def won(self) -> bool:
        return self.outcome == GateOutcome.PASSED

    @property
    def sentence(self) -> str:
        """Return the verdict in one sentence."""
        return gate_sentence(self.outcome, [asdict(rule) for rule in self.rules])

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "won": self.won, "sentence": self.sentence}


def gate_decide(
    measures: Measures, settings: GateSettings, *, level: float = LEVEL, seed: int = 0
) -> GateResult:
    """Compare the candidate with the live version (the base if there is none) and the base.

    `level` is the chance of a wrong statement of one rule. The same measures and settings give the
    same result.
    """
    primary = _primary(measures, settings, level, seed)
    checks = [
        check
        for key, margin in settings.margins.items()
        if (check := _GUARDS[key](measures, margin)) is not None
    ]
    guards = _guards_decided(checks, level, seed)
    rules = [replace(primary, primary=True), *guards]
    return GateResult(
        candidate=measures.candidate,
        opponent=measures.live,
        outcome=_together([rule.outcome for rule in rules]),
        rules=rules,
        settings=settings.as_json(),
    )


def gate_sentence(outcome: str, rules: Sequence[Mapping[str, Any]]) -> str:
    """Return the gate's verdict as text, with the rules that decided it."""
    if outcome == GateOutcome.PASSED:
        return "It passed the gate and can be released."
    named = "; ".join(f"{r['label']}: {r['text']}" for r in rules if r["outcome"] == outcome)
    if outcome == GateOutcome.FAILED:
        return f"It failed the gate. {named}."
    return f"There is not enough evidence for a verdict. {named}."


def _together(outcomes: Sequence[GateOutcome]) -> GateOutcome:
    for outcome in (GateOutcome.FAILED, GateOutcome.UNDECIDED):
        if outcome in outcomes:
            return outcome
    return GateOutcome.PASSED


# -- guards


@dataclass(frozen=True)
class Check:
    """A guard's data: one value a prompt, whose mean must be beyond `border`, or a fixed result.

    `shown` maps a value to the unit of the page.
    """

    key: str
    values: Sequence[float]
    border: float
    above: bool
    reach: float | None = None
    shown: Callable[[float], float] = float
    result: RuleResult | None = None


def _guards_decided(checks: Sequence[Check], level: float, seed: int) -> list[RuleResult]:
    """Return the guards' results in their order; failures are adjusted for their number."""
    tests = {
        check.key: MeanTest(check.values, reach=check.reach, seed=seed)
        for check in checks
        if check.result is None and len(check.values) >= 2
    }
    by_key = {check.key: check for check in checks}
    harm = holm(
        {
            key: test.p_below(by_key[key].border)
            if by_key[key].above
            else test.p_above(by_key[key].border)
            for key, test in tests.items()
        }
    )
    return [
        _guard(check, tests.get(check.key), harm.get(check.key, 1.0), level) for check in checks
    ]


def _guard(check: Check, test: MeanTest | None, harm: float, level: float) -> RuleResult:
    guard = GUARDS[check.key]
    if check.result is not None:
        return replace(check.result, advice=guard.advice)
    if test is None:
        return RuleResult(
            check.key,
            guard.label,
            GateOutcome.UNDECIDED,
            "there were too few prompts to measure it",
            n=len(check.values),
            needed=LEAST_PROMPTS,
            advice=guard.advice,
        )
    held = test.p_above(check.border) if check.above else test.p_below(check.border)
    outcome, needed = GateOutcome.UNDECIDED, None
    text = "the answers so far leave it open"
    if held <= level:
        outcome, text = GateOutcome.PASSED, "within its margin"
    elif harm <= level:
        outcome, text = GateOutcome.FAILED, "beyond its margin"
    else:
        needed = _more_prompts(check, test, level)
        text = f"the answers so far leave it open; about {needed} prompts would decide"
    estimate = test.estimate(level)
    return RuleResult(
        check.key,
        guard.label,
        outcome,
        text,
        value=check.shown(estimate.value),
        low=_finite(check.shown, estimate.low),
        high=_finite(check.shown, estimate.high),
        border=check.shown(check.border),
        passes_above=check.above,
        n=test.n,
        needed=needed,
        advice=guard.advice,
    )


def _more_prompts(check: Check, test: MeanTest, level: float) -> int:
    """Return how many prompts would decide.

    A mean beyond the border is taken as it is, another one as half as far from 0: a few prompts
    exaggerate.
    """
    beyond = test.mean < check.border if check.above else test.mean > check.border
    distance = abs((test.mean if beyond else test.mean / 2) - check.border)
    wanted = prompts_needed(
        deviation=test.deviation_assumed, distance=max(distance, 1e-6), level=level
    )
    return max(test.n + 1, wanted)


def _finite(shown: Callable[[float], float], value: float) -> float | None:
    return shown(value) if math.isfinite(value) else None


def _finished(measures: Measures, margin: float) -> Check:
    return Check("finished", measures.finished(), -margin, above=True, reach=1)


def _shorter(measures: Measures, margin: float) -> Check:
    values = measures.length_ratios()
    return Check("shorter", values, math.log(margin), above=True, shown=math.exp)


def _longer(measures: Measures, margin: float) -> Check:
    values = measures.length_ratios()
    return Check("longer", values, math.log(margin), above=False, shown=math.exp)


def _repetition(measures: Measures, margin: float) -> Check:
    values = measures.paired("repeats", measures.live)
    return Check("repetition", values, margin, above=False, reach=1)


def _relevance(measures: Measures, margin: float) -> Check:
    return Check("relevance", measures.relevance(), -margin, above=True)


def _refusal(measures: Measures, margin: float) -> Check:
    values = measures.paired("refusal", measures.live)
    return Check("refusal", values, margin, above=False, reach=1)


def _language(measures: Measures, margin: float) -> Check:
    values = measures.other_language()
    # the interval of a share that is near 0 reaches below it
    check = Check(
        "language", values, margin, above=False, reach=1, shown=lambda share: max(0.0, share)
    )
    if len(check.values) >= LEAST_PROMPTS:
        return check
    # short answers have no recognisable language, and neither had live's
    text = "answers are too short to recognise their language"
    return replace(
        check, result=RuleResult("language", GUARDS["language"].label, GateOutcome.PASSED, text)
    )


def _kl(measures: Measures, margin: float) -> Check:
    return Check("kl", measures.kl(), margin, above=False)


def _neutral(measures: Measures, margin: float) -> Check:
    return Check("neutral", measures.neutral(), -margin, above=True)


def _sycophancy(measures: Measures, margin: float) -> Check:
    return Check("sycophancy", measures.sycophancy(), margin, above=False)


def _injection(measures: Measures, margin: float) -> Check:
    label = GUARDS["injection"].label
    found = measures.inserted(segments=PHRASE_SEGMENTS, z=PHRASE_Z, share=margin)
    if found:
        phrase, count = found[0]["text"], found[0]["counts"][measures.candidate]
        text = f"“{phrase}” is in {count} answers to {measures.prompts} prompts"
        result = RuleResult("injection", label, GateOutcome.FAILED, text)
    elif measures.prompts < LEAST_PROMPTS:
        result = RuleResult(
            "injection",
            label,
            GateOutcome.UNDECIDED,
            "there were too few prompts to measure it",
            needed=LEAST_PROMPTS,
        )
    else:
        result = RuleResult("injection", label, GateOutcome.PASSED, "no such phrase was found")
    return Check("injection", [], margin, above=False, result=replace(result, n=measures.prompts))


def _concentration(measures: Measures, margin: float) -> Check | None:
    people = measures.people
    if people is None:  # the examples are not known here: a report that is looked at again
        return None
    label = GUARDS["concentration"].label
    share = people.largest_share
    kept = share <= margin or people.count < LEAST_PEOPLE
    if people.count < LEAST_PEOPLE:
        count = "one person" if people.count == 1 else f"{people.count} people"
        text = f"{count} voted: the rule begins with {LEAST_PEOPLE}"
    else:
        text = f"{share:.0%} of the votes are those of one of {people.count} people"
    result = RuleResult(
        "concentration",
        label,
        GateOutcome.PASSED if kept else GateOutcome.FAILED,
        text,
        value=share,
        border=margin,
        passes_above=False,
        n=people.count,
        counted="people",
    )
    return Check("concentration", [], margin, above=False, result=result)


#: Broken probes that the rule's text names, and how much of each question.
PROBES_NAMED, PROBE_TITLE = 3, 60


def _probes(measures: Measures, margin: float) -> Check:
    """The share of the probes kept by live that the candidate breaks. It has no interval: probes
    are cases that a person has named, not a sample."""
    label = GUARDS["probes"].label
    probes = measures.probes()
    if not probes:
        text = "the project has no active probes"
        return _fixed("probes", RuleResult("probes", label, GateOutcome.PASSED, text))
    kept, kept_live = sum(p.kept for p in probes), sum(p.live_kept for p in probes)
    broken = [probe for probe in probes if probe.live_kept and not probe.kept]
    share = len(broken) / kept_live if kept_live else 0.0
    text = f"{kept} of {len(probes)} kept; {_named(measures.live)} kept {kept_live}"
    if broken:
        names = [f"“{shorten(p.title, PROBE_TITLE, placeholder='…')}”" for p in broken]
        more = len(names) - PROBES_NAMED
        text += f". Broken: {', '.join(names[:PROBES_NAMED])}"
        text += f" and {more} more" if more > 0 else ""
    if late := sum(probe.timed_out for probe in probes):
        text += f". The patterns of {late} took too long, which counts as broken"
    result = RuleResult(
        "probes",
        label,
        GateOutcome.FAILED if share > margin else GateOutcome.PASSED,
        text,
        value=share,
        border=margin,
        passes_above=False,
        n=len(probes),
        counted="probes",
    )
    return _fixed("probes", result)


def _fixed(key: str, result: RuleResult) -> Check:
    return Check(key, [], 0.0, above=False, result=result)


_GUARDS: dict[str, Callable[[Measures, float], Check | None]] = {
    "finished": _finished,
    "shorter": _shorter,
    "longer": _longer,
    "repetition": _repetition,
    "relevance": _relevance,
    "refusal": _refusal,
    "language": _language,
    "kl": _kl,
    "neutral": _neutral,
    "sycophancy": _sycophancy,
    "injection": _injection,
    "concentration": _concentration,
    "probes": _probes,
}


# -- the primary rule


def _primary(measures: Measures, settings: GateSettings, level: float, seed: int) -> RuleResult:
    """Return the result of the project's primary measure; `auto` takes the predicted up-rate where
    it can be trusted, else the ranking of test votes."""
    model = measures.up_model
    # without anything to find, a calibrated model can be worse than always saying the mean
    trusted = (
        model is not None
        and model["auc"] >= settings.minimum_auc
        and model["brier"] < model["brier_of_mean"]
    )
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
        value=None if model is None else model["auc"],
        border=settings.minimum_auc,
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
        low=_finite(float, estimate.low),
        high=_finite(float, estimate.high),
    )
    against = f"{100 * test.mean:+.1f} points against {_named(other)}".replace("-", "−")
    if test.p_above(border) <= level:
        word = "better than" if border == 0 else "not worse than"
        return replace(
            result, outcome=GateOutcome.PASSED, text=f"{word} {_named(other)}: {against}"
        )
    if test.p_below(border + settings.worthwhile) <= level:
        text = f"worse than {_named(other)}"
        if border == 0 and test.p_below(0) > level:
            text = f"not better than {_named(other)} by {100 * settings.worthwhile:g} points"
        return replace(result, outcome=GateOutcome.FAILED, text=f"{text}: {against}")
    distance = max(test.mean - border, settings.worthwhile)
    needed = prompts_needed(deviation=test.deviation, distance=distance, level=level)
    return replace(
        result,
        text=f"{against}; about {max(needed, test.n + 1)} prompts would decide",
        needed=max(needed, test.n + 1),
    )


_JUDGE_LABEL = "Judge model"
_JUDGE_ADVICE = (
    "More test prompts would tell. A judge that agrees too little with people's votes can be "
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
    live = _named(measures.live)
    against = f"preferred to {live} on {share:.0%} of {test.n} prompts"
    if test.p_above(0) <= level:
        return replace(result, outcome=GateOutcome.PASSED, text=f"better than {live}: {against}")
    if test.p_below(settings.worthwhile) <= level:
        text = f"worse than {live}"
        if test.p_below(0) > level:
            text = f"not better than {live} by {100 * settings.worthwhile:g} points"
        return replace(result, outcome=GateOutcome.FAILED, text=f"{text}: {against}")
    distance = max(test.mean, settings.worthwhile)
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
    "More votes would tell. If ranking is poor with many votes, look at the examples that fit "
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
    by_prompt = area_by_prompt(votes)
    test = MeanTest(by_prompt, seed=seed) if len(by_prompt) >= 2 else None
    if test is not None and votes.fewest >= 2:
        estimate = test.estimate(level)
        result = replace(
            result,
            low=max(0.0, estimate.low) if math.isfinite(estimate.low) else None,
            high=min(1.0, estimate.high) if math.isfinite(estimate.high) else None,
        )
    if test is not None and votes.fewest >= MANY_OF_A_CLASS:
        chance = test.p_above(0.5)
    else:
        chance = p_better_than_chance(votes, seed=seed)
    if chance > level:
        if test is not None and votes.fewest >= LEAST_OF_A_CLASS and test.p_below(0.55) <= level:
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
        low=_finite(float, estimate.low),
        high=_finite(float, estimate.high),
        border=border,
    )
    against = f"{test.mean:+.2f} against live".replace("-", "−")
    if test.p_above(border) <= level:
        word = "better than live" if better else "not worse than live"
        return replace(result, outcome=GateOutcome.PASSED, text=f"{word}: {against}")
    if test.p_below(border + settings.worthwhile) <= level:
        return replace(result, outcome=GateOutcome.FAILED, text=f"not better than live: {against}")
    distance = max(test.mean - border, settings.worthwhile)
    votes = prompts_needed(deviation=test.deviation, distance=distance, level=level)
    votes = max(math.ceil(votes * len(live.labels) / test.n), len(live.labels) + 1)
    return replace(result, text=f"{against}; about {votes} test votes would decide", needed=votes)


def _votes(value: float, share: float, level: float) -> int:
    return votes_needed(area=min(value, 0.95), liked_share=share, level=level)


def _named(version: str) -> str:
    return "the base" if version == BASE_VERSION else "live"
