"""What a volume network says is read as particles, each once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.volumes.network.decode import ROW, decode, planes_of
from engines.volumes.network.layout import (
    BRIGHTNESS,
    CHANNELS,
    LEAST_SIGMA,
    LOGIT,
    SIGMA_X,
    STEP,
    STRIDE,
    X,
    Y,
    Z,
)


def nothing(layers=3, rows=6, columns=8):
    planes = np.zeros((layers, CHANNELS, rows, columns), np.float32)
    planes[:, LOGIT] = -9.0
    planes[:, SIGMA_X:] = np.log(0.05)
    return planes


def say(planes, place, probability, cell=None, brightness=1.0):
    """Let a cell, by default the one around it, tell of a particle at `place` (z, y, x) in voxels."""
    at = (np.array(place) + 0.5) / [STEP, STRIDE, STRIDE]
    layer, row, column = np.floor(at).astype(int) if cell is None else cell
    planes[layer, LOGIT, row, column] = np.log(probability / (1 - probability))
    planes[layer, Z, row, column] = at[0] - layer - 0.5
    planes[layer, Y, row, column] = at[1] - row - 0.5
    planes[layer, X, row, column] = at[2] - column - 0.5
    planes[layer, BRIGHTNESS, row, column] = brightness


def column(rows, name):
    return rows[:, ROW.index(name)]


def test_nothing_is_no_particle():
    assert decode(nothing()).shape == (0, len(ROW))


@settings(deadline=None)  # the first example may compile
@given(st.floats(-0.49, 5.49), st.floats(-0.49, 23.4), st.floats(-0.49, 31.4), st.floats(0.1, 0.99))
def test_a_particle_is_read_where_it_is(z, y, x, probability):
    planes = nothing()
    say(planes, (z, y, x), probability, brightness=2.0)
    rows = decode(planes)
    assert len(rows) == 1
    assert rows[0, :4] == pytest.approx([x, y, z, 2.0], abs=1e-4)
    scale = np.array([STRIDE, STRIDE, STEP, 1])
    assert rows[0, 4:8] == pytest.approx((np.array(LEAST_SIGMA) + 0.05) * scale, rel=1e-4)
    assert rows[0, -1] == pytest.approx(probability, abs=1e-5)


def test_a_particle_that_two_cells_share_is_one():
    planes = nothing()
    say(planes, (1.4, 11.5, 11.4), 0.6, cell=(0, 2, 2))
    say(planes, (1.6, 11.5, 11.6), 0.3, cell=(1, 2, 3))
    rows = decode(planes)
    assert len(rows) == 1
    assert column(rows, "probability") == pytest.approx(0.9, abs=1e-5)
    assert column(rows, "x") == pytest.approx(11.4 + 0.2 / 3, abs=1e-4)
    assert column(rows, "z") == pytest.approx(1.4 + 0.2 / 3, abs=1e-4)


@pytest.mark.parametrize("second", [(1.0, 10.0, 13.2), (4.1, 10.0, 10.0)], ids=["in the plane", "along z"])
def test_two_particles_apart_are_two(second):
    planes = nothing()
    say(planes, (1.0, 10.0, 10.0), 0.4)
    say(planes, second, 0.35)
    rows = decode(planes)
    assert column(rows, "probability") == pytest.approx([0.4, 0.35], abs=1e-5)


def test_two_sure_particles_at_one_place_remain_two():
    planes = nothing()
    say(planes, (1.5, 10.0, 11.5), 0.95, cell=(0, 2, 2))
    say(planes, (1.5, 10.0, 11.5), 0.9, cell=(0, 2, 3))
    assert len(decode(planes)) == 2


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("channel", [LOGIT, X, SIGMA_X])
def test_numbers_that_are_none_are_refused(wrong, channel):
    planes = nothing()
    say(planes, (1.0, 10.0, 10.0), 0.9)
    planes[0, channel, 2, 2] = wrong
    if (channel, wrong) == (SIGMA_X, np.inf):
        assert decode(planes)[0, 4] == pytest.approx(STRIDE * (LEAST_SIGMA[0] + np.exp(3.0)), rel=1e-3)
        return
    with pytest.raises(ValueError, match="finite"):
        decode(planes)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_probability_is_kept_and_ordered_whatever_the_network_says(seed, layers):
    rng = np.random.default_rng(seed)
    planes = rng.normal(0, 1, (layers, CHANNELS, 5, 7)).astype(np.float32)
    planes[:, LOGIT] = rng.normal(-3, 2, (layers, 5, 7))
    rows = decode(planes)
    p = 1 / (1 + np.exp(-planes[:, LOGIT].astype(float)))
    read = p[p > 0.03]
    assert len(rows) <= read.size
    assert (np.diff(column(rows, "probability")) <= 0).all()
    assert ((rows[:, -1] > 0) & (rows[:, -1] <= 1)).all()
    assert rows[:, -1].sum() <= read.sum() + 1e-6
    assert (rows[:, 4:8] > 0).all()


def test_maps_of_training_are_read_like_planes_of_files():
    rng = np.random.default_rng(4)
    planes = rng.normal(0, 1, (2, CHANNELS, 5, 7)).astype(np.float32)
    maps = np.moveaxis(planes, 1, -1).copy()
    maps[..., SIGMA_X:] = np.array(LEAST_SIGMA, np.float32) + np.exp(maps[..., SIGMA_X:])
    assert decode(planes_of(maps)) == pytest.approx(decode(planes), rel=1e-3, abs=1e-4)
