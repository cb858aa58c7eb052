"""What one rule of the gate says, and constants that several rules share."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from feedback_app.feedback.models import BASE_VERSION
from feedback_app.training.models import GateOutcome

#: Chance of a wrong statement of one rule at each of two looks at growing data: 5 % together at
#: most. The bounds are those of a two-sided interval of 95 %.
LEVEL = 0.025
LEAST_PROMPTS = 10


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


def finite(shown: Callable[[float], float], value: float) -> float | None:
    return shown(value) if math.isfinite(value) else None


def named(version: str) -> str:
    """Return what texts call the version that a candidate is compared with."""
    return "the base" if version == BASE_VERSION else "live"
