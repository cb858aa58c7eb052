"""How far people agree beyond what chance would bring about: Krippendorff's α of ups and downs."""

from collections.abc import Iterable
from dataclasses import dataclass

#: Krippendorff 2004, section 11.4: conclusions can be drawn from here on, …
RELIABLE = 0.8
#: … and tentative ones from here on.
TENTATIVE = 0.667

NOTHING_SHARED = "No answer has two verdicts"
ALL_THE_SAME = "All verdicts are the same, so that agreement can't be told from chance"


@dataclass(frozen=True)
class Alpha:
    """α over `units` answers that have two verdicts or more; None where it is undefined, and
    `why` says so in words. 1: they always agree; 0: as often as chance; below: less often."""

    value: float | None
    units: int
    why: str = ""

    @property
    def meaning(self) -> str:
        """What the figure allows one to do."""
        if self.value is None:
            return f"{self.why}."
        if self.value >= RELIABLE:
            return "People judge alike: the labels can be relied on."
        if self.value >= TENTATIVE:
            return "People mostly judge alike: conclusions from these labels are tentative."
        return "People judge differently: make the guidelines clearer before training on these."


def alpha_of(counts: Iterable[tuple[int, int]]) -> Alpha:
    """α of answers, each given as (ups, downs), nominal. Those with one verdict say nothing."""
    units = [pair for pair in counts if sum(pair) > 1]
    if not units:
        return Alpha(None, 0, NOTHING_SHARED)
    if not all(sum(column) for column in zip(*units, strict=True)):
        return Alpha(None, len(units), ALL_THE_SAME)
    import krippendorff  # imports numpy (25 MB), which only the quality page needs

    value = krippendorff.alpha(value_counts=units, level_of_measurement="nominal")
    return Alpha(float(value), len(units))
