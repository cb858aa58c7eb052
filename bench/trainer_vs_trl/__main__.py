"""Speed and memory of our trainer compared with TRL's KTOTrainer on the same work.

    make bench-trainer [ARGS='--repeats 3 --only cold --sets one --json FILE']
    python -m bench.trainer_vs_trl …

Both train a LoRA adapter (r = 16 on all linear layers) for one epoch on the same 32 rows in batches
of eight: log-normal lengths of 143 + 162 tokens on average, at most 512 together. The set `one`
has one completion per prompt, `four` has eight prompts with four each. Every measurement is a
separate process; the two sides run in turns.

    cold      our reference cache is empty; TRL computes its reference in each step (its default)
    warm      we have trained on 30 of the rows before; TRL computes its reference in advance (on
              the first of the sets only)
    periodic  the cost of 500 new examples with 10,000 old ones, as a share of a full reference pass
    losses    given TRL's order and pairs, our loss of each step equals TRL's

The time is that of training: from the moment the model is loaded and the data tokenised to the last
optimiser step. Our first step needs no reference, which is a larger share of four steps than of a
hundred: docs/log.md has the seconds without it. Memory is the peak resident size of the process.
"""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from bench.trainer_vs_trl.figures import Figure, table
from bench.trainer_vs_trl.job import ROOT, WORK
from bench.trainer_vs_trl.measure import Bench
from bench.trainer_vs_trl.rows import SETS
from trainer.config import TrainConfig
from trainer.models.loading import prepare
from trainer.precision import automatic_precision

PARTS = ("cold", "warm", "periodic", "losses")
BATCH = 8


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(argv)
    from transformers import AutoTokenizer

    WORK.mkdir(parents=True, exist_ok=True)
    model = arguments.model or str(prepare(ROOT / "var" / "models"))
    config = TrainConfig(
        base_model=model,
        adapter_name="bench@1",
        batch_size=BATCH,
        epochs=1,
        # bfloat16, or float32 where this CPU emulates it
        dtype=automatic_precision(torch.device("cpu")).name,
        device="cpu",
        threads=arguments.threads,
    )
    bench = Bench(
        config=config.as_dict(),
        tokenizer=AutoTokenizer.from_pretrained(model),
        count=arguments.rows,
        repeats=arguments.repeats,
    )
    load = os.getloadavg()[0]
    bench.say(f"GEMM peak {bench.gemm_peak / 1e9:.0f} GFLOP/s, load of the machine {load:.1f}")
    figures = measured(bench, arguments.only, arguments.sets)
    conditions = {
        "model": Path(model).name,
        "rows": arguments.rows,
        "batch": BATCH,
        "dtype": config.dtype,
        "threads": arguments.threads,
        "repeats": arguments.repeats,
        "learning_rate": config.learning_rate,
        "beta": config.beta,
        "gemm_gflops": round(bench.gemm_peak / 1e9),
        "load_at_start": round(load, 1),
    }
    print(", ".join(f"{name} {value}" for name, value in conditions.items()))
    print(table(figures))
    if arguments.json:
        printed = {**conditions, "figures": [figure.as_dict() for figure in figures]}
        arguments.json.write_text(json.dumps(printed, indent=2) + "\n", encoding="utf-8")


def measured(bench: Bench, only: str | None, sets: Sequence[str]) -> list[Figure]:
    """Return the figures of all parts, or of one."""
    figures = []
    for part in PARTS if only is None else (only,):
        if part == "cold":
            for name in sets:
                figures += bench.cold(name)
        elif part == "warm":
            figures += bench.warm(sets[0])
        elif part == "periodic":
            figures += bench.periodic()
        else:
            figures += bench.losses()
    return figures


def parser() -> argparse.ArgumentParser:
    """Return the command-line parser."""
    found = argparse.ArgumentParser(
        prog="python -m bench.trainer_vs_trl",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--only", choices=PARTS, help="measure only this part")
    found.add_argument("--sets", type=_sets, default=tuple(SETS), help="one,four (the default)")
    found.add_argument("--repeats", type=int, default=3, help="repetitions of each side")
    found.add_argument("--rows", type=int, default=32, help="examples of a set: a multiple of 8")
    found.add_argument("--threads", type=int, default=2)
    found.add_argument("--model", help="directory of the base model; default: SmolLM2")
    found.add_argument("--json", type=Path, metavar="FILE", help="write the printed figures here")
    return found


def _sets(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in SETS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: known are {', '.join(SETS)}")
    return names


if __name__ == "__main__":
    main()
