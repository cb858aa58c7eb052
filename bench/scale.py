"""What every page, API operation and transfer costs at 10,000 completions and at a million.

    make bench-scale [ARGS='--sizes 10000,50000 --repeats 40 --only examples --json FILE']

Two databases on one PostgreSQL server with its default settings (fsync, synchronous commits), each
behind the web process of the Procfile. The requests of both sizes take turns in small blocks, so
that other load on the machine affects both. Then 32 annotators vote, each as often as a project's
default limit of 3,000 votes per hour allows, while every page is requested again. At last a
snapshot, exports and imports of all examples, with rows/s and peak memory.

The processor's time of a request (web process and database) is printed beside it: other load on the
machine does not change it much.

`--directory` keeps the databases for the next run: filling a million takes some ten minutes.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median, quantiles
from typing import Any

import psycopg

from bench.annotation_vs_labelstudio import servers
from bench.scale_parts.client import Client, Refused
from bench.scale_parts.operations import Operation, operations
from bench.scale_parts.transfers import FORMATS, Transfer, transfers

RATIO_BAR = 1.5
#: Smaller differences are not counted, in milliseconds: half a frame of a screen, and for the p99
#: what the scheduler of two busy cores adds to one request in a hundred.
FLOOR, TAIL_FLOOR = 3.0, 10.0
TAIL_BAR = 150.0
#: A project's default limit is 3,000 votes per hour.
ANNOTATORS, PAUSE = 32, 1.2
#: Peak memory may differ by this many MB between the sizes.
MEMORY_BAR = 64.0
BLOCK = 5
#: How often operations above a bar are measured again, in addition.
AGAIN = 2


@dataclass
class Site:
    """The database of one size, its web process and the client."""

    completions: int
    environment: dict[str, str]
    client: Client
    #: of the web process and of the database
    pids: tuple[int, int]
    #: milliseconds by operation, and of the processor, web process and database together
    taken: dict[str, list[float]] = field(default_factory=dict)
    processor: dict[str, list[float]] = field(default_factory=dict)


def p99(values: Sequence[float]) -> float:
    return quantiles(values, n=100, method="inclusive")[98]


@contextmanager
def valkey(directory: Path) -> Iterator[str]:
    """Run the cache of the Procfile; yield its address."""
    port = servers.free_port()
    command = [sys.executable, "tools/valkey_server.py", "--port", str(port)]
    process = subprocess.Popen([*command, "--dir", str(directory)], cwd=servers.ROOT)
    try:
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def run_json(module: str, *arguments: str, environment: dict[str, str]) -> Any:
    """Run a module of scale_parts; return the JSON of its last line."""
    command = [sys.executable, "-m", f"bench.scale_parts.{module}", *arguments]
    return servers.fill(command, environment)


def database_url(server: dict[str, str], name: str) -> str:
    return server["url"].rpartition("/")[0] + f"/{name}"


def create(server: dict[str, str], name: str, *, template: str = "template1") -> None:
    """Create an empty database, or a copy of another, in place of one of that name."""
    place = {"host": server["host"], "user": server["user"], "dbname": "postgres"}
    with psycopg.connect(**place, autocommit=True) as connection:  # type: ignore[arg-type]
        connection.execute(f'DROP DATABASE IF EXISTS "{name}"')
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')


@contextmanager
def site(server: dict[str, str], cache: str, size: int, directory: Path) -> Iterator[Site]:
    """Fill the database of a size if it is not there, and serve it."""
    var = directory / str(size)
    var.mkdir(exist_ok=True)
    environment = servers.ours_env(
        "postgres", var, {**server, "url": database_url(server, f"scale_{size}")}
    )
    environment |= {"API_REQUESTS_PER_MINUTE": "1000000", "REDIS_URL": cache}
    known = var / "world.json"
    if not known.exists():
        started = time.monotonic()
        create(server, f"scale_{size}")
        filled = run_json("fill", str(size), environment=environment)
        known.write_text(json.dumps(filled))
        print(f"filled {size:,} in {time.monotonic() - started:.0f} s", flush=True)
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "-v", "0"],
        env={**os.environ, **environment},
        cwd=servers.ROOT,
        check=True,
    )
    world = json.loads(known.read_text()) | run_json("places", environment=environment)
    world["started"] = time.time()
    servers.collect(environment)
    port = servers.free_port()
    log = var / "server.log"
    with servers.serving(servers.ours_command(port), environment, port, log) as pid:
        yield Site(size, environment, Client(port, world), (pid, int(server["pid"])))


# -- operations at both sizes


def measure(sites: list[Site], wanted: list[Operation], repeats: int) -> list[str]:
    """Repeat each operation at each size, in turns of a few; return what was refused."""
    refused = []
    for number, operation in enumerate(wanted):
        try:
            repeat(sites, operation, repeats)
        except Refused as error:
            refused.append(str(error))
            print(error, flush=True)
        else:
            place = f"{number + 1}/{len(wanted)}"
            print(f"{line(operation.name, sites)} {place}", flush=True)
    return refused


def repeat(sites: list[Site], operation: Operation, repeats: int) -> None:
    for each in sites:
        each.client.measure(operation)  # warms up
    for _ in range(-(-repeats // BLOCK)):
        for each in sites:
            before = servers.cpu_seconds(*each.pids)
            times = each.taken.setdefault(operation.name, [])
            times += [each.client.measure(operation) for _ in range(BLOCK)]
            spent = servers.cpu_seconds(*each.pids) - before
            each.processor.setdefault(operation.name, []).append(1_000 * spent / BLOCK)


def line(name: str, sites: list[Site]) -> str:
    """Return an operation's row of the table."""
    cells = [f"{median(s.taken[name]):.1f} / {p99(s.taken[name]):.1f}" for s in sites]
    first, last = sites[0].taken[name], sites[-1].taken[name]
    ratios = f"{median(last) / median(first):.2f} / {p99(last) / p99(first):.2f}"
    spent = " → ".join(f"{mean(s.processor[name]):.0f}" for s in sites)
    fault = "" if not above(name, sites) else "above"
    return f"| {name} | {' | '.join(cells)} | {ratios} | {spent} | {fault} |"


