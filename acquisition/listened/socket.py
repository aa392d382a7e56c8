"""The socket on which frames of other programs arrive, and who is connected to it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import zmq
from zmq.utils.monitor import parse_monitor_message

from acquisition.listened.header import MOST_BYTES
from acquisition.source_settings import SourceSettings
from stream.errors import LivePTVError, SourceError
from stream.security import check_bind
from stream.sockets import KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, Endpoint, Security, read_parts

WAITING = 16
"""Messages that wait in the socket for each sender; with the largest image, 4 GB. A frame is fetched within
milliseconds, so more would help only while this process stands still; fewer would lose frames of a PUB then."""
PARTS = 2
STRANGE = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
EVENTS = zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH | STRANGE


@dataclass(frozen=True, slots=True)
class Message:
    """The first parts (three at most) of a message, from which connection, and when (`perf_counter_ns`)."""

    parts: list[memoryview]
    connection: int
    arrived_ns: int


@dataclass(slots=True)
class Visitors:
    """What has happened to the connections since the last look."""

    came: int = 0
    gone: list[int] = field(default_factory=list)
    refused: int = 0
    strange: int = 0


class FrameSocket:
    """PULL that binds (`listen`), or SUB or PULL that connects (`connect`). Use it from one thread."""

    def __init__(self, settings: SourceSettings, security: Security | None) -> None:
        """Raises `SourceError` if the address cannot be used, `ConfigurationError` if it needs keys."""
        text = settings.address
        assert text is not None
        where = check_bind(text, security)
        binds = settings.listen is not None
        kind = zmq.PULL if binds or settings.socket == "pull" else zmq.SUB
        self._endpoint = Endpoint(where, kind)
        socket = self._endpoint.socket
        if kind == zmq.SUB:
            socket.subscribe(b"")
        # Old senders do not know heartbeats, and one that stands still in a debugger is not gone.
        socket.heartbeat_ivl = 0
        socket.tcp_keepalive = 1
        socket.tcp_keepalive_idle = KEEPALIVE_IDLE_S
        socket.tcp_keepalive_intvl = KEEPALIVE_INTERVAL_S
        socket.rcvhwm = WAITING
        socket.setsockopt(zmq.MAXMSGSIZE, MOST_BYTES + 256)  # 256: what CURVE adds to it
        self._monitor = socket.get_monitor_socket(EVENTS)
        try:
            if security is not None and not where.is_local:
                (security.apply_server if binds else security.apply_client)(socket)
            (socket.bind if binds else socket.connect)(where.endpoint)
        except LivePTVError:
            self.close()
            raise
        except zmq.ZMQError as error:
            self.close()
            hint = (
                "another program has it; choose another port" if error.errno == zmq.EADDRINUSE else "check it"
            )
            raise SourceError(f"{text} cannot be used for frames: {error.strerror}; {hint}") from error
        self.address = text
        if binds:
            bound = socket.getsockopt_string(zmq.LAST_ENDPOINT)
            self.address = f"tcp://{where.host}:{bound.rpartition(':')[2]}"
        self._poller = zmq.Poller()
        self._poller.register(socket, zmq.POLLIN)

    def wait(self, timeout_s: float) -> bool:
        """Wait for a message; whether there is one."""
        return bool(self._poller.poll(round(1000 * timeout_s)))

    def read(self) -> Message | None:
        """The next message, without waiting; None if there is none."""
        parts = read_parts(self._endpoint.socket, PARTS)
        if parts is None:
            return None
        arrived_ns = time.perf_counter_ns()
        try:
            connection = int(parts[0].get(zmq.SRCFD))
        except (zmq.ZMQError, TypeError, ValueError):  # a transport that has none
            connection = -1
        return Message([memoryview(part.buffer) for part in parts], connection, arrived_ns)

    def visitors(self) -> Visitors:
        """Connections made, closed, refused (no key) and strange (another kind of socket) since the last call."""
        found = Visitors()
        while self._monitor.poll(0):
            event = parse_monitor_message(self._monitor.recv_multipart())
            if event["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                found.came += 1
            elif event["event"] == zmq.EVENT_DISCONNECTED:
                found.gone.append(int(event["value"]))
            elif event["event"] == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                found.refused += 1
            else:
                found.strange += 1
        return found

    def close(self) -> None:
        """Close the socket; what waits in it is forgotten. Idempotent."""
        socket = self._endpoint.socket
        if not socket.closed:
            socket.disable_monitor()
            self._monitor.close(0)
            self._endpoint.close(0)
