"""Fault injection: breaks one part after the other, in an order that its seed decides."""

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from feedback_app.localstack.stack import Stack
from tests.soak.network import Network
from tests.soak.servers import Database, Disk

#: Seconds of a fault, and between two, at least and at most.
LASTS = (2.0, 12.0)
BETWEEN = (4.0, 12.0)
#: After so many faults nothing is broken for so long: a run needs it to finish.
QUIET_EVERY = 6
QUIET_SECONDS = 25.0
#: Longer than a claim without heartbeats is kept, so that work is taken over.
LONG_PAUSE = 30.0
SLOW_SECONDS = 0.15


@dataclass
class Parts:
    """All that can be broken."""

    servers: Stack
    web: Stack
    workers: Stack
    database: Database
    network: Network
    disk: Disk

    def process(self, name: str) -> psutil.Process:
        """Return the first process of a part. Raises psutil.NoSuchProcess while it is down."""
        if name == "database":
            return psutil.Process(self.database.pid)
        stack = next(
            one for one in (self.servers, self.web, self.workers) if name in one.plan.commands
        )
        return psutil.Process(stack.process(name).pid)

    def tree(self, name: str) -> list[psutil.Process]:
        """Return a part's processes, the first one first; none while it is down."""
        with suppress(psutil.NoSuchProcess):
            first = self.process(name)
            return [first, *sorted(first.children(recursive=True), key=lambda one: one.pid)]
        return []


@dataclass
class FaultInjector:
    """Does one thing at a time; `ending` tells it to stop after the present one."""

    parts: Parts
    rng: random.Random
    say: Callable[[str], None]
    ending: Callable[[], bool]
    done: dict[str, int] = field(default_factory=dict)
    #: names of parts of which `inject` has ended a process, since it was last called
    ended: set[str] = field(default_factory=set)

    def inject(self, seconds: float, *, kills: bool) -> None:
        """Break parts until the time is over; with `kills` also end processes."""
        self.ended.clear()
        actions = [self.cut, self.stall, self.slow, self.pause, self.restart_server]
        weights = [3, 3, 1, 4, 2]
        if self.parts.disk.is_small:
            actions.append(self.fill_disk)
            weights.append(2)
        if kills:
            actions.append(self.kill)
            weights.append(10)
        ends = time.monotonic() + seconds
        while time.monotonic() < ends and not self.ending():
            action = self.rng.choices(actions, weights)[0]
            action()
            name = action.__name__
            self.done[name] = self.done.get(name, 0) + 1
            self.sleep(self.rng.uniform(*BETWEEN))
            if sum(self.done.values()) % QUIET_EVERY == 0:
                self.sleep(min(QUIET_SECONDS, ends - time.monotonic()))

    def sleep(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends and not self.ending():
            time.sleep(0.1)

    def lasts(self) -> float:
        return self.rng.uniform(*LASTS)

    # -- faults

    def kill(self) -> None:
        """End a process without a chance to clean up."""
        name = self.rng.choice(
            ["web", "web", "engine", "worker-default", "worker-gpu", "worker-gpu", "beat"]
        )
        # a child too: one of the web's processes, the trainer of a run
        child = self.rng.random() < 0.5
        tree = self.parts.tree(name)
        if not tree:
            self.say(f"{name} is down already")
            return
        victim = self.rng.choice(tree[1:]) if child and len(tree) > 1 else tree[0]
        which = "" if victim is tree[0] else f", a child: {command(victim)}"
        self.say(f"kill {name}{which}")
        self.ended.add(name)
        with suppress(psutil.NoSuchProcess):
            victim.kill()

    def pause(self) -> None:
        """Stop a process and let it continue: it comes late to everything."""
        names = ["web", "engine", "worker-default", "worker-gpu", "valkey", "database"]
        name = self.rng.choice(names)
        seconds = LONG_PAUSE if name == "worker-gpu" and self.rng.random() < 0.5 else self.lasts()
        tree = self.parts.tree(name)
        if not tree:
            return
        if name == "web":
            # one of its processes: with all of them nobody sees more than a pause
            tree = [self.rng.choice(tree[1:] or tree)]
        self.say(f"pause {name} for {seconds:.0f} s")
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        try:
            self.sleep(seconds)
        finally:
            for process in tree:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def restart_server(self) -> None:
        """End the database or the broker, which comes back empty, and start it again."""
        seconds = self.rng.uniform(0, 5)
        if self.rng.random() < 0.5:
            self.kill_broker()
            return
        how = self.rng.choice(["kill the server", "kill one connection", "end at once", "end"])
        self.say(f"database: {how}")
        database = self.parts.database
        if how == "kill one connection":
            backends = database.backends()
            if backends:
                with suppress(ProcessLookupError):
                    os.kill(self.rng.choice(backends), signal.SIGKILL)
            return
        number = {
            "kill the server": signal.SIGKILL,
            "end at once": signal.SIGQUIT,
            "end": signal.SIGINT,
        }[how]
        database.end(number)
        self.sleep(seconds)
        database.start()

    def kill_broker(self) -> None:
        self.say("kill valkey: it comes back empty")
        self.ended.add("valkey")
        with suppress(ProcessLookupError):
            os.kill(self.parts.servers.process("valkey").pid, signal.SIGKILL)

    def restart_servers(self) -> None:
        """End broker and database, and start them again: every process has to reconnect."""
        self.kill_broker()
        self.say("database: end at once")
        self.parts.database.end(signal.SIGQUIT)
        self.parts.database.start()

    def cut(self) -> None:
        """Cut a link: connections break, and new ones are refused."""
        self.broken_link("cut", self.parts.network.cut)

    def stall(self) -> None:
        """Let a link pass nothing, with its connections open."""
        self.broken_link("stall", self.parts.network.stall)

    def slow(self) -> None:
        """Delay everything on a link."""
        self.broken_link("slow", lambda name: self.parts.network.slow(name, SLOW_SECONDS))

    def broken_link(self, how: str, change: Callable[[str], None]) -> None:
        name = self.rng.choice(sorted(self.parts.network.links))
        seconds = self.lasts()
        self.say(f"{how} {name} for {seconds:.0f} s")
        change(name)
        try:
            self.sleep(seconds)
        finally:
            self.parts.network.restore(name)

    def fill_disk(self) -> None:
        """Leave no room for artifacts."""
        seconds = self.lasts()
        self.say(f"fill the disk for {seconds:.0f} s")
        self.parts.disk.fill()
        try:
            self.sleep(seconds)
        finally:
            self.parts.disk.free()


def command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()[1:5])
    except psutil.Error:
        return "gone"
