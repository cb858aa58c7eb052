"""`python -m trainer influence DIR`: measure the influence of a finished run's training examples.

DIR holds what the run has read (config.json, examples.jsonl, validation.jsonl) and influence.json,
which names its adapter and, where they are kept, its checkpoints. The influence is the mean over
the adapter's first values and these. report.json has it by example.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any, Self

import torch
from safetensors.torch import load_file

from trainer.artifacts.adapter_directory import WEIGHTS, fsync, verify_adapter
from trainer.config import MAX_RANK, TrainConfig, read_json
from trainer.data.batches import Step
from trainer.data.examples import Example, read_examples
from trainer.directory_lock import locked
from trainer.disk import disk_errors_reported
from trainer.errors import Cancelled, Refused, RunFailed, TrainerError
from trainer.events import EventLog
from trainer.forward.logprobs import Row
from trainer.influence.estimate import Point, influence_at
from trainer.models.loading import load_base
from trainer.signals import StopRequest, stop_on_signal
from trainer.training.checkpoint import kept_masters
from trainer.training.loop import Trainer
from trainer.training.reference_cache import complete
from trainer.training.run_directory import load_run, read_run
from trainer.training.start_adapter import read_start
from trainer.training.train import ChoosePacks, default_packs

#: More validation examples cost more time than they are worth.
MOST_VALIDATION = 256


@dataclass(frozen=True)
class InfluenceConfig:
    """`influence.json`: the directories of the run's adapter and of its checkpoints (None: none are
    kept), relative to it or absolute."""

    adapter: str
    checkpoints: str | None = None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read and check `influence.json`. Raises Refused with every fault."""
        raw = read_json(path)
        if not isinstance(raw, dict):
            raise Refused(f"{path.name} must hold a JSON object")
        faults = [f"unknown field {name!r}" for name in raw if name not in cls.__annotations__]
        if not isinstance(raw.get("adapter"), str):
            faults.append("adapter must name a directory")
        if not isinstance(raw.get("checkpoints"), str | None):
            faults.append("checkpoints must name a directory or be null")
        if faults:
            raise Refused(*faults)
        return cls(**raw)


def influence(directory: Path, *, choose_packs: ChoosePacks = default_packs) -> None:
    """Write report.json.

    Raises Refused (files, loss, too few validation examples), BadArtifact, RunFailed (a gradient is
    not finite) or Cancelled, which are written to events.jsonl first; or NotWritten.
    """
    with (
        disk_errors_reported(directory),
        locked(directory),
        EventLog(directory / "events.jsonl") as events,
    ):
        try:
            with stop_on_signal() as stop:
                _influence(directory, events, stop, choose_packs)
        except Cancelled as error:
            events.write("cancelled", step=error.step)
            raise
        except TrainerError as error:
            events.write("failed", step=None, reason=str(error), advice="")
            raise


def _influence(
    directory: Path, events: EventLog, stop: StopRequest, choose_packs: ChoosePacks
) -> None:
    started = monotonic()
    paths = InfluenceConfig.read(directory / "influence.json")
    config, examples = read_run(directory)
    if config.needs_peft:
        raise Refused("adapters of PiSSA, DoRA and routed experts have no estimate")
    # one process, and the adapter as it is served
    config = replace(config, fsdp=False, lora_dropout=0.0)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    config = config.with_packs(choose_packs(config, 1)[0])
    events.write("phase", phase="loading", done=0, total=1)
    trainer = _trainer(directory, config, examples, events, stop)
    adapter = directory / paths.adapter
    # that its matrices fit is seen when they are loaded
    fingerprint = trainer.data.base.fingerprint
    manifest = verify_adapter(adapter, base_fingerprint=fingerprint, max_rank=MAX_RANK)
    steps = trainer.steps_of(0)
    _compute_reference(directory, trainer, steps, events)
    last = int(manifest.train["steps"])
    checkpoints = None if paths.checkpoints is None else directory / paths.checkpoints
    points: dict[str, Point] = {}
    for name in _values(trainer, adapter, checkpoints, last):
        progress = _progress(trainer, events, name)
        points[name] = influence_at(trainer, steps, on_progress=progress)
    _write_report(directory, points, trainer, monotonic() - started)
    events.write("done", seconds=round(monotonic() - started, 1))


