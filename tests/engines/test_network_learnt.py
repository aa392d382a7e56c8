"""What a network learnt beside place and class comes out in its unit, with standard errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.network.decode import ROW, decode, particles_of, slots_of
from engines.network.layout import CHANNELS, LEAST_LEARNT_SIGMA, LOGIT, SIGMA_X, SLOTS, planes_of
from engines.network.learnt import LearntProperty, values_of
from engines.network.preparation import Preparation

RADIUS = LearntProperty(name="radius_um", low=0.2, high=1.0)
ANGLE = LearntProperty(name="rotation_rad", low=0.0, high=math.pi, period=math.pi)


@given(st.floats(0.2, 1.0), st.floats(0.01, 0.3))
def test_a_value_and_its_error_come_back_in_their_unit(value, sigma):
    numbers = RADIUS.as_numbers(np.array([value]))
    found, error = RADIUS.from_numbers(numbers, np.array([[sigma]]))
    assert found == pytest.approx([value])
    assert error == pytest.approx([0.4 * sigma])


@given(st.floats(-10, 10), st.floats(0.01, 0.2))
def test_an_angle_comes_back_within_its_period_with_the_error_of_small_changes(angle, sigma):
    numbers = ANGLE.as_numbers(np.array([angle]))
    found, error = ANGLE.from_numbers(numbers, np.full((1, 2), sigma))
    assert 0 <= found[0] <= math.pi
    assert ANGLE.difference(found, np.array([angle]))[0] == pytest.approx(0.0, abs=1e-9)
    assert error == pytest.approx([0.5 * sigma])


def test_rods_at_both_ends_of_the_period_are_near_to_one_another():
    assert ANGLE.difference(np.array([0.1]), np.array([math.pi - 0.1])) == pytest.approx([0.2])
    assert (
        np.abs(ANGLE.as_numbers(np.array([0.01])) - ANGLE.as_numbers(np.array([math.pi - 0.01]))).max() < 0.05
    )


def test_nothing_is_said_of_a_property_that_a_particle_of_its_kind_does_not_have():
    only_rods = ANGLE.model_copy(update={"of_kinds": (1,)})
    rows = np.zeros((2, len(ROW) + 2 + 6))
    rows[:, -6:] = [0.5, 1.0, 0.0, 0.1, 0.1, 0.1]
    values, errors = values_of((RADIUS, only_rods), rows, np.array([0.0, 1.0]))
    assert values[0] == pytest.approx([0.8, 0.8])
    assert np.isnan(values[1, 0])
    assert np.isnan(errors[1, 0])
    assert values[1, 1] == pytest.approx(0.0)


def planes_with(learnt, kinds=1):
    planes = np.full((planes_of(kinds, learnt), 8, 8), -5.0, np.float32)
    planes[LOGIT : SLOTS * CHANNELS : CHANNELS] = -20.0
    return planes


@settings(deadline=None)
@given(st.floats(-1, 1), st.floats(-4, 0))
def test_values_of_a_slot_follow_those_of_its_classes(value, log_sigma):
    planes = planes_with(2, kinds=2)
    planes[CHANNELS + LOGIT, 3, 4] = 5.0  # the second slot
    planes[CHANNELS + 1 : CHANNELS + SIGMA_X, 3, 4] = 0.0
    first = SLOTS * (CHANNELS + 2) + 2 * 2
    planes[first : first + 4, 3, 4] = [value, 0.25, log_sigma, -1.0]
    row = decode(planes, learnt=2)
    assert row.shape == (1, len(ROW) + 2 + 4)
    sigma = LEAST_LEARNT_SIGMA + np.exp(np.float32(log_sigma))
    assert row[0, -4:] == pytest.approx([value, 0.25, sigma, LEAST_LEARNT_SIGMA + math.exp(-1.0)], rel=1e-5)


def test_a_particle_shared_by_two_slots_has_their_mean_and_the_spread_in_its_error():
    slots = np.zeros((2, len(ROW) + 2))
    slots[:, 4:7] = 0.3
    slots[:, 7] = 0.5
    slots[:, 8], slots[:, 9] = [0.1, 0.3], 0.05
    found = particles_of(slots, learnt=1)
    assert found.shape == (1, len(ROW) + 2)
    assert found[0, 8] == pytest.approx(0.2)
    assert found[0, 9] == pytest.approx(math.hypot(0.05, 0.1))


def test_a_network_that_learnt_nothing_more_is_read_as_before():
    planes = planes_with(0)
    planes[LOGIT, 2, 2] = 3.0
    np.testing.assert_array_equal(slots_of(planes), slots_of(planes, 0))
    assert slots_of(planes).shape == (1, len(ROW))


@settings(deadline=None)
@given(gain=st.floats(0.5, 20.0), offset=st.integers(0, 500))
def test_contrast_in_units_of_the_noise_does_not_depend_on_gain_and_offset(gain, offset):
    rng = np.random.default_rng(0)
    image = 200.0 + 10.0 * rng.standard_normal((64, 80))
    image[30:34, 40:44] += 300.0
    seen = np.rint(gain * image + offset).astype(np.uint16)
    preparation = Preparation(seen.shape, 1.0, 1.0, None, "noise")
    assert preparation.fill(seen) == pytest.approx(10.0 * gain, rel=0.1)
    assert preparation.input[0, 0, 30:34, 40:44].mean() == pytest.approx(30.0, rel=0.12)
    assert np.median(preparation.input[0, 0, :64, :80]) == pytest.approx(0.0, abs=0.1)


def test_a_frame_of_one_grey_value_has_no_light():
    preparation = Preparation((32, 32), 1.0, 1.0, None, "noise")
    assert preparation.fill(np.zeros((32, 32), np.uint8)) == 0
