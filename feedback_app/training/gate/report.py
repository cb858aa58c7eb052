"""The gate report of a run's page: rows, intervals, answers side by side, misfits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from feedback_app.training.models import Adapter, Run, SnapshotItem
from feedback_app.training.runs.fit import Fit

ANSWERS_SHOWN = 20
SHARES = {"ranking", "finished", "repetition", "relevance", "distinct"}
#: Measures without a rule, shown below the rules.
EXTRA = {"distinct": "Distinct answers"}


@dataclass(frozen=True)
class Figure:
    """One version's value of a measure, with its 95 % interval if there is one."""

    version: str
    text: str
    interval: str
    # positions of value and interval on the row's axis of 120 units, or None
    at: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class GateRow:
    """A measure for every version, with the result of the gate."""

    label: str
    figures: list[Figure]
    passed: bool | None
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """A held-out prompt and each version's answer."""

    messages: list[dict[str, str]]
    answers: list[tuple[str, dict[str, Any] | None]]


@dataclass(frozen=True)
class Misfit:
    """A training example whose reward contradicts its label after training."""

    item: SnapshotItem
    surprise: float

    @property
    def sent_back(self) -> bool:
        """Return whether it is in the adjudication queue."""
        adjudication = getattr(self.item.completion, "adjudication", None)
        return adjudication is not None and adjudication.open

    @property
    def decided(self) -> str:
        """Return the verdict of adjudication or gold, or ""."""
        return self.item.completion.decided


def versions_of(adapter: Adapter) -> list[str]:
    """Return the columns of every table: new, live (if it is an adapter), base."""
    names = list(adapter.report.get("candidates", {}))
    return [adapter.name, *(n for n in names if n not in (adapter.name, "base")), "base"]


def gate_rows(adapter: Adapter) -> list[GateRow]:
    """Return the rules of the gate with every version's figures."""
    candidates = adapter.report.get("candidates", {})
    versions = versions_of(adapter)
    rows = [
        _row(rule["label"], rule["measure"], candidates, versions, rule["passed"], rule["text"])
        for rule in adapter.gate.get("rules", [])
    ]
    return rows + [
        _row(label, measure, candidates, versions, None, "for information")
        for measure, label in EXTRA.items()
        if measure in candidates.get(adapter.name, {})
    ]


def _row(
    label: str,
    measure: str,
    candidates: Mapping[str, Mapping[str, Mapping[str, Any]]],
    versions: list[str],
    passed: bool | None,
    verdict: str,
) -> GateRow:
    found = [candidates.get(version, {}).get(measure, {}) for version in versions]
    ends = [f[key] for f in found for key in ("value", "low", "high") if f.get(key) is not None]
    low, high = (0.0, 1.0) if measure in SHARES else (min(ends, default=0), max(ends, default=1))
    span = (high - low) or 1.0

    def place(value: float | None) -> float | None:
        return None if value is None else round(4 + 112 * (value - low) / span, 1)

    figures = [
        Figure(
            version=version,
            text=_text(measure, f.get("value")),
            interval=_interval(measure, f),
            at=place(f.get("value")),
            low=place(f.get("low")),
            high=place(f.get("high")),
        )
        for version, f in zip(versions, found, strict=True)
    ]
    return GateRow(label, figures, passed, verdict)


def _text(measure: str, value: float | None) -> str:
    if value is None:
        return "–"
    if measure == "ranking":
        return f"{value:.2f}"
    if measure in SHARES:
        return f"{100 * value:.0f} %"
    text = f"{value:.0f}" if measure == "words" else f"{value:.3f}"
    return text.replace("-", "−")


def _interval(measure: str, figure: Mapping[str, Any]) -> str:
    if figure.get("low") is None or figure.get("high") is None:
        return ""
    return f"{_text(measure, figure['low'])} to {_text(measure, figure['high'])}"


def comparisons(adapter: Adapter) -> list[Comparison]:
    """Return the first held-out prompts with one answer of each version."""
    versions = versions_of(adapter)
    return [
        Comparison(
            messages=entry["messages"],
            answers=[
                (version, next(iter(entry["answers"].get(version, [])), None))
                for version in versions
            ],
        )
        for entry in adapter.report.get("answers", [])[:ANSWERS_SHOWN]
    ]


def misfits(run: Run, fit: Fit) -> list[Misfit]:
    """Return the training examples whose reward contradicts their label most."""
    items = (
        run.snapshot.items.filter(pk__in=fit.misfits)
        .select_related("completion__prompt", "completion__adjudication")
        .defer("completion__token_ids", "completion__prompt_token_ids")
    )
    found = [Misfit(item, surprise(item)) for item in items]
    return sorted(found, key=lambda misfit: -misfit.surprise)


def surprise(item: SnapshotItem) -> float:
    """Return by how many nats the reward is on the other side of the reference point."""
    gap = (item.reward or 0.0) - (item.reference_point or 0.0)
    return -gap if item.desirable else gap
