"""Whether the flow was the same over a run is said beside what the pump was told to do."""

import math

import numpy as np
import pytest
from channel_tracks import Channel, simulate

from liveptv.flow_fit.over_run import BLOCK_S, over_run
from liveptv.flow_fit.words import _over_time
from tracking.physics.channel.fit import fit_channel
from tracking.physics.channel.parameters import prior_of
from tracking.physics.tracks.velocities import track_velocities

CHANNEL = Channel()
TIME_S = np.arange(0.0, 60.0, 0.5)


def sway(time_s):
    """A relative change of 3 % to either side, in 20 s."""
    return 1.0 + 0.03 * np.sin(2 * np.pi * np.asarray(time_s) / 20.0)


def steady(time_s):
    return np.ones_like(time_s)


def found_of(flow, set_point, duration_s=60.0):
    detections = simulate(CHANNEL, 1500, 0, faster=flow, duration_s=duration_s)
    known = {"diffusion_um2_s": CHANNEL.diffusion_um2_s}
    fit = fit_channel(track_velocities(**detections, **known), CHANNEL.section, prior_of(CHANNEL.section))
    pieces = track_velocities(**detections, **known, longest_s=BLOCK_S)
    return over_run(fit, pieces, TIME_S, set_point)


def in_words(found):
    return _over_time({name: getattr(found, name) for name in type(found).__slots__})


def test_a_flow_that_a_controller_holds_is_steady_whatever_the_pump_does():
    found = found_of(steady, 0.004 * sway(TIME_S))
    assert found.steady is True
    assert found.set_points_ul_s == pytest.approx((0.00388, 0.00412), rel=1e-3)
    assert in_words(found) == "steady, held with a set-point from 0.00388 to 0.00412 µL/s"


def test_a_flow_that_follows_its_pump_is_said_to():
    found = found_of(sway, 0.004 * sway(TIME_S))
    assert (found.steady, found.as_pump) == (False, True)
    assert in_words(found) == "varies as the pump does: set-point from 0.00388 to 0.00412 µL/s"


def test_a_flow_that_varies_behind_a_pump_that_does_not_is_not_the_pumps():
    found = found_of(sway, np.full_like(TIME_S, 0.004))
    assert (found.steady, found.as_pump, found.set_points_ul_s) == (False, False, None)
    assert 0.1 < found.memory_s < 10
    assert in_words(found).startswith("varies; best followed with a memory of")


def test_a_flow_that_varies_otherwise_than_the_pump_is_not_the_pumps():
    found = found_of(sway, 0.004 * (2.0 - sway(TIME_S)))
    assert (found.steady, found.as_pump) == (False, False)
    assert in_words(found).endswith("; set-point from 0.00388 to 0.00412 µL/s")


def test_without_a_pump_a_steady_flow_is_steady():
    found = found_of(steady, np.full_like(TIME_S, math.nan))
    assert (found.steady, found.set_points_ul_s) == (True, None)
    assert in_words(found) == "steady"


def test_of_a_second_nothing_is_said():
    found = found_of(steady, np.full_like(TIME_S, 0.004), duration_s=0.5)
    assert found.steady is None
    assert in_words(found) == "too short to tell"
