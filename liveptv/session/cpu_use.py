"""Processor time of a stage's process, and the parts of it that are not the pipeline's: detection, the camera."""

from __future__ import annotations

import threading
import time

import psutil

from engines.ordered_threads import THREAD_PREFIX

PERIOD_S = 1.0
"""Time between two readings, s. One takes about 0.2 ms, for all threads of a process; more often would show more
detail than the 10 ms in which most systems count the time of a thread."""
CAMERA_THREAD = "AcquisitionThread"  # of the Micro-Manager core, for a camera in Python


class CpuUse:
    """`gauges` of a process: `cpu_s` since this was made, and of it `cpu_detection_s` and `cpu_camera_s`.

    A camera has a part only if it is a Python camera (a simulated one renders its images there).
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._due_s = 0.0
        self._gauges: dict[str, float] = {}
        self._began = {"cpu_s": time.process_time()} | self._of_threads()

    def gauges(self) -> dict[str, float]:
        """The newest reading, at most a second old; empty on a system that does not tell."""
        now_s = time.monotonic()
        if now_s >= self._due_s:
            self._due_s = now_s + PERIOD_S
            read = {"cpu_s": time.process_time()} | self._of_threads()
            self._gauges = {name: value - self._began.get(name, 0.0) for name, value in read.items()}
        return self._gauges

    def _of_threads(self) -> dict[str, float]:
        parts = {thread.native_id: _part(thread) for thread in threading.enumerate() if _part(thread)}
        found: dict[str, float] = {}
        if not parts:
            return found
        try:
            times = self._process.threads()
        except (psutil.Error, OSError):
            return found
        for row in times:
            if part := parts.get(row.id):
                found[part] = found.get(part, 0.0) + row.user_time + row.system_time
        return found


def _part(thread: threading.Thread) -> str:
    if thread.name.startswith(THREAD_PREFIX):
        return "cpu_detection_s"
    return "cpu_camera_s" if type(thread).__name__ == CAMERA_THREAD else ""
