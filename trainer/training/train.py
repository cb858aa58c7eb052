"""`python -m trainer train RUN_DIR`: what can be refused is refused before the model is loaded."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.distributed as dist

from trainer.artifacts.adapter_directory import fsync
from trainer.config import Packs, TrainConfig
from trainer.data.examples import Example
from trainer.directory_lock import locked
from trainer.disk import disk_errors_reported
from trainer.distributed.fsdp import load_sharded
from trainer.distributed.process_group import ProcessGroup, rank, size
from trainer.errors import Cancelled, NotWritten, ProcessLost, Refused, RunFailed, TrainerError
from trainer.events import EventLog
from trainer.models.loading import LoadedBase, load_base
from trainer.signals import StopRequest, stop_on_signal
from trainer.training.determinism import deterministic_algorithms
from trainer.training.loop import Trainer
from trainer.training.memory_budget import is_out_of_memory
from trainer.training.run_directory import (
    complete_manifest,
    load_run,
    read_run,
    read_validation,
    run_identity,
)
from trainer.training.start_adapter import read_start

#: Returns how much is computed at a time for a configuration and the number of its devices, and
#: why.
ChoosePacks = Callable[[TrainConfig, int], tuple[Packs, str]]


def default_packs(config: TrainConfig, devices: int) -> tuple[Packs, str]:
    """Return the packs of the configuration, with the defaults where it gives none."""
    return config.packs, "packs and checkpointing as configured, or the defaults"


def train(
    run_dir: Path, *, stop: StopRequest | None = None, choose_packs: ChoosePacks = default_packs
) -> None:
    """Train the run in `run_dir`, or go on with it, until `adapter/` is complete.

    Without `stop`, SIGTERM and SIGINT are the request to stop until the last event is written. A
    caller that reports errors itself gives its own, so that a signal cannot cut its report off.

    Under `accelerate launch` or `torchrun` every process calls this; the first one writes, and the
    run directory must be the same to all. Raises Refused (config, examples), RunFailed (NaN, brake
    at once), NotWritten (disk full, read-only) or Cancelled (SIGTERM, SIGINT); each is written to
    events.jsonl first, where that can be written.
    """
    if not run_dir.is_dir():
        raise Refused(f"{run_dir} is no directory: a run needs config.json and examples.jsonl")
    first = rank() == 0
    with (
        stop_on_signal() if stop is None else nullcontext(stop) as stop,
        disk_errors_reported(run_dir),
        locked(run_dir) if first else nullcontext(),
        EventLog(run_dir / "events.jsonl" if first else Path(os.devnull)) as events,
    ):
        manifest = complete_manifest(run_dir / "adapter")
        if manifest is not None:
            events.write_once("done", adapter=str(run_dir / "adapter"), sha256=manifest.sha256)
            return
        try:
            with disk_errors_reported(run_dir), _explained_errors():
                _train(run_dir, events, stop, choose_packs)
        except TrainerError as error:
            kind, values = _last_event(error)
            with suppress(OSError):  # that events cannot be written may be the very error
                events.write(kind, **values)
            raise


def _last_event(error: TrainerError) -> tuple[str, dict[str, object]]:
    """Return type and values of the last event of a run that ended early."""
    match error:
        case Cancelled():
            return "cancelled", {"step": error.step}
        case RunFailed():
            return "failed", _failure(error.step, error.reason, error.advice)
        case ProcessLost() | NotWritten():
            return "warning", {"message": str(error)}
        case _:
            return "failed", _failure(None, str(error), "fix the errors above and start a new run")


def _failure(step: int | None, reason: str, advice: str) -> dict[str, object]:
    return {"step": step, "reason": reason, "advice": advice}


def _train(run_dir: Path, events: EventLog, stop: StopRequest, choose_packs: ChoosePacks) -> None:
    config, examples = read_run(run_dir)
    validation = read_validation(run_dir)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if config.report_to and rank() == 0:
        from trainer.reports.reports import Reports

        events.listen(
            Reports(run_dir, config, warn=lambda text: events.write("warning", message=text))
        )
    events.write("phase", phase="loading", done=0, total=1)
    with deterministic_algorithms(config.deterministic):
        _train_config(run_dir, events, stop, choose_packs, config, examples, validation)


def _train_config(
    run_dir: Path,
    events: EventLog,
    stop: StopRequest,
    choose_packs: ChoosePacks,
    config: TrainConfig,
    examples: Sequence[Example],
    validation: Sequence[Example],
) -> None:
    process_group = ProcessGroup.join(sharded=config.fsdp)
    try:
        config, reason = _with_packs(run_dir, config, process_group, choose_packs)
        base = _load(config, process_group)
        start = read_start(run_dir, config, base)
        run = load_run(
            config,
            examples,
            base,
            identity=run_identity(run_dir, start),
            validation=validation,
            start=start,
        )
        run = replace(run, packs=reason)
        events.write("phase", phase="loading", done=1, total=1)
        if process_group.any(stop.asked, base.device):
            raise Cancelled(0)
        Trainer(run, run_dir, events, stop, process_group=process_group).run()
    finally:
        process_group.leave()


def _with_packs(
    run_dir: Path, config: TrainConfig, process_group: ProcessGroup, choose_packs: ChoosePacks
) -> tuple[TrainConfig, str]:
    """Return the configuration with the run's packs, the smallest that a process has chosen: they
    are stored, since another amount of free memory must not change a resumed run."""
    path = run_dir / "checkpoints" / "chosen.json"
    stored = json.loads(path.read_bytes()) if process_group.first and path.exists() else None
    stored = process_group.gather(stored)[0]
    if stored is not None:
        return config.with_packs(Packs(**stored["packs"])), stored["reason"]
    everyone = process_group.gather(choose_packs(config, process_group.size))
    packs, reason = min(
        everyone,
        key=lambda found: (
            not found[0].gradient_checkpointing,
            found[0].held_tokens,
            found[0].token_budget,
        ),
    )
    if process_group.first:
        path.parent.mkdir(exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps({"packs": asdict(packs), "reason": reason}), encoding="utf-8")
        fsync(partial)
        partial.rename(path)
    return config.with_packs(packs), reason


def _load(config: TrainConfig, process_group: ProcessGroup) -> LoadedBase:
    name, dtype, device = config.base_model, config.dtype, config.device
    if process_group.sharded:
        return load_sharded(name, dtype=dtype, device=device, process_group=process_group)
    return load_base(name, dtype=dtype, device=device, quantisation=config.quantisation)


@contextmanager
def _explained_errors() -> Iterator[None]:
    """Turn errors of the device or the process group into one sentence inside the context.

    Running out of memory is final, with what to change. The loss of another process is not: the
    next attempt may succeed.
    """
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise RunFailed(
                "out of memory", advice="lower token_budget or max_length and start a new run"
            ) from error
        if isinstance(error, dist.DistError) or (size() > 1 and "onnection" in str(error)):
            raise ProcessLost(
                f"another of the {size()} processes of this run has ended; start all of them "
                "again to go on from the last checkpoint"
            ) from error
        raise
