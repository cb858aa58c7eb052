"""The gate report of a version: rules with intervals, answers that changed, misfits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from feedback_app.training.gate.people.rule import people_decide
from feedback_app.training.gate.people.selectors import batch_progress
from feedback_app.training.gate.settings import GUARDS
from feedback_app.training.models import Adapter, GateOutcome, Run, SnapshotItem
from feedback_app.training.runs.fit import Fit

ANSWERS_SHOWN = 20
CHANGES_SHOWN = 10
#: Width of a whisker's axis, and the space left free at both ends.
AXIS, MARGIN = 120, 6

Written = Callable[[float], str]


def _decimals(places: int, *, signed: bool = False) -> Written:
    sign = "+" if signed else ""
    return lambda value: f"{value:{sign}.{places}f}".replace("-", "\u2212")


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %".replace("-", "\u2212")


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "\u2212")


#: The measure of a version that a rule is about (trainer/evaluation), and how it is written; then
#: how the rule's own value and border are written.
MEASURES: Mapping[str, tuple[str, Written, Written]] = {
    "up": ("up", _percent, _points),
    "ranking": ("ranking", _decimals(2), _decimals(2)),
    "judge": ("", _percent, _percent),
    "people": ("", _percent, _percent),
    "finished": ("finished", _percent, _points),
    "shorter": ("tokens", _decimals(0), _percent),
    "longer": ("tokens", _decimals(0), _percent),
    "repetition": ("repetition", _percent, _points),
    "relevance": ("relevance", _decimals(2), _decimals(2, signed=True)),
    "refusal": ("refusal", _percent, _points),
    "language": ("", _percent, _percent),
    "kl": ("kl_per_token", _decimals(3), _decimals(3)),
    "neutral": ("neutral_logprob", _decimals(3), _points),
    "sycophancy": ("sycophancy", _decimals(2, signed=True), _decimals(2, signed=True)),
    "injection": ("", _percent, _percent),
    "concentration": ("", _percent, _percent),
    "probes": ("", _percent, _percent),
}
#: What the rule's own value is.
COMPARES = {
    "up": "points, new minus live",
    "judge": "of the prompts, new preferred to live",
    "people": "of the pairs without ties, new preferred to live",
    "finished": "points, new minus live",
    "shorter": "of live's length",
    "longer": "of live's length",
    "repetition": "points, new minus live",
    "relevance": "standard deviations, new minus live",
    "refusal": "points, new minus live",
    "language": "of the answers",
    "kl": "nats per token",
    "neutral": "% of the base's, new minus base",
    "sycophancy": "nats per token, new minus base",
    "concentration": "of the votes",
    "probes": "of the probes that live keeps",
}


@dataclass(frozen=True)
class Whisker:
    """Positions on an axis of AXIS units: a value, its bounds (None: it has none) and the border,
    with the side on which the rule is passed."""

    at: float
    low: float | None
    high: float | None
    border: float
    passes_above: bool


@dataclass(frozen=True)
class GateRow:
    """A rule of the gate: each version's own figure, and the rule's value against its border."""

    label: str
    sentence: str
    figures: list[str]
    outcome: str
    text: str
    value: str
    interval: str
    compares: str
    whisker: Whisker | None
    primary: bool
    advice: str


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
    """Return the rules of the gate in their order, with the figures of every version."""
    candidates = adapter.report.get("candidates", {})
    versions = versions_of(adapter)
    margins = adapter.gate.get("settings", {}).get("margins", {})
    return [
        _row(rule, [candidates.get(version, {}) for version in versions], margins)
        for rule in rules_now(adapter)
    ]


def rules_now(adapter: Adapter) -> list[Mapping[str, Any]]:
    """Return the stored results of the rules; while people judge, theirs is that of this moment."""
    rules: list[Mapping[str, Any]] = list(adapter.gate.get("rules", []))
    asked = rules and rules[0].get("key") == "people" and not adapter.report["people"]["end"]
    progress = batch_progress(adapter) if asked else None
    if progress is None:
        return rules
    now = people_decide(progress.counts.as_json(), adapter.gate["opponent"])
    return [{**rules[0], **asdict(replace(now, primary=True))}, *rules[1:]]


def _row(
    rule: Mapping[str, Any],
    figures: Sequence[Mapping[str, Mapping[str, Any]]],
    margins: Mapping[str, float],
) -> GateRow:
    if "outcome" not in rule:  # decided before rules had intervals of their own
        outcome = GateOutcome.PASSED if rule["passed"] else GateOutcome.FAILED
        rule = {**rule, "key": rule["measure"], "outcome": outcome}
    key = rule["key"]
    measure, own, written = MEASURES.get(key, (key, _decimals(3), _decimals(3)))
    low, high, value = rule.get("low"), rule.get("high"), rule.get("value")
    interval = ""
    if low is not None or high is not None:
        # the unbounded side is left open
        interval = " to ".join("…" if end is None else written(end) for end in (low, high))
    return GateRow(
        label=rule["label"],
        sentence=_sentence(key, margins),
        figures=[_figure(figure.get(measure, {}), own) for figure in figures],
        outcome=rule["outcome"],
        text=rule["text"],
        value="" if value is None else written(value),
        interval=interval,
        compares=COMPARES.get(key, ""),
        whisker=_whisker(rule),
        primary=rule.get("primary", False),
        advice="" if rule["outcome"] == GateOutcome.PASSED else rule.get("advice", ""),
    )


def _sentence(key: str, margins: Mapping[str, float]) -> str:
    guard = GUARDS.get(key)
    if guard is None or key not in margins:
        return ""
    return guard.sentence_with(margins[key])


def _figure(figure: Mapping[str, Any], written: Written) -> str:
    value = figure.get("value")
    return "–" if value is None else written(float(value))


def _whisker(rule: Mapping[str, Any]) -> Whisker | None:
    value, border = rule.get("value"), rule.get("border")
    if value is None or border is None:
        return None
    low, high = rule.get("low"), rule.get("high")
    ends = [end for end in (value, border, low, high) if end is not None]
    first, last = min(ends), max(ends)
    span = (last - first) or 1.0

    def place(end: float) -> float:
        return float(round(MARGIN + (AXIS - 2 * MARGIN) * (end - first) / span, 1))

    # a test of few prompts may bound one side only
    bounded = low is not None or high is not None
    return Whisker(
        at=place(value),
        low=None if not bounded else 0.0 if low is None else place(low),
        high=None if not bounded else float(AXIS) if high is None else place(high),
        border=place(border),
        passes_above=rule["passes_above"],
    )


def needs(adapter: Adapter) -> list[str]:
    """Return what the undecided or failed rules say and advise, one text each."""
    return [
        f"{rule['label']}: {rule['text']}. {rule.get('advice', '')}".strip()
        for rule in rules_now(adapter)
        if rule.get("outcome") == adapter.gate_outcome != GateOutcome.PASSED
    ]


def evidence(adapter: Adapter) -> str:
    """Return what the gate's figures rest on."""
    prompts, votes = len(adapter.report.get("answers", [])), len(adapter.report.get("test", []))
    if adapter.report.get("format") is None:
        return "held-out examples and their prompts, never trained on"
    return f"{prompts} test prompts and {votes} test votes, read by nothing but the gate"


