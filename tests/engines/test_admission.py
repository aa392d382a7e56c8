"""Under overload a detector asks for frames so that those it takes are fresh, regular, and as many as it can."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from engines.admission import Admission

STEP_S = 0.0005
WAY_S = 0.002  # from the question to the frame: two processes wake up and a full frame is copied


@dataclass
class Detector:
    """`workers` that take `service_s(n)` for frame n, a camera with period `period_s`, and a simulated clock."""

    admission: Admission
    workers: int
    period_s: float
    service_s: list[float]
    taken: list[int] = field(default_factory=list)
    ages_s: list[float] = field(default_factory=list)

    def run(self, seconds: float) -> Detector:
        """The newest frame comes `WAY_S` after the question, or when there is one; workers start in order."""
        waiting: list[tuple[int, float]] = []
        at_work: list[tuple[float, int, float]] = []
        asked_s, last = None, -1
        for step in range(int(seconds / STEP_S)):
            now_s = step * STEP_S
            for done in [entry for entry in at_work if entry[0] <= now_s]:
                at_work.remove(done)
                self.admission.worked(done[2])
                self.ages_s.append(now_s - done[1] * self.period_s)
            newest = int(now_s / self.period_s)
            if asked_s is not None and now_s >= asked_s + WAY_S and newest > last:
                asked_s, last = None, newest
                self.admission.came(now_s)
                self.taken.append(newest)
                waiting.append((newest, now_s))
            while waiting and len(at_work) < self.workers:
                number, _ = waiting.pop(0)
                took_s = self.service_s[len(self.taken) % len(self.service_s)]
                at_work.append((now_s + took_s, number, took_s))
            pending = len(at_work) + len(waiting)
            assert pending <= self.workers + 1 + self.workers // 3, "few frames ever wait for a worker"
            if asked_s is None and self.admission.due_in_s(now_s, pending) <= 0:
                self.admission.asked(now_s)
                asked_s = now_s
        return self


def detector(workers: int, overload: float, mean_s: float, jitter: float, seed: int = 0) -> Detector:
    """A camera `overload` times as fast as the detector, whose frames take `mean_s` +- `jitter` of it."""
    spread = np.random.default_rng(seed).uniform(1 - jitter, 1 + jitter, 997)
    period_s = mean_s / workers / overload
    admission = Admission(workers, max(0.1, 3 * period_s))
    return Detector(admission, workers, period_s, (mean_s * spread).tolist())


@given(
    workers=st.integers(1, 8),
    overload=st.floats(1.5, 12),
    rate_hz=st.floats(10, 200),
    jitter=st.floats(0, 0.2),
    seed=st.integers(0, 100),
)
@hypothesis_settings(max_examples=40, deadline=None)
def test_under_overload_frames_are_regular_fresh_and_as_many_as_can_be(
    workers: int, overload: float, rate_hz: float, jitter: float, seed: int
) -> None:
    mean_s = workers / rate_hz
    one = detector(workers, overload, mean_s, jitter, seed).run(6.0)
    gaps = np.diff(one.taken[2 * workers + 5 :])
    assert gaps.max() <= 2 * gaps.mean() + 1, "evenly spaced"
    possible = 6.0 * workers / mean_s
    assert len(one.taken) > 0.85 * possible
    # at worst a frame was just a period old, came its way, waited for a worker and took longest itself
    waiting = (2 + workers // 3) / workers
    longest_s = one.period_s + WAY_S + mean_s * (1 + jitter) * (1 + waiting) + 4 * STEP_S
    assert max(one.ages_s[2 * workers + 5 :]) <= longest_s


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_detector_with_time_to_spare_takes_every_frame_at_once(workers: int) -> None:
    one = detector(workers, 0.5, 0.03, 0.2).run(4.0)
    assert set(np.diff(one.taken).tolist()) == {1}
    assert max(one.ages_s) <= 0.03 * 1.2 + WAY_S + 4 * STEP_S


def test_workers_that_were_all_free_at_first_do_not_go_on_in_step() -> None:
    one = detector(4, 3.0, 0.08, 0.0).run(4.0)
    gaps = np.diff(one.taken[10:])
    assert set(gaps.tolist()) <= {2, 3, 4}


def test_a_detector_that_becomes_slower_or_faster_is_followed() -> None:
    one = detector(1, 3.0, 0.03, 0.0)
    one.service_s = [0.09 if 50 <= n < 90 else 0.015 for n in range(997)]
    one.run(8.0)
    gaps = np.diff(one.taken)
    assert set(gaps[70:88].tolist()) <= {9, 10}
    assert set(gaps[115:].tolist()) <= {1, 2}


def test_only_a_frame_that_has_waited_and_cannot_be_in_time_is_late() -> None:
    fast, slow = Admission(1, 0.1), Admission(1, 0.1)
    fast.worked(0.02)
    slow.worked(0.5)
    assert not fast.is_late(0.079)
    assert fast.is_late(0.081)
    assert not slow.is_late(0.04), "every frame of a slow detector would be late: the newest is still taken"
    assert slow.is_late(3.0)


def test_nothing_is_asked_for_while_a_frame_is_on_its_way_or_waits() -> None:
    one = Admission(2, 0.1)
    assert one.due_in_s(0.0, 0) == 0
    one.asked(0.0)
    assert one.due_in_s(5.0, 0) == float("inf")
    one.came(0.01)
    one.worked(0.02)
    assert one.due_in_s(5.0, 3) == float("inf")
    assert one.due_in_s(5.0, 2) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_frame_that_took_seconds_is_forgotten_at_once(workers: int) -> None:
    one = detector(workers, 0.5, 0.03, 0.2)
    one.service_s = [3.0 if n in {1, 60} else 0.03 for n in range(997)]
    one.run(12.0)
    taken = np.array(one.taken)
    after = taken[taken > (3.3 / one.period_s)]
    assert sorted(np.diff(after))[-2] == 1, "but for the second such frame, every frame is taken"