def above(name: str, sites: list[Site]) -> bool:
    """Return whether the larger size costs more than the bars allow."""
    first, last = (of.taken.get(name, [0.0, 0.0]) for of in (sites[0], sites[-1]))
    return any(
        of(last) > RATIO_BAR * of(first) and of(last) - of(first) > floor
        for of, floor in ((median, FLOOR), (p99, TAIL_FLOOR))
    )


# -- under load


@contextmanager
def annotators(each: Site, *, seconds: float, pause: float) -> Iterator[dict[str, Any]]:
    """Let the annotators vote during the block; their figures are there after it."""
    world, found = each.client.world, {}
    job = {
        "port": each.client.port,
        "project": world["project"],
        "sessions": world["annotators"][:ANNOTATORS],
        "seconds": seconds,
        "pause": pause,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.scale_parts.load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=servers.ROOT,
    )
    assert process.stdin
    process.stdin.write(json.dumps(job))
    process.stdin.close()
    process.stdin = None
    try:
        yield found
        output, _ = process.communicate(timeout=seconds + 300)
        found.update(json.loads(output))
    finally:
        process.kill()
        process.wait()


def crowded(each: Site, wanted: list[Operation], seconds: float) -> list[tuple[str, bool]]:
    """Request every operation while the annotators vote; return the bars. Items that they have
    judged meanwhile are refused: those operations are left out from then on."""
    taken: dict[str, list[float]] = {}
    refused: set[str] = set()
    until = time.monotonic() + seconds
    with annotators(each, seconds=seconds, pause=PAUSE) as votes:
        time.sleep(min(5.0, seconds / 4))
        while time.monotonic() < until:
            for operation in wanted:
                if time.monotonic() >= until:
                    break
                if operation.name not in refused:
                    try:
                        milliseconds = each.client.measure(operation)
                    except Refused:
                        refused.add(operation.name)
                    else:
                        taken.setdefault(operation.name, []).append(milliseconds)
    print(f"\n{ANNOTATORS} annotators, {votes['rate']:.1f} votes/s; p50 / p99 of", flush=True)
    cycle = votes["milliseconds"]
    print(f"| a verdict with the next item | {median(cycle):.1f} / {p99(cycle):.1f} |")
    everything = [value for values in taken.values() for value in values]
    print(f"| all pages and operations | {median(everything):.1f} / {p99(everything):.1f} |")
    slow = {name: max(values) for name, values in taken.items() if median(values) > TAIL_BAR / 2}
    for name, most in sorted(slow.items(), key=lambda item: -item[1]):
        print(
            f"| {name} | {median(taken[name]):.1f} / {most:.1f} (slowest of {len(taken[name])}) |"
        )
    print(f"refused meanwhile: {', '.join(sorted(refused)) or 'none'}")
    with annotators(each, seconds=min(15.0, seconds), pause=0) as busy:
        pass
    print(
        f"without a pause: {busy['rate']:.1f} votes/s, {median(busy['milliseconds']):.1f} / "
        f"{p99(busy['milliseconds']):.1f} ms: the server's capacity, no bar\n"
    )
    errors = [*votes["errors"], *busy["errors"]]
    return [
        (f"p99 of a verdict {p99(cycle):.0f} ms (bar {TAIL_BAR:.0f})", p99(cycle) <= TAIL_BAR),
        (
            f"p99 of all pages and operations {p99(everything):.0f} ms (bar {TAIL_BAR:.0f})",
            p99(everything) <= TAIL_BAR,
        ),
        (f"errors of annotators: {len(errors)} {errors[:1]}", not errors),
    ]


