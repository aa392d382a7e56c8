"""Limits the connections of the page's server: how many are open, and how long one may stay idle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

# A browser loads the page over six connections at a time and keeps one websocket (at most 50 are open). Fewer would
# refuse browsers that load at the same time; more only costs file descriptors (a process often has 1024).
MOST_CONNECTIONS = 200
# Seconds for a request to arrive. A browser takes milliseconds, a slow ssh tunnel a second or two.
FIRST_REQUEST_S = 10.0
# Seconds in which a new connection is not closed to make room, so that a real request gets its answer. Longer, and
# a flood of idle connections keeps browsers out for that time.
GRACE_S = 0.3


def gate(say: Callable[[str], None], most: int = MOST_CONNECTIONS) -> type[H11Protocol]:
    """The HTTP protocol of a server with at most `most` connections, websockets included.

    A connection makes one request and is closed after the answer, even while it still sends a body: no request of
    the page has one. Only websockets, which need the page's token, stay open. When the limit is reached, the oldest
    connection that is not a websocket and has had time for its request is closed; if there is none, the new one is.
    A request that is not complete within ten seconds is ended. Each of these is reported to `say`.
    """

    passing: dict[H11Protocol, float] = {}  # all but websockets, and since when; the oldest first

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
            except h11.LocalProtocolError:  # garbage while its answer was being sent
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
                what = "made no request" if asked is None else "did not complete its request"
                say(f"a connection {what} within {FIRST_REQUEST_S:g} s")
                leave(self)

    def leave(connection: H11Protocol) -> None:
        """Close a connection at once, also in the middle of a transfer."""
        passing.pop(connection, None)
        connection.connections.discard(connection)
        connection.transport.abort()

    return Guarded
