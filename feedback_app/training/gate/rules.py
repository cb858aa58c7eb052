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

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from feedback_app.training.gate.guards import guards_decide
from feedback_app.training.gate.measures import Measures
from feedback_app.training.gate.primary import primary_decide
from feedback_app.training.gate.results import LEVEL, RuleResult
from feedback_app.training.gate.settings import GateSettings
from feedback_app.training.models import GateOutcome


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
    rules = [
        replace(primary_decide(measures, settings, level, seed), primary=True),
        *guards_decide(measures, settings.margins, level, seed),
    ]
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
