"""One measurement in a separate process: its input, its output, and how it is started."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "var" / "bench" / "trainer_vs_trl"
_LAST_WORDS = 3000


@dataclass(frozen=True)
class Job:
    """Input of a child process. `config` has the TrainConfig fields that both sides support;
    `after` names a finished job of ours whose reference cache is reused, `follow` one of TRL's
    whose order and pairs are used; `reference_only` times the reference pass before the first step
    and stops there."""

    name: str
    side: str
    rows: str
    config: dict[str, object]
    precompute: bool = False
    after: str | None = None
    follow: str | None = None
    reference_only: bool = False

    @property
    def directory(self) -> Path:
        """Return the working directory of the job."""
        return WORK / self.name

    @classmethod
    def read(cls, path: str) -> Self:
        """Return the job that a child was started with."""
        return cls(**json.loads(Path(path).read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Result:
    """Result of a child process. Seconds are those of training, from the moment the model is loaded
    and the data tokenised to the last optimiser step; `process_seconds` includes everything. Memory
    in bytes: the peak resident size of the process, its size before training and the peak since. A
    step is (its examples, the examples whose completions are mismatched)."""

    seconds: float
    losses: tuple[float, ...]
    steps: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    peak: int
    loaded: int | None
    peak_training: int | None
    facts: dict[str, float] = field(default_factory=dict)
    process_seconds: float = 0.0

    @property
    def training_memory(self) -> int | None:
        """Return the memory of training beyond the loaded model."""
        if self.loaded is None or self.peak_training is None:
            return None
        return self.peak_training - self.loaded

    def write(self, job: Job) -> None:
        """Write the result where the parent reads it."""
        text = json.dumps(asdict(self))
        (job.directory / "result.json").write_text(text, encoding="utf-8")

    @classmethod
    def of(cls, job: str) -> Self:
        """Return the result of the job of this name."""
        raw = json.loads((WORK / job / "result.json").read_text(encoding="utf-8"))
        steps = tuple((tuple(examples), tuple(others)) for examples, others in raw.pop("steps"))
        return cls(losses=tuple(raw.pop("losses")), steps=steps, **raw)


def run(job: Job) -> Result:
    """Run a job to its end. Raises SystemExit with the end of the child's output if it fails."""
    shutil.rmtree(job.directory, ignore_errors=True)
    job.directory.mkdir(parents=True)
    path = job.directory / "job.json"
    path.write_text(json.dumps(asdict(job)), encoding="utf-8")
    threads = str(job.config["threads"])
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "HF_DATASETS_CACHE": str(job.directory / "datasets"),
        "HF_HUB_OFFLINE": "1",
        "MKL_NUM_THREADS": threads,
        "OMP_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false",
    }
    # Both sides use OpenMP's default wait policy. Our trainer would use passive waiting, which is
    # for a machine that also serves; here it has the machine to itself, as TRL has.
    environment |= {"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "300000"}
    started = time.monotonic()
    with (job.directory / "log.txt").open("w") as log:
        code = subprocess.run(
            [sys.executable, "-m", f"bench.trainer_vs_trl.{job.side}", str(path)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    seconds = time.monotonic() - started
    if code:
        words = (job.directory / "log.txt").read_text(errors="replace")[-_LAST_WORDS:]
        raise SystemExit(f"{job.name} ended with code {code}:\n{words}")
    result = Result.of(job.name)
    return Result(**{**vars(result), "process_seconds": seconds})
