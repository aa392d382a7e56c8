"""A measurement ends when what is wanted of the flow is known, and says how long that takes."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.messages import FrameInfo, Tracks
from tracking.control.controllers.sufficiency import Sufficiency
from tracking.control.controllers.time_left import TimeLeft
from tracking.control.settings import Enough


@given(st.floats(0.0, 0.9), st.floats(0.1, 100.0), st.floats(3.0, 60.0), st.floats(0.2, 0.95))
def test_the_time_left_is_right_for_errors_that_fall_to_what_stays(stays, falls, now_s, part):
    wanted = math.sqrt(stays + part * falls / now_s)
    left = TimeLeft(wanted)
    for time_s in np.linspace(1.0, now_s, 20):
        left.add(5.0, 5.0 + time_s, math.sqrt(stays + falls / time_s))
    assert left.left_s() == pytest.approx(now_s / part - now_s, rel=1e-3, abs=1e-3)


def test_an_error_that_stays_above_the_wanted_one_has_no_end():
    left = TimeLeft(0.5)
    for time_s in range(1, 30):
        left.add(0.0, time_s, math.sqrt(0.3 + 4.0 / time_s))
    assert left.left_s() == math.inf
    left.add(30.0, 31.0, 1.0)  # another measurement begins
    assert left.left_s() == pytest.approx(3.0)


def test_of_nothing_nothing_is_known_and_of_enough_nothing_is_left():
    left = TimeLeft(0.5)
    assert math.isnan(left.left_s())
    left.add(0.0, 10.0, 0.4)
    assert left.left_s() == 0.0


def test_a_long_measurement_is_kept_in_few_numbers():
    left = TimeLeft(0.01)
    for time_s in range(1, 2000):
        left.add(0.0, float(time_s), 1.0 / math.sqrt(time_s))
    assert left.left_s() == pytest.approx(10_000 - 1999, rel=1e-3)
    assert len(left._known) <= 64


def frame(number):
    info = FrameInfo("run", number, number, number / 10, 0, 0.0)
    return Tracks.from_columns(info, track=np.arange(3), x_um=np.zeros(3), y_um=np.zeros(3), z_um=np.zeros(3))


def fitted(time_s, **percents):
    return SimpleNamespace(time_s=time_s, from_s=0.0, percent=lambda name: percents.get(name, math.nan))


def test_a_slice_ends_once_everything_asked_of_the_flow_is_known():
    judge = Sufficiency(Enough(flow_rate_percent=1.0, wall_shear_percent=2.0))
    ended = []
    for number in range(120):
        time_s = number / 10
        ended.append(judge.update(frame(number)))
        if number % 10 == 5:
            error = 3.0 / math.sqrt(time_s)
            judge.flow_fitted(fitted(time_s, flow_rate_ul_s=error, mean_shear_pa=3 * error))
    # 9 / sqrt(t) is 2 at 20.25 s; the flow rate was known at 9 s.
    assert not any(ended)
    found = judge.measured()
    assert found["flow_rate_percent"] <= 1.0 < found["wall_shear_percent"]
    assert found["left_s"] == pytest.approx(20.25 - 11.5, rel=0.05)
    judge.flow_fitted(fitted(21.0, flow_rate_ul_s=0.6, mean_shear_pa=1.9))
    assert judge.update(frame(215))
    assert judge.reached


def test_between_two_fits_the_error_falls_as_it_did_before():
    judge = Sufficiency(Enough(flow_rate_percent=1.0))
    for number in range(200):
        time_s = number / 20
        over = judge.update(frame(number / 2))
        if over:
            break
        if number % 20 == 0 and number:
            judge.flow_fitted(fitted(time_s, flow_rate_ul_s=math.sqrt(7.5 / time_s)))
    assert 7.5 <= time_s <= 7.5 + 0.3  # the fit of 7 s says so; the next one would be that of 8 s
    assert judge.reached


def test_without_a_new_fit_nothing_ends():
    judge = Sufficiency(Enough(flow_rate_percent=1.0))
    judge.update(frame(0))
    for time_s in range(1, 6):
        judge.flow_fitted(fitted(float(time_s), flow_rate_ul_s=math.sqrt(8.0 / time_s)))
    assert not any(judge.update(frame(number)) for number in range(51, 200))


def test_a_fit_of_before_the_slice_does_not_end_it():
    judge = Sufficiency(Enough(profile_percent=1.0))
    judge.update(frame(100))
    judge.flow_fitted(fitted(9.0, profile=0.1))
    assert not judge.update(frame(110))
    judge.flow_fitted(fitted(12.0, profile=0.1))
    assert judge.update(frame(121))


def test_what_is_not_known_is_not_enough():
    judge = Sufficiency(Enough(diffusion_percent=5.0, longest_s=20.0))
    for number in range(100):
        judge.flow_fitted(fitted(number / 10, diffusion_um2_s=math.nan))
        assert not judge.update(frame(number))
    assert judge.update(frame(201))
    assert not judge.reached


def test_one_criterion_has_to_be_given():
    with pytest.raises(ValueError, match="wall_shear_percent"):
        Enough()
