"""TCP proxies between the parts of a stack. A link can be cut, stalled and slowed down."""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

PIECE = 65_536
#: Only a broken proxy reaches it.
START_SECONDS = 60.0


class Link:
    """One proxy: a port that leads to a TCP port, or to a Unix socket.

    Its state is used in the network's thread only.
    """

    def __init__(self, name: str, target: int | str) -> None:
        self.name = name
        self.target = target
        self.port = 0
        self.is_cut = False
        self.delay = 0.0
        self.flows = asyncio.Event()
        self.flows.set()
        self.connections: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self.tasks: set[asyncio.Task[None]] = set()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.target, str):
            return await asyncio.open_unix_connection(self.target)
        return await asyncio.open_connection("127.0.0.1", self.target)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on one connection until either side closes it."""
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            await self.flows.wait()
            if self.is_cut:
                raise ConnectionAbortedError
            there_reader, there = await self.connect()
        except OSError:
            writer.transport.abort()  # cut, or nobody listens
            return
        finally:
            self.tasks.discard(task)
        both = (writer, there)
        self.connections.add(both)
        ways = [
            asyncio.create_task(self.pump(reader, there)),
            asyncio.create_task(self.pump(there_reader, writer)),
        ]
        self.tasks.update(ways)
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.connections.discard(both)
            for way in ways:
                way.cancel()
                self.tasks.discard(way)
            for side in both:
                side.close()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(PIECE):
                await self.flows.wait()
                if self.delay:
                    await asyncio.sleep(self.delay)
                writer.write(data)
                await writer.drain()

    def abort_all(self) -> None:
        for both in list(self.connections):
            for side in both:
                side.transport.abort()


class Network:
    """The links by name, served by a thread of their own."""

    def __init__(self) -> None:
        self.links: dict[str, Link] = {}
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(START_SECONDS)

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for link in self.links.values():
            link.abort_all()
            for task in list(link.tasks):
                task.cancel()
        await asyncio.sleep(0.1)

    def add(self, name: str, target: int | str) -> int:
        """Add a link to a port or a Unix socket's path; return the port that leads there."""

        async def serve() -> int:
            link = self.links[name] = Link(name, target)
            server = await asyncio.start_server(link.accept, "127.0.0.1", 0)
            self._servers.append(server)
            link.port = server.sockets[0].getsockname()[1]
            return link.port

        return int(self._run(serve()))

    def cut(self, name: str) -> None:
        """Close all connections and every new one."""
        self._change(name, is_cut=True)

    def stall(self, name: str) -> None:
        """Keep connections open and pass nothing on."""
        self._change(name, flows=False)

    def slow(self, name: str, seconds: float) -> None:
        """Delay every piece of data."""
        self._change(name, delay=seconds)

    def restore(self, name: str) -> None:
        """Pass on everything again, also what was held back."""
        self._change(name)

    def _change(
        self, name: str, *, is_cut: bool = False, flows: bool = True, delay: float = 0.0
    ) -> None:
        link = self.links[name]

        async def change() -> None:
            link.is_cut, link.delay = is_cut, delay
            if flows:
                link.flows.set()
            else:
                link.flows.clear()
            if is_cut:
                link.abort_all()

        self._run(change())

    def open_connections(self) -> dict[str, int]:
        """Return the number of connections of each link."""

        async def count() -> dict[str, int]:
            return {name: len(link.connections) for name, link in self.links.items()}

        return dict(self._run(count()))
