"""The loops with results that come late and seldom, in simulated time."""

import math
from itertools import pairwise

import numpy as np
import pytest
from flows import info
from hypothesis import given, settings
from hypothesis import strategies as st
from late_loops import DriftingFocus, LateLoop, PumpedChannel, settled_s

from stream.errors import ConfigurationError
from stream.messages import CommandReply
from tracking.control.controllers import HoldFlow, HoldFocus, load_controller
from tracking.control.controllers.age_limit import AgeLimit, age_limit_s
from tracking.control.controllers.flow_tuning import VELOCITY_FRAMES, integral_time_s
from tracking.control.controllers.loop_delay import LoopDelay
from tracking.control.settings import ControllerSettings, HoldFlowSettings, HoldFocusSettings

FLOW = HoldFlowSettings(target_um_s=80.0, max_flow_ul_s=5.0)
RATES_HZ = (10.0, 30.0, 60.0, 200.0)
AGES_S = st.floats(0.0, 1.95)
GAPS = st.lists(st.integers(1, 10), min_size=1, max_size=6)
FEW = settings(max_examples=8, deadline=None)


def seen(delay: LoopDelay, rate_hz: float, gap: int, age_s: float, shows_s: float = 0.0) -> LoopDelay:
    """The delays of a loop after enough results for all averages."""
    for n in range(400):
        delay.see(info(n * gap, time_s=n * gap / rate_hz, age_ms=1000 * age_s))
    frames = math.ceil((np.nan_to_num(age_s) + shows_s) * rate_hz)
    delay.sent("command")
    delay.acknowledged(CommandReply("command", True, 399 * gap + frames))
    return delay


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("gap", [1, 3, 10])
@pytest.mark.parametrize("age_s", [0.02, 0.2, 1.0, 2.0, 4.0])
def test_the_loop_of_the_flow_has_the_same_margins_at_any_age_and_rate(rate_hz, gap, age_s):
    delay = seen(LoopDelay(), rate_hz, gap, age_s, 0.02)
    slow_s = integral_time_s(FLOW, delay)
    s = 1j * np.logspace(-3, 2, 50_000)
    pole = math.sqrt(2) / (VELOCITY_FRAMES / rate_hz * gap**0.25)
    plant = (
        pole**2 / (s**2 + math.sqrt(2) * pole * s + pole**2) / (FLOW.filter_time_s * s + 1) / (0.3 * s + 1)
    )
    dead = np.exp(-s * (delay.dead_s + 0.5 * max(FLOW.period_s, gap / rate_hz)))
    controller = FLOW.integral_time_s / slow_s * FLOW.proportional + 1 / (slow_s * s)
    loop = controller * plant * dead
    turned = np.flatnonzero(np.unwrap(np.angle(loop)) < -np.pi)[0]
    assert 1 / np.abs(loop[turned]) > 2.3
    assert (1 / np.abs(1 + loop)).max() < 2.0


def flow_loop(rate_hz, gaps, age_s, *, wrong=1.0, seed=0):
    """A loop that holds 80 um/s; its controller takes the flow per velocity `wrong` times as large."""
    mean = np.mean(gaps)
    controller = HoldFlow(FLOW.model_copy(update={"ul_s_per_um_s": wrong / 200.0}))
    loop = LateLoop(PumpedChannel(rate_hz, mean, seed=seed), controller, rate_hz, gaps, age_s)
    loop.run(3 + 2 * age_s, lambda: 0.0)
    return loop


def slowness_s(rate_hz, gaps, age_s):
    """Integral time that the loop needs, s: with one integral time of `DEAD_TIMES` delays, and 20 ms to act."""
    gap = sum(n**2 for n in gaps) / sum(gaps)
    measurement_s = 0.2 + VELOCITY_FRAMES / rate_hz * gap**0.25
    return max(1.5, 1.5 * (measurement_s + age_s + 0.05 + 2 / rate_hz + 0.5 * max(0.5, gap / rate_hz)))


