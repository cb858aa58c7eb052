"""`python -m trainer train RUN_DIR`: what can be refused is refused before the model is loaded."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import torch
import torch.distributed as dist

from trainer.config import TrainConfig
from trainer.directory_lock import locked
from trainer.disk import disk_errors_reported
from trainer.distributed.fsdp import load_sharded
from trainer.distributed.process_group import ProcessGroup, rank, size
from trainer.errors import Cancelled, NotWritten, ProcessLost, Refused, RunFailed, TrainerError
from trainer.events import EventLog
from trainer.models.loading import LoadedBase, load_base
from trainer.signals import StopRequest, stop_on_signal
from trainer.training.loop import Trainer
from trainer.training.memory_budget import is_out_of_memory
from trainer.training.run_directory import (
    complete_manifest,
    load_run,
    read_run,
    read_validation,
    run_identity,
)


def train(run_dir: Path, *, stop: StopRequest | None = None) -> None:
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
                _train(run_dir, events, stop)
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


def _train(run_dir: Path, events: EventLog, stop: StopRequest) -> None:
    config, examples = read_run(run_dir)
    validation = read_validation(run_dir)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    events.write("phase", phase="loading", done=0, total=1)
    process_group = ProcessGroup.join(sharded=config.fsdp)
    try:
        base = _load(config, process_group)
        run = load_run(
            config, examples, base, identity=run_identity(run_dir), validation=validation
        )
        events.write("phase", phase="loading", done=1, total=1)
        if process_group.any(stop.asked, base.device):
            raise Cancelled(0)
        Trainer(run, run_dir, events, stop, process_group=process_group).run()
    finally:
        process_group.leave()


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
