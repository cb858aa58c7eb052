"""A run's figures for TensorBoard, MLflow and Weights & Biases, where `report_to` asks for them.

Numbers of the events `step`, `probe` and `validation` and the settings of the run are sent, by
each tool's own package and configured by its own environment variables. No text of a prompt or an
answer, no id of an example and no path of this machine is among them. A tool that fails is left
out with a warning; a thread of its own waits for its network, so that no step does.
"""

import json
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainer.config import TrainConfig
from trainer.reports.tools import REPORTERS, TOOLS, Reporter

MEASURED = ("step", "probe", "validation")
ENDS = {"done": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}
#: Settings whose values are paths, or free text of a project.
PRIVATE = frozenset(
    "base_model start_adapter reference_cache chat_template_kwargs report_to".split()
)
IDS = "report_ids.json"
MOST_WAITING = 10_000
#: How long the end of a run waits for figures that are not sent yet.
FLUSH_SECONDS = 30.0

Tell = Callable[[str], object]


class Reports:
    """Passes a run's events on to the chosen tools, from a thread of its own.

    `warn` gets one sentence for each tool that fails; it is called from the run's thread, with the
    next event or at the end.
    """

    def __init__(self, run_dir: Path, config: TrainConfig, *, warn: Tell) -> None:
        self._warn = warn
        self._run_dir = run_dir
        self._settings = settings_of(config)
        self._failed: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._events: queue.Queue[tuple[str, Mapping[str, object]] | None] = queue.Queue(
            MOST_WAITING
        )
        self._thread = threading.Thread(
            target=self._work, args=[tuple(config.report_to)], name="reports", daemon=True
        )
        self._thread.start()

    def event(self, kind: str, values: Mapping[str, object]) -> None:
        """Take an event; it never waits, and one too many is left out."""
        self._tell()
        if kind in MEASURED or kind in ENDS:
            with suppress(queue.Full):
                self._events.put_nowait((kind, values))

    def close(self) -> None:
        """Send what is waiting, for at most FLUSH_SECONDS."""
        with suppress(queue.Full):
            self._events.put_nowait(None)
        self._thread.join(FLUSH_SECONDS)
        if self._thread.is_alive():
            self._failed.put(f"the reports were not sent within {FLUSH_SECONDS:g} seconds")
        self._tell()

    def _tell(self) -> None:
        while not self._failed.empty():
            self._warn(self._failed.get())

    def _work(self, names: Sequence[str]) -> None:
        tools = self._begun(names)
        step = 0
        while (event := self._events.get()) is not None:
            kind, values = event
            step = int(str(values.get("step") or step))
            for name, tool in list(tools.items()):
                try:
                    if kind in ENDS:
                        tool.end(ENDS[kind])
                    elif figures := figures_of(kind, values):
                        tool.log(step, figures)
                except Exception as error:  # whatever a package raises: the run goes on
                    self._leave_out(name, error)
                    del tools[name]

    def _begun(self, names: Sequence[str]) -> dict[str, Reporter]:
        """Return the tools that could begin. A resumed run goes on under its ids."""
        path = self._run_dir / IDS
        ids: dict[str, str] = {}
        with suppress(OSError, ValueError):
            ids = json.loads(path.read_text(encoding="utf-8"))
        tools = {}
        for name in names:
            try:
                tools[name] = TOOLS[name](self._run_dir, self._settings, ids)
            except Exception as error:
                self._leave_out(name, error)
        if ids:
            with suppress(OSError):
                path.write_text(json.dumps(ids), encoding="utf-8")
        return tools

    def _leave_out(self, name: str, error: Exception) -> None:
        why = f"{type(error).__name__}: {error}"[:300]
        if isinstance(error, ImportError):
            why = f"install {REPORTERS[name]} ({why})"
        self._failed.put(f"nothing more is reported to {name}: {why}")


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """Return the settings that are reported: the base model by its name alone, no paths."""
    found = {name: value for name, value in config.as_dict().items() if name not in PRIVATE}
    return {"base_model": Path(config.base_model).name, **found}


def figures_of(kind: str, values: Mapping[str, object]) -> dict[str, float]:
    """Return an event's numbers, named after it; what is no finite number is left out."""
    return {
        f"{kind}/{name}": float(value)
        for name, value in values.items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and value == value
        and abs(value) != float("inf")
        and name not in ("step", "total_steps", "eta_seconds")
    }
