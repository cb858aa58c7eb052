"""Does the estimate find a person who votes the opposite?

    python -m bench.influence [--seeds 20]

Of ten people one votes the opposite of the rule, with a tenth of all votes (planted.py). Counts in
how many seeds that person is ranked as the most harmful, prints a Markdown table, and ends with 1
when it is fewer than 19 of 20.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from bench.influence.planted import planted_ranking

#: The share of seeds in which the planted person must be first.
BAR = 0.95


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    seeds = parser.parse_args().seeds
    started = time.monotonic()
    first = 0
    print("| seed | place of the planted person | validation loss, first and best |\n|---|---|---|")
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as directory:
            found = planted_ranking(Path(directory), seed)
        first += found.place == 1
        losses = f"{found.losses[0]:.4f} → {min(found.losses):.4f}"
        print(f"| {seed} | {found.place} | {losses} |", flush=True)
    print(f"\nFirst in {first} of {seeds} seeds, {time.monotonic() - started:.0f} s.")
    sys.exit(first < BAR * seeds)


if __name__ == "__main__":
    main()