@FEW
@given(
    st.sampled_from(RATES_HZ), GAPS, AGES_S, st.floats(0.75, 1.3), st.floats(0.7, 1.3), st.integers(0, 1000)
)
def test_a_new_target_and_a_changed_pump_are_followed_without_oscillation_at_any_age(
    rate_hz, gaps, age_s, wrong, change, seed
):
    loop = flow_loop(rate_hz, gaps, age_s, wrong=wrong, seed=seed)
    plant, slow_s = loop.plant, slowness_s(rate_hz, gaps, age_s)
    loop.controller.retarget(160.0)
    after = loop.run(6 * slow_s, lambda: plant.velocity_um_s)
    assert settled_s(after, 160.0, loop.frame_s) < 5 * slow_s
    assert after.max() < 160.0 * max(1.08, wrong + 0.08)
    plant.velocity_per_flow *= change
    after = loop.run(6 * slow_s, lambda: plant.velocity_um_s)
    assert settled_s(after, 160.0, loop.frame_s) < 4 * slow_s
    beyond = 0.05 + 0.2 * abs(change - 1.0)  # noise, and a fifth of the change
    assert min(change - 0.05, 1.0 - beyond) < after.min() / 160.0
    assert after.max() / 160.0 < max(change + 0.05, 1.0 + beyond)
    assert loop.notes == []


@pytest.mark.parametrize("rate_hz", [30.0, 90.0])
def test_at_three_times_the_load_a_changed_pump_is_corrected_within_one_and_a_half_times_the_time(rate_hz):
    def corrected_s(gap, age_s):
        loop = flow_loop(rate_hz, [gap], age_s)
        loop.plant.velocity_per_flow *= 0.7
        return settled_s(loop.run(20, lambda: loop.plant.velocity_um_s), 80.0, loop.frame_s)

    assert corrected_s(3, max(0.1, 3 / rate_hz)) < 1.5 * corrected_s(1, 1.5 / rate_hz)


def test_a_target_that_changes_while_the_last_step_is_not_seen_yet_is_not_counted_twice():
    loop = flow_loop(60.0, [3], 1.0)
    loop.controller.retarget(160.0)
    loop.run(0.8, lambda: 0.0)
    loop.controller.retarget(120.0)
    after = loop.run(20, lambda: loop.plant.velocity_um_s)
    assert settled_s(after, 120.0, loop.frame_s) < 1.0 + 5 * 0.3


def focus_errors_um(rate_hz, gaps, age_s, *, seconds=30.0, seed=0, reduced=0.0):
    plant = DriftingFocus(rate_hz, seed=seed)
    plant.reduced = reduced
    loop = LateLoop(plant, HoldFocus(HoldFocusSettings()), rate_hz, gaps, age_s)
    return loop.run(seconds, lambda: plant.error_um), loop


@FEW
@given(st.sampled_from(RATES_HZ), GAPS, AGES_S, st.integers(0, 1000))
def test_a_drift_of_the_focus_is_followed_at_any_age_within_what_it_drifts_between_two_moves(
    rate_hz, gaps, age_s, seed
):
    errors_um, loop = focus_errors_um(rate_hz, gaps, age_s, seed=seed)
    until_next_um = max(0.5, age_s + 0.03 + max(gaps) / rate_hz)
    begin = round((6 + 2 * age_s) * rate_hz)
    assert np.abs(errors_um[begin:]).max() < 2.0 + until_next_um
    assert errors_um[begin:].std() < 0.6 + 0.4 * until_next_um
    assert min((b - a for a, b in pairwise(loop.commands)), default=1.0) > min(0.5, age_s) - 2 / rate_hz
    assert loop.notes == []


@pytest.mark.parametrize("rate_hz", [30.0, 90.0])
def test_at_three_times_the_load_the_focus_error_is_at_most_half_as_large_again(rate_hz):
    def error_um(gap, age_s, reduced):
        runs = [focus_errors_um(rate_hz, [gap], age_s, seed=seed, reduced=reduced)[0] for seed in (1, 2)]
        begin = round(6 * rate_hz)
        return np.mean([np.sqrt((run[begin:] ** 2).mean()) for run in runs])

    assert error_um(3, max(0.1, 3 / rate_hz), 0.5) < 1.5 * error_um(1, 1.5 / rate_hz, 0.0)


@pytest.mark.parametrize("kind", ["flow", "focus"])
def test_beyond_its_limit_a_loop_does_not_act_and_says_so_once_and_once_more_when_it_acts_again(kind):
    if kind == "flow":
        loop, value = flow_loop(60.0, [2], 0.1), lambda: loop.plant.velocity_um_s
    else:
        _, loop = focus_errors_um(60.0, [2], 0.1, seconds=10.0)
        value = lambda: loop.plant.error_um  # noqa: E731
    loop.results_are(2.5)
    loop.run(3.0, value)
    sent, last = len(loop.commands), value()
    loop.plant.velocity_per_flow = 120.0
    loop.run(10.0, value)
    assert len(loop.commands) == sent
    assert abs(value() - last) > 5
    (note,) = loop.notes
    assert "does not act: the result is 2.5 s old, the limit is 2 s" in note
    assert f"controller.hold_{kind}.max_age_s" in note
    loop.results_are(0.1)
    after = loop.run(20.0, value)
    assert len(loop.notes) == 2
    assert loop.notes[1] == f"hold_{kind} acts again: the result is 0.1 s old"
    assert after[-300:] == pytest.approx(80.0, rel=0.05) if kind == "flow" else np.abs(after[-300:]).max() < 2


