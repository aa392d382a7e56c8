"""Live runs on computers of different speed, in virtual time: does the detector find its way to predictions?

Engine, governor, admission and tracker are the real ones and see the frames of `prediction_live.py`; only the clock
is simulated. A frame takes the processor time that was measured for it, `--slower` times as much, on a worker that
has a core to itself. So other programs do not matter, and computers that are slower than this one can be tried.
What the other stages take is a constant.

    python benchmarks/prediction_slow.py --slower 1 3 4.5
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from moving_particles import OPTICS, RATE_HZ, MovingParticles, sequence
from prediction_live import FULL, QUICK

from engines.admission import Admission
from engines.fit_budget import FrameCost
from engines.governor import Governor
from engines.network.engine import NetworkEngine
from engines.prediction_choice import MOST_AGE
from engines.refine.turns import Allowance
from engines.settings import DetectorSettings
from liveptv.models import SHIPPED_MODEL
from stream.messages import DetectionFlag, Predictions
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker

WAY_S = 0.001  # from the camera to the detector
REST_S = 0.004  # from the detector to tracks, without the tracker itself
SETTLE_S = 2.0


class Run:
    """A camera that waits for nobody, a detector with `workers`, and a tracker."""

    def __init__(
        self, moving: MovingParticles, prediction: str, slower: float, workers: int, most_age: int
    ) -> None:
        self._moving, self._slower, self._workers, self._most_age = moving, slower, workers, most_age
        settings = DetectorSettings(workers=1, backend="onnxruntime", prediction=prediction)
        self._engine = NetworkEngine(settings, OPTICS.pixel_size_um, SHIPPED_MODEL)
        self._engine.warmup(*moving.flow.shape, np.dtype(np.uint8))
        self._tracker, self._predicts = OnlineTracker(TrackerSettings()), prediction == "auto"
        self._tracker.warmup()
        limit_ms = 3e3 / RATE_HZ
        self._admission = Admission(workers, 1e-3 * limit_ms)
        self._governor = Governor(workers, limit_ms, lambda: self._now_s, 1e3 / RATE_HZ)
        self._now_s, self._busy, self._newest = 0.0, 0, -1
        self._events: list[tuple[float, int, str, Any]] = []
        self._order = itertools.count()
        self._waiting: deque[tuple[int, Predictions | None, Allowance]] = deque()
        self._taken: deque[int] = deque()
        self._done: dict[int, Any] = {}
        self._known: Predictions | None = None
        self._results: list[tuple[int, float, float, int, int]] = []

    def go(self) -> list[tuple[int, float, float, int, int]]:
        """For each tracked frame: its number, age ms, ms that it took, its particles, and those not fitted."""
        for number in range(self._moving.flow.frames):
            self._at(number / RATE_HZ, "camera", number)
        with closing(self._engine):
            while self._events:
                self._now_s, _, what, given = heapq.heappop(self._events)
                if what == "camera":
                    self._newest = given
                elif what == "came":
                    self._take(given)
                elif what == "detected":
                    self._finish(*given)
                self._ask()
        return self._results

    def _at(self, time_s: float, what: str, given: Any = None) -> None:
        heapq.heappush(self._events, (time_s, next(self._order), what, given))

    def _ask(self) -> None:
        if not self._admission.is_waiting:
            due_in_s = self._admission.due_in_s(self._now_s, len(self._taken))
            if 0 < due_in_s < math.inf:
                self._at(self._now_s + due_in_s, "asks")
            elif due_in_s <= 0:
                self._admission.asked(self._now_s)
        if self._admission.is_waiting and self._newest >= 0:
            number, self._newest = self._newest, -1
            self._at(self._now_s + WAY_S, "came", number)

    def _take(self, number: int) -> None:
        self._admission.came(self._now_s)
        age_s = self._now_s - number / RATE_HZ
        if self._admission.is_late(age_s):
            return
        allowed = Allowance(1.0, self._governor.arrived(number, number / RATE_HZ, 1e3 * age_s))
        known = self._known
        if known is not None and (not len(known) or number - known.info.frame > self._most_age):
            known = None
        self._taken.append(number)
        self._waiting.append((number, known, allowed))
        self._begin()

    def _begin(self) -> None:
        while self._busy < self._workers and self._waiting:
            number, known, allowed = self._waiting.popleft()
            self._busy += 1
            begun_s = time.thread_time()
            found, _ = self._engine._detect(self._moving.frame(number), allowed, known)
            took_s = self._slower * (time.thread_time() - begun_s)
            done = found, took_s, [as_if_in(took_s, cost) for cost in self._engine.costs()]
            self._at(self._now_s + took_s, "detected", (number, done))

    def _finish(self, number: int, done: Any) -> None:
        self._busy -= 1
        self._done[number] = done
        self._begin()
        while self._taken and self._taken[0] in self._done:
            first = self._taken.popleft()
            found, took_s, costs = self._done.pop(first)
            self._admission.worked(took_s)
            self._governor.finished(costs)
            self._tracker.step(found)
            if self._predicts:
                self._known = self._tracker.predictions()
            reduced = int((found.flags.astype(np.int64) & DetectionFlag.REDUCED > 0).sum())
            age_s = self._now_s + REST_S - first / RATE_HZ
            self._results.append((first, 1e3 * age_s, 1e3 * took_s, len(found), reduced))


def as_if_in(took_s: float, cost: FrameCost) -> FrameCost:
    """The cost of a frame that took so long in all."""
    times = 1e3 * took_s / max(cost.network_ms + cost.fit_ms, 1e-3)
    return cost._replace(network_ms=times * cost.network_ms, fit_ms=times * cost.fit_ms)


def rows(moving: MovingParticles, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each speed, and way."""
    for slower in options.slower:
        for way in options.ways:
            run = Run(moving, way, slower, options.workers, options.most_age).go()
            late = np.array([result for result in run if result[0] >= SETTLE_S * RATE_HZ])
            p50, p99 = np.percentile(late[:, 1], (50, 99))
            yield {
                "slower": slower, "prediction": way, "workers": options.workers, "most_age": options.most_age,
                "age_p50_ms": round(float(p50)), "age_p99_ms": round(float(p99)),
                "took_ms": round(float(late[:, 2].mean()), 1),
                "tracked": len(late), "exposed": moving.flow.frames - round(SETTLE_S * RATE_HZ),
                "reduced": round(float(late[:, 4].sum() / late[:, 3].sum()), 4),
            }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--slower", type=float, nargs="+", default=[1.0, 2.0, 3.0])
    parser.add_argument("--ways", nargs="+", choices=("off", "auto"), default=["off", "auto"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--most-age", type=int, default=MOST_AGE, help="of predictions, camera frames")
    parser.add_argument("--quick", action="store_true", help="a quarter of the picture")
    parser.add_argument("--cache", type=Path, default=Path("runs/prediction"), help="folder of the sequences")
    options = parser.parse_args()
    for row in rows(sequence(QUICK if options.quick else FULL, options.cache), options):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
