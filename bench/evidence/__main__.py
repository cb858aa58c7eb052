"""Evidence that the loop improves models, and where it does not.

    python -m bench.evidence [--studies losses,noise]

Simulated annotators vote over HTTP on answers of SmolLM2-135M-Instruct by rules that are no guards
of the gate (rules.py). The project's trainer trains on snapshots of their votes, and every version
answers prompts that no project has. What is finished is kept in var/bench/evidence: an interrupted
run goes on. Tables, plots and figures of the studies that are complete go to docs/evidence.
"""

import argparse
import os
import signal
import sys
import time
from contextlib import ExitStack

import django

from bench.annotation_vs_labelstudio import servers

WORK = servers.ROOT / "var" / "bench" / "evidence"
os.environ.update(servers.ours_env("sqlite", WORK / "site", {}))
# training and decoding take all cores; the web app's processes get one thread each
del os.environ["OMP_NUM_THREADS"]
(WORK / "site").mkdir(parents=True, exist_ok=True)
django.setup()

from bench.evidence.cells import tidy  # noqa: E402
from bench.evidence.pool import MAX_TOKENS, UNSEEN  # noqa: E402
from bench.evidence.report import Result, as_json, markdown, plot, result  # noqa: E402
from bench.evidence.site import Site, site  # noqa: E402
from bench.evidence.studies import SEEDS, STUDIES, VOTES, Study  # noqa: E402

DOCS = servers.ROOT / "docs" / "evidence"
FOOT = """
{votes} votes train an adapter unless the table says otherwise, with {seeds} seeds: each draws its \
votes, its adapter and its answers to {unseen} prompts. Intervals are of 95 %, over prompts and \
seeds; bold ones exclude zero. “Finished” is the share of answers that ended before the limit of \
{tokens} tokens. Written by `make evidence ARGS="--studies {name}"` on {processor}; what all \
studies together say is in [Evidence](index.md).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--studies", default=",".join(study.name for study in STUDIES))
    parser.add_argument("--tidy", action="store_true", help="remove the trained models at the end")
    arguments = parser.parse_args()
    names = arguments.studies.split(",")
    unknown = set(names) - {study.name for study in STUDIES}
    if unknown:
        parser.error(f"there is no study {', '.join(sorted(unknown))}")
    # ends the web app as well, as Ctrl-C does
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    with ExitStack() as stack:
        opened: list[Site] = []

        def open_site() -> Site:
            if not opened:
                opened.append(stack.enter_context(site()))
            return opened[0]

        for study in STUDIES:
            if study.name in names:
                say(started, f"{study.title} …")
                results = [result(table) for table in study.tables(open_site)]
                write(study, results)
                print(markdown(study, results), flush=True)
    if arguments.tidy:
        tidy()
    say(started, f"written to {DOCS.relative_to(servers.ROOT)}")


def write(study: Study, results: list[Result]) -> None:
    """Write a study's page, plots and figures."""
    DOCS.mkdir(parents=True, exist_ok=True)
    for number, found in enumerate(results):
        plot(study, number, found, DOCS)
    foot = FOOT.format(
        votes=VOTES,
        seeds=len(SEEDS),
        unseen=UNSEEN,
        tokens=MAX_TOKENS,
        name=study.name,
        processor=" and ".join(sorted(frozenset().union(*(one.processors for one in results)))),
    )
    (DOCS / f"{study.name}.md").write_text(markdown(study, results) + foot)
    (DOCS / f"{study.name}.json").write_text(as_json(results))


def say(started: float, text: str) -> None:
    print(f"[{time.monotonic() - started:6.0f} s] {text}", flush=True)


if __name__ == "__main__":
    main()
