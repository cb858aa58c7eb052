"""Time from the last vote that a schedule waits for to the live version, with nobody there.

    make bench-unattended [ARGS='--votes 120 --json FILE']

The processes of `make demo` in a var/ directory of their own. A simulated annotator votes over
HTTP; the schedule queues a run at the last vote, the worker trains SmolLM2-135M, the gate decides,
and the version is released. Seconds of each part:

    queued    the schedule saw the last vote and took the snapshot
    started   a worker claimed the run
    trained   examples written, model loaded, trained
    decided   the evaluation, with its 40 prompts, and the gate's verdict
    live      loaded into the engine, canary answered, made live
    answered  the engine's first answer of that version
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import django

from feedback_app.localstack.prepare import prepare_model, prepare_site
from feedback_app.localstack.stack import Stack, StackError, to_stderr

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "var" / "bench" / "unattended"
VOTES = 120


def main() -> None:
    """Measure once and print a row of Markdown."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.unattended",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--votes", type=int, default=VOTES, help="that the schedule waits for")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    arguments = parser.parse_args()
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    (ROOT / "var" / "models").mkdir(exist_ok=True)
    (WORK / "models").symlink_to(ROOT / "var" / "models")
    os.environ |= {
        "PROSPECT_VAR": str(WORK),
        "PROSPECT_CACHE_DIR": os.environ.get("PROSPECT_CACHE_DIR") or str(ROOT / "var" / "cache"),
        "DATABASE_URL": f"sqlite:///{WORK / 'db.sqlite3'}",
        "DJANGO_SETTINGS_MODULE": "feedback_app.config.settings",
    }
    try:
        found = measured(arguments.votes)
    except StackError as error:
        sys.exit(str(error))
    print(table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def measured(votes: int) -> dict[str, Any]:
    """Return the seconds of each part, with what they depend on. Raises StackError."""
    prepare_model(to_stderr)
    prepare_site()
    stack = Stack()
    os.environ |= stack.plan.env  # the engine's address, for the settings of this process
    django.setup()
    from bench.unattended.measure import measure
    from feedback_app.closed_loop.people import PageError
    from feedback_app.closed_loop.proof import LoopBroken

    load = os.getloadavg()[0]
    model = stack.plan.env["BASE_MODEL"]
    with stack:
        try:
            times = measure(stack.url, base_model=model, votes=votes, say=to_stderr)
        except (LoopBroken, PageError) as error:
            raise StackError(f"{error} The logs are in {WORK / 'logs'}.") from error
    return {
        "base_model": model,
        "votes": votes,
        "cores": os.cpu_count(),
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
        "seconds": {name: round(seconds, 1) for name, seconds in times.seconds().items()},
    }


def table(found: Mapping[str, Any]) -> str:
    """Return the figures as a table of Markdown."""
    names = ["votes", *found["seconds"], "cores", "load"]
    before, after = found["load"]
    seconds = [f"{value:.1f}" for value in found["seconds"].values()]
    values = [str(found["votes"]), *seconds, str(found["cores"]), f"{before:.1f} to {after:.1f}"]
    rows = [names, ["---"] * len(names), values]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    main()
