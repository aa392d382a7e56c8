"""Wakes a thread that waits for sockets, from any other thread."""

from __future__ import annotations

import contextlib
import math
import socket
import threading
from collections.abc import Callable
from typing import Any

import zmq

BYTES = 16  # read at once; at most one byte waits


class Waker:
    """A pair of connected sockets: after `wake`, the near one is readable until `clear`.

    A wake that comes before the wait ends that wait at once, so none is missed.
    """

    def __init__(self) -> None:
        self._near, self._far = socket.socketpair()
        self._near.setblocking(False)
        self._far.setblocking(False)
        self._lock = threading.Lock()
        self._woken = self._closed = False

    def fileno(self) -> int:
        """The descriptor that becomes readable, for pollers."""
        return self._near.fileno()

    def wake(self) -> None:
        """End the wait; may be called from any thread, also after `close`."""
        with self._lock:
            if not (self._woken or self._closed):
                self._woken = True
                self._far.send(b"!")

    def clear(self) -> None:
        """Forget the wakes so far. Look for what they announced afterwards, not before."""
        with self._lock:
            if self._woken and not self._closed:
                self._woken = False
                with contextlib.suppress(BlockingIOError):
                    self._near.recv(BYTES)

    def close(self) -> None:
        """Release the sockets. Idempotent."""
        with self._lock:
            self._closed = True
            self._near.close()
            self._far.close()


def waiter(waker: Waker, other: zmq.Socket[Any]) -> Callable[[float], None]:
    """A function that waits until `waker` was woken or `other` has a message, at most so many seconds."""
    poller = zmq.Poller()
    poller.register(waker, zmq.POLLIN)
    poller.register(other, zmq.POLLIN)

    def wait(timeout_s: float) -> None:
        poller.poll(math.ceil(1000 * max(timeout_s, 0.0)))
        waker.clear()

    return wait
