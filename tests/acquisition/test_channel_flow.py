import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acquisition.physics.channel_flow import channel_velocity_um_s, max_velocity_um_s, mean_velocity_um_s

SIDES = st.floats(20, 5000)


@settings(max_examples=25, deadline=None)
@given(width=SIDES, depth=SIDES, flow=st.floats(1e-4, 10))
def test_the_flux_through_the_section_is_the_flow_rate(width, depth, flow):
    node, weight = np.polynomial.legendre.leggauss(64)
    y, z = node * width / 2, (node + 1) * depth / 2
    velocity = channel_velocity_um_s(y[:, None], z, width, depth, flow)
    flux_um3_s = (velocity * weight[:, None] * weight).sum() * width * depth / 4
    assert flux_um3_s / 1e9 == pytest.approx(flow, rel=2e-3)


def test_between_wide_plates_the_maximum_is_one_and_a_half_times_the_mean():
    ratio = max_velocity_um_s(1e5, 100, 1) / mean_velocity_um_s(1e5, 100, 1)
    assert ratio == pytest.approx(1.5, rel=2e-3)


def test_in_a_square_duct_the_maximum_is_2_0962_times_the_mean():
    # Shah & London (1978), laminar flow in a square duct
    ratio = max_velocity_um_s(100, 100, 1) / mean_velocity_um_s(100, 100, 1)
    assert ratio == pytest.approx(2.0962, rel=1e-3)


def test_the_fluid_sticks_to_every_wall_and_ends_there():
    y = np.linspace(-500, 500, 21)
    assert not channel_velocity_um_s(y, 0, 1000, 300, 1).any()
    assert not channel_velocity_um_s(y, 300, 1000, 300, 1).any()
    assert not channel_velocity_um_s([-500, 500, 800], 150, 1000, 300, 1).any()
    assert channel_velocity_um_s(499.9, 150, 1000, 300, 1) < 0.01 * max_velocity_um_s(1000, 300, 1)


@settings(max_examples=25, deadline=None)
@given(y=st.floats(-499, 499), z=st.floats(1, 299))
def test_the_profile_is_symmetric_and_does_not_care_which_side_is_called_depth(y, z):
    velocity = channel_velocity_um_s(y, z, 1000, 300, 0.02)
    peak = max_velocity_um_s(1000, 300, 0.02)
    assert channel_velocity_um_s(-y, z, 1000, 300, 0.02) == pytest.approx(velocity, abs=1e-9 * peak)
    assert channel_velocity_um_s(y, 300 - z, 1000, 300, 0.02) == pytest.approx(velocity, abs=1e-9 * peak)
    exchanged = channel_velocity_um_s(z - 150, y + 500, 300, 1000, 0.02)
    assert exchanged == pytest.approx(velocity, abs=2e-4 * peak)


def test_velocity_is_proportional_to_the_flow_and_changes_sign_with_it():
    forward = channel_velocity_um_s(10, 100, 1000, 300, 0.5)
    assert channel_velocity_um_s(10, 100, 1000, 300, -1.0) == pytest.approx(-2 * forward)
