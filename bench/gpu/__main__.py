"""Tests and figures on one GPU, in at most eight minutes and without a network.

    make test-gpu [ARGS='--out DIR --only "train 7B" --seconds 460']
    python -m bench.gpu …

Runs tests/gpu, then trains SmolLM2 and a random model of 7B in bf16 and in four bits, with TRL
beside it where it is installed, and decodes with both, beside vLLM where it is installed. Each part
is a process with a limit of its own; what is installed nowhere, or has no time left, is named in
the table. gpu.json and gpu.md in var/bench/gpu are written after each part.

`--device cpu --tiny` is the dry form: every part that the CPU allows, on a tiny random model.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from bench.gpu import report
from bench.gpu.models import ROOT
from bench.gpu.parts import PARTS, Job, Part, Result, run

_SECONDS = 460.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts; return 1 where one failed."""
    given = parser().parse_args(argv)
    if given.device == "cpu" and not given.tiny:
        raise SystemExit("--device cpu needs --tiny: a CPU would take hours for 7B")
    if given.device != "cpu" and not torch.cuda.is_available():
        print(
            "make test-gpu: torch sees no CUDA device here. ARGS='--device cpu --tiny' runs the "
            "same on the CPU, on a tiny model.",
            file=sys.stderr,
        )
        return 1
    conditions = report.machine(given.device)
    ends = time.monotonic() + given.seconds
    results: list[Result] = []
    for part in chosen(given.only, given.device):
        job = Job(part, given.out.resolve() / part.name.replace(" ", "-"), given.device)
        results.append(run(job.tiny() if given.tiny else job, ends - time.monotonic()))
        table = report.write(given.out, conditions, results)
        print(f"{part.name}: {results[-1].state} {results[-1].why}", file=sys.stderr, flush=True)
    print(table)
    return int(any(result.state == "failed" for result in results))


def chosen(only: str, device: str) -> list[Part]:
    """Return the parts whose names begin with a text; vLLM and the tests need a GPU."""
    found = [part for part in PARTS if part.name.startswith(only)]
    if device == "cpu" and not only:
        found = [part for part in found if part.module not in ("suite", "vllm")]
    if not found:
        raise SystemExit(f"--only {only!r}: parts are {', '.join(part.name for part in PARTS)}")
    return found


def parser() -> argparse.ArgumentParser:
    """Return the command-line parser."""
    found = argparse.ArgumentParser(
        prog="python -m bench.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--device", default="cuda", help="cuda (the default), cuda:<n> or cpu")
    found.add_argument("--tiny", action="store_true", help="a tiny model instead of both")
    found.add_argument("--only", default="", help="only parts whose names begin with this")
    found.add_argument("--seconds", type=float, default=_SECONDS, help="time for all parts")
    found.add_argument("--out", type=Path, default=ROOT / "var" / "bench" / "gpu")
    return found


if __name__ == "__main__":
    sys.exit(main())
