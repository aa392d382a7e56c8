"""The acquisition's own lane to the session: how it is told to make the hardware safe, whatever else is stuck.

A pipe of its own and a thread of its own. The loop of the acquisition may wait for a consumer or hang in a
device; commands may wait in a queue: the lane needs none of them, only that the process runs. That the
session has gone is seen by the pipe, too.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Protocol

from acquisition.safety.hardware_state import DeviceSafety
from liveptv.session.plan import MakeSafe, Opening, Secured

LOOK_S = 0.05
AGAIN_S = 1.0  # after so long a device that was not safe at the end is told and read back again
REPORT_S = 20.0  # devices have deadlines of their own, of which this is more than the sum
ORPHANED = "the session that started this run is gone"


class Securing(Protocol):
    """What the lane needs of `acquisition.execution.CommandExecutor`."""

    def secure(self, reason: str, *, ends: bool, holds: bool = True) -> tuple[DeviceSafety, ...]:
        """Make the hardware safe; what is known of each device. It `holds` where live results do not end it."""
        ...

    def overlooked(self) -> bool:
        """Whether the watchdog should have acted and has not."""
        ...


class Lane:
    """Obeys the session's orders in a thread of its own, from `start` to `close`."""

    def __init__(self, pipe: Connection | None) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()
        self._hardware: Securing | None = None
        self._on_end: Callable[[str, bool], None] | None = None
        self._ordered: tuple[str, bool] | None = None
        self._ended = threading.Event()
        self._reported = threading.Event()
        self._closing = threading.Event()
        self._overlooked = False
        self._last: tuple[DeviceSafety, ...] = ()
        self._again_s = 0.0
        self._thread = threading.Thread(target=self._work, name="safety", daemon=True)

    def opening(self) -> None:
        """Tell the session that devices will be touched from now on."""
        self._say(Opening())

    def start(self, hardware: Securing | None) -> None:
        """Obey from now on. `hardware` is None for a recording, which has nothing to make safe."""
        self._hardware = hardware
        self._thread.start()

    def attach(self, on_end: Callable[[str, bool], None]) -> None:
        """`on_end` is told, from another thread, to end the run, why, and whether the session is gone."""
        self._on_end = on_end
        if self._ordered is not None:
            on_end(*self._ordered)

    def ended(self, reason: str) -> None:
        """The run is over for the acquisition: let the hardware be made safe and read back. Does not wait."""
        self._end(reason, False)

    def _work(self) -> None:
        while not self._closing.is_set():
            if self._ended.is_set() and not self._reported.is_set():
                self._secure(self._ordered[0] if self._ordered else "", ends=True)
                self._reported.set()
            elif self._is_left_unsafe and time.monotonic() > self._again_s:
                self._try_again()
            order = self._next_order()
            if order is not None and order.ends:
                self._end(order.reason, order.orphaned)
            elif order is not None:
                self._secure(order.reason, ends=False)
            else:
                self._look_after_the_loop()
        if self._is_left_unsafe:
            self._try_again()

    @property
    def _is_left_unsafe(self) -> bool:
        return self._reported.is_set() and not all(device.safe for device in self._last)

    def _try_again(self) -> None:
        """A device may have answered late, after what was known of it was told; said where it has."""
        assert self._hardware is not None
        devices = self._hardware.secure("it has answered late", ends=True)
        self._again_s = time.monotonic() + AGAIN_S
        if [device.safe for device in devices] != [device.safe for device in self._last]:
            self._last = devices
            self._say(Secured(devices, "it has answered late", True))

    def _next_order(self) -> MakeSafe | None:
        pipe = self._pipe
        if pipe is None:
            self._closing.wait(LOOK_S)
            return None
        try:
            if not pipe.poll(LOOK_S):
                return None
            order = pipe.recv()
        except (EOFError, OSError):
            self._pipe = None
            return None if self._closing.is_set() else MakeSafe(ORPHANED, ends=True, orphaned=True)
        return order if isinstance(order, MakeSafe) else None

    def _end(self, reason: str, is_orphaned: bool) -> None:
        if self._ordered is None or is_orphaned:
            self._ordered = (reason, is_orphaned)
            if self._on_end is not None:
                self._on_end(reason, is_orphaned)
        self._ended.set()

    def _look_after_the_loop(self) -> None:
        """The watchdog is the loop's to ask; where that is stuck, it is asked here."""
        overlooked = self._hardware is not None and not self._ended.is_set() and self._hardware.overlooked()
        if overlooked and not self._overlooked:
            self._secure("no live result, and the acquisition is stuck", ends=False, holds=False)
        self._overlooked = overlooked

    def _secure(self, reason: str, *, ends: bool, holds: bool = True) -> None:
        devices = () if self._hardware is None else self._hardware.secure(reason, ends=ends, holds=holds)
        self._last, self._again_s = devices, time.monotonic() + AGAIN_S
        self._say(Secured(devices, reason, ends))

    def _say(self, message: Opening | Secured) -> None:
        pipe = self._pipe
        if pipe is not None:
            with self._lock, contextlib.suppress(OSError, ValueError):
                pipe.send(message)

    def close(self) -> None:
        """End the run where it has not ended, wait until what is known of each device is told. Idempotent."""
        if self._thread.ident is not None and not self._closing.is_set():
            self.ended("the acquisition has ended")
            self._reported.wait(REPORT_S)
            self._closing.set()
            self._thread.join(REPORT_S)
        self._closing.set()
