"""Agreement corrected for chance: Krippendorff's α of up and down verdicts."""

from collections.abc import Iterable
from dataclasses import dataclass

#: Krippendorff 2004, section 11.4: the least α for conclusions, …
RELIABLE = 0.8
#: … and for tentative conclusions.
TENTATIVE = 0.667

NOTHING_SHARED = "No answer has two verdicts"
ALL_THE_SAME = "All verdicts are the same, so agreement can't be distinguished from chance"


@dataclass(frozen=True)
class Alpha:
    """α over `units` completions with two or more verdicts.

    1: perfect agreement; 0: chance; negative: below chance. None where it is undefined, and `why`
    is the reason.
    """

    value: float | None
    units: int
    why: str = ""

    @property
    def meaning(self) -> str:
        """The conclusion that the figure allows."""
        if self.value is None:
            return f"{self.why}."
        if self.value >= RELIABLE:
            return "Agreement is high: the labels are reliable."
        if self.value >= TENTATIVE:
            return "Agreement is moderate: conclusions from these labels are tentative."
        return "Agreement is low: clarify the guidelines before you train on these labels."


def agreed_share(counts: Iterable[tuple[int, int]]) -> float | None:
    """Return the share of equal verdicts among all pairs of verdicts on the same completion, each
    completion given as (ups, downs). None without a completion that has two verdicts."""
    equal = total = 0
    for ups, downs in counts:
        equal += _pairs(ups) + _pairs(downs)
        total += _pairs(ups + downs)
    return equal / total if total else None


def _pairs(count: int) -> int:
    return count * (count - 1) // 2


def alpha_of(counts: Iterable[tuple[int, int]]) -> Alpha:
    """Return nominal α of completions, each given as (ups, downs).

    Completions with a single verdict are ignored.
    """
    units = [pair for pair in counts if sum(pair) > 1]
    if not units:
        return Alpha(None, 0, NOTHING_SHARED)
    if not all(sum(column) for column in zip(*units, strict=True)):
        return Alpha(None, len(units), ALL_THE_SAME)
    import krippendorff  # imports numpy (25 MB), which only the quality page needs

    value = krippendorff.alpha(value_counts=units, level_of_measurement="nominal")
    return Alpha(float(value), len(units))
