"""Training a run once more from its snapshot, and comparing the result.

On a CPU the same snapshot, settings and libraries give the same bytes. A GPU adds numbers in
another order each time unless the run was deterministic: there the losses are compared.
"""

import json
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from artifact_store.errors import StoreError
from feedback_app.artifacts import artifact_store
from feedback_app.feedback.models import Split
from feedback_app.training.launchers.base import DONE, Job, Launcher
from feedback_app.training.models import Adapter, Run
from feedback_app.training.registry.files import file_sha256
from feedback_app.training.runs.events import read_new_events
from feedback_app.training.runs.execution.inputs import model_path, write_json
from feedback_app.training.snapshots.files import split_write
from feedback_app.web.errors import UserError

WEIGHTS = "adapter_model.safetensors"
#: Steps whose losses differ by no more than this share are the same on a GPU.
TOLERANCE = 0.05
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Reproduction:
    """What came out: the SHA-256 of the adapter then and now, the largest relative difference of
    the loss over all steps (None without recorded steps), and on which devices."""

    sha256: str
    again: str
    difference: float | None
    device: str
    device_again: str

    @property
    def equal(self) -> bool:
        """Whether the adapters are the same bytes."""
        return self.sha256 == self.again

    @property
    def close(self) -> bool:
        """Whether no step's loss differs by more than TOLERANCE."""
        return self.difference is not None and self.difference <= TOLERANCE


def run_reproduce(
    run: Run, launcher: Launcher, *, keep: bool = False, progress: Callable[[int, int], None]
) -> Reproduction:
    """Train a finished run again and compare. `progress` gets the steps done and all steps.

    The files are beside the run's, and are removed at the end unless `keep`. Raises UserError if
    the run has no adapter, if its examples are no longer those that it learned from, or if the
    trainer fails. Raises LaunchError.
    """
    if not run.trains:
        raise UserError(f"{run} imported a version: there is no training to repeat.")
    adapter = Adapter.objects.filter(run=run).first()
    if adapter is None:
        raise UserError(f"{run} has made no adapter: there is nothing to compare with.")
    try:  # its configuration, and the adapter that it started from
        artifact_store().pull(run.tree)
        if start := run.config.get("start_adapter"):
            artifact_store().fetch(str(start).removeprefix("../../"))
    except StoreError as error:
        raise UserError(f"The files of {run} cannot be read: {error}.") from error
    directory = run.directory.with_name(f"{run.pk}-again")
    shutil.rmtree(directory, ignore_errors=True)
    try:
        _write(run, directory)
        _train(run, directory, launcher, progress)
        return _compared(run, adapter, directory)
    finally:
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)


def _write(run: Run, directory: Path) -> None:
    """Write the trainer's input as the run had it. Raises UserError if it has changed."""
    directory.mkdir(parents=True)
    split_write(run.snapshot, Split.VALIDATION, directory / "validation.jsonl")
    digest = split_write(run.snapshot, Split.TRAIN, directory / "examples.jsonl")
    if digest != run.snapshot.sha256:
        raise UserError(
            f"The examples of {run} are not those that it learned from: some were erased or "
            "changed since."
        )
    stored = run.directory / "config.json"
    config = json.loads(stored.read_text()) if stored.exists() else dict(run.config)
    write_json(
        directory / "config.json",
        {
            **config,
            "base_model": model_path(run.project.base_model),
            "adapter_name": run.project.adapter_name(run.number),
            # nothing is taken over from earlier runs
            "reference_cache": None,
        },
    )


def _train(
    run: Run, directory: Path, launcher: Launcher, progress: Callable[[int, int], None]
) -> None:
    job = launcher.submit(
        Job(
            # another one each time: a Ray cluster keeps the names of ended jobs
            name=f"run-{run.pk}-again-{uuid.uuid4().hex[:8]}",
            command="train",
            directory=directory,
            nice=settings.TRAINER_NICE,
        )
    )
    offset = 0
    try:
        while (code := launcher.poll(job)) is None:
            offset = _report(directory, offset, progress)
            time.sleep(POLL_SECONDS)
    finally:
        launcher.end(job)
    _report(directory, offset, progress)
    if code != DONE:
        raise UserError(f"The trainer ended with code {code}. Its output: {launcher.logs(job)}")


def _report(directory: Path, offset: int, progress: Callable[[int, int], None]) -> int:
    events, offset = read_new_events(directory / "events.jsonl", offset)
    for event in events:
        if event.get("type") == "step":
            progress(int(event["step"]), int(event["total_steps"]))
    return offset


def _compared(run: Run, adapter: Adapter, directory: Path) -> Reproduction:
    events, _ = read_new_events(directory / "events.jsonl", 0)
    losses = {event["step"]: event["loss"] for event in events if event.get("type") == "step"}
    start = next(event for event in events if event.get("type") == "start")
    differences = [
        abs(loss - losses[step]) / max(abs(loss), 1e-6)
        for step, loss in run.metrics.values_list("step", "loss")
        if step in losses
    ]
    return Reproduction(
        sha256=adapter.sha256,
        again=file_sha256(directory / "adapter" / WEIGHTS),
        difference=max(differences, default=None),
        device=str(run.facts.get("device", "unknown")),
        device_again=str(start.get("device", "unknown")),
    )
