"""Annotation compared with Label Studio: cycles of next + submit per second over real HTTP.

Both systems run on this machine, one after the other on the same database server, one user per
annotator, overlap 1, with the load client on the same machine. The default sizes take fifteen
minutes; `--sizes 1000,100000,1000000` runs all sizes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any

from bench.annotation_vs_labelstudio import servers
from bench.annotation_vs_labelstudio.keys import keys

#: Required ratio of our cycles per second to the peer's, on Postgres with 8 annotators.
BARS = {"postgres": {1_000: 12, 100_000: 35, 1_000_000: 100}, "sqlite": {1_000: 12}}
#: Required ratio of the peer's p99 of a cycle to ours, at 8 annotators.
P99_BAR = 5
#: The share of a small project that each stage may use.
SHARES = {1: 0.1, 8: 0.5, 32: 0.3}


def stage(
    kind: str, world: dict[str, Any], port: int, *, people: int, size: int, seconds: float
) -> dict[str, Any]:
    """Run one measurement with this many people."""
    job = {
        "kind": kind,
        "port": port,
        "project": str(world["project"]),
        "sessions": world["sessions"][:people],
        "seconds": seconds,
        "cycles": int(size * SHARES.get(people, 0.2)),
    }
    done = subprocess.run(
        [sys.executable, "-m", "bench.annotation_vs_labelstudio.load"],
        input=json.dumps(job),
        stdout=subprocess.PIPE,
        text=True,
        cwd=servers.ROOT,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def system(
    kind: str, database: str, size: int, people: list[int], seconds: float, scratch: Path
) -> list[dict[str, Any]]:
    """Fill a fresh database and measure with each number of people."""
    directory = scratch / f"{kind}-{database}-{size}"
    directory.mkdir()
    directory.chmod(0o755)
    hosting = (
        servers.postgres(directory / "pg") if database == "postgres" else nullcontext({"url": ""})
    )
    rows = []
    with hosting as server:
        port = servers.free_port()
        if kind == "ours":
            environment = servers.ours_env(database, directory, server)
            module = "bench.annotation_vs_labelstudio.ours_fill"
            filling = [sys.executable, "-m", module]
            command = servers.ours_command(port)
            servers.collect(environment)
        else:
            environment = servers.peer_env(database, directory, server)
            script = Path(__file__).with_name("peer_fill.py")
            filling = [str(servers.PEER / "bin" / "python"), str(script)]
            command = servers.peer_command(port, database)
        world = servers.fill([*filling, str(size), str(max(people))], environment)
        with servers.serving(command, environment, port, directory / "server.log") as pid:
            roots = (pid, int(server["pid"])) if "pid" in server else (pid,)
            for number in people:
                before = servers.cpu_seconds(*roots)
                found = stage(kind, world, port, people=number, size=size, seconds=seconds)
                cpu = servers.cpu_seconds(*roots) - before
                taken = found["seconds"] or [float("nan")]
                doubled = sum(n - 1 for n in Counter(found["items"]).values())
                row = {
                    "system": kind,
                    "database": database,
                    "size": size,
                    "people": number,
                    "rate": found["rate"],
                    "p50": 1000 * median(taken),
                    "p99": 1000 * taken[min(len(taken) - 1, int(0.99 * len(taken)))],
                    "cpu": 1000 * cpu / max(1, len(found["items"])),
                    "cycles": len(found["items"]),
                    "doubled": doubled,
                    "errors": len(found["errors"]),
                    "load": os.getloadavg()[0],
                }
                rows.append(row)
                show(row)
                if found["errors"]:
                    log = (directory / "server.log").read_text(errors="replace")
                    print(found["errors"][0], log[-3000:], sep="\n", file=sys.stderr)
    return rows


def show(row: dict[str, Any]) -> None:
    """Print one line of the table."""
    print(
        f"| {row['system']} | {row['database']} | {row['size']:,} | {row['people']} "
        f"| {row['rate']:.1f} | {row['p50']:.0f} / {row['p99']:.0f} "
        f"| {row['cpu']:.1f} | {row['cycles']} "
        f"| {row['doubled']} | {row['errors']} | {row['load']:.1f} |",
        flush=True,
    )


def verdicts(rows: list[dict[str, Any]]) -> list[tuple[str, bool]]:
    """Return each bar that this run can answer, as text, and whether it was met."""
    at = {(r["system"], r["database"], r["size"], r["people"]): r for r in rows}
    found = []
    for database, bars in BARS.items():
        for size, bar in bars.items():
            ours = at.get(("ours", database, size, 8))
            peer = at.get(("label-studio", database, size, 8))
            if ours is None or peer is None or not peer["rate"]:
                continue
            ratio, tail = ours["rate"] / peer["rate"], peer["p99"] / ours["p99"]
            found += [
                (f"{database}, {size:,}: {ratio:.1f} x (bar {bar})", ratio >= bar),
                (
                    f"{database}, {size:,}: p99 {tail:.1f} x shorter (bar {P99_BAR})",
                    tail >= P99_BAR,
                ),
            ]
    by_keys = [r for r in rows if r["system"].startswith("keys")]
    found += [(f"by keys: {r['rate']:.1f}/s (bar 10)", r["rate"] >= 10) for r in by_keys]
    faults = sum(r["errors"] + r["doubled"] for r in rows if r["system"] != "label-studio")
    return [*found, (f"errors and doubles of ours: {faults}", faults == 0)]


def main() -> None:
    """Measure both, print the table and the bars; exit code 1 if one is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", default="1000,100000")
    parser.add_argument("--databases", default="sqlite,postgres")
    parser.add_argument("--people", default="1,8,32")
    parser.add_argument("--systems", default="ours,label-studio")
    parser.add_argument(
        "--seconds", type=float, default=15, help="longest time of each measurement"
    )
    parser.add_argument("--keys", action="store_true", help="also measure keys in Chromium")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    people = [int(number) for number in arguments.people.split(",")]
    kinds = arguments.systems.split(",")
    if "label-studio" in kinds:
        servers.peer_install()
    columns = "system|database|items|people|cycles/s|p50 / p99 ms|cpu ms|cycles|doubled|errors|load"
    print("| " + columns.replace("|", " | ") + " |")
    print("|---" * 11 + "|")
    rows = []
    with tempfile.TemporaryDirectory(prefix="annotation-bench-") as scratch:
        Path(scratch).chmod(0o755)  # PostgreSQL runs as its own user when this is root
        for database in arguments.databases.split(","):
            for size in map(int, arguments.sizes.split(",")):
                # the peer's large projects use Postgres; its SQLite is for trials
                if database == "sqlite" and size > 1_000 and "label-studio" in kinds:
                    continue
                for kind in kinds:
                    rows += system(kind, database, size, people, arguments.seconds, Path(scratch))
        if arguments.keys:
            directory = Path(scratch) / "keys"
            directory.mkdir()
            rows.append(keys(directory))
            show(rows[-1])
    print()
    met = verdicts(rows)
    for text, good in met:
        print(f"{'met   ' if good else 'MISSED'}  {text}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))
    sys.exit(not all(good for _, good in met))


if __name__ == "__main__":
    main()
