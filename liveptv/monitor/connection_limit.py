"""The gate of the page's server: so many connections and no more, and none that is held open without a word."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 200
FIRST_REQUEST_S = 10.0
GRACE_S = 0.3


def gate(say: Callable[[str], None], most: int = MOST_CONNECTIONS) -> type[H11Protocol]:
    """The HTTP protocol of a server with at most `most` connections, websockets included.

    A connection makes one request and is closed after the answer, whatever body it is still sending: no request of
    the page has one. Only a websocket, which is opened with the page's token, stays. When all are taken, the oldest
    one that is none, and has had time for its request, makes room for the new one; where there is none, the new one
    is closed. A connection that is not done within ten seconds is closed. `say` is told of each.
    """

    passing: dict[H11Protocol, float] = {}  # those that are no websocket, since when, in order of coming

    class Guarded(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > most:
                say(f"{most} connections are open already")
                oldest, since_s = next(iter(passing.items()), (self, self.loop.time()))
                if self.loop.time() - since_s < GRACE_S:
                    leave(self)
                    return
                leave(oldest)
            passing[self] = self.loop.time()
            self.loop.call_later(FIRST_REQUEST_S, self._time_is_over)

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            try:
                super().data_received(data)
            except h11.LocalProtocolError:  # garbage while its answer was under way
                leave(self)
                return
            if self not in self.connections:
                passing.pop(self, None)
            elif self.cycle is not None:
                self.cycle.keep_alive = False

        def connection_lost(self, exc: Exception | None) -> None:
            passing.pop(self, None)
            super().connection_lost(exc)

        def _time_is_over(self) -> None:
            if self in passing:
                asked: Any = self.cycle
                what = "made no request" if asked is None else "did not end its request"
                say(f"a connection {what} within {FIRST_REQUEST_S:g} s")
                leave(self)

    def leave(connection: H11Protocol) -> None:
        """Close a connection at once, whatever is under way."""
        passing.pop(connection, None)
        connection.connections.discard(connection)
        connection.transport.abort()

    return Guarded
