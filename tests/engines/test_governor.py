"""The governor: simulated cameras, loads and clocks; the fit is cut before frames are lost, and nothing flaps."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from engines.fit_budget import FrameCost
from engines.governor import KEEPS_UP, Change, Governor


@dataclass
class Load:
    """What a frame costs at a time: the network, ms, its particles, and the fit of each, ms."""

    network_ms: float = 13.0
    particles: int = 60
    fit_ms: float = 0.3


@dataclass
class Run:
    """A simulation: a camera, a queue that holds the newest frame, and a detector with workers."""

    period_ms: float = 33.3
    workers: int = 1
    limit_ms: float = 100.0
    load: Callable[[float], Load] = lambda _: Load()
    blind_ms: float = 0.0
    stall_s: tuple[float, float] = (np.inf, 0.0)
    disturbed_every: int = 0
    seed: int = 0
    changes: list[tuple[float, Change]] = field(default_factory=list)
    budgets: list[tuple[float, float]] = field(default_factory=list)
    fitted: list[tuple[float, float]] = field(default_factory=list)
    ages: list[tuple[float, float]] = field(default_factory=list)
    dropped: list[float] = field(default_factory=list)

    def go(self, seconds: float) -> Run:
        now = [0.0]
        governor = Governor(self.workers, self.limit_ms, lambda: now[0], self.period_ms)
        rng = np.random.default_rng(self.seed)
        free_s = [0.0] * self.workers
        stalled = False
        last = -1
        for number in itertools.count():
            taken_s = 1e-3 * self.period_ms * number
            if taken_s > seconds:
                return self
            worker = int(np.argmin(free_s))
            begin_s = max(taken_s, free_s[worker])
            if not stalled and begin_s >= self.stall_s[0]:
                stalled, begin_s = True, begin_s + self.stall_s[1]
                free_s = [max(free, begin_s) for free in free_s]
            if self.disturbed_every and number % self.disturbed_every == 0:
                begin_s += 0.08  # another program has the processor
            # the queue holds one frame: when the next one is there as well, this one is dropped
            if begin_s > taken_s + 1e-3 * self.period_ms:
                self.dropped.append(taken_s)
                continue
            now[0] = max(begin_s, now[0])
            budget_ms = governor.arrived(number, taken_s, 1e3 * (begin_s - taken_s))
            load = self.load(taken_s)
            noise = rng.lognormal(0.0, 0.15)
            can = min(load.particles, int(budget_ms / load.fit_ms))
            fit_ms = can * load.fit_ms * rng.lognormal(0.0, 0.3)
            network_ms = load.network_ms * noise
            ended_s = begin_s + 1e-3 * (network_ms + fit_ms + self.blind_ms)
            free_s[worker] = ended_s
            cost = FrameCost(number, network_ms, fit_ms, load.particles, load.particles - can)
            now[0] = max(now[0], ended_s) if self.workers == 1 else now[0]
            change = governor.finished([cost])
            if change is not None:
                self.changes.append((now[0], change))
            self.budgets.append((taken_s, budget_ms))
            self.fitted.append((taken_s, can / load.particles if load.particles else 1.0))
            self.ages.append((taken_s, 1e3 * (ended_s - taken_s)))
            last = number
        raise AssertionError(last)

    def mean_fitted(self, since_s: float, until_s: float = np.inf) -> float:
        return float(np.mean([f for t, f in self.fitted if since_s <= t < until_s]))

    def words(self) -> list[str]:
        return [change.text.split(":")[0] for _, change in self.changes]


def test_where_there_is_time_all_is_fitted_and_nothing_is_said() -> None:
    run = Run(load=lambda _: Load(particles=20)).go(30)
    assert run.mean_fitted(3) == 1.0
    assert not run.changes
    assert not run.dropped


def test_the_first_frames_are_fitted_whole_though_they_alone_take_nearly_all_of_the_time() -> None:
    """Until predictions come, after some frames, network and fit take 32 ms of 33; then 12."""

    def load(at_s: float) -> Load:
        return Load(network_ms=15.0, fit_ms=17.0 / 60) if at_s < 0.12 else Load(network_ms=12.0, particles=0)

    for seed in range(10):
        run = Run(load=load, seed=seed).go(5)
        assert not run.dropped
        assert run.mean_fitted(0) > 0.99


@pytest.mark.parametrize("disturbed", [1, 2, 3])
def test_one_disturbed_frame_at_the_start_does_not_end_the_fit(disturbed: int) -> None:
    now = [0.0]
    governor = Governor(1, 100.0, lambda: now[0], 33.3)
    for number in range(6):
        now[0] = 0.0333 * number
        assert governor.arrived(number, now[0], 2.0) > 0.0
        governor.finished([FrameCost(number, 60.0 if number == disturbed else 15.0, 12.0, 60, 0)])


def test_what_is_left_is_spent_once_and_frames_that_keep_taking_longer_are_fitted_in_part() -> None:
    run = Run(load=lambda at_s: Load(particles=20 if at_s < 10 else 65, fit_ms=0.3)).go(20)
    assert run.mean_fitted(5, 10) == 1.0
    assert run.mean_fitted(10, 10.05) > 0.95
    assert run.mean_fitted(12) < 0.9
    assert len(run.dropped) <= 1


def test_a_crowded_frame_is_fitted_in_part_and_none_is_lost() -> None:
    run = Run(load=lambda _: Load(particles=100)).go(60)
    assert 0.3 < run.mean_fitted(5) < 0.6
    assert len(run.dropped) < 0.01 * len(run.ages)
    assert np.quantile([age for t, age in run.ages if t > 5], 0.99) < 100.0
    assert len(run.changes) == 1
    assert run.words()[0].startswith("fit on ")


def test_a_camera_at_three_times_the_capacity_gets_every_third_frame_and_no_fit() -> None:
    run = Run(period_ms=4.0, load=lambda _: Load(network_ms=12.0)).go(60)
    assert run.mean_fitted(5) < 0.02
    assert len(run.changes) == 1
    assert run.words()[0] in ("no fit, every third frame", "no fit, every fourth frame")
    assert np.quantile([age for t, age in run.ages if t > 5], 0.99) < 100.0


def test_a_step_of_the_load_is_followed_down_at_once_and_up_slowly_with_a_line_for_each() -> None:
    run = Run(load=lambda t: Load(fit_ms=1.0 if 20 <= t < 60 else 0.2, particles=60)).go(120)
    assert run.mean_fitted(5, 20) > 0.95
    assert run.mean_fitted(21, 60) < 0.4
    assert run.mean_fitted(80) > 0.95
    assert len(run.changes) == 2
    assert run.words()[1] == KEEPS_UP
    first_s, last_s = (at for at, _ in run.changes)
    assert 22 <= first_s < 30
    assert 70 <= last_s < 80


def test_a_network_that_becomes_slow_takes_the_time_of_the_fit() -> None:
    run = Run(load=lambda t: Load(network_ms=13.0 if t < 20 else 26.0, particles=40)).go(60)
    assert run.mean_fitted(5, 20) > 0.95
    assert run.mean_fitted(25) < 0.3
    assert len(run.dropped) < 0.02 * len(run.ages)


def test_a_standstill_of_a_second_is_no_change_of_state() -> None:
    run = Run(load=lambda _: Load(particles=40, fit_ms=0.2), stall_s=(20.0, 1.0)).go(60)
    assert len(run.dropped) >= 25
    assert run.mean_fitted(40) > 0.99
    assert not run.changes


@pytest.mark.parametrize("blind_ms", [5.0, 15.0])
def test_costs_that_are_not_measured_are_found_out_by_late_frames(blind_ms: float) -> None:
    run = Run(load=lambda _: Load(particles=100), blind_ms=blind_ms).go(120)
    late = [t for t in run.dropped if t > 20]
    assert len(late) < 0.04 * sum(t > 20 for t, _ in run.ages)
    assert len(run.changes) <= 3


@pytest.mark.parametrize("seed", range(4))
def test_noise_and_crowds_that_come_and_go_do_not_make_it_flap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    crowd = rng.integers(0, 150, 10_000)

    def load(t: float) -> Load:
        return Load(network_ms=13.0, particles=int(crowd[int(30 * t)]), fit_ms=0.3)

    run = Run(load=load, seed=seed).go(180)
    assert len(run.changes) <= 2
    assert len(run.dropped) < 0.02 * len(run.ages)


def test_single_losses_that_no_smaller_fit_avoids_do_not_take_its_time() -> None:
    run = Run(load=lambda _: Load(particles=40, fit_ms=0.3), disturbed_every=75).go(180)
    assert len(run.dropped) > 20
    assert run.mean_fitted(10) > 0.95
    assert not run.changes


def test_between_two_loads_near_the_limit_there_is_one_line() -> None:
    run = Run(load=lambda t: Load(particles=50 + int(6 * np.sin(t)), fit_ms=0.3)).go(180)
    assert len(run.changes) <= 2


def test_several_workers_share_the_frames() -> None:
    run = Run(workers=4, period_ms=10.0, load=lambda _: Load(particles=60)).go(30)
    assert run.mean_fitted(3) > 0.5
    assert len(run.dropped) < 0.02 * len(run.ages)


def test_a_run_that_starts_with_other_numbers_is_measured_anew() -> None:
    now = [0.0]
    governor = Governor(1, 100.0, lambda: now[0])
    for number in range(100):
        now[0] = 0.01 * number
        governor.arrived(number, now[0], 0.0)
    assert governor.period_ms == pytest.approx(10.0)
    for number in range(100):
        now[0] += 0.02
        governor.arrived(number, 0.02 * number, 0.0)
    assert governor.period_ms == pytest.approx(20.0)


def test_frames_without_a_time_leave_the_period_that_is_known() -> None:
    governor = Governor(1, 100.0, lambda: 0.0, 25.0)
    for number in range(10):
        governor.arrived(number, float("nan"), 0.0)
    assert governor.period_ms == 25.0


@pytest.mark.parametrize("late_s", [0.1, 0.5, 1.0, 3.0, 5.0])
def test_after_an_overload_the_fit_is_back_within_seconds(late_s: float) -> None:
    now = [0.0]
    governor = Governor(1, 100.0, lambda: now[0], 33.3)

    def frames(seconds: float, age_ms: float) -> None:
        for _ in range(int(seconds / 0.0333)):
            now[0] += 0.0333
            governor.arrived(round(now[0] / 0.0333), now[0], age_ms)
            governor.finished([FrameCost(0, 13.0, 5.0, 60, 0)])

    frames(20.0, 1.0)
    full_ms = governor.budget_ms
    frames(late_s, 90.0)
    frames(8.0, 1.0)
    assert governor.budget_ms > 0.75 * full_ms


def test_a_camera_that_pauses_keeps_its_period_and_one_that_becomes_slower_gets_another() -> None:
    now = [0.0]
    governor = Governor(1, 1000.0, lambda: now[0], 33.3)
    for number in range(100):
        now[0] += 0.0333 + (4.0 if number == 50 else 0.0)
        governor.arrived(number, now[0], 0.0)
        assert governor.period_ms == pytest.approx(33.3, rel=0.01)
    for number in range(100, 200):
        now[0] += 0.2
        governor.arrived(number, now[0], 0.0)
    assert governor.period_ms == pytest.approx(200.0, rel=0.01)


def test_a_frame_that_took_seconds_does_not_count() -> None:
    now = [0.0]
    governor = Governor(1, 100.0, lambda: now[0], 33.3)
    for number in range(40):
        now[0] += 0.0333
        governor.arrived(number, now[0], 0.0)
        governor.finished([FrameCost(number, 3000.0 if number == 20 else 13.0, 5.0, 60, 0)])
        assert governor.budget_ms > 10.0
