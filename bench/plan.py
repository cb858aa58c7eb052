"""Accuracy of `python -m trainer plan`: predicted memory and time compared with short trainings.

Each workload trains SmolLM2-135M for a step or two in a separate process, whose peak resident
memory (VmHWM) is compared with the plan. Afterwards the measured constants of
trainer/planning/{memory,plan}.py are fitted again: copy them there after a change of the loop.

    python -m bench.plan [--model DIR] [--threads N] [--only TEXT] [--json FILE]
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "var" / "models" / "SmolLM2-135M-Instruct"
MIB = 2**20


@dataclass(frozen=True)
class Workload:
    """Examples of log-normal lengths around `prompt` and `completion` tokens (spread 0: all equal)
    after a system prompt of `system` tokens that they share."""

    name: str
    examples: int
    prompt: int
    completion: int
    spread: float = 0.5
    system: int = 0
    config: dict[str, Any] = field(default_factory=dict)


WORKLOADS = (
    Workload("short rows, a pack at a time", 16, 40, 60, config={"held_tokens": 0}),
    Workload("chat, a pack at a time", 16, 110, 160, system=30, config={"held_tokens": 0}),
    Workload("chat, all held", 16, 110, 160, system=30),
    Workload("long rows", 4, 500, 500, spread=0, config={"held_tokens": 0}),
    Workload("float32", 8, 60, 100, config={"held_tokens": 0, "dtype": "float32"}),
)


def write_run(directory: Path, workload: Workload, *, model: str, threads: int) -> None:
    """Write a run directory of random tokens: the text does not affect memory or time."""
    rng = random.Random(7)
    config = {
        "base_model": model,
        "adapter_name": "plan@1",
        "batch_size": max(2, workload.examples // 2),
        "epochs": 1,
        "kl_brake": None,
        "probe_every": 1000,
        "checkpoint_every": 1000,
        "device": "cpu",
        "threads": threads,
        **workload.config,
    }
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config))
    system = [rng.randrange(100, 40_000) for _ in range(workload.system)]
    lines = []
    for number in range(workload.examples):
        prompt, completion = (
            [rng.randrange(100, 40_000) for _ in range(length(rng, mean, workload.spread))]
            for mean in (workload.prompt, workload.completion)
        )
        lines.append(
            {
                "id": f"e{number}",
                "prompt": [{"role": "user", "content": f"Question {number}?"}],
                "completion": [{"role": "assistant", "content": "An answer."}],
                "label": number % 2 == 0,
                "weight": 1.0,
                "prompt_token_ids": system + prompt,
                "completion_token_ids": completion,
                "finish_reason": "length",
            }
        )
    (directory / "examples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def length(rng: random.Random, mean: int, spread: float) -> int:
    """Return a length in tokens; log-normal, cut at three times its median."""
    return (
        mean if spread == 0 else min(3 * mean, max(4, round(mean * rng.lognormvariate(0, spread))))
    )


def peak_bytes() -> int:
    """Return the peak resident memory of this process since it started."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [text for text in status.read_text().splitlines() if text.startswith("VmHWM")]
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts bytes


def child(run_dir: str) -> None:
    """Train, then print the exit code and the peak memory."""
    from trainer.__main__ import main

    code = main(["train", run_dir])
    print(json.dumps({"code": code, "peak": peak_bytes()}))


def measure(workload: Workload, *, model: str, threads: int) -> dict[str, Any]:
    """Plan and train one workload."""
    with tempfile.TemporaryDirectory(prefix="plan-bench-") as scratch:
        run = Path(scratch) / "run"
        write_run(run, workload, model=model, threads=threads)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads)}

        def call(*arguments: str) -> dict[str, Any]:
            done = subprocess.run(
                [sys.executable, *arguments],
                check=True,
                capture_output=True,
                text=True,
                env=environment,
                cwd=ROOT,
            )
            found: dict[str, Any] = json.loads(done.stdout)
            return found

        planned = call("-m", "trainer", "plan", str(run))
        trained = call("-m", "bench.plan", "--child", str(run))
        if trained["code"]:
            raise SystemExit(f"training ended with exit code {trained['code']}")
        lines = (run / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    return {
        "workload": workload.name,
        "dtype": workload.config.get("dtype", "bfloat16"),
        "predicted": planned["memory"],
        "measured": trained["peak"],
        "predicted_seconds": planned["estimated_seconds"],
        "measured_seconds": events[-1]["time"] - events[0]["time"],
    }


def fitted(rows: list[dict[str, Any]], heap: float) -> tuple[float, float]:
    """Fit PROCESS + KERNELS in MiB and HEAP to the bfloat16 workloads (least squares)."""
    points = []
    for row in rows:
        if row["dtype"] == "bfloat16":
            parts = row["predicted"]
            x = (parts["activations"] + parts["attention"]) / heap
            rest = sum(parts[name] for name in ("base", "adapter", "logits", "workspace"))
            points.append((x, row["measured"] - rest))
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum(
        (x - mean_x) ** 2 for x, _ in points
    )
    return (mean_y - slope * mean_x) / MIB, slope


def main() -> None:
    """Measure every workload and print the table and the constants."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default=str(MODEL))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="workloads whose name contains this text")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child)
        return
    rows = []
    names = ("base", "adapter", "activations", "attention", "logits", "workspace", "process")
    print(
        "| workload | " + " | ".join(names) + " | predicted MiB | measured | ratio | s predicted |"
    )
    print("|---" * (len(names) + 5) + "|")
    for workload in WORKLOADS:
        if arguments.only not in workload.name:
            continue
        row = measure(workload, model=arguments.model, threads=arguments.threads)
        rows.append(row)
        parts = row["predicted"]
        cells = [f"{parts[name] / MIB:.0f}" for name in names]
        print(
            f"| {row['workload']} | {' | '.join(cells)} | {parts['total'] / MIB:.0f} "
            f"| {row['measured'] / MIB:.0f} | {parts['total'] / row['measured']:.2f} "
            f"| {row['predicted_seconds']} of {row['measured_seconds']:.0f} |",
            flush=True,
        )
    from trainer.planning.memory import HEAP, KERNELS_CPU, PROCESS_CPU
    from trainer.planning.plan import EFFICIENCY, START_SECONDS

    if sum(row["dtype"] == "bfloat16" for row in rows) > 1:
        process, heap = fitted(rows, HEAP)
        print(
            f"\nFitted: PROCESS_CPU + KERNELS_CPU = {process:.0f} MiB "
            f"(now {(PROCESS_CPU + KERNELS_CPU) / MIB:.0f}), HEAP = {heap:.2f} (now {HEAP:.2f})"
        )
    speeds = [
        (row["predicted_seconds"] - START_SECONDS) / max(1, row["measured_seconds"] - START_SECONDS)
        for row in rows
    ]
    print(f"Fitted: EFFICIENCY = {EFFICIENCY * median(speeds):.2f} (now {EFFICIENCY:.2f})")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
