"""How many people the web app serves on this machine, and what happens beyond that.

Annotators, chats, share-link visitors and API clients (bench/load/people.py, run by locust) use the
web process of the Procfile with PostgreSQL and Valkey. The engine sends tokens at a fixed rate, as
one on another machine would: this measures the web app, `make bench-engine` measures an engine.

1. One kind of people at a time, few of them: what a request costs in processor time.
2. All kinds together, more at each stage: requests per second and response times.
3. The simulation (bench/load/simulation.py) from the costs of 1 alone, compared with 2.
4. Four times as many people as the machine can serve: what is refused, and whether every vote that
   was accepted is stored.

Everything shares this machine, also locust: its cost is part of what is measured and simulated.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

import psycopg

from bench.annotation_vs_labelstudio import servers
from bench.load.simulation import Kind, Load, knee, simulate
from tests.serving.engine.slow_engine import slow_engine

VERSION = "2.47.0"
LOCUST = servers.ROOT / "var" / "bench" / "locust"
#: The share of each kind, in percent of all people.
SHARES = {"annotator": 70, "chat": 15, "visitor": 5, "client": 10}
#: Seconds between two actions of a person: quick, so that fewer people are needed.
THINK = 2.0
ALONE = 8
WARM = 8.0
TOKENS, TOKEN_SECONDS = 40, 0.05
#: How far the simulated number of people may be from the measured one.
BAR = 0.2
LATE = 0.150
OVERLOAD = 4
#: As docs/operations.md asks for.
CONNECTIONS = 450
#: of each kind that the site knows; more than any stage has, as two would share a queue
PEOPLE = 1_500


def install() -> Path:
    """Install locust into an environment of its own; return its program."""
    python = LOCUST / "bin" / "python"
    if not list((LOCUST / "lib").glob(f"*/site-packages/locust-{VERSION}.dist-info")):
        print(f"Installing locust {VERSION} into {LOCUST.relative_to(servers.ROOT)} …", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(LOCUST)], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", f"locust=={VERSION}"], check=True)
    return LOCUST / "bin" / "locust"


@dataclass
class Site:
    """The processes under test."""

    directory: Path
    port: int
    #: the processes under test by part; their descendants belong to them
    parts: dict[str, int]
    environment: dict[str, str]
    #: votes that were answered with success, of all loads
    accepted: int = 0

    def load(self, shares: dict[str, int], *, people: int, seconds: float) -> "Measured":
        """Let people use the site after a time in which caches and connections are filled."""
        result = self.directory / "result.json"
        environment = {
            "LOAD_WORLD": str(self.directory / "world.json"),
            "LOAD_RESULT": str(result),
            "LOAD_WARM": str(WARM),
            "LOAD_SHARES": json.dumps(shares),
            "LOAD_THINK": str(THINK),
        }
        command = [
            *(str(LOCUST / "bin" / "locust"), "--headless", "--only-summary"),
            *("--locustfile", str(Path(__file__).with_name("people.py"))),
            *("--host", f"http://127.0.0.1:{self.port}", "--stop-timeout", "120"),
            *("--users", str(people), "--spawn-rate", str(people)),
            *("--run-time", f"{WARM + seconds:.0f}s"),
        ]
        before = self.busy(), time.process_time()
        done = subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
        )
        if not result.exists():
            raise SystemExit(f"locust failed:\n{done.stderr[-3000:]}")
        found = json.loads(result.read_text())
        result.unlink()
        requests = [Request(*values) for values in found["requests"]]
        self.accepted += found["votes"]
        return Measured(
            people=people,
            seconds=found["seconds"],
            requests=requests,
            site={
                part: (seconds - before[0][part]) / found["total"]
                for part, seconds in self.busy().items()
            },
            others=(time.process_time() - before[1]) / found["total"]
            + found["cpu"] / max(1, len(requests)),
        )

    def busy(self) -> dict[str, float]:
        """Return the core seconds that each part has used."""
        return {part: servers.cpu_seconds(pid) for part, pid in self.parts.items()}

    def votes_stored(self) -> int:
        """Return the number of votes in the database."""
        command = [sys.executable, "manage.py", "shell", "--no-imports", "-v", "0", "-c", COUNT]
        return int(servers.fill(command, self.environment)["votes"])


COUNT = (
    "from feedback_app.feedback.models import Vote;"
    "print('{\"votes\":', Vote.objects.standing().count(), '}')"
)


@dataclass(frozen=True)
class Request:
    """A request after the warm-up. `refused`: 429 or 503 with a Retry-After."""

    kind: str
    name: str
    seconds: float
    status: int
    refused: bool

    @property
    def failed(self) -> bool:
        return (self.status >= 400 and not self.refused) or not self.status

    @property
    def streamed(self) -> bool:
        """Whether its time is that of the engine."""
        return self.name in ("demo send", "shared send", "chat completion")


@dataclass(frozen=True)
class Measured:
    """What one stage gave. Core seconds per request: of each part in `site`, and of `others`."""

    people: int
    seconds: float
    requests: list[Request]
    site: dict[str, float]
    others: float

    @property
    def cost(self) -> float:
        """Core seconds per request, all together."""
        return sum(self.site.values()) + self.others

    @property
    def rate(self) -> float:
        return sum(not r.refused for r in self.requests) / self.seconds

    def percentile(self, percent: int, name: str = "") -> float:
        """Return seconds of a response that no engine had to be waited for."""
        times = [
            r.seconds
            for r in self.requests
            if not (r.streamed or r.refused) and name in ("", r.name)
        ]
        return quantiles(times, n=100)[percent - 1] if len(times) > 1 else float("nan")

    @property
    def refused(self) -> int:
        return sum(r.refused for r in self.requests)

    @property
    def failed(self) -> list[Request]:
        return [r for r in self.requests if r.failed]


@contextmanager
def running(directory: Path, *, answers: int, people: int) -> Iterator[Site]:
    """Start everything, with `people` of each kind known to the site."""
    with ExitStack() as stack:
        engine = stack.enter_context(slow_engine())
        engine.behave(tokens=TOKENS, token_seconds=TOKEN_SECONDS, batch=10_000, queue=10_000)
        connections_allow(directory / "pg")
        database = stack.enter_context(servers.postgres(directory / "pg"))
        broker = servers.free_port()
        valkey = [
            *(sys.executable, "tools/valkey_server.py"),
            *("--port", str(broker), "--dir", str(directory / "valkey")),
        ]
        cache = stack.enter_context(started(valkey, directory / "valkey.log"))
        environment = servers.ours_env("postgres", directory, database) | {
            "REDIS_URL": f"redis://127.0.0.1:{broker}/0",
            "ENGINE_URL": engine.url,
            # one token stands for many clients, one link for many visitors
            "API_REQUESTS_PER_MINUTE": "1000000",
        }
        servers.collect(environment)
        filling = [sys.executable, "-m", "bench.load.fill", str(answers), str(people)]
        world = servers.fill(filling, environment)
        (directory / "world.json").write_text(json.dumps(world))
        port = servers.free_port()
        web = stack.enter_context(
            servers.serving(servers.ours_command(port), environment, port, directory / "web.log")
        )
        parts = {"web": web, "database": int(database["pid"]), "cache": cache}
        yield Site(directory, port, parts, environment)


def connections_allow(directory: Path) -> None:
    """Let the server, which reads it at its start, accept the connections of all web threads."""
    with (
        servers.postgres(directory) as server,
        psycopg.connect(
            host=server["host"], user=server["user"], dbname="postgres", autocommit=True
        ) as connection,
    ):
        connection.execute(f"ALTER SYSTEM SET max_connections = {CONNECTIONS}")


@contextmanager
def started(command: list[str], log: Path) -> Iterator[int]:
    """Run a process until the block ends; yield its id."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=servers.ROOT, stdout=output, stderr=output)
        try:
            yield process.pid
        finally:
            process.terminate()
            process.wait(timeout=20)


