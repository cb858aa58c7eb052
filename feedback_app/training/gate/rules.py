"""The gate: what an adapter must show on held-out prompts before it may go live.

Pure rules over the evaluation report. Thumbs alone are no gate: a model that collapses into
short empty answers can still please a rule, so KL to the base, the likelihood of neutral text,
repetition, relevance and length are held as well.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

#: Nats per token between the adapter's own answers and the base model.
KL_BRAKE = 0.5
#: How much of the base's mean log-likelihood of neutral text may be lost.
NEUTRAL_LOSS = 0.05
#: Points by which a share may fall before it counts as worse (small samples swing).
SHARE_SLACK = 0.10
#: Quantiles of the normal distribution: 95 % one-sided over 95 % two-sided.
ONE_SIDED = 1.645 / 1.960
#: A mean length below this many words is treated as a collapse.
WORDS_FLOOR = 8.0

Measures = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Rule:
    """One line of the gate's table."""

    measure: str
    label: str
    passed: bool
    text: str


@dataclass(frozen=True)
class GateResult:
    """All rules with their outcome; `won` if every rule passed."""

    candidate: str
    opponent: str
    rules: list[Rule]

    @property
    def won(self) -> bool:
        return all(rule.passed for rule in self.rules)

    @property
    def faults(self) -> list[str]:
        return [f"{rule.label}: {rule.text}" for rule in self.rules if not rule.passed]

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "won": self.won}


def gate_decide(report: Mapping[str, Any], *, candidate: str, live: str) -> GateResult:
    """Compare `candidate` with the live version (the base model if there is none) and the base."""
    measures: Mapping[str, Measures] = report["candidates"]
    new, old, base = measures[candidate], measures[live], measures["base"]
    return GateResult(
        candidate=candidate,
        opponent=live,
        rules=[
            _ranking(new, old, is_base=live == "base"),
            _share_kept(new, old, "finished", "Finished answers"),
            _share_kept(new, old, "relevance", "Answers on the topic"),
            _repetition(new, old),
            _neutral(new, base),
            _kl(new),
            _words(new),
        ],
    )


def _value(measures: Measures, name: str, bound: str = "value") -> float | None:
    value = measures.get(name, {}).get(bound)
    return None if value is None else float(value)


def _missing(measure: str, label: str) -> Rule:
    return Rule(measure, label, passed=False, text="could not be measured on the held-out prompts")


def _ranking(new: Measures, old: Measures, *, is_base: bool) -> Rule:
    label = "Liked answers ranked above disliked ones"
    value, low = _value(new, "ranking"), _value(new, "ranking", "low")
    if value is None or low is None:
        return _missing("ranking", label)
    # 'better than chance' is one-sided: a 95 % one-sided bound from the two-sided interval
    surely_better = value - (value - low) * ONE_SIDED > 0.5
    if is_base:
        text = "better than chance" if surely_better else "may be chance: more votes would tell"
        return Rule("ranking", label, surely_better, text)
    before = _value(old, "ranking")
    passed = surely_better and (before is None or value >= before)
    return Rule("ranking", label, passed, "not worse than live" if passed else "worse than live")


def _share_kept(new: Measures, old: Measures, measure: str, label: str) -> Rule:
    value, before = _value(new, measure), _value(old, measure)
    if value is None or before is None:
        return _missing(measure, label)
    passed = value >= before - SHARE_SLACK
    return Rule(measure, label, passed, "not worse" if passed else "fewer than live")


def _repetition(new: Measures, old: Measures) -> Rule:
    label = "Answers that repeat themselves"
    value, before = _value(new, "repetition"), _value(old, "repetition")
    if value is None or before is None:
        return _missing("repetition", label)
    passed = value <= before + SHARE_SLACK
    return Rule("repetition", label, passed, "not more" if passed else "more than live")


def _neutral(new: Measures, base: Measures) -> Rule:
    label = "Likelihood of neutral text"
    value, before = _value(new, "neutral_logprob"), _value(base, "neutral_logprob")
    if value is None or before is None:
        return _missing("neutral_logprob", label)
    passed = value >= before - NEUTRAL_LOSS * abs(before)
    return Rule(
        "neutral_logprob",
        label,
        passed,
        f"within {NEUTRAL_LOSS:.0%} of the base" if passed else "lost too much general language",
    )


def _kl(new: Measures) -> Rule:
    label = "Distance to the base, KL a token"
    value = _value(new, "kl_per_token")
    if value is None:
        return _missing("kl_per_token", label)
    passed = value <= KL_BRAKE
    return Rule(
        "kl_per_token",
        label,
        passed,
        f"at most {KL_BRAKE:g}" if passed else f"above the brake of {KL_BRAKE:g}",
    )


def _words(new: Measures) -> Rule:
    label = "Mean length, words"
    value = _value(new, "words")
    if value is None:
        return _missing("words", label)
    passed = value >= WORDS_FLOOR
    return Rule(
        "words", label, passed, "long enough" if passed else "answers have shrunk to almost nothing"
    )


def gate_sentence(won: bool, faults: list[str]) -> str:
    """Return the gate's verdict as text."""
    if won:
        return "It passed the gate and can be released."
    return "It did not pass the gate: " + "; ".join(faults) + "."
