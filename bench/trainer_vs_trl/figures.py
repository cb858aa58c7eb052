"""The printed table: figures of both sides, their ratio per repetition, and the bar."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

_HEADINGS = ("", "ours", "TRL", "value", "each", "bar", "")


@dataclass(frozen=True)
class Bar:
    """A lower or an upper limit for a value."""

    limit: float
    at_least: bool

    def met(self, value: float) -> bool:
        """Return whether the value meets the limit."""
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True)
class Figure:
    """One line. `ours` and `trl` are medians over the repetitions, `each` has the value of every
    repetition and `value` is their median. With the unit %, a value of 1 is printed as 100 %."""

    name: str
    ours: float | None = None
    trl: float | None = None
    each: tuple[float, ...] = ()
    bar: Bar | None = None
    unit: str = ""

    @classmethod
    def ratio(
        cls,
        name: str,
        ours: Sequence[float],
        trl: Sequence[float],
        *,
        bar: Bar | None = None,
        unit: str = "×",
    ) -> Self:
        """Return the figure of ours over TRL's, per repetition."""
        each = tuple(mine / theirs for mine, theirs in zip(ours, trl, strict=True))
        return cls(name, statistics.median(ours), statistics.median(trl), each, bar, unit)

    @property
    def value(self) -> float | None:
        """Return the median over the repetitions."""
        return statistics.median(self.each) if self.each else None

    @property
    def met(self) -> bool | None:
        """Return whether the bar is met; None without a bar."""
        return None if self.bar is None or self.value is None else self.bar.met(self.value)

    def as_dict(self) -> dict[str, Any]:
        """Return the figure as it is printed, for JSON."""
        return {
            "name": self.name,
            "ours": self.ours,
            "trl": self.trl,
            "value": self.value,
            "each": list(self.each),
            "unit": self.unit,
            "bar": None if self.bar is None else self.bar.limit,
            "at_least": None if self.bar is None else self.bar.at_least,
            "met": self.met,
        }

    def cells(self) -> tuple[str, ...]:
        """Return the cells of its line."""
        sign = "" if self.bar is None else "≥ " if self.bar.at_least else "≤ "
        return (
            self.name,
            "" if self.ours is None else _number(self.ours),
            "" if self.trl is None else _number(self.trl),
            "" if self.value is None else self._with_unit(self.value),
            " ".join(self._with_unit(value) for value in self.each) if len(self.each) > 1 else "",
            "" if self.bar is None else sign + self._with_unit(self.bar.limit),
            {True: "ok", False: "not yet", None: ""}[self.met],
        )

    def _with_unit(self, value: float) -> str:
        return f"{100 * value:.1f} %" if self.unit == "%" else _number(value) + self.unit


def table(figures: Sequence[Figure]) -> str:
    """Return all figures, one per line, in columns."""
    lines = [_HEADINGS, *(figure.cells() for figure in figures)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADINGS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in (0, 4) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _number(value: float) -> str:
    if value != 0 and abs(value) < 0.001:
        return f"{value:.1e}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
