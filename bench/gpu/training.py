"""Our trainer: one epoch in batches of eight, after a short run that compiles its kernels.

The time is from the run's start to its last step, with all passes of the reference.
"""

import json
import time
from typing import Any

import torch

from bench.gpu import memory
from bench.gpu.models import loaded, prepared
from bench.gpu.parts import Job
from bench.trainer_vs_trl.rows import Row, make_rows
from trainer.config import TrainConfig
from trainer.events import EventLog
from trainer.models.loading import LoadedBase, load_tokenizer
from trainer.planning.packs import packs_of_run
from trainer.signals import StopRequest
from trainer.training.loop import Trainer
from trainer.training.run_directory import load_run

BATCH = 8
_WARM_UP = 2 * BATCH


def measure(job: Job) -> dict[str, Any]:
    """Return examples per second and peak memory."""
    path = prepared(job.part.model, job.directory)
    config = settings(job, str(path))
    packs, reason = packs_of_run(config, 1)
    config = config.with_packs(packs)
    rows = make_rows(load_tokenizer(str(path)), count=job.examples, per_prompt=1)
    device = torch.device(job.device)
    base = loaded(path, quantisation=job.part.quantisation, device=device)
    _train(job, config, base, rows[:_WARM_UP], "warm-up")
    memory.reset(device)
    seconds = _train(job, config, base, rows, "measured")
    return {
        "examples_per_second": len(rows) / seconds,
        "peak": memory.peak(device),
        "notes": reason,
    }


def settings(job: Job, model: str) -> TrainConfig:
    """Return the configuration that both sides train with."""
    return TrainConfig(
        base_model=model,
        adapter_name="bench@1",
        batch_size=BATCH,
        epochs=1,
        max_length=512,
        kl_brake=None,
        probe_every=1000,
        checkpoint_every=1000,
        dtype="bfloat16",
        quantisation=job.part.quantisation,
        device=job.device,
    )


def _train(job: Job, config: TrainConfig, base: LoadedBase, rows: list[Row], name: str) -> float:
    """Train once; return the seconds."""
    run_dir = job.directory / f"{name}-{time.time_ns()}"
    run_dir.mkdir(parents=True)
    examples = [row.example(number) for number, row in enumerate(rows)]
    run = load_run(config, examples, base, identity=name)
    path = run_dir / "events.jsonl"
    with EventLog(path) as events:
        trainer = Trainer(run, run_dir, events, StopRequest())
        began = time.time()
        trainer.run()
    trainer.lora.detach()
    written = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    steps = [event for event in written if event["type"] == "step"]
    return float(steps[-1]["time"] - began)
