"""Shared by monitor, commands and status: opening a socket, and reading messages from an untrusted peer."""

from __future__ import annotations

import math
import time

import zmq

from stream.errors import ConfigurationError, LinkError, LivePTVError, WireError
from stream.security import check_bind
from stream.sockets import Endpoint, Security, read_parts
from stream.wire import Received, decode

PARTS = 2
GARBAGE_PER_CALL = 100  # invalid messages after which the deadline is checked: bounds a call under a flood
MAX_SMALL_BYTES = 1 << 20  # of one part of a command or a status; ours have at most 64 kB
LINGER_MS = 500  # ms that closing waits for the last messages; on one machine they take far less


def open_channel(
    kind: int, address: str, security: Security | None, *, bind: bool, hwm: int, max_bytes: int
) -> Endpoint:
    """Open a socket, in its own context unless the address is inproc.

    `hwm` limits the messages queued in either direction; a peer that sends a part of more than `max_bytes` is
    disconnected. Raises `ConfigurationError` for an invalid address or one that needs keys, `LinkError` if it is in
    use.
    """
    where = check_bind(address, security)
    if where.scheme == "shm":
        raise ConfigurationError(f"{address} is for frames; this channel needs tcp:// or inproc://")
    if not bind and where.scheme == "tcp" and where.port == 0:
        raise ConfigurationError(
            f"{address} has no port to connect to; use the port in the address of the other end"
        )
    endpoint = Endpoint(where, kind)
    socket = endpoint.socket
    socket.ipv6 = where.host.startswith("[")
    socket.sndhwm = hwm
    # the number of answers is bounded by the open commands; a full queue could abort the process, see `Endpoint`
    socket.rcvhwm = 0 if kind == zmq.DEALER else hwm
    socket.setsockopt(zmq.MAXMSGSIZE, max_bytes)
    # libzmq uses the linger that was set before the bind for a peer that leaves; the default waits forever.
    socket.linger = LINGER_MS
    try:
        if security is not None and where.scheme != "inproc":
            (security.apply_server if bind else security.apply_client)(socket)
        (socket.bind if bind else socket.connect)(where.endpoint)
    except LivePTVError:
        endpoint.close(0)
        raise
    except zmq.ZMQError as error:
        endpoint.close(0)
        raise LinkError(
            f"{address} cannot be opened: {error.strerror}; check the address, or stop the program that uses it"
        ) from error
    if bind and where.scheme == "tcp":
        port = socket.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2]
        endpoint.address = f"tcp://{where.host}:{port}"
    return endpoint


def wait_readable(socket: zmq.Socket[bytes], deadline_s: float) -> bool:
    """Wait until there is something to read; False once `time.monotonic()` has reached `deadline_s`."""
    remaining_s = max(0.0, deadline_s - time.monotonic())
    return bool(socket.poll(math.ceil(remaining_s * 1000), zmq.POLLIN))


class Intake:
    """Reads valid messages from a socket; everything else is counted in `malformed` and dropped."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        self.malformed = 0

    def receive(self, timeout_s: float) -> Received | None:
        """Return the next message, None if none came in time; returns in time also under a flood of garbage."""
        deadline_s = time.monotonic() + timeout_s
        garbage = 0
        while True:
            parts = read_parts(self._socket, PARTS)
            if parts is None:
                if not wait_readable(self._socket, deadline_s):
                    return None
                continue
            try:
                return decode_parts(parts)
            except WireError:
                self.malformed += 1
                garbage += 1
            if garbage >= GARBAGE_PER_CALL and time.monotonic() >= deadline_s:
                return None


def decode_parts(parts: list[zmq.Frame]) -> Received:
    """Decode header and buffer; raises `WireError` unless the two parts are a valid message."""
    if len(parts) != PARTS:
        raise WireError(f"message of {len(parts)} parts instead of two (header, buffer)")
    return decode(parts[0].buffer, parts[1].buffer)
