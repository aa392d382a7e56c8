"""The ZeroMQ sockets of message links: addresses, contexts, options, and reading without limits being exceeded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

import zmq
from zmq.utils.monitor import recv_monitor_message

from stream.errors import ConfigurationError, LinkError, LivePTVError

LINGER_MS = 1000  # ms that closing waits for what is being sent: 64 full frames over loopback take less
MAX_PAYLOAD_BYTES = 2**30  # of one array: more than any frame or volume that can be processed live
MAX_CONTROL_PART_BYTES = 64 * 1024 + 256  # the largest header, and what CURVE adds to it
CONTROL_HWM = 256  # control messages queued in a socket; each is repeated, so a lost one does no harm
HEARTBEAT_MS = 300  # of the connection itself; a dead one is noticed after
HEARTBEAT_TIMEOUT_MS = 900  # three beats, below the patience of a link (3 s)
KEEPALIVE_IDLE_S = 10  # so that a connection to a machine that is gone is noticed within about a minute
KEEPALIVE_INTERVAL_S = 5
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

_NETWORK = re.compile(r"(?P<scheme>tcp|shm)://(?P<host>\[[0-9a-fA-F:]+\]|[^\[\]:/]+):(?P<port>\d{1,5})")
_INPROC = re.compile(r"inproc://(?P<host>[\w.-]+)")


class Security(Protocol):
    """Sets keys on a socket before it is bound or connected."""

    def apply_server(self, socket: zmq.Socket[bytes]) -> None:
        """Prepare a socket that binds."""
        ...

    def apply_client(self, socket: zmq.Socket[bytes]) -> None:
        """Prepare a socket that connects."""
        ...


@dataclass(frozen=True, slots=True)
class LinkAddress:
    """A parsed address: `inproc://NAME`, `shm://HOST:PORT` or `tcp://HOST:PORT`."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> LinkAddress:
        """Raises `ConfigurationError` for anything else."""
        match = _NETWORK.fullmatch(text) or _INPROC.fullmatch(text)
        if match is None or int(match.groupdict().get("port") or 0) > 65535:
            raise ConfigurationError(
                f"{text!r} is not an address; write inproc://NAME, shm://HOST:PORT or tcp://HOST:PORT"
            )
        if match.re is _INPROC:
            return cls("inproc", match["host"], 0)
        return cls(match["scheme"], match["host"], int(match["port"]))

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.scheme == "inproc" or self.host in LOOPBACK

    @property
    def endpoint(self) -> str:
        """The address as ZeroMQ writes it."""
        if self.scheme == "inproc":
            return f"inproc://{self.host}"
        return f"tcp://{'127.0.0.1' if self.host == 'localhost' else self.host}:{self.port}"


class Endpoint:
    """A bound or connected socket with its own context; for inproc, the context of the process."""

    def __init__(self, address: LinkAddress, kind: int) -> None:
        self._owns_context = address.scheme != "inproc"
        self._context: zmq.Context[zmq.Socket[bytes]] = (
            zmq.Context() if self._owns_context else zmq.Context.instance()
        )
        self.socket: zmq.Socket[bytes] = self._context.socket(kind)
        # applies to connections made after it is set; without it, ending the context may wait forever
        self.socket.linger = LINGER_MS
        self.socket.ipv6 = address.host.startswith("[")
        self._monitor: zmq.Socket[bytes] | None = None
        self.address = f"{address.scheme}://{address.host}"
        if self._owns_context:
            self.address += f":{address.port}"
            if kind in (zmq.XPUB, zmq.SUB):
                # A viewer with a full queue does not read heartbeats and would be disconnected; libzmq 4.3.5 aborts
                # the process when it reads again (zeromq/libzmq#3937). TCP keepalive checks the connection instead.
                self.socket.tcp_keepalive = 1
                self.socket.tcp_keepalive_idle = KEEPALIVE_IDLE_S
                self.socket.tcp_keepalive_intvl = KEEPALIVE_INTERVAL_S
            else:
                self.socket.heartbeat_ivl = HEARTBEAT_MS
                self.socket.heartbeat_timeout = HEARTBEAT_TIMEOUT_MS
            self.socket.reconnect_ivl = 50
            self.socket.reconnect_ivl_max = 200

    def watch_connections(self) -> zmq.Socket[bytes] | None:
        """A socket that is readable after each completed connection; None for inproc."""
        if self._owns_context:
            self._monitor = self.socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        return self._monitor

    def new_connections(self) -> int:
        """How many connections were completed since the last call."""
        count = 0
        while self._monitor is not None and self._monitor.poll(0):
            recv_monitor_message(self._monitor)
            count += 1
        return count

    def close(self, linger_ms: int = LINGER_MS) -> None:
        """Close the socket and its own context; waits `linger_ms` for what is being sent."""
        if self._monitor is not None:
            self.socket.disable_monitor()
            self._monitor.close(0)
            self._monitor = None
        self.socket.close(linger_ms)
        if self._owns_context:
            self._context.term()


