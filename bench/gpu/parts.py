"""One measurement: what it is, what it found, and how it runs as a child process with a limit."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from bench.gpu.models import ROOT, SEVEN_B, SMOLLM2, TINY

#: A part with less time than this is not started: a process needs it to import torch.
_LEAST_SECONDS = 10.0


@dataclass(frozen=True)
class Part:
    """A measurement of `module` (of this package) on a model. `needs` is a package that may be
    missing, `limit` the seconds after which the part is ended."""

    name: str
    module: str
    limit: float
    model: str = ""
    quantisation: str | None = None
    needs: str | None = None


#: In the order of importance: what has no time left is not measured.
PARTS = (
    Part("tests", "suite", 200, needs="pytest"),
    Part("train SmolLM2 bf16", "training", 60, SMOLLM2),
    Part("train 7B bf16", "training", 60, SEVEN_B),
    Part("train 7B 4bit", "training", 60, SEVEN_B, "4bit", needs="bitsandbytes"),
    Part("train SmolLM2 4bit", "training", 40, SMOLLM2, "4bit", needs="bitsandbytes"),
    Part("decode SmolLM2", "decoding", 40, SMOLLM2),
    Part("decode 7B", "decoding", 40, SEVEN_B),
    Part("train 7B bf16 TRL", "trl", 60, SEVEN_B, needs="trl"),
    Part("train SmolLM2 bf16 TRL", "trl", 40, SMOLLM2, needs="trl"),
    Part("decode 7B vLLM", "vllm", 100, SEVEN_B, needs="vllm"),
    Part("decode SmolLM2 vLLM", "vllm", 100, SMOLLM2, needs="vllm"),
)


@dataclass(frozen=True)
class Job:
    """Input of a part: `examples` are trained on, `rows` the sizes of the batches that are decoded
    and `tokens` their lengths."""

    part: Part
    directory: Path
    device: str
    examples: int = 64
    rows: tuple[int, ...] = (1, 8, 32)
    tokens: int = 128

    def tiny(self) -> "Job":
        """Return the same in small, on the tiny model."""
        part = replace(self.part, model=self.part.model and TINY)
        return replace(self, part=part, examples=16, rows=(1, 2), tokens=4)

    def write(self) -> Path:
        """Write the job where the child reads it."""
        path = self.directory / "job.json"
        path.write_text(json.dumps({**asdict(self), "directory": str(self.directory)}))
        return path

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the job that a child was started with."""
        raw = json.loads(path.read_text())
        rows = tuple(raw.pop("rows"))
        directory = Path(raw.pop("directory"))
        return cls(part=Part(**raw.pop("part")), directory=directory, rows=rows, **raw)


@dataclass(frozen=True)
class Result:
    """What a part found: `state` is measured, skipped or failed, `why` the reason of the latter
    two. Memory in bytes: the peak of what torch allocated on the device since the model was
    loaded, model included. `tokens_per_second` are by rows of the batch."""

    name: str
    state: str
    why: str = ""
    seconds: float = 0.0
    examples_per_second: float | None = None
    tokens_per_second: dict[str, float] = field(default_factory=dict)
    peak: int | None = None
    notes: str = ""


def measure(job: Job) -> Result:
    """Measure a part in this process."""
    found: dict[str, Any] = import_module(f"bench.gpu.{job.part.module}").measure(job)
    return Result(job.part.name, "measured", **found)


def run(job: Job, left: float) -> Result:
    """Measure a part in a child process within its limit and the seconds that are left."""
    # the limits are for GPUs: the dry form may run on a machine that is busy
    part, limit = job.part, left if job.device == "cpu" else min(job.part.limit, left)
    if part.needs is not None and find_spec(part.needs) is None:
        return Result(part.name, "skipped", f"{part.needs} is not installed")
    if limit < _LEAST_SECONDS:
        return Result(part.name, "skipped", "no time was left")
    job.directory.mkdir(parents=True, exist_ok=True)
    log, found = job.directory / "log.txt", job.directory / "result.json"
    found.unlink(missing_ok=True)
    began = time.monotonic()
    code = _child([sys.executable, "-m", "bench.gpu.child", str(job.write())], log, limit)
    seconds = round(time.monotonic() - began, 1)
    if code is None:
        return Result(part.name, "failed", f"not done after {limit:.0f} s: see {log}", seconds)
    if not found.exists():
        return Result(part.name, "failed", f"{_last_line(log)}: see {log}", seconds)
    return replace(Result(**json.loads(found.read_text())), seconds=seconds)


def _child(command: Sequence[str], log: Path, limit: float) -> int | None:
    """Return the exit code of a command; None where it was ended, with all that it started."""
    env = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }
    with log.open("w") as out:
        child = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=out, stderr=out, start_new_session=True
        )
        try:
            return child.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else "ended without a word"
