"""The safety lane: a pipe and a thread that make the hardware safe even if the rest of the acquisition is stuck.

The acquisition's loop may wait for a consumer or hang in a device, and commands may wait in a queue. The safety
lane needs none of them; it only needs its process to run. When the pipe closes, the session is gone.
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

LOOK_S = 0.05  # s between two looks at the pipe; the hardware is made safe that much later at most
AGAIN_S = 1.0  # s until a device that was not safe at the end is set and read back again
REPORT_S = 20.0  # s; more than the sum of the devices' own deadlines, so only a broken driver reaches it
ORPHANED = "the session that started this run is gone"


class Securing(Protocol):
    """What the lane needs of `acquisition.commands.execution.CommandExecutor`."""

    def secure(self, reason: str, *, ends: bool, holds: bool = True) -> tuple[DeviceSafety, ...]:
        """Make the hardware safe and return the state of each device. With `holds`, live results do not undo it."""
        ...

    def overlooked(self) -> bool:
        """Whether the watchdog should have acted but has not."""
        ...


class Lane:
    """Listens to the session in its own thread, from `start` to `close`, and makes the hardware safe."""

    def __init__(self, pipe: Connection | None) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()
        self._hardware: Securing | None = None
        self._on_end: Callable[[str, bool], None] | None = None
        self._requested: tuple[str, bool] | None = None
        self._ended = threading.Event()
        self._reported = threading.Event()
        self._closing = threading.Event()
        self._overlooked = False
        self._last: tuple[DeviceSafety, ...] = ()
        self._again_s = 0.0
        self._thread = threading.Thread(target=self._work, name="safety", daemon=True)

    def opening(self) -> None:
        """Tell the session that devices are about to be opened."""
        self._say(Opening())

    def start(self, hardware: Securing | None) -> None:
        """Start listening. `hardware` is None for a recording, which has nothing to make safe."""
        self._hardware = hardware
        self._thread.start()

    def attach(self, on_end: Callable[[str, bool], None]) -> None:
        """`on_end(reason, session_is_gone)` is called from the lane's thread to end the run."""
        self._on_end = on_end
        if self._requested is not None:
            on_end(*self._requested)

    def ended(self, reason: str) -> None:
        """The acquisition has ended: have the hardware made safe and read back. Does not wait."""
        self._end(reason, False)

    def _work(self) -> None:
        while not self._closing.is_set():
            if self._ended.is_set() and not self._reported.is_set():
                self._secure(self._requested[0] if self._requested else "", ends=True)
                self._reported.set()
            elif self._is_left_unsafe and time.monotonic() > self._again_s:
                self._try_again()
            message = self._next_message()
            if message is not None and message.ends:
                self._end(message.reason, message.orphaned)
            elif message is not None:
                self._secure(message.reason, ends=False)
            else:
                self._look_after_the_loop()
        if self._is_left_unsafe:
            self._try_again()

    @property
    def _is_left_unsafe(self) -> bool:
        return self._reported.is_set() and not all(device.safe for device in self._last)

    def _try_again(self) -> None:
        """Set unsafe devices again, because one may answer late; report it if one has."""
        assert self._hardware is not None
        devices = self._hardware.secure("it has answered late", ends=True)
        self._again_s = time.monotonic() + AGAIN_S
        if [device.safe for device in devices] != [device.safe for device in self._last]:
            self._last = devices
            self._say(Secured(devices, "it has answered late", True))

    def _next_message(self) -> MakeSafe | None:
        pipe = self._pipe
        if pipe is None:
            self._closing.wait(LOOK_S)
            return None
        try:
            if not pipe.poll(LOOK_S):
                return None
            message = pipe.recv()
        except (EOFError, OSError):
            self._pipe = None
            return None if self._closing.is_set() else MakeSafe(ORPHANED, ends=True, orphaned=True)
        return message if isinstance(message, MakeSafe) else None

    def _end(self, reason: str, is_orphaned: bool) -> None:
        if self._requested is None or is_orphaned:
            self._requested = (reason, is_orphaned)
            if self._on_end is not None:
                self._on_end(reason, is_orphaned)
        self._ended.set()

    def _look_after_the_loop(self) -> None:
        """Act for the watchdog if the acquisition's loop, which normally checks it, is stuck."""
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
        """End the run if it has not ended, and wait until the state of each device is reported. Idempotent."""
        if self._thread.ident is not None and not self._closing.is_set():
            self.ended("the acquisition has ended")
            self._reported.wait(REPORT_S)
            self._closing.set()
            self._thread.join(REPORT_S)
        self._closing.set()
