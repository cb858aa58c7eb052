"""The course of a soak: warm up, break parts, compare, and stop everything."""

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from django.conf import settings

from feedback_app.feedback.models import Sampling
from feedback_app.localstack.stack import Stack
from feedback_app.serving.models import ChangeReport
from feedback_app.training.models import Run
from tests.soak import checks
from tests.soak.admin import Admin, read, state_of
from tests.soak.browser import Gate
from tests.soak.fault_injection import FaultInjector, Parts
from tests.soak.ledger import Ledger
from tests.soak.measure import Figures, figures, memory_of
from tests.soak.network import Network
from tests.soak.people import Annotator, Chatter, Program
from tests.soak.servers import Database, Disk
from tests.soak.world import MODEL, SLUG, World, make_world
from tests.tiny import make_tiny_model

ROOT = Path(__file__).resolve().parents[2]
#: Tokens, for some messages with answers of 256.
CONTEXT = 2048
#: Seconds for work in progress to end once nothing is broken any more.
SETTLE_SECONDS = 600.0
#: Shares of the soak's time: the beginning and the end without faults; faults that end processes;
#: after their last restart, faults that end no process of the app, until memory is measured; the
#: same faults, until it is measured again. So both measurements follow the same events: a process
#: fills its caches for minutes (each of its connections prepares statements of its own, once it has
#: run each of them five times), and when all its threads reconnect at once it takes memory that it
#: keeps. What leaks grows after the first measurement as before it.
QUIET, KILLS, FILLING, NO_KILLS = 0.07, 0.4, 0.2, 0.26
LEAST_QUIET_SECONDS = 20.0
#: Seconds between two records of memory in the report.
MEMORY_SECONDS = 15.0
#: Memory is compared in soaks of this many minutes: shorter ones see caches being filled.
LEAST_MINUTES_FOR_MEMORY = 10.0
#: Seconds after which nothing of the load is left in a keep-alive connection.
IDLE_SECONDS = 10.0

#: Requests of each annotator and chat at once: together more than the web's threads for pages, and
#: as many answers as a member may have.
PAGES_AT_ONCE = 15
ANSWERS_AT_ONCE = 6
STALL_SECONDS = 4.0


class NotSettled(Exception):
    """Work did not end, though nothing was broken any more."""


@dataclass
class Outcome:
    """What a soak found, by check; empty lists are good."""

    found: dict[str, list[str]] = field(default_factory=dict)
    before: dict[str, Figures] = field(default_factory=dict)
    after: dict[str, Figures] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        return not any(self.found.values())