def costs(site: Site, *, seconds: float) -> list[Kind]:
    """Measure each kind of people alone; return what the simulation needs."""
    print("Processor time of a request, ms:")
    print("| kind, alone | requests/s | web | database | cache | locust and engine |")
    print("|---|---|---|---|---|---|")
    kinds = []
    for name, share in SHARES.items():
        found = site.load({name: 100}, people=ALONE, seconds=seconds)
        parts = [*found.site.values(), found.others]
        figures = " | ".join(f"{1000 * seconds:.1f}" for seconds in parts)
        print(f"| {name} | {found.rate:.1f} | {figures} |", flush=True)
        # what is neither the processor's time nor the person's: tokens
        think = ALONE / found.rate - found.cost
        kinds.append(Kind(name, share / 100, think, found.cost))
    print()
    return kinds


def stages(site: Site, people: list[int], kinds: list[Kind], *, seconds: float) -> list[Measured]:
    """Measure all kinds together, beside what the simulation says."""
    cores = float(os.cpu_count() or 1)
    print(
        "| people | requests/s | simulated | p50 ms | simulated | p99 ms | simulated "
        "| p99 of a vote | refused | failed | ms of the site |"
    )
    print("|---" * 11 + "|")
    found = []
    for number in people:
        real = site.load(SHARES, people=number, seconds=seconds)
        model = simulate(kinds, people=number, cores=cores)
        found.append(real)
        print(
            f"| {number} | {real.rate:.0f} | {model.rate:.0f} "
            f"| {1000 * real.percentile(50):.0f} | {1000 * model.p50:.0f} "
            f"| {1000 * real.percentile(99):.0f} | {1000 * model.p99:.0f} "
            f"| {1000 * real.percentile(99, 'vote'):.0f} | {real.refused} | {len(real.failed)} "
            f"| {1000 * sum(real.site.values()):.1f} |",
            flush=True,
        )
    print()
    return found


