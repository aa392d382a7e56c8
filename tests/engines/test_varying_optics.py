"""The simulated optics of `benchmarks/field_optics.py` are what they say."""

import sys
from pathlib import Path

import numpy as np
import pytest

from acquisition.physics.optics import OpticsModel, particle_images

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from varying_optics import SIZES, Drawn, Field, at_place, load

OPTICS = OpticsModel(wavelengths_um=(0.53,), focal_line_separation_um=40.0, visible_um=40.0, range_um=50.0)
FIELD = Field((300, 400), 80.0)


@pytest.fixture(scope="module")
def optics(tmp_path_factory):
    return load(OPTICS, FIELD, tmp_path_factory.mktemp("images"), say=lambda *_, **__: None)


def test_without_variation_the_images_are_those_of_the_optics_model():
    z_um = np.array([-40.0, -20.0, 5.0, 30.0])
    mine = at_place(OPTICS, FIELD.still(), 0.0, 0.0, z_um, np.ones(1))[0]
    theirs = particle_images(OPTICS, z_um)
    rim = mine.shape[-1] // 2 - theirs.shape[-1] // 2
    off = np.abs(mine[:, rim:-rim, rim:-rim] - theirs).max(axis=(1, 2))
    assert (off < 0.05 * theirs.max(axis=(1, 2))).all()


@pytest.mark.parametrize("place", [(390.0, 290.0), (35.0, 210.0), (199.5, 149.5)])
def test_interpolated_images_are_the_computed_ones(optics, place):
    u, v = (float(part) for part in FIELD.place(*place))
    z_um, size = np.array([-37.0, -11.0, 14.0]), 1.06
    exact = at_place(OPTICS, FIELD, u, v, z_um, np.array([size]))[0]
    stack = optics.stack(*place, size, -40.0, 40.0)
    mine = np.array([stack.at(z, 0.0, 0.0) for z in z_um])
    assert np.abs(mine - exact).max() < 0.01 * exact.max()
    assert SIZES.min() < size < SIZES.max()


def test_images_in_opposite_corners_are_smeared_along_the_radius(optics):
    middle = optics.stack(199.5, 149.5, 1.0, -5, 5).at(0.0, 0, 0)
    corner = optics.stack(399.0, 299.0, 1.0, -5, 5).at(0.0, 0, 0)
    opposite = optics.stack(0.0, 0.0, 1.0, -5, 5).at(0.0, 0, 0)
    assert corner.max() < 0.9 * middle.max()
    assert np.abs(corner[::-1, ::-1] - opposite).max() < 1e-6


def test_the_surface_is_zero_in_the_middle_and_the_walk_grows_with_depth():
    assert FIELD.surface_um(199.5, 149.5) == 0
    edges = FIELD.surface_um([0.0, 399.0], [149.5, 149.5])
    assert edges[1] - edges[0] == pytest.approx(0.04 * 80 * np.cos(np.radians(25)), rel=0.01)
    x, _, local = FIELD.seen(399.5, 149.5, 30.0, 0.8)
    assert (x - 399.5) * 0.8 == pytest.approx(0.016 * local, rel=0.01)
    assert FIELD.still().surface_um(0.0, 0.0) == 0


def test_the_bound_falls_with_the_noise(optics):
    one = Drawn(*(np.array([v]) for v in (250.3, 120.8, 12.0, 1.0, 1.0)))
    low, high = optics.bound(one, 0, 20.0), optics.bound(one, 0, 5.0)
    assert high == pytest.approx(4 * low, rel=1e-6)
    assert (low > 0).all()
