"""The gate of the page's server: so many connections and no more, and none that is held open without a word."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 200
FIRST_REQUEST_S = 10.0
GRACE_S = 0.3


def gate(say: Callable[[str], None], most: int = MOST_CONNECTIONS) -> type[H11Protocol]:
    """The HTTP protocol of a server with at most `most` connections, websockets included.

    When all are taken, the oldest one that has had time for a request and made none makes room for the new one;
    where there is none, the new one is closed. A connection without a request is closed after ten seconds. `say` is
    told of each.
    """

    silent: dict[H11Protocol, float] = {}  # since when, in order of coming

    class Guarded(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > most:
                say(f"{most} connections are open already")
                oldest, since_s = next(iter(silent.items()), (self, self.loop.time()))
                if self.loop.time() - since_s < GRACE_S:
                    leave(self)
                    return
                leave(oldest)
            silent[self] = self.loop.time()
            self.loop.call_later(FIRST_REQUEST_S, self._time_is_over)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            request: Any = self.cycle
            upgraded = self not in self.connections
            if request is not None or upgraded:
                silent.pop(self, None)

        def connection_lost(self, exc: Exception | None) -> None:
            silent.pop(self, None)
            super().connection_lost(exc)

        def _time_is_over(self) -> None:
            if self in silent:
                say(f"a connection made no request within {FIRST_REQUEST_S:g} s")
                leave(self)

    def leave(connection: H11Protocol) -> None:
        """Close a connection at once, whatever is under way."""
        silent.pop(connection, None)
        connection.connections.discard(connection)
        connection.transport.abort()

    return Guarded
