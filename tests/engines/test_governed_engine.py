"""The engine of a live run: its fit gets the time that the governor gives, and everything else passes through."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from engines.fit_budget import FrameCost
from engines.governed_engine import GovernedEngine
from engines.governor import LENT, Change, Governor
from engines.watched_engine import WatchedEngine
from stream.messages import Detections, Frame, FrameInfo, Predictions

INFO = FrameInfo("run", 0, 0, 0.0, 0, 0.0)
HOUR_NS = 3_600_000_000_000


class Inner:
    """Answers each frame at once, and says that it took as long as it is told."""

    def __init__(self, network_ms: float) -> None:
        self.network_ms = network_ms
        self.allowed_ms: list[float] = []
        self._frames: list[Frame] = []

    def submit(self, frame: Frame, predicted: Predictions | None = None) -> None:
        self._frames.append(frame)

    def results(self, timeout_s: float) -> list[Detections]:
        del timeout_s
        done, self._frames = self._frames, []
        self._costs = [FrameCost(frame.info.frame, self.network_ms, 1.0, 10, 10) for frame in done]
        return [Detections.empty(frame.info) for frame in done]

    def announce(self, call) -> bool:
        call()
        return True

    def allow_fit(self, share: float, ms: float) -> None:
        assert share == 1.0
        self.allowed_ms.append(ms)

    def costs(self) -> list[FrameCost]:
        return self._costs

    def counts(self) -> dict[str, int]:
        return {"blank": 3}


def frame(number: int, period_s: float = 0.1) -> Frame:
    info = replace(INFO, frame=number, time_s=period_s * number, monotonic_ns=time.perf_counter_ns())
    return Frame(info, np.full((4, 4), number % 200, np.uint8))


def run(inner: Inner, frames: int) -> list[Change]:
    now = [0.0]
    changes: list[Change] = []
    governor = Governor(1, 1000.0, lambda: now[0], 100.0)
    engine = GovernedEngine(WatchedEngine(inner, 100, print), governor, changes.append)
    for number in range(frames):
        now[0] += 0.1
        engine.submit(frame(number))
        assert [found.info.frame for found in engine.results(0.0)] == [number]
    assert engine.counts() == {"blank": 3}
    assert engine.announce(lambda: None)
    return changes


def test_the_fit_gets_what_the_network_leaves_through_all_engines_around_it() -> None:
    quick, slow = Inner(10.0), Inner(60.0)
    run(quick, 20)
    run(slow, 20)
    unspent_ms = 100.0 * LENT  # the fits have taken 1 ms each
    # 85 % of a period of 100 ms, less the network
    assert quick.allowed_ms[-1] == pytest.approx(75.0 + unspent_ms)
    assert slow.allowed_ms[-1] == pytest.approx(25.0 + unspent_ms)


def test_a_state_that_lasts_is_reported_once_with_its_reason() -> None:
    (change,) = run(Inner(10.0), 200)
    assert change.text.startswith("no fit: a frame takes 10 ms without the fit")


@pytest.mark.parametrize(("older_ns", "age_ms"), [(0, 0.0), (25_000_000, 25.0), (-1, None), (HOUR_NS, None)])
def test_the_age_of_a_frame_of_another_computer_is_not_known(older_ns: int, age_ms: float | None) -> None:
    found_ms = replace(INFO, monotonic_ns=2 * HOUR_NS - older_ns).age_ms_at(2 * HOUR_NS)
    assert np.isnan(found_ms) if age_ms is None else found_ms == age_ms
