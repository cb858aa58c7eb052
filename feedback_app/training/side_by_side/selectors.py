"""The settings, the data and the results of several runs, line by line."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from feedback_app.feedback.models import BASE_VERSION, Project
from feedback_app.training.gate.report import gate_rows
from feedback_app.training.models import Adapter, Run
from feedback_app.training.runs.config import RUN_FIELDS, RunConfig, start_version
from feedback_app.training.runs.settings import BY_NAME

#: Runs that fit beside each other.
MOST = 4
NOTHING = "–"


@dataclass(frozen=True)
class Line:
    """One property of every run, in the order of the runs."""

    label: str
    values: list[str]

    @property
    def differs(self) -> bool:
        return len(set(self.values)) > 1


@dataclass(frozen=True)
class SideBySide:
    """Runs beside each other. `equal` are the settings in which they do not differ; `measures` the
    figures of each run's version in its own gate."""

    runs: list[Run]
    different: list[Line]
    equal: list[Line]
    data: list[Line]
    measures: list[Line]


def runs_side_by_side(project: Project, numbers: Sequence[int]) -> SideBySide:
    """Return the project's runs of these numbers; numbers without a run are left out."""
    rows = project.runs.filter(number__in=numbers).select_related("snapshot", "adapter")
    found = list(rows.order_by("number"))
    settings = [
        Line(BY_NAME[name].label, [setting_shown(run, name) for run in found])
        for name in RUN_FIELDS
    ]
    return SideBySide(
        found,
        [line for line in settings if line.differs],
        [line for line in settings if not line.differs],
        data_lines(found),
        measure_lines([getattr(run, "adapter", None) for run in found]),
    )


def setting_shown(run: Run, name: str) -> str:
    """Return a setting of a run as the form shows it."""
    if name == "start_from":
        return start_version(run.config) or BASE_VERSION
    return value_shown(RunConfig.stored(run.config), name)


def settings_shown(config: RunConfig, names: Sequence[str]) -> list[str]:
    """Return these settings as the form shows them."""
    return [value_shown(config, name) for name in names]


def value_shown(config: RunConfig, name: str) -> str:
    setting, value = BY_NAME[name], getattr(config, name)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return setting.empty or NOTHING
    if setting.choices:
        return dict(setting.choices).get(value, str(value))
    return f"{value:g}" if isinstance(value, float) else f"{value:,}"


def data_lines(runs: list[Run]) -> list[Line]:
    """Return what each run learned from."""
    columns: dict[str, Callable[[Run], Any]] = {
        "Training, up": lambda run: examples_of(run, "train_up"),
        "Training, down": lambda run: examples_of(run, "train_down"),
        "Validation": lambda run: examples_of(run, "validation_total"),
        "Test": lambda run: examples_of(run, "test_total"),
        "Steps": lambda run: run.facts.get("total_steps", NOTHING),
        "Minutes": minutes_of,
        "Device": lambda run: run.facts.get("device", NOTHING),
    }
    return [Line(label, [shown(of(run)) for run in runs]) for label, of in columns.items()]


def examples_of(run: Run, name: str) -> Any:
    """Return a count of the run's snapshot, which a worker may still have to take."""
    return getattr(run.snapshot, name) if run.snapshot.taken else NOTHING


def minutes_of(run: Run) -> Any:
    if run.started_at is None or run.finished_at is None:
        return NOTHING
    return round((run.finished_at - run.started_at).total_seconds() / 60)


def shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def measure_lines(adapters: Sequence[Adapter | None]) -> list[Line]:
    """Return the measures of every version by the labels of the gate's rules.

    A measure that a gate did not have is left open; each gate asked its own prompts.
    """
    tables = [
        {}
        if adapter is None
        else {row.label: row.figures[0] for row in gate_rows(adapter) if row.figures}
        for adapter in adapters
    ]
    labels = dict.fromkeys(label for table in tables for label in table)
    return [Line(label, [table.get(label) or NOTHING for table in tables]) for label in labels]
