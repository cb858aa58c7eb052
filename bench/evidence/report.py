"""Tables and plots of the studies, in docs/evidence."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from bench.evidence.cells import Cell, Outcome, outcome
from bench.evidence.rules import RULES, shown
from bench.evidence.statistics import Estimate, liked, mean
from bench.evidence.studies import SEEDS, Study, Table

PLOT_INCHES = 7.2
#: Legible on white and on black, told apart by people who see red and green alike.
COLOURS = ("#3b82c4", "#d1760f", "#7a7a7a")
INK = "#808080"


@dataclass(frozen=True)
class Row:
    """An arm's figures: its up-rate, its rise over base and its difference from another arm, in
    shares; by seed; and the words of an answer."""

    arm: str
    up_rate: Estimate
    rise: Estimate
    against: Estimate | None
    by_seed: list[float]
    words: float
    finished: float
    failure: str = ""


@dataclass(frozen=True)
class Result:
    """A table with its figures. `base` is the base's up-rate under the rule."""

    table: Table
    base: Estimate
    base_words: float
    rows: list[Row]
    processors: frozenset[str]


def result(table: Table) -> Result:
    """Compute what is missing of a table, and its figures."""
    likes = RULES[table.rule].likes
    base = [outcome(Cell(seed)) for seed in SEEDS]
    before = liked([one.texts for one in base], likes)
    found = {arm: [give(seed) for seed in SEEDS] for arm, give in table.arms.items()}
    other = _liked(found[table.against], likes)
    rows = []
    for arm, outcomes in found.items():
        failure = next((one.failure for one in outcomes if one.failure), "")
        after = _liked(outcomes, likes)
        if after is None:
            nothing = Estimate(float("nan"), float("nan"), float("nan"))
            rows.append(Row(arm, nothing, nothing, None, [], 0.0, 0.0, failure))
            continue
        rows.append(
            Row(
                arm=arm,
                up_rate=mean(after),
                rise=mean(after - before),
                against=None if arm == table.against or other is None else mean(after - other),
                by_seed=[float(rate) for rate in after.mean(axis=1)],
                words=_words(outcomes),
                finished=fmean(done for one in outcomes for done in one.finished),
            )
        )
    processors = frozenset(one.processor for outcomes in found.values() for one in outcomes)
    return Result(table, mean(before), _words(base), rows, processors)


def _liked(outcomes: Sequence[Outcome], likes: Any) -> Any:
    if any(one.failure for one in outcomes):
        return None
    return liked([one.texts for one in outcomes], likes)


def _words(outcomes: Sequence[Outcome]) -> float:
    return fmean(len(shown(text).split()) for one in outcomes for text in one.texts)


def markdown(study: Study, results: Sequence[Result]) -> str:
    """Return the study's section."""
    lines = [f"# {study.title}", "", study.asks, ""]
    for number, found in enumerate(results):
        lines += [f"## Rule: {found.table.rule}", ""] if len(results) > 1 else []
        rule, against = RULES[found.table.rule], found.table.against
        lines += [
            f"An answer is liked if {rule.sentence}. The base writes "
            f"{_percent(found.base)} of such answers, with {found.base_words:.0f} words each.",
            "",
            f"| | up-rate | rise over base | against “{against}” | by seed | words | finished |",
            "|---" * 7 + "|",
        ]
        for row in found.rows:
            if row.failure:
                lines.append(f"| {row.arm} | training failed: {row.failure} |||||| ")
                continue
            seeds = " / ".join(f"{100 * rate:.0f}" for rate in row.by_seed)
            lines.append(
                f"| {row.arm} | {_percent(row.up_rate)} | {_points(row.rise)} "
                f"| {'–' if row.against is None else _points(row.against)} | {seeds} "
                f"| {row.words:.0f} | {100 * row.finished:.0f} % |"
            )
        lines += ["", f"![{study.title}, {rule.name}]({plot_name(study, number)})", ""]
    return "\n".join(lines)


def _percent(found: Estimate) -> str:
    return f"{100 * found.value:.0f} % ({100 * found.low:.0f} to {100 * found.high:.0f})"


def _points(found: Estimate) -> str:
    text = f"{100 * found.value:+.0f} ({100 * found.low:+.0f} to {100 * found.high:+.0f})"
    return f"**{text}**" if found.shown else text


def plot_name(study: Study, number: int) -> str:
    return f"{study.name}-{number + 1}.svg" if number else f"{study.name}.svg"


def plot(study: Study, number: int, found: Result, directory: Path) -> None:
    """Draw a table: lines where its arms lie on an axis, whiskers otherwise."""
    import matplotlib as mpl

    mpl.use("svg")
    # the same figures give the same bytes
    mpl.rcParams.update(
        {
            "svg.hashsalt": "evidence",
            "font.size": 9,
            **{f"{part}.color": INK for part in ("text", "xtick", "ytick")},
            **{f"axes.{part}": INK for part in ("edgecolor", "labelcolor")},
        }
    )
    from matplotlib import pyplot

    rows = {row.arm: row for row in found.rows if not row.failure}
    if found.table.along is None:
        figure, axes = pyplot.subplots(figsize=(PLOT_INCHES, 0.6 + 0.32 * len(rows)))
        for place, row in enumerate(reversed(rows.values())):
            _whisker(axes, place, row.up_rate)
        axes.set_yticks(range(len(rows)), list(reversed(rows)))
        axes.axvline(100 * found.base.value, color=INK, linewidth=1, linestyle=":")
        axes.set_xlabel(f"up-rate, % (rule: {found.table.rule}; dotted: base)")
    else:
        figure, axes = pyplot.subplots(figsize=(PLOT_INCHES, 3.2))
        name, lines = found.table.along
        for colour, (label, arms) in zip(COLOURS, lines.items(), strict=False):
            present = [arm for arm in arms if arm in rows]
            x = [float(_number(arm)) for arm in present]
            rates = [rows[arm].up_rate for arm in present]
            axes.plot(
                x, [100 * rate.value for rate in rates], color=colour, marker="o", label=label
            )
            axes.fill_between(
                x,
                [100 * rate.low for rate in rates],
                [100 * rate.high for rate in rates],
                color=colour,
                alpha=0.15,
                linewidth=0,
            )
        axes.axhline(100 * found.base.value, color=INK, linewidth=1, linestyle=":")
        axes.set_xlabel(name)
        axes.set_ylabel("up-rate, % (dotted: base)")
        if len(lines) > 1:
            axes.legend(frameon=False, labelcolor=INK)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(directory / plot_name(study, number), transparent=True, metadata={"Date": None})
    pyplot.close(figure)


def _whisker(axes: Any, place: int, rate: Estimate) -> None:
    axes.plot([100 * rate.low, 100 * rate.high], [place, place], color=COLOURS[0], linewidth=1.5)
    axes.plot([100 * rate.value], [place], color=COLOURS[0], marker="o")


def _number(arm: str) -> str:
    """Return the first number in an arm's name: its place on the axis."""
    return next(word for word in arm.replace(",", " ").split() if word.isdigit())


def as_json(results: Sequence[Result]) -> str:
    """Return all figures of a study."""
    tables = [
        {
            "rule": found.table.rule,
            "base": asdict(found.base),
            "against": found.table.against,
            "rows": [asdict(row) for row in found.rows],
        }
        for found in results
    ]
    return json.dumps(tables, indent=1, ensure_ascii=False) + "\n"
