"""`python -m trainer train RUN_DIR`: what can be refused is refused before the model is loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from trainer.errors import Cancelled, Refused, RunFailed, TrainerError
from trainer.events import EventLog
from trainer.loop import Trainer
from trainer.model import load_base
from trainer.run import complete_manifest, load_run, only_one, read_run, run_identity
from trainer.signals import stop_on_signal


def train(run_dir: Path) -> None:
    """Train the run in `run_dir`, or go on with it, until `adapter/` is complete.

    Raises Refused (config, examples), RunFailed (NaN, brake at once) or Cancelled (SIGTERM,
    SIGINT); each is written to events.jsonl first.
    """
    if not run_dir.is_dir():
        raise Refused(f"{run_dir} is no directory: a run needs config.json and examples.jsonl")
    with only_one(run_dir), EventLog(run_dir / "events.jsonl") as events:
        manifest = complete_manifest(run_dir / "adapter")
        if manifest is not None:
            events.write_once("done", adapter=str(run_dir / "adapter"), sha256=manifest.sha256)
            return
        try:
            with _memory_is_no_crash():
                _train(run_dir, events)
        except Cancelled as error:
            events.write("cancelled", step=error.step)
            raise
        except RunFailed as error:
            events.write("failed", step=error.step, reason=error.reason, advice=error.advice)
            raise
        except TrainerError as error:
            advice = "mend what is named and start a new run"
            events.write("failed", step=None, reason=str(error), advice=advice)
            raise


def _train(run_dir: Path, events: EventLog) -> None:
    config, examples = read_run(run_dir)
    with stop_on_signal() as stop:
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        events.write("phase", phase="loading", done=0, total=1)
        base = load_base(config.base_model, dtype=config.dtype, device=config.device)
        run = load_run(config, examples, base, identity=run_identity(run_dir))
        events.write("phase", phase="loading", done=1, total=1)
        if stop.asked:
            raise Cancelled(0)
        Trainer(run, run_dir, events, stop).run()


@contextmanager
def _memory_is_no_crash() -> Iterator[None]:
    """Running out of memory would happen again: say what to change instead of trying again."""
    try:
        yield
    except RuntimeError as error:
        exhausted = isinstance(error, torch.OutOfMemoryError) or "can't allocate" in str(error)
        if not exhausted:
            raise
        raise RunFailed(
            "out of memory", advice="lower token_budget or max_length and start a new run"
        ) from error
