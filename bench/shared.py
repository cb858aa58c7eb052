"""How streams and a training run slow each other down on one machine.

    make bench-shared [ARGS='--seconds 40 --nice 0 10 --foreign 4 --json FILE']

On SmolLM2-135M, each process in its own session, as `make demo` starts them. Measured one after
the other: streams alone, the run alone, both together for each niceness of the run, and streams
with busy foreign processes. One stream and eight without a pause, which leave the run only the
remaining processor time; and one reader who takes 12 s to read each answer of 64 tokens (240 words
per minute), the typical load of a demo during a run.

`tools/avx2.py python -m bench.shared` measures the same with AVX2 only.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.engine_parts.client import first_token, question, run, tokens_per_second
from bench.plan import Workload, write_run
from tests.engines import answers, free_port, wait_until
from trainer.models.loading import prepare

ROOT = Path(__file__).resolve().parent.parent
TOKENS = 64
#: Seconds to read an answer.
READING = 12.0
#: Readers of each load, and seconds between their answers.
LOADS = {"one reader": (1, READING), "one stream": (1, 0.0), "eight streams": (8, 0.0)}
#: Short steps, so that the speed is known after half a minute, and a loss without mismatched pairs,
#: so that the reference is complete early.
WORKLOAD = Workload(
    "shared",
    32,
    60,
    80,
    config={"batch_size": 4, "epochs": 500, "loss": "apo_zero_unpaired"},
)


@dataclass(frozen=True)
class Load:
    """Streams as measured by their clients: tokens/s of all, seconds to the first token."""

    tokens_per_second: float
    first_word: float


@dataclass(frozen=True)
class Row:
    """One line of the table; `bar` is the required ratio, empty where there is none."""

    what: str
    value: float
    alone: float
    bar: str

    @property
    def ratio(self) -> float:
        return self.value / self.alone


class Trainer:
    """A run in progress, and its speed so far."""

    def __init__(self, run_dir: Path) -> None:
        self._events = run_dir / "events.jsonl"

    def steps(self) -> list[dict[str, Any]]:
        if not self._events.exists():
            return []
        events = [json.loads(line) for line in self._events.read_text().splitlines() if line]
        return [event for event in events if event["type"] == "step"]

    def wait_steps(self, count: int) -> None:
        wait_until(lambda: len(self.steps()) >= count, seconds=900, what=f"{count} steps")

    def rate_since(self, known: int) -> float:
        """Return the tokens per second of the steps after the first `known` ones."""
        done = self.steps()[known:]
        return sum(step["tokens"] for step in done) / sum(step["seconds"] for step in done)


@contextmanager
def child(command: Sequence[str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a process in its own session until the block ends."""
    with log.open("wb") as written:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=written, stderr=written, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def engine(model: str, work: Path) -> Iterator[str]:
    url = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "trainer", "serve", "--model", model, "--artifacts", str(work)]
    command += ["--port", url.rpartition(":")[2], "--served-model-name", "base"]
    with child(command, work / "engine.log"):
        wait_until(lambda: answers(f"{url}/health"), seconds=300, what="the engine")
        yield url


@contextmanager
def training(model: str, work: Path, nice: int) -> Iterator[Trainer]:
    """Start a run and wait for its first steps."""
    with tempfile.TemporaryDirectory(dir=work) as directory:
        run_dir = Path(directory) / "run"
        write_run(run_dir, WORKLOAD, model=model, threads=os.cpu_count() or 1)
        command = [sys.executable, "-m", "trainer", "train", str(run_dir), "--nice", str(nice)]
        trainer = Trainer(run_dir)
        with child(command, work / "trainer.log"):
            trainer.wait_steps(2)
            yield trainer


@contextmanager
def foreign(count: int, work: Path) -> Iterator[None]:
    """Run processes that compute without end, like other programs of the machine."""
    with ExitStack() as stack:
        for _ in range(count):
            busy = [sys.executable, "-c", "while True: pass"]
            stack.enter_context(child(busy, work / "foreign.log"))
        yield