def main() -> None:
    """Print the tables and the bars; exit code 1 if one is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--people", default="50,100,150,200,250,300,400,500")
    parser.add_argument("--answers", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=20, help="of each stage, after a warm-up")
    parser.add_argument("--overload", type=int, default=OVERLOAD, help="times the knee")
    arguments = parser.parse_args()
    people = [int(number) for number in arguments.people.split(",")]
    install()
    cores = float(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory(prefix="load-bench-") as scratch:
        Path(scratch).chmod(0o755)  # PostgreSQL runs as its own user when this is root
        with running(Path(scratch), answers=arguments.answers, people=PEOPLE) as site:
            before = site.votes_stored()
            kinds = costs(site, seconds=arguments.seconds)
            found = stages(site, people, kinds, seconds=arguments.seconds)
            measured = knee(kinds, [Load(m.people, m.rate, 0, 0) for m in found])
            models = [simulate(kinds, people=number, cores=cores) for number in people]
            simulated = knee(kinds, models)
            late = [m.people for m in found if m.percentile(99) > LATE]
            many = int(arguments.overload * measured)
            over = site.load(SHARES, people=many, seconds=arguments.seconds)
            stored = site.votes_stored() - before
    share = 100 * over.refused / len(over.requests)
    print(f"{many} people: {over.rate:.0f} requests/s, {share:.0f} % refused,", end=" ")
    print(f"p99 of the others {1000 * over.percentile(99):.0f} ms")
    print(f"p99 above {1000 * LATE:.0f} ms from {late[0] if late else 'no number'} people")
    failed = sum(len(m.failed) for m in [*found, over])
    for request in over.failed[:5]:
        print("failed:", request)
    off = simulated / measured - 1
    bars = [
        (f"people served: {measured:.0f}, simulated {simulated:.0f} ({off:+.0%})", abs(off) <= BAR),
        (f"{site.accepted} votes accepted, {stored} stored", stored == site.accepted),
        (f"{failed} requests failed other than by 429 or 503 with Retry-After", not failed),
        (f"{share:.0f} % refused with {many} people", over.refused > 0),
    ]
    for text, good in bars:
        print(f"{'met   ' if good else 'MISSED'}  {text}")
    sys.exit(not all(good for _, good in bars))


if __name__ == "__main__":
    main()