class Soak:
    """One soak. `say` reports what happens."""

    def __init__(self, directory: Path, *, minutes: float, seed: int, say: Callable[[str], None]):
        self.directory = directory
        self.seconds = minutes * 60
        self.compares_memory = minutes >= LEAST_MINUTES_FOR_MEMORY
        self.seed = seed
        self.say = say
        self.ledger = Ledger()
        self.gate = Gate()
        self.outcome = Outcome()
        self.ended = False
        self.ended_alone: list[str] = []
        self.files_left: list[str] = []

    def run(self) -> Outcome:
        """Run everything; whatever happens, everything is stopped."""
        started = time.monotonic()
        found = self.outcome.found
        with ExitStack() as stack:
            parts = self.start(stack)
            try:
                asyncio.run(self.play(parts))
            except NotSettled as error:
                found["all work ends"] = [str(error)]
        found["processes that ended by themselves"] = self.ended_alone
        found["processes left"] = checks.processes_left(self.directory)
        found["half-written files"] = self.files_left
        self.outcome.facts["seconds"] = round(time.monotonic() - started)
        return self.outcome

    # -- start

    def start(self, stack: ExitStack) -> Parts:
        """Start everything in dependency order; `stack` stops it."""
        database = Database(self.directory)
        database.start()
        stack.callback(database.stop)
        disk = Disk(self.directory / "artifacts")
        stack.callback(disk.remove)
        self.say(f"Artifacts: {disk.kind}")
        self.outcome.facts["disk"] = disk.kind
        stack.callback(self.look_for_files)
        network = stack.enter_context(Network())
        make_tiny_model(self.directory / MODEL, context=CONTEXT)
        self.prepare(database.url)
        servers = stack.enter_context(
            Stack(self.environment("servers", {}), ["valkey", "engine"], say=self.notice)
        )
        settings.ENGINES = {MODEL: servers.engine_url}
        web, workers = (
            stack.enter_context(
                Stack(self.linked(name, network, database, servers), processes, say=self.notice)
            )
            for name, processes in (
                ("web", ["web"]),
                ("workers", ["worker-default", "worker-gpu", "beat"]),
            )
        )
        return Parts(servers, web, workers, database, network, disk)

    def notice(self, line: str) -> None:
        """Report what a supervisor says; fault injection ends processes by SIGKILL only."""
        self.say(line)
        if " ended (" in line and "SIGKILL" not in line:
            self.ended_alone.append(line)

    def environment(self, name: str, more: dict[str, str | None]) -> dict[str, str | None]:
        """Return the environment of one stack; each has a directory of its own."""
        var = self.directory / name
        (var / "models").mkdir(parents=True, exist_ok=True)
        (var / "models" / MODEL).symlink_to(self.directory / MODEL)
        return {
            "PROSPECT_VAR": str(var),
            "ARTIFACT_ROOT": str(self.directory / "artifacts"),
            "REDIS_URL": None,
            "ENGINE_URL": None,
            "ENGINES": None,
            "OMP_NUM_THREADS": "1",
            **more,
        }

    def linked(
        self, name: str, network: Network, database: Database, servers: Stack
    ) -> dict[str, str | None]:
        """Return the environment of a stack that reaches the servers through the network."""
        ports = {
            "database": network.add(f"{name}-database", database.socket),
            "broker": network.add(f"{name}-broker", port_of(servers.redis_url)),
            "engine": network.add(f"{name}-engine", port_of(servers.engine_url)),
        }
        return self.environment(
            name,
            {
                "DATABASE_URL": f"postgres://postgres@127.0.0.1:{ports['database']}/postgres",
                "REDIS_URL": f"redis://127.0.0.1:{ports['broker']}/0",
                "ENGINE_URL": f"http://127.0.0.1:{ports['engine']}",
            },
        )

    def prepare(self, database_url: str) -> None:
        """Create the tables and the static files."""
        subprocess.run(
            [sys.executable, "manage.py", "prepare"],
            cwd=ROOT,
            env={**os.environ, "DATABASE_URL": database_url},
            check=True,
        )

    # -- the course

    async def play(self, parts: Parts) -> None:
        """Let people act while parts are broken; then compare."""
        world = await read(lambda: make_world(parts.web.url, self.ledger, self.gate, self.seed))
        injector = FaultInjector(
            parts, random.Random(f"{self.seed} faults"), self.say, lambda: self.ended
        )
        lives = [asyncio.create_task(human.live()) for human in world.people]
        watching = asyncio.create_task(self.watch_memory(parts))
        try:
            await self.phases(parts, injector, world, lives)
        finally:
            self.ended = True
            watching.cancel()
            self.gate.end()
            for life in lives:
                life.cancel()
            await asyncio.gather(*lives, return_exceptions=True)
        self.outcome.facts |= {
            "faults": injector.done,
            "outcomes": dict(sorted(self.ledger.outcomes.items())),
            "verdicts": sum(map(len, self.ledger.accepted.values())),
            "releases": len(self.ledger.releases),
        }

    async def phases(
        self, parts: Parts, injector: FaultInjector, world: World, lives: list[asyncio.Task[None]]
    ) -> None:
        quiet = max(LEAST_QUIET_SECONDS, self.seconds * QUIET)
        filling = max(LEAST_QUIET_SECONDS, self.seconds * FILLING)
        self.say(f"Everybody works for {quiet:.0f} s; nothing is broken.")
        self.gate.open()
        await self.work(quiet, lives)
        self.say("Fault injection begins.")
        await self.inject(injector, self.seconds * KILLS, lives, kills=True)
        self.say(f"New processes fill their caches for {filling:.0f} s, faults included.")
        await asyncio.to_thread(wait_ready, parts)
        await self.fill_pools(parts, world)
        # all threads reconnect at once, and not every process has had its first reconnect
        await asyncio.to_thread(injector.restart_servers)
        await asyncio.to_thread(wait_ready, parts)
        await self.inject(injector, filling, lives, kills=False)
        await asyncio.to_thread(wait_ready, parts)
        await self.gate.close()
        await self.settle(parts)
        self.outcome.before = await asyncio.to_thread(figures, parts)
        connections = await self.connections(parts)
        self.gate.open()
        self.say("Fault injection goes on, without ending the app's processes.")
        await self.inject(injector, self.seconds * NO_KILLS, lives, kills=False)
        self.say("Fault injection has ended.")
        await asyncio.to_thread(wait_ready, parts)
        await self.work(quiet, lives)
        self.gate.end()
        await asyncio.gather(*lives)
        await self.finish_runs(world.admin)
        await self.settle(parts)
        self.outcome.after = await asyncio.to_thread(figures, parts)
        await self.compare(parts, world, connections, injector.ended)

    async def fill_pools(self, parts: Parts, world: World) -> None:
        """Let the web start all threads it will need: each keeps a connection of its own.

        Pages take as many as there are, answers as many as there are people.
        """
        desks = [one for one in world.people if isinstance(one, Annotator)]
        chats = [one for one in world.people if isinstance(one, Chatter) and one.user]
        for link, burst in (
            ("web-database", [one.open_desk() for one in desks for _ in range(PAGES_AT_ONCE)]),
            ("web-engine", [one.ask_at_once() for one in chats for _ in range(ANSWERS_AT_ONCE)]),
        ):
            parts.network.stall(link)
            waiting = asyncio.gather(*burst)
            await asyncio.sleep(STALL_SECONDS)
            parts.network.restore(link)
            await waiting

    async def watch_memory(self, parts: Parts) -> None:
        """Record the memory of every process: whether it still grows tells a leak from a cache."""
        started, rows = time.monotonic(), list[dict[str, Any]]()
        self.outcome.facts["memory"] = rows
        while True:
            found = await asyncio.to_thread(memory_of, parts)
            rows.append({"seconds": round(time.monotonic() - started), **found})
            await asyncio.sleep(MEMORY_SECONDS)

    async def work(self, seconds: float, lives: list[asyncio.Task[None]]) -> None:
        """Let time pass; a person who fails ends the soak."""
        done, _ = await asyncio.wait(lives, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for life in done:
            life.result()

    async def inject(
        self,
        injector: FaultInjector,
        seconds: float,
        lives: list[asyncio.Task[None]],
        *,
        kills: bool,
    ) -> None:
        breaking = asyncio.create_task(asyncio.to_thread(injector.inject, seconds, kills=kills))
        while not breaking.done():
            await self.work(1, lives)
        await breaking

    async def settle(self, parts: Parts) -> None:
        """Wait until no work is in progress, then until connections are idle."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while busy := await read(work_in_progress):
            if time.monotonic() > deadline:
                raise NotSettled(f"After {SETTLE_SECONDS:.0f} s: {busy}")
            await asyncio.sleep(1)
        await asyncio.sleep(IDLE_SECONDS)

    async def finish_runs(self, admin: Admin) -> None:
        """Resume what failed while its disk was full, or what somebody cancelled."""
        self.say("Everybody has gone; the admin resumes what did not end well.")
        admin.renew()
        for number in [run.number for run in (await read(lambda: state_of(SLUG))).broken]:
            while (await read(lambda: state_of(SLUG))).active is not None:
                await asyncio.sleep(1)
            await admin.do(f"runs/{number}/resume/", "resume at the end")
        await admin.close()

    async def connections(self, parts: Parts) -> dict[str, int]:
        return await asyncio.to_thread(count_connections, parts)

    async def compare(
        self, parts: Parts, world: World, before: dict[str, int], ended: set[str]
    ) -> None:
        """Run every check that needs the running stack."""
        project, ledger, found = world.project, self.ledger, self.outcome.found
        after = await self.connections(parts)
        expected = await read(lambda: checks.expected_votes(ledger, project))
        found["votes"] = await read(lambda: checks.votes(expected, project))
        found["events"] = await read(lambda: checks.events(expected, project))
        found["examples"] = await read(lambda: checks.examples(expected, project))
        found["share link"] = await read(lambda: checks.link_counts(expected, world.link))
        artifacts = self.directory / "artifacts"
        found["runs"] = await read(lambda: checks.runs(project, artifacts))
        found["live version"] = await read(lambda: checks.live(project, ledger))
        found["live answers"] = await self.live_answers(world)
        found["leases"] = await read(lambda: checks.leases(project))
        found["samplings"] = await read(lambda: checks.samplings(project))
        found["open answers"] = await read(checks.open_answers)
        found["answers that must not be"] = list(self.ledger.faults)
        threads = checks.web_threads(self.outcome.after)
        found["connections"] = checks.more(before, after, threads=threads)
        found["growth"] = checks.growth(
            self.outcome.before, self.outcome.after, memory=self.compares_memory, ended=ended
        )
        self.outcome.facts |= {"connections": {"before": before, "after": after}}

    async def live_answers(self, world: World) -> list[str]:
        """Ask in the demo and through the gateway: the live version answers."""
        chat = next(one for one in world.people if isinstance(one, Chatter))
        program = next(one for one in world.people if isinstance(one, Program))
        found = []
        for human in (chat, program):
            human.renew()
        form = {"text": "Who answers?"}
        events = await chat.events(
            f"/demo/{SLUG}/new/", {"data": form, "headers": {"Accept": "text/event-stream"}}
        )
        live = (await read(lambda: state_of(SLUG))).live
        if not events or events[-1]["event"] != "done":
            found.append(f"the demo answered {events and events[-1]}")
        elif live not in events[-1]["html"]:
            found.append(f"the demo's answer is not of {live}: {events[-1]['html']}")
        ask = {"model": "live", "messages": [{"role": "user", "content": "Who?"}], "max_tokens": 8}
        response = await program.send("POST", "/v1/chat/completions", json=ask)
        if not response.is_success or response.json()["model"] != live:
            found.append(f"the gateway answered {response.text[:300]}")
        for human in (chat, program):
            await human.close()
        return found

    def look_for_files(self) -> None:
        """Look for half-written files; the small disk is unmounted afterwards."""
        self.files_left = checks.files_left(self.directory)


def port_of(url: str) -> int:
    return int(url.rsplit(":", 1)[1].split("/")[0])


def wait_ready(parts: Parts) -> None:
    for stack in (parts.servers, parts.web, parts.workers):
        stack.wait_ready()


def work_in_progress() -> list[str]:
    """Return what workers still have to do."""
    runs = Run.objects.active()
    samplings = Sampling.objects.filter(Sampling.waiting() | Sampling.working())
    version_diffs = ChangeReport.objects.filter(ChangeReport.waiting() | ChangeReport.working())
    return [*map(str, runs), *map(repr, samplings), *map(repr, version_diffs)]


def count_connections(parts: Parts) -> dict[str, int]:
    """Return the connections of the database, of the broker, and of each link."""
    client = redis.Redis.from_url(parts.servers.redis_url)
    try:
        broker = len(client.client_list())
    finally:
        client.close()
    return {
        "database": len(parts.database.backends()),
        "broker": broker,
        **parts.network.open_connections(),
    }


def run_in(
    directory: Path, *, minutes: float, seed: int, out: Path, say: Callable[[str], None]
) -> Outcome:
    """Run a soak, write its report and logs to `out`, and remove the directory."""
    course = Soak(directory, minutes=minutes, seed=seed, say=say)
    try:
        return course.run()
    finally:
        out.mkdir(parents=True, exist_ok=True)
        for name in ("servers", "web", "workers"):
            logs = directory / name / "logs"
            if logs.exists():
                shutil.copytree(logs, out / "logs" / name, dirs_exist_ok=True)
        log = directory / "postgres.log"
        if log.exists():
            shutil.copy2(log, out / "logs" / log.name)
        (out / "report.json").write_text(
            json.dumps(as_json(course.outcome, minutes, seed), indent=1)
        )
        shutil.rmtree(directory, ignore_errors=True)


def as_json(outcome: Outcome, minutes: float, seed: int) -> dict[str, Any]:
    return {
        "minutes": minutes,
        "seed": seed,
        "clean": outcome.clean,
        "found": outcome.found,
        "before": {name: one.as_json() for name, one in outcome.before.items()},
        "after": {name: one.as_json() for name, one in outcome.after.items()},
        **outcome.facts,
    }
