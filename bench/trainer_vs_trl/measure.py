"""The measurements: which processes run in which order, and the figures computed from them."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.trainer_vs_trl.figures import Bar, Figure
from bench.trainer_vs_trl.floor import ideal_operations, padding
from bench.trainer_vs_trl.job import WORK, Job, Result, run
from bench.trainer_vs_trl.periodic import share_of_a_full_pass
from bench.trainer_vs_trl.rows import SETS, Row, Shape, make_rows, write_rows
from trainer.config import TrainConfig

COLD_BARS = {"one": Bar(5.0, at_least=True), "four": Bar(7.0, at_least=True)}
WARM_BAR = Bar(7.0, at_least=True)
MEMORY_BAR = Bar(0.5, at_least=False)
PERIODIC_BAR = Bar(0.06, at_least=False)
LOSS_BAR = Bar(1e-4, at_least=False)
#: the share of rows that a warm run has not used before, rounded to whole rows
NEW_ROWS = 0.05
# Small enough that TRL in fp32 needs a minute or two; every prompt has two completions.
LOSS_ROWS, LOSS_BATCH, LOSS_SHAPE = 16, 4, Shape(prompt=60, completion=70, limit=220)
TRIAL_OLD, TRIAL_NEW, TRIAL_SHAPE = 200, 10, Shape(prompt=20, completion=24, limit=64)

Pairs = Sequence[tuple[Result, Result]]


@dataclass
class Bench:
    """One run of the benchmark: `config` has the settings of both sides, named as in TrainConfig;
    both sides train on `count` rows `repeats` times."""

    config: dict[str, Any]
    tokenizer: Any
    count: int
    repeats: int
    started: float = field(default_factory=time.monotonic)

    @cached_property
    def gemm_peak(self) -> float:
        """Return the operations per second of the fastest matrix product in the training type."""
        return self._run("gemm", "gemm", rows=Path()).facts["flops"]

    def cold(self, name: str) -> list[Figure]:
        """Compare an empty reference cache with TRL's default; with memory and share of peak."""
        rows, path = self._rows(name)
        pairs = self._take_turns(f"cold-{name}", path)
        label = f"cold, {name}"
        figures = [
            *_speeds(label, len(rows), pairs, COLD_BARS[name]),
            Figure.ratio(
                f"{label}: peak memory, GB",
                [ours.peak / 1e9 for ours, _ in pairs],
                [trl.peak / 1e9 for _, trl in pairs],
                bar=MEMORY_BAR,
            ),
        ]
        training = [(ours.training_memory, trl.training_memory) for ours, trl in pairs]
        if all(mine and theirs for mine, theirs in training):
            figures.append(
                Figure.ratio(
                    f"{label}: beyond the loaded model, GB",
                    [(mine or 0) / 1e9 for mine, _ in training],
                    [(theirs or 0) / 1e9 for _, theirs in training],
                )
            )
        wasted = padding(rows, int(self.config["batch_size"]))
        return [
            *figures,
            self._gemm_share(label, rows, pairs, known=0),
            Figure(f"{label}: padding of batches in file order", trl=wasted),
        ]

    def warm(self, name: str) -> list[Figure]:
        """Compare a second run with a little new feedback with TRL's reference pass in advance."""
        rows, path = self._rows(name)
        known = len(rows) - max(1, round(len(rows) * NEW_ROWS))
        old = WORK / f"rows-{name}-old.json"
        write_rows(old, rows[:known])
        first = f"warm-{name}-first"
        self._run(first, "ours", rows=old)
        pairs = self._take_turns(f"warm-{name}", path, after=first)
        label = f"warm, {name}"
        return [
            *_speeds(label, len(rows), pairs, WARM_BAR),
            self._gemm_share(label, rows, pairs, known=known),
        ]

    def losses(self) -> list[Figure]:
        """Compare our loss of each step, on TRL's order and pairs, with TRL's; where this CPU has
        bfloat16 units also in bfloat16, and how far each side is from its losses in fp32."""
        path = self._make("losses", LOSS_ROWS, 2, LOSS_SHAPE)
        found: dict[str, tuple[Result, Result]] = {}
        for dtype in dict.fromkeys(("float32", str(self.config["dtype"]))):
            given = {"batch_size": LOSS_BATCH, "dtype": dtype}
            theirs = f"losses-{dtype}-trl"
            trl = self._run(theirs, "trl", rows=path, given=given)
            ours = self._run(f"losses-{dtype}", "ours", rows=path, given=given, follow=theirs)
            found[dtype] = (ours, trl)
        ours, trl = found["float32"]
        exact = Figure(
            "losses in fp32: largest difference", each=(_apart(ours, trl),), bar=LOSS_BAR
        )
        if "bfloat16" not in found:
            return [exact]
        ours_short, trl_short = found["bfloat16"]
        return [
            exact,
            Figure("losses in bf16: largest difference", each=(_apart(ours_short, trl_short),)),
            Figure(
                "losses in bf16: farthest from those in fp32",
                ours=_apart(ours_short, ours),
                trl=_apart(trl_short, trl),
            ),
        ]

    def periodic(self) -> list[Figure]:
        """Return the cost of new feedback with much old: counted, and measured on a small scale."""
        figures = []
        epochs = TrainConfig.epochs
        for name, per_prompt in SETS.items():
            for scattered in (False, True):
                where = "anywhere" if scattered else "at the end"
                found = share_of_a_full_pass(per_prompt, scattered=scattered, epochs=epochs)
                for what, share in zip(("pairs", "tokens"), found, strict=True):
                    label = f"periodic, {name}, new ones {where}: {what}"
                    bar = None if scattered else PERIODIC_BAR
                    figures.append(Figure(label, each=(share,), bar=bar, unit="%"))
        path = self._make("periodic", TRIAL_OLD + TRIAL_NEW, 1, TRIAL_SHAPE)
        old = WORK / "rows-periodic-old.json"
        write_rows(old, Row.read_all(path)[:TRIAL_OLD])
        first = self._run("periodic-first", "ours", rows=old, reference_only=True)
        second = self._run(
            "periodic-second", "ours", rows=path, reference_only=True, after="periodic-first"
        )
        full = self._run("periodic-full", "ours", rows=path, reference_only=True)
        grown = (second.facts["cache"] - first.facts["cache"]) / full.facts["cache"]
        label = f"periodic, {TRIAL_NEW} rows after {TRIAL_OLD} on the model"
        return [
            *figures,
            Figure(f"{label}: growth of the cache", each=(grown,), unit="%"),
            Figure(f"{label}: seconds", each=(second.seconds / full.seconds,), unit="%"),
        ]

    def say(self, words: str) -> None:
        """Print a line of progress."""
        print(f"[{time.monotonic() - self.started:5.0f} s] {words}", file=sys.stderr, flush=True)

    def _take_turns(self, label: str, rows: Path, *, after: str | None = None) -> Pairs:
        """Run both sides on the same rows, in turn, each of them first every other time. With an
        earlier run in `after`, TRL computes its reference in advance."""
        pairs = []
        for repeat in range(self.repeats):
            found = {}
            for side in ("ours", "trl") if repeat % 2 else ("trl", "ours"):
                name = f"{label}-{repeat + 1}-{side}"
                ours = side == "ours"
                found[side] = self._run(
                    name,
                    side,
                    rows=rows,
                    after=after if ours else None,
                    precompute=after is not None and not ours,
                )
            pairs.append((found["ours"], found["trl"]))
        return pairs

    def _run(
        self,
        name: str,
        side: str,
        *,
        rows: Path,
        given: dict[str, object] | None = None,
        **changes: Any,
    ) -> Result:
        job = Job(name, side, str(rows), {**self.config, **(given or {})}, **changes)
        result = run(job)
        self.say(
            f"{name}: {result.seconds:.1f} s of training, {result.process_seconds:.0f} s in all, "
            f"{result.peak / 1e9:.2f} GB"
        )
        return result

    def _rows(self, name: str) -> tuple[list[Row], Path]:
        path = self._make(name, self.count, SETS[name], Shape())
        return Row.read_all(path), path

    def _make(self, name: str, count: int, per_prompt: int, shape: Shape) -> Path:
        path = WORK / f"rows-{name}.json"
        rows = make_rows(self.tokenizer, count=count, per_prompt=per_prompt, shape=shape)
        write_rows(path, rows)
        return path

    def _gemm_share(self, label: str, rows: Sequence[Row], pairs: Pairs, *, known: int) -> Figure:
        """Return both sides' share of the GEMM peak; TRL always computes the whole reference."""
        facts = pairs[0][0].facts
        peak = self.gemm_peak / 100

        def shares(seconds: Sequence[float], known: int) -> list[float]:
            operations = ideal_operations(
                rows, parameters=facts["parameters"], head=facts["head"], known=known
            )
            return [operations / value / peak for value in seconds]

        ours = shares([result.seconds for result, _ in pairs], known)
        trl = shares([result.seconds for _, result in pairs], 0)
        return Figure.ratio(f"{label}: ideal work, % of the GEMM peak", ours, trl)


def _apart(one: Result, other: Result) -> float:
    """Return the largest difference between the losses of two runs, step by step."""
    return max(abs(a - b) for a, b in zip(one.losses, other.losses, strict=True))


def _speeds(label: str, rows: int, pairs: Pairs, bar: Bar) -> list[Figure]:
    return [
        Figure.ratio(
            f"{label}: examples/s",
            [rows / ours.seconds for ours, _ in pairs],
            [rows / trl.seconds for _, trl in pairs],
            bar=bar,
        ),
        Figure.ratio(
            f"{label}: seconds of the whole process",
            [ours.process_seconds for ours, _ in pairs],
            [trl.process_seconds for _, trl in pairs],
        ),
    ]