def test_a_pump_that_the_watchdog_stopped_meanwhile_is_started_from_where_it_is():
    loop = flow_loop(60.0, [3], 0.1)
    loop.results_are(6.0)
    loop.run(7.0, lambda: 0.0)
    loop.plant.set_point = 0.0
    loop.run(8.0, lambda: 0.0)
    loop.results_are(0.1)
    after = loop.run(15.0, lambda: loop.plant.velocity_um_s)
    assert settled_s(after, 80.0, loop.frame_s) < 7.0
    assert after.max() < 1.1 * 80.0


def test_ages_about_the_limit_do_not_alternate_between_notes():
    limit = AgeLimit("hold_flow", 2.0, "controller.hold_flow.max_age_s")
    refused = [limit.refuses(age_s) for age_s in (1.9, 2.1, 1.9, 2.1, 1.7, 1.5, 1.9, 0.1)]
    assert refused == [False, True, True, True, True, False, False, False]
    assert len(limit.happenings()) == 2
    assert limit.happenings() == []


def test_the_limit_follows_the_watchdogs_and_must_be_below_it():
    assert age_limit_s(None, 5.0, "x") == age_limit_s(None, math.inf, "x") == 2.0
    assert age_limit_s(None, 1.0, "x") == 0.5
    assert age_limit_s(3.0, 5.0, "x") == 3.0
    flow = ControllerSettings(hold_flow=FLOW.model_copy(update={"max_age_s": 5.0}))
    with pytest.raises(
        ConfigurationError, match=r"hold_flow\.max_age_s \(5 s\) must be less than limits\.watch"
    ):
        load_controller(flow, watchdog_s=5.0)
    focus = ControllerSettings(hold_focus=HoldFocusSettings(max_age_s=6.0))
    with pytest.raises(ConfigurationError, match=r"hold_focus\.max_age_s"):
        load_controller(focus, watchdog_s=5.0)


@settings(deadline=None, max_examples=50)
@given(st.floats(5.0, 200.0), st.integers(1, 9), st.floats(0.0, 3.0), st.floats(0.01, 1.0), st.booleans())
def test_the_dead_time_of_a_loop_is_read_from_its_frames_and_replies(rate_hz, gap, age_s, shows_s, known):
    delay = seen(LoopDelay(), rate_hz, gap, age_s if known else math.nan, shows_s + (0 if known else age_s))
    dead_s = math.ceil((age_s + shows_s) * rate_hz) / rate_hz
    assert delay.frame_s == pytest.approx(1 / rate_hz)
    assert delay.interval_s == pytest.approx(gap / rate_hz)
    assert delay.dead_s == delay.longest_dead_s == pytest.approx(dead_s, abs=1e-6)
    assert delay.age_s == pytest.approx(age_s if known else 0.0)


def test_a_pause_between_two_results_is_not_an_interval_of_the_loop():
    delay = seen(LoopDelay(), 60.0, 3, 0.1)
    last = delay._last
    delay.see(info(last.frame + 600, time_s=last.time_s + 10.0, age_ms=40.0))
    assert delay.interval_s == pytest.approx(0.05)
    assert delay.oldest_s == delay.age_s == pytest.approx(0.04)
    delay.see(info(last.frame + 603, time_s=last.time_s + 10.05, age_ms=300.0))
    delay.see(info(last.frame + 606, time_s=last.time_s + 10.1, age_ms=20.0))
    assert delay.oldest_s > 0.29
    for n in range(900):
        delay.see(info(last.frame + 609 + 3 * n, time_s=last.time_s + 10.15 + 0.05 * n, age_ms=20.0))
    assert delay.oldest_s == pytest.approx(0.02, abs=1e-3)


def test_refused_and_foreign_commands_say_nothing_about_the_dead_time():
    delay = seen(LoopDelay(), 60.0, 1, 0.1, 0.05)
    before_s = delay.shows_s
    delay.sent("refused")
    delay.acknowledged(CommandReply("refused", False))
    delay.acknowledged(CommandReply("another's", True, 10**6))
    assert delay.shows_s == before_s