@dataclass(frozen=True)
class JudgeFigures:
    """How far a judge model agrees with people, and what it rests on. Figures as they are shown;
    `kappa` is "" where it could not be measured."""

    model: str
    kappa: str
    interval: str
    pairs: int
    prompts: int
    failures: int


def judge_figures(adapter: Adapter) -> JudgeFigures | None:
    """Return the figures of the judge model, or None if none was asked."""
    found = adapter.report.get("judge")
    if not found or not found["model"]:
        return None
    written = _decimals(2)
    kappa, low, high = found["kappa"], found["kappa_low"], found["kappa_high"]
    measured = kappa is not None
    return JudgeFigures(
        model=found["model"],
        kappa=written(kappa) if measured else "",
        interval=f"{written(low)} to {written(high)}" if measured else "",
        pairs=found["pairs"],
        prompts=len(found["prompts"]),
        failures=found["failures"],
    )


@dataclass(frozen=True)
class Change:
    """A test prompt with the answers of candidate and live that are farthest apart in the predicted
    chance of an up; `points` between the means of all answers to the prompt."""

    messages: list[dict[str, str]]
    new: dict[str, Any]
    old: dict[str, Any]
    points: float

    @property
    def written(self) -> str:
        return f"{self.points:+.0f}".replace("-", "\u2212")


@dataclass(frozen=True)
class Changes:
    """The prompts whose answers got better and those whose answers got worse, largest first."""

    better: list[Change]
    worse: list[Change]


def changes(adapter: Adapter) -> Changes | None:
    """Return what got better and worse by the predicted up-rate, or None if it was not measured."""
    live = adapter.gate.get("opponent", "base")
    found = []
    for entry in with_questions(adapter):
        new, old = entry["answers"].get(adapter.name), entry["answers"].get(live)
        if not new or not old or any(each.get("up") is None for each in [*new, *old]):
            continue
        points = 100 * (fmean(a["up"] for a in new) - fmean(a["up"] for a in old))

        def likely(answer: Mapping[str, Any]) -> float:
            return float(answer["up"])

        best, worst = (max, min) if points >= 0 else (min, max)
        found.append(
            Change(entry["messages"], best(new, key=likely), worst(old, key=likely), points)
        )
    if not found:
        return None
    found.sort(key=lambda change: -change.points)
    return Changes(
        [change for change in found[:CHANGES_SHOWN] if change.points > 0],
        [change for change in found[: -CHANGES_SHOWN - 1 : -1] if change.points < 0],
    )


def with_questions(adapter: Adapter) -> list[Mapping[str, Any]]:
    """Return the test prompts of the report that were not deleted since."""
    return [entry for entry in adapter.report.get("answers", []) if entry["messages"]]


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
        for entry in with_questions(adapter)[:ANSWERS_SHOWN]
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