class Bench:
    def __init__(self, model: str, seconds: float, work: Path) -> None:
        self.model, self.seconds, self.work = model, seconds, work
        self._numbers = 0

    def streams(self, url: str, count: int, pause: float) -> Load:
        """Run `count` readers for about `seconds`, each with one answer at a time."""
        found, rates = [], []
        started = time.monotonic()
        while time.monotonic() - started < self.seconds or len(rates) < 3:
            bodies = []
            for _ in range(count):
                self._numbers += 1
                bodies.append([self._body(self._numbers)])
            streams = run(url, bodies, stagger=0.05)
            rates.append(tokens_per_second(streams))
            found += streams
            time.sleep(pause)
        return Load(median(rates), first_token(found))

    def _body(self, number: int) -> dict[str, Any]:
        return {
            "model": "base",
            "messages": question(number),
            "max_tokens": TOKENS,
            "temperature": 0,
            "ignore_eos": True,
            "return_token_ids": True,
        }

    def measure(self, levels: Sequence[int], busy: int) -> list[Row]:
        rows: list[Row] = []
        with engine(self.model, self.work) as url:
            self.streams(url, 8, 0)
            alone = {name: self.streams(url, *load) for name, load in LOADS.items()}
            run_alone = 0.0
            for nice in levels:
                with training(self.model, self.work, nice) as trainer:
                    if not run_alone:
                        known = len(trainer.steps())
                        time.sleep(self.seconds)
                        trainer.wait_steps(known + 3)
                        run_alone = trainer.rate_since(known)
                    rows += self._beside(url, trainer, nice, alone, run_alone)
            with foreign(busy, self.work):
                for name in ("one stream", "eight streams"):
                    crowded = self.streams(url, *LOADS[name])
                    rows += compared(
                        f"{name} beside {busy} busy processes", crowded, alone[name], "≥ 0.15", ""
                    )
        return rows

    def _beside(
        self, url: str, trainer: Trainer, nice: int, alone: dict[str, Load], run_alone: float
    ) -> Iterator[Row]:
        for name, load in LOADS.items():
            known = len(trainer.steps())
            beside = self.streams(url, *load)
            trainer.wait_steps(known + 1)
            what = f"{name} beside a run at niceness {nice}"
            yield from compared(what, beside, alone[name], "≥ 0.35", "≤ 3")
            bar = "≥ 0.75" if name == "one reader" else ""
            yield Row(f"the run beside {name}", trainer.rate_since(known), run_alone, bar)


def compared(what: str, found: Load, alone: Load, rate_bar: str, first_bar: str) -> list[Row]:
    return [
        Row(f"{what}, tokens/s", found.tokens_per_second, alone.tokens_per_second, rate_bar),
        Row(f"{what}, s to the first word", found.first_word, alone.first_word, first_bar),
    ]


def table(rows: Sequence[Row]) -> str:
    lines = ["| what | beside | alone | ratio | bar |", "|---|---|---|---|---|"]
    lines += [
        f"| {row.what} | {row.value:.3g} | {row.alone:.3g} | {row.ratio:.2f} | {row.bar} |"
        for row in rows
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.shared",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=40, help="duration of each measurement")
    parser.add_argument("--nice", type=int, nargs="+", default=[0, 10], help="niceness of the run")
    parser.add_argument("--foreign", type=int, default=4, help="number of busy processes")
    parser.add_argument("--model", help="directory of the base model; default: SmolLM2")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    arguments = parser.parse_args(argv)
    work = ROOT / "var" / "bench" / "shared"
    work.mkdir(parents=True, exist_ok=True)
    model = arguments.model or str(prepare(ROOT / "var" / "models"))
    print(f"cores {os.cpu_count()}, load at start {os.getloadavg()[0]:.1f}", flush=True)
    rows = Bench(model, arguments.seconds, work).measure(arguments.nice, arguments.foreign)
    print(table(rows))
    if arguments.json:
        found = [{**asdict(row), "ratio": row.ratio} for row in rows]
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
