"""What a frame costs each stage of a run in processor time, from the statuses of the stages."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from liveptv.session.run_card import read_card
from stream.messages import StageState, Status
from stream.monitor import MonitorSubscriber

RECEIVE_S = 0.2
SESSION = "session"  # the process that supervises the others
PARTS = {"detect": ("cpu_detection_s", "detection"), "acquire": ("cpu_camera_s", "camera")}
"""Gauges of what is not the pipeline's, by stage, and what it is called."""


class CpuCost:
    """Follows a run: differences between the first status after `warm_up` frames and the last one while running.

    `bench_s` is the processor time, in this process, of other threads that only measure.
    """

    def __init__(self, warm_up: int, bench_s: Callable[[], float] = lambda: 0.0) -> None:
        self._warm_up = warm_up
        self._bench_s = bench_s
        self._first: dict[str, Status] = {}
        self._last: dict[str, Status] = {}
        self._own_s: list[float] = []

    def take(self, status: Status, own_s: float) -> None:
        """Take a status; `own_s` is the processor time of the session's process so far."""
        if status.state is not StageState.RUNNING or "cpu_s" not in status.gauges:
            return
        if status.counts.get("received", 0) < self._warm_up:
            return
        self._last[status.stage] = status
        if self._first.setdefault(status.stage, status) is status and status.stage == "track":
            self._own_s = [own_s]
        elif status.stage == "track":
            self._own_s[1:] = [own_s]

    def rows(self) -> list[dict[str, Any]]:
        """Rows of `part`, `cpu_ms` (per frame that the stage received) and `frames`.

        `detection` and `camera` (of a Python camera) are apart from their stages; the last row, `all but
        detection`, has neither in it.
        """
        rows: list[dict[str, Any]] = []
        others: list[dict[str, Any]] = []
        for stage, last in self._last.items():
            first = self._first[stage]
            frames = last.counts["received"] - first.counts["received"]
            if frames < 1:
                continue
            cpu_s = last.gauges["cpu_s"] - first.gauges["cpu_s"]
            gauge, name = PARTS.get(stage, ("", ""))
            if gauge in last.gauges:
                part_s = last.gauges[gauge] - first.gauges.get(gauge, 0.0)
                cpu_s -= part_s
                others.append(_row(name, part_s, frames))
            rows.append(_row(stage, cpu_s, frames))
            if stage == "track" and len(self._own_s) > 1:
                others.insert(0, _row(SESSION, self._own_s[-1] - self._own_s[0], frames))
        rows += [row for row in others if row["part"] == SESSION]
        apart = [row for row in others if row["part"] != SESSION]
        if not rows:
            return []
        total_ms = sum(row["cpu_ms"] for row in rows)
        least = min(row["frames"] for row in rows)
        return [*apart, *rows, {"part": "all but detection", "cpu_ms": round(total_ms, 3), "frames": least}]

    @contextmanager
    def beside(self, card: Path) -> Iterator[None]:
        """Follow the run of a card while this is entered."""
        over = threading.Event()
        thread = threading.Thread(target=self._listen, args=(card, over), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(5.0)

    def _listen(self, path: Path, over: threading.Event) -> None:
        card = read_card(path)
        with contextlib.closing(
            MonitorSubscriber(card.session, security=card.listening.security())
        ) as monitor:
            while not over.is_set():
                message = monitor.receive(RECEIVE_S)
                if isinstance(message, Status):
                    self.take(message, time.process_time() - time.thread_time() - self._bench_s())


def _row(part: str, cpu_s: float, frames: int) -> dict[str, Any]:
    return {"part": part, "cpu_ms": round(1e3 * cpu_s / frames, 3), "frames": frames}