def _progress(trainer: Trainer, events: EventLog, name: str) -> Callable[[int], None]:
    """Return a callback that stops when the trainer is asked to, and writes events."""
    total = len(trainer.data.examples)

    def report(done: int) -> None:
        trainer.runner.check()
        if done % 10 == 0 or done == total:
            events.write("phase", phase=f"influence, {name}", done=done, total=total)

    return report


def _trainer(
    directory: Path,
    config: TrainConfig,
    examples: list[Example],
    events: EventLog,
    stop: StopRequest,
) -> Trainer:
    """Return the components of the run; nothing is trained."""
    base = load_base(
        config.base_model,
        dtype=config.dtype,
        device=config.device,
        quantisation=config.quantisation,
    )
    start = read_start(directory, config, base)
    run = load_run(
        config,
        examples,
        base,
        identity="influence",
        validation=_validation(directory),
        start=start,
    )
    return Trainer(run, directory, events, stop)


def _validation(directory: Path) -> list[Example]:
    """Return the validation examples; of many, some that are spread evenly."""
    path = directory / "validation.jsonl"
    found = read_examples(path) if path.exists() else []
    count = min(len(found), MOST_VALIDATION)
    return [found[len(found) * number // count] for number in range(count)]


def _compute_reference(
    directory: Path, trainer: Trainer, steps: Sequence[Step], events: EventLog
) -> None:
    """Complete the cache of reference log-probabilities for all rows that are scored."""
    rows: list[Row] = []
    for runner, step in [
        *((trainer.runner, step) for step in steps),
        *([(trainer.validation, trainer.validation_step)] if trainer.validation_step else []),
    ]:
        own, mismatched = runner.rows(step)
        rows += own + mismatched

    def progress(done: int, total: int) -> None:
        trainer.runner.check()
        events.write("phase", phase="reference", done=done, total=total)

    with trainer.lora.off():
        complete(
            trainer.reference,
            trainer.data.base.model,
            rows,
            token_budget=trainer.config.packs.token_budget,
            plan=directory / "reference.json",
            on_progress=progress,
            process_group=trainer.process_group,
        )


def _values(trainer: Trainer, adapter: Path, checkpoints: Path | None, last: int) -> Iterator[str]:
    """Give the run's adapter its first values, those of each kept checkpoint, then the final ones;
    yield what they are called.

    The first values are needed: later, examples that fit well have little gradient, and those that
    are left, on both sides, are the wrong labels.
    """
    yield "step 0"
    if checkpoints is not None:
        for step, tensors in kept_masters(checkpoints, up_to=last - 1):
            trainer.masters.load(tensors)
            yield f"step {step}"
    trainer.lora.load(load_file(adapter / WEIGHTS))
    yield f"step {last}"


def _write_report(
    directory: Path, points: Mapping[str, Point], trainer: Trainer, seconds: float
) -> None:
    """Write report.json atomically. Raises RunFailed when a value is not finite."""
    examples: list[dict[str, Any]] = []
    for example in trainer.data.examples:
        values = [point.influence[example.id] for point in points.values()]
        mean = sum(values[1:], values[0]) / len(values)
        if not (math.isfinite(mean.up) and math.isfinite(mean.down)):
            raise RunFailed("a gradient is not finite", advice="the adapter is damaged")
        examples.append({"id": example.id, **asdict(mean)})
    report = {
        "format": 1,
        "points": list(points),
        "validation_examples": len(trainer.data.validation),
        # of the adapter, whose values come last
        "validation_loss": list(points.values())[-1].validation_loss,
        "examples": examples,
        "seconds": round(seconds, 1),
    }
    partial = directory / "report.json.partial"
    partial.write_text(json.dumps(report), encoding="utf-8")
    fsync(partial)
    partial.rename(directory / "report.json")
