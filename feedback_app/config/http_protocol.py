"""uvicorn's HTTP protocol with a deadline for the head of a request.

uvicorn limits only the idle time between two requests of a connection: a client that opens a
connection and sends nothing, or half a head, would keep it for ever.
"""

import asyncio
import socket

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0


class DeadlineProtocol(H11Protocol):
    """Closes a connection whose request head is not complete HEAD_SECONDS after its first byte."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline = self.loop.call_later(HEAD_SECONDS, transport.close)
        # asyncio does it unless the socket came from uvicorn's parent process, without its protocol
        # number; a response is two writes, and the second would wait 40 ms for the first's ACK
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        if self._deadline is None and not self._answering():
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)
        super().data_received(data)
        if self._answering():
            self._cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel()
        super().connection_lost(exc)

    def _answering(self) -> bool:
        """Return whether a head was read whose response is not complete."""
        return self.cycle is not None and not self.cycle.response_complete

    def _cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