# -- transfers


def moved(
    sites: list[Site],
    server: dict[str, str],
    directory: Path,
    formats: list[str],
    imports: list[str],
) -> list[tuple[str, bool]]:
    """Run the transfers on a copy of each database; print them and return the bars."""
    found: dict[str, list[Transfer]] = {}
    print(
        "| transfer | " + " | ".join(f"{s.completions:,}" for s in sites) + " | rows/s, peak MB |"
    )
    for each in sites:
        create(server, "scale_copy", template=f"scale_{each.completions}")
        environment = each.environment | {"DATABASE_URL": database_url(server, "scale_copy")}
        for transfer in transfers(environment, directory, each.completions, formats, imports):
            found.setdefault(transfer.what, []).append(transfer)
            print(
                f"| {transfer.what} | {transfer.rows:,} | {transfer.seconds:.0f} s "
                f"| {transfer.rate:,.0f} | {transfer.peak:.0f} |",
                flush=True,
            )
    return [
        (
            f"{what}: peak {of[0].peak:.0f} → {of[-1].peak:.0f} MB (bar +{MEMORY_BAR:.0f})",
            of[-1].peak <= of[0].peak + MEMORY_BAR,
        )
        for what, of in found.items()
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the tables and the bars; exit code 1 if one is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sizes", default="10000,1000000")
    parser.add_argument("--repeats", type=int, default=100, help="requests of each operation")
    parser.add_argument("--only", default="", help="operations whose names contain one of these")
    parser.add_argument("--seconds", type=float, default=120, help="duration of the load; 0: none")
    parser.add_argument("--formats", default=",".join(FORMATS), help="exports; empty: no transfers")
    parser.add_argument("--imports", default=",".join(FORMATS), help="of these formats")
    parser.add_argument("--directory", type=Path, help="keep the databases here")
    parser.add_argument("--json", type=Path, help="write the milliseconds here")
    arguments = parser.parse_args(argv)
    wanted = [
        operation
        for operation in operations()
        if any(word in operation.name for word in arguments.only.split(","))
    ]
    # so that the servers are stopped
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    bars: list[tuple[str, bool]] = []
    with ExitStack() as stack:
        directory = arguments.directory or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="scale-bench-"))
        )
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)  # PostgreSQL runs as its own user when this is root
        server = stack.enter_context(servers.postgres(directory / "pg"))
        cache = stack.enter_context(valkey(directory / "valkey"))
        with ExitStack() as running:
            sites = [
                # a database of the cache for each size: its keys are the projects' numbers
                running.enter_context(site(server, f"{cache}/{number}", int(size), directory))
                for number, size in enumerate(arguments.sizes.split(","))
            ]
            print(f"{os.cpu_count()} cores, load before {os.getloadavg()[0]:.1f}", flush=True)
            sizes = " | ".join(f"{each.completions:,}" for each in sites)
            print(f"| ms, p50 / p99 | {sizes} | ratio | processor ms | bar |", flush=True)
            refused = measure(sites, wanted, arguments.repeats)
            for _ in range(AGAIN):
                # more of the same: one slow request in a few decides about a p99
                again = [each for each in wanted if above(each.name, sites)]
                refused += measure(sites, again, arguments.repeats)
            wanted = [each for each in wanted if each.name in sites[-1].taken]
            slow = [operation.name for operation in wanted if above(operation.name, sites)]
            bars.append(
                (f"operations that were refused: {'; '.join(refused) or 'none'}", not refused)
            )
            bars.append((f"operations above {RATIO_BAR} ×: {', '.join(slow) or 'none'}", not slow))
            if arguments.seconds:
                bars += crowded(sites[-1], wanted, arguments.seconds)
        if arguments.formats:
            formats = arguments.formats.split(",")
            imports = [kind for kind in formats if kind in arguments.imports.split(",")]
            bars += moved(sites, server, directory, formats, imports)
    if arguments.json:
        arguments.json.write_text(
            json.dumps({str(each.completions): each.taken for each in sites}, indent=1)
        )
    print(f"load after {os.getloadavg()[0]:.1f}\n")
    for text, good in bars:
        print(f"{'met   ' if good else 'MISSED'}  {text}")
    sys.exit(not all(good for _, good in bars))


if __name__ == "__main__":
    main()
