"""How often the gate is wrong.

    python -m bench.gate errors [--worlds 200] [--pool REPORT]
    python -m bench.gate planted [--seeds 1] [--kinds collapsed,honest] [--no-brake]

`errors` simulates worlds on the measures of real answers (simulation.py): how often a version that
is equal to live, or worse by twice a margin, passes, and how often a better one does. `planted`
trains adapters with a fault on purpose (planted.py) and lets the gate judge them. Both keep their
results in var/bench/gate, and print Markdown tables.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "feedback_app.config.settings")
django.setup()

from bench.gate import simulation as s  # noqa: E402
from bench.gate.kinds import KINDS  # noqa: E402
from bench.gate.planted import ROOT, WORK, processor, starter_prompts  # noqa: E402
from feedback_app.training.gate.services import gate_of_report  # noqa: E402
from feedback_app.training.gate.settings import GateSettings  # noqa: E402
from feedback_app.training.models import GateOutcome  # noqa: E402
from trainer.models.loading import prepare  # noqa: E402

POOL_PROMPTS, POOL_ANSWERS = 60, 4
GAINS = (0.02, 0.05, 0.1, 0.2)
PLANTED = "planted@1"
#: Verdicts on random parts of an evaluation: so many, of so large a share of its prompts.
DRAWS, DRAWN = 20, 2 / 3
OUTCOMES = (GateOutcome.PASSED, GateOutcome.FAILED, GateOutcome.UNDECIDED)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parts = parser.add_subparsers(dest="part")
    errors = parts.add_parser("errors", help="error rates and power by simulation")
    errors.add_argument("--worlds", type=int, default=200)
    errors.add_argument("--pool", type=Path, help="report.json with four answers of the base")
    planted = parts.add_parser("planted", help="adapters trained with a fault")
    planted.add_argument("--seeds", type=int, default=1)
    planted.add_argument("--kinds", default=",".join(KINDS))
    planted.add_argument("--no-brake", action="store_true", help="train without the KL brake")
    arguments = parser.parse_args()
    if arguments.part != "planted":
        worlds = getattr(arguments, "worlds", 200)
        print_errors(pool_of(getattr(arguments, "pool", None)), worlds)
    if arguments.part != "errors":
        kinds = getattr(arguments, "kinds", ",".join(KINDS)).split(",")
        print_planted(
            kinds, getattr(arguments, "seeds", 1), brake=not getattr(arguments, "no_brake", False)
        )


def pool_of(path: Path | None) -> s.Pool:
    """Return the pool of a report, or of one that is made once: four answers of SmolLM2 each."""
    if path is None:
        path = WORK / "pool" / "report.json"
        if not path.exists():
            _evaluate_base(path.parent)
    return s.Pool(json.loads(path.read_text()))


def _evaluate_base(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "base_model": str(prepare(ROOT / "var" / "models")),
        "candidates": [{"name": "base", "path": None}],
        "max_tokens": 96,
        "temperature": 0.8,
        "answers_per_prompt": POOL_ANSWERS,
    }
    (directory / "evaluate.json").write_text(json.dumps(config))
    prompts = starter_prompts("unseen.jsonl", POOL_PROMPTS)
    (directory / "prompts.jsonl").write_text("".join(json.dumps(p) + "\n" for p in prompts))
    (directory / "test.jsonl").write_text("")
    subprocess.run([sys.executable, "-m", "trainer", "evaluate", str(directory)], check=True)


def print_errors(pool: s.Pool, worlds: int) -> None:
    """Print how often the gate passes what it must not pass, and what it should."""
    started = time.monotonic()
    print(f"\n### Wrongly passed, share of {worlds} worlds\n")
    equals = ["equal to live", *(f"{same:.0%} of its answers" for same in s.SAME[1:])]
    print("| votes | " + " | ".join([*equals, *s.HARMS]) + " |")
    print("|---" * (1 + len(equals) + len(s.HARMS)) + "|")
    for votes in s.VOTES:
        equal = [s.rates(pool, s.World(same=same), votes, worlds) for same in s.SAME]
        harms = s.harmed(pool, votes, worlds)
        cells = [rates.passed for rates in (*equal, *harms.values())]
        print(f"| {votes:,} | " + " | ".join(f"{100 * cell:.1f} %" for cell in cells) + " |")
    print("\n### Better by so many points: passed, failed, not enough evidence\n")
    print("| votes | " + " | ".join(f"+{100 * gain:.0f}" for gain in GAINS) + " |")
    print("|---" * (1 + len(GAINS)) + "|")
    for votes in s.VOTES:
        found = [s.power(pool, gain, votes, worlds) for gain in GAINS]
        cells = [
            " / ".join(f"{100 * x:.0f}" for x in (r.passed, r.failed, r.undecided)) for r in found
        ]
        print(f"| {votes:,} | " + " | ".join(cells) + " |")
    print(f"\n{time.monotonic() - started:.0f} s on {processor()}")


def print_planted(kinds: list[str], seeds: int, *, brake: bool = True) -> None:
    """Train each kind with each seed, unless it is there, and print the gate's verdicts."""
    print(
        f"\n| kind | seed | verdict | rules that decided it | of {DRAWS} draws: passed, failed, "
        "not enough evidence |\n|---|---|---|---|---|"
    )
    settings = GateSettings()
    for kind in kinds:
        for seed in range(seeds):
            report = _planted_report(kind, seed, brake=brake)
            if "failure" in report:
                print(f"| {kind} | {seed} | No version | {report['failure']} | |", flush=True)
                continue
            result = gate_of_report(report, settings, candidate=PLANTED)
            decided = [
                f"{rule.label}: {rule.text}"
                for rule in result.rules
                if rule.outcome == result.outcome != GateOutcome.PASSED
            ]
            draws = Counter(
                gate_of_report(drawn(report, number), settings, candidate=PLANTED).outcome
                for number in range(DRAWS)
            )
            counts = ", ".join(str(draws[outcome]) for outcome in OUTCOMES)
            reasons = "; ".join(decided)
            print(
                f"| {kind} | {seed} | {result.outcome.label} | {reasons} | {counts} |", flush=True
            )


def drawn(report: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return the report of the same evaluation with DRAWN of its prompts, and of its test prompts.

    It shows how far a verdict depends on which prompts were in the test split. Adapters that were
    trained again would differ by more.
    """
    rng = random.Random(seed)
    prompts = sorted({row["prompt"] for row in report["test"]})
    tested = set(rng.sample(prompts, k=round(DRAWN * len(prompts))))
    return {
        **report,
        "answers": rng.sample(report["answers"], k=round(DRAWN * len(report["answers"]))),
        "test": [row for row in report["test"] if row["prompt"] in tested],
    }


def _planted_report(kind: str, seed: int, *, brake: bool) -> dict[str, Any]:
    directory = WORK / "planted" / (f"{kind}-{seed}" if brake else f"{kind}-{seed}-no-brake")
    report = directory / "eval" / "report.json"
    summary = directory / "summary.json"
    if not summary.exists():
        if directory.exists():  # interrupted
            raise SystemExit(f"{directory} has no report: remove it and start again")
        command = [sys.executable, "-m", "bench.gate.planted", "--kind", kind]
        options = ["--seed", str(seed), "--directory", str(directory)]
        options += [] if brake else ["--no-brake"]
        subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads((report if report.exists() else summary).read_text())
    return found


if __name__ == "__main__":
    main()
