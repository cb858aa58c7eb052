"""Our trainer on the rows. Run as a child process by bench.trainer_vs_trl."""

import json
import shutil
import sys
import time
from pathlib import Path

import torch

from bench.trainer_vs_trl.job import WORK, Job, Result
from bench.trainer_vs_trl.memory import Start
from bench.trainer_vs_trl.rows import Row
from trainer.data.batches import Step, StepsOf
from trainer.data.examples import write_examples
from trainer.errors import Cancelled
from trainer.events import EventLog
from trainer.models.layers import layer_shapes
from trainer.models.loading import load_base
from trainer.signals import StopRequest
from trainer.training.loop import Trainer
from trainer.training.run_directory import load_run, read_run, run_identity


class UntilTraining(EventLog):
    """Stops the run before its first step."""

    def __init__(self, path: Path, stop: StopRequest) -> None:
        super().__init__(path)
        self.stop = stop

    def write(self, kind: str, **values: object) -> None:
        super().write(kind, **values)
        if values.get("phase") == "training":
            self.stop.asked = True


def main(job: Job) -> None:
    run_dir = job.directory / "run"
    write_run(job, run_dir)
    config, examples = read_run(run_dir)
    assert config.threads is not None
    torch.set_num_threads(config.threads)
    base = load_base(config.base_model, dtype=config.dtype, device=config.device)
    run = load_run(config, examples, base, identity=run_identity(run_dir))
    facts = {
        "parameters": float(sum(shape.numel() for shape in layer_shapes(base.model).values())),
        "head": float(base.model.get_output_embeddings().weight.numel()),
    }
    stop = StopRequest()
    path = run_dir / "events.jsonl"
    with UntilTraining(path, stop) if job.reference_only else EventLog(path) as events:
        start = Start.now()
        began = time.time()
        try:
            Trainer(run, run_dir, events, stop, steps_of=steps_to_follow(job)).run()
        except Cancelled:
            assert job.reference_only
    peak = start.peak_since()
    events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    steps = [event for event in events if event["type"] == "step"]
    if job.reference_only:
        announced = next(event["time"] for event in events if event["type"] == "start")
        ready = next(event["time"] for event in events if event.get("phase") == "training")
        seconds = ready - announced
    else:
        seconds = steps[-1]["time"] - began
    Result(
        seconds=seconds,
        losses=tuple(event["loss"] for event in steps),
        steps=(),
        peak=peak.whole,
        loaded=peak.at_start,
        peak_training=peak.since_start,
        facts={**facts, "cache": float(cache_size(job.name))},
    ).write(job)


def write_run(job: Job, run_dir: Path) -> None:
    """Write the run directory, and copy the reference cache of the job in `after`, if any."""
    run_dir.mkdir()
    cache = reference_cache(job.name)
    if job.after is not None:
        shutil.copytree(reference_cache(job.after), cache)
    config = {**job.config, "reference_cache": str(cache)}
    (run_dir / "config.json").write_text(json.dumps(config), encoding="utf-8")
    rows = Row.read_all(Path(job.rows))
    write_examples(run_dir / "examples.jsonl", (row.example(n) for n, row in enumerate(rows)))


def reference_cache(job: str) -> Path:
    """Return the directory of a job's reference log-probabilities."""
    return WORK / job / "reference"


def cache_size(job: str) -> int:
    """Return the bytes of a job's reference cache."""
    return sum(path.stat().st_size for path in reference_cache(job).iterdir())


def steps_to_follow(job: Job) -> StepsOf | None:
    """Return TRL's order and pairs, for a job that follows them."""
    if job.follow is None:
        return None
    steps = tuple(Step(examples, others) for examples, others in Result.of(job.follow).steps)
    return lambda epoch: steps


if __name__ == "__main__":
    main(Job.read(sys.argv[1]))