def bind_router(address: LinkAddress, security: Security | None, send_hwm: int) -> Endpoint:
    """The socket of a sender; raises `LinkError` if the address is in use or not on this machine."""
    _check_reach(address, security)
    endpoint = Endpoint(address, zmq.ROUTER)
    socket = endpoint.socket
    socket.router_mandatory = 1
    socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
    socket.sndhwm = send_hwm
    socket.rcvhwm = CONTROL_HWM
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_CONTROL_PART_BYTES)
    try:
        if security is not None and address.scheme != "inproc":
            security.apply_server(socket)
        socket.bind(address.endpoint)
    except LivePTVError:
        endpoint.close(0)
        raise
    except zmq.ZMQError as error:
        endpoint.close(0)
        if error.errno == zmq.EADDRINUSE:
            raise LinkError(
                f"{endpoint.address} is in use by another program or an earlier run; stop it or choose "
                "another port (0 finds a free one)"
            ) from error
        raise LinkError(
            f"{endpoint.address} cannot be opened: {error.strerror}; check host and port"
        ) from error
    if address.scheme != "inproc":
        bound = socket.getsockopt_string(zmq.LAST_ENDPOINT)
        endpoint.address = f"{address.scheme}://{address.host}:{bound.rpartition(':')[2]}"
    return endpoint


def connect_dealer(address: LinkAddress, security: Security | None, identity: bytes) -> Endpoint:
    """The socket of a receiver; it connects as soon as the sender is there."""
    _check_reach(address, security)
    if address.scheme != "inproc" and address.port == 0:
        raise ConfigurationError(
            "a receiver needs the port of the sender, not 0; see the address of the sender"
        )
    endpoint = Endpoint(address, zmq.DEALER)
    socket = endpoint.socket
    socket.setsockopt(zmq.ROUTING_ID, identity)
    socket.sndhwm = CONTROL_HWM
    # credits bound what waits here; a full queue could abort the process, see `Endpoint`
    socket.rcvhwm = 0
    socket.setsockopt(
        zmq.MAXMSGSIZE, MAX_PAYLOAD_BYTES if address.scheme == "tcp" else MAX_CONTROL_PART_BYTES
    )
    try:
        if security is not None and address.scheme != "inproc":
            security.apply_client(socket)
        socket.connect(address.endpoint)
    except LivePTVError:
        endpoint.close(0)
        raise
    except zmq.ZMQError as error:
        endpoint.close(0)
        raise LinkError(
            f"{endpoint.address} cannot be reached: {error.strerror}; check the address"
        ) from error
    return endpoint


def read_parts(socket: zmq.Socket[bytes], keep: int) -> list[zmq.Frame] | None:
    """Read one message without waiting; None if there is none. At most `keep` + 1 of its parts are kept."""
    if not int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:  # twice as fast as the error of an empty socket
        return None
    try:
        part = socket.recv(zmq.NOBLOCK, copy=False)
    except zmq.Again:
        return None
    parts = [part]
    while part.more:
        part = socket.recv(copy=False)
        if len(parts) <= keep:
            parts.append(part)
    return parts


def _check_reach(address: LinkAddress, security: Security | None) -> None:
    if not address.is_local and security is None:
        raise ConfigurationError(
            f"other machines can reach {address.scheme}://{address.host}:{address.port}; give keys (security) "
            "or use 127.0.0.1"
        )
