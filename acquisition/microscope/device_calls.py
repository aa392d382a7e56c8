"""Calls to devices that may hang: each in its own thread, with a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from stream.errors import LivePTVError

TOLD_BEFORE_S = 0.05  # s before the deadline at which a call that waits for an earlier one gives up


class DeviceCalls:
    """Runs calls to several devices at once; a device that hangs does not delay the others.

    Micro-Manager locks each device (adapter) separately, so a call that hangs blocks only its own device. Its
    thread is left behind; until it returns, the device is not called again. Calls to one device run one after the
    other. Methods may be called from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: dict[str, _Call] = {}

    def run(self, calls: Mapping[str, Callable[[], None]], deadline_s: float) -> dict[str, str]:
        """Make all calls, given by device; returns the problem of each device ("" for none)."""
        until_s = time.monotonic() + deadline_s
        with self._lock:
            begun = {device: self._begin(device, call, until_s) for device, call in calls.items()}
        problems = {}
        for device, call in begun.items():
            call.thread.join(max(0.0, until_s - time.monotonic()))
            problems[device] = call.problem
            if call.thread.is_alive():
                problems[device] = f"{device} has not answered for {deadline_s:g} s"
        return problems

    def _begin(self, device: str, call: Callable[[], None], until_s: float) -> _Call:
        begun = _Call(device, call, until_s, self._latest.get(device))
        if begun.before is None or not begun.before.is_hanging:
            self._latest[device] = begun
        begun.thread.start()
        return begun


class _Call:
    """One call to a device in its thread, after the previous one."""

    def __init__(self, device: str, call: Callable[[], None], until_s: float, before: _Call | None) -> None:
        self.device = device
        self.until_s = until_s
        self.before = before
        self.problem = ""
        self._call = call
        self.thread = threading.Thread(target=self._work, name=f"device {device}", daemon=True)

    @property
    def is_hanging(self) -> bool:
        """Whether it has not returned in time."""
        return self.thread.is_alive() and time.monotonic() > self.until_s

    def _work(self) -> None:
        before, self.before = self.before, None
        if before is not None:
            before.thread.join(max(0.0, self.until_s - time.monotonic() - TOLD_BEFORE_S))
            if before.thread.is_alive():
                self.problem = f"{self.device} has not returned from an earlier call"
                return
        try:
            self._call()
        except LivePTVError as error:
            self.problem = str(error)
        except Exception as error:  # noqa: BLE001 - whatever an adapter raises is reported
            self.problem = f"{self.device}: {type(error).__name__}: {' '.join(str(error).split())}"
