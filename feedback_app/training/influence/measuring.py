"""The trainer's part of an influence report: its input, its job, and what it found."""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings

from artifact_store.errors import StoreError
from feedback_app.artifacts import artifact_store
from feedback_app.db.heartbeats import Heartbeat
from feedback_app.feedback.models import Split
from feedback_app.training.influence.groups import training_items
from feedback_app.training.launchers.base import CANCELLED, DONE, Job, Launcher
from feedback_app.training.models import InfluenceReport, Run, SnapshotItem
from feedback_app.training.registry.files import adapter_fetch
from feedback_app.training.runs.events import read_new_events
from feedback_app.training.runs.execution.inputs import model_path, reference_cache, write_json
from feedback_app.training.snapshots.files import as_line, split_write
from feedback_app.training.sweeps.probes import probes_with
from feedback_app.web.errors import UserError

#: Training examples that are measured at most, spread evenly over the snapshot.
MOST_EXAMPLES = 5_000
POLL_SECONDS = 0.5


class Stopped(Exception):
    """The report was cancelled, or its claim is lost."""


@dataclass(frozen=True)
class Measured:
    """What the trainer's report.json says: the influence of each completion as an up and as a
    down, by its id."""

    points: list[str]
    validation_examples: int
    influence: dict[int, tuple[float, float]]

    def of(self, completion: int, desirable: bool) -> float:
        """Return the influence of an answer's example under a label; 0 where it was left out."""
        up, down = self.influence.get(completion, (0.0, 0.0))
        return up if desirable else down


def directory_of(run: Run) -> Path:
    return run.directory / "influence"


def items_measured(run: Run) -> list[SnapshotItem]:
    """Return the training examples that are measured: all, or some that are spread evenly."""
    rows = training_items(run.snapshot)
    keys = list(rows.values_list("pk", flat=True))
    count = min(len(keys), MOST_EXAMPLES)
    if count == len(keys):
        return list(rows)
    chosen = [keys[len(keys) * number // count] for number in range(count)]
    return list(rows.filter(pk__in=chosen))


def measure(
    report: InfluenceReport, items: list[SnapshotItem], launcher: Launcher, alive: Heartbeat
) -> Measured:
    """Have the trainer measure the influence of these examples; its files are removed afterwards.

    Raises Stopped, UserError with the trainer's reason, LaunchError, BadAdapter, StoreError and
    OSError.
    """
    run = report.adapter.run
    directory = directory_of(run)
    shutil.rmtree(directory, ignore_errors=True)
    try:
        input_write(report, items)
        job_run(report, directory, launcher, alive)
        found = json.loads((directory / "report.json").read_text())
        return Measured(
            points=found["points"],
            validation_examples=found["validation_examples"],
            influence={int(each["id"]): (each["up"], each["down"]) for each in found["examples"]},
        )
    finally:
        # it holds answers, which an erasure would have to find
        shutil.rmtree(directory, ignore_errors=True)


def input_write(report: InfluenceReport, items: list[SnapshotItem]) -> None:
    """Write what `python -m trainer influence` reads."""
    run = report.adapter.run
    artifact_store().pull(run.tree)
    adapter = adapter_fetch(report.adapter)
    directory = directory_of(run)
    directory.mkdir(parents=True)
    start = run.config.get("start_adapter")
    config = {
        **run.config,
        "base_model": model_path(run.project.base_model),
        "adapter_name": report.adapter.name,
        "reference_cache": reference_cache(run),
        "start_adapter": str(artifact_store().fetch(start.removeprefix("../../")))
        if start
        else None,
    }
    write_json(directory / "config.json", config)
    split_write(run.snapshot, Split.VALIDATION, directory / "validation.jsonl")
    by_pk = SnapshotItem.objects.select_related("completion__prompt")
    with (directory / "examples.jsonl").open("w", encoding="utf-8") as file:
        for start_at in range(0, len(items), 500):
            chunk = [item.pk for item in items[start_at : start_at + 500]]
            for item in by_pk.filter(pk__in=chunk).order_by("completion_id"):
                file.write(json.dumps(as_line(item), ensure_ascii=False) + "\n")
    checkpoints = run.directory / "checkpoints"
    write_json(
        directory / "influence.json",
        {
            "adapter": str(adapter.absolute()),
            "checkpoints": str(checkpoints.absolute()) if checkpoints.is_dir() else None,
        },
    )


def job_run(report: InfluenceReport, directory: Path, launcher: Launcher, alive: Heartbeat) -> None:
    """Run the trainer to its end and store its progress. Raises Stopped and UserError."""
    job_id = launcher.submit(
        Job(
            name=f"influence-{report.pk}-{report.attempt}",
            command="influence",
            directory=directory,
            nice=settings.TRAINER_NICE,
        )
    )
    row = InfluenceReport.objects.filter(pk=report.pk, attempt=report.attempt)
    offset = 0
    try:
        while (code := launcher.poll(job_id)) is None:
            events, offset = read_new_events(directory / "events.jsonl", offset)
            for event in events[-1:]:
                if event.get("type") == "phase":
                    values = {"done": event["done"], "total": event["total"]}
                    row.update(phase=str(event["phase"])[:40], **values)
            if alive.lost or row.filter(cancel_requested=True).exists():
                raise Stopped
            time.sleep(POLL_SECONDS)
    finally:
        launcher.end(job_id)
    if code == CANCELLED:
        raise Stopped
    if code != DONE:
        raise UserError(reason_of(directory) or launcher.logs(job_id)[-500:])


def reason_of(directory: Path) -> str:
    """Return why the trainer has failed; empty if it does not say."""
    events, _ = read_new_events(directory / "events.jsonl", 0)
    reasons = [str(event["reason"]) for event in events if event.get("type") == "failed"]
    return reasons[-1].capitalize() if reasons else ""


def stored_probes(run: Run) -> list[list[Any]]:
    """Return the probes of a run as they are stored; of a run before they were, from its events.
    Call it on a worker. Empty if they are not known."""
    if run.probes:
        known: list[list[Any]] = run.probes
        return known
    try:
        artifact_store().pull(run.tree)
    except StoreError:
        return []
    found: list[list[Any]] = []
    for event in read_new_events(run.directory / "events.jsonl", 0)[0]:
        if event.get("type") == "probe" and event.get("validation_loss") is not None:
            found = probes_with(found, event)
    return found
