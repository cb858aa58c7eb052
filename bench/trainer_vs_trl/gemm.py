"""The machine's matrix-multiplication peak. Run as a child process by bench.trainer_vs_trl."""

import sys
import time

import torch

from bench.trainer_vs_trl.job import Job, Result
from bench.trainer_vs_trl.memory import Start

_SIZES = ((2048, 2048, 2048), (4096, 2048, 2048), (1024, 4096, 2048))
_REPEATS = 12


def main(job: Job) -> None:
    start = Start.now()
    torch.set_num_threads(int(str(job.config["threads"])))
    dtype = getattr(torch, str(job.config["dtype"]))
    began = time.perf_counter()
    best = max(_flops(dtype, *size) for size in _SIZES)
    Result(
        seconds=time.perf_counter() - began,
        losses=(),
        steps=(),
        peak=start.peak_since().whole,
        loaded=None,
        peak_training=None,
        facts={"flops": best},
    ).write(job)


def _flops(dtype: torch.dtype, rows: int, inner: int, columns: int) -> float:
    """Return the operations per second of the fastest of several products."""
    left, right = torch.randn(rows, inner).to(dtype), torch.randn(columns, inner).to(dtype).t()
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        torch.mm(left, right)
        times.append(time.perf_counter() - started)
    return 2.0 * rows * inner * columns / min(times)


if __name__ == "__main__":
    main(Job.read(sys.argv[1]))
