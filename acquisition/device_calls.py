"""Calls to devices that may hang: each in a thread of its own, none waited for longer than a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from stream.errors import LivePTVError


class DeviceCalls:
    """Runs calls to several devices at once; a device that hangs holds up none of the others.

    Micro-Manager locks each device (adapter) for itself, so a call that hangs keeps only its own device. Its
    thread is left behind; until it comes back, the device is not called again. Methods may be called from any
    thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hanging: dict[str, threading.Thread] = {}

    def run(self, calls: Mapping[str, Callable[[], None]], deadline_s: float) -> dict[str, str]:
        """Make all calls, by the names of their devices; returns what went wrong with each ("": nothing)."""
        until_s = time.monotonic() + deadline_s
        begun = {device: self._begin(device, call) for device, call in calls.items()}
        problems = {}
        for device, (thread, problem) in begun.items():
            if thread is not None:
                thread.join(max(0.0, until_s - time.monotonic()))
            if thread is not None and thread.is_alive():
                problems[device] = f"{device} has not answered for {deadline_s:g} s"
                continue
            if thread is not None:
                self._forget(device, thread)
            problems[device] = "; ".join(problem)
        return problems

    def _begin(self, device: str, call: Callable[[], None]) -> tuple[threading.Thread | None, list[str]]:
        problem: list[str] = []

        def work() -> None:
            try:
                call()
            except LivePTVError as error:
                problem.append(str(error))
            except Exception as error:  # noqa: BLE001 - whatever an adapter raises: it is told, not printed
                problem.append(f"{device}: {type(error).__name__}: {' '.join(str(error).split())}")

        with self._lock:
            hanging = self._hanging.get(device)
            if hanging is not None and hanging.is_alive():
                return None, [f"{device} has not come back from an earlier call"]
            thread = threading.Thread(target=work, name=f"device {device}", daemon=True)
            self._hanging[device] = thread
        thread.start()
        return thread, problem

    def _forget(self, device: str, thread: threading.Thread) -> None:
        with self._lock:
            if self._hanging.get(device) is thread:
                del self._hanging[device]
