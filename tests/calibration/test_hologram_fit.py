"""Spheres are measured from a hologram as well as its light allows, with errors as stated."""

from __future__ import annotations

import numpy as np
import pytest

from acquisition.physics.hologram import PARAMETERS, HologramOptics, hologram_model
from calibration.holograms.fit import INDEX, RADIUS, Z, bound, fit_spheres

NOISE = 0.01
SHAPE = (96, 96)
SMALL = np.array([[45.3, 50.7, 3.0, 0.15, 1.58]])
LARGE = np.array([[47.8, 44.1, 4.0, 0.23, 1.58]])
BOTH = np.concatenate([SMALL, LARGE + np.array([20.0, -18.0, 1.0, 0.0, 0.0])])

OFF = np.array([0.4, -0.3, 0.15, 0.02, -0.03])
"""How far starts are from the truth."""


def model():
    return hologram_model(HologramOptics(), 6.4, 8.0)


def photographed(spheres, seed, background=1.0):
    light = model().image(spheres, SHAPE)
    return background * np.random.default_rng(seed).poisson(light / NOISE**2) * NOISE**2


def test_a_faultless_image_gives_the_spheres_back():
    found = fit_spheres(model(), model().image(BOTH, SHAPE), BOTH + OFF, NOISE)
    assert found.ended.all()
    assert found.spheres == pytest.approx(BOTH, abs=2e-3)


@pytest.mark.parametrize("spheres", [SMALL, LARGE, BOTH])
def test_errors_are_as_stated_and_at_the_bound(spheres):
    images = 12
    shifted = spheres + OFF
    found = [fit_spheres(model(), photographed(spheres, seed), shifted, NOISE) for seed in range(images)]
    assert all(each.ended.all() for each in found)
    ratios = np.array([(each.spheres - spheres) / each.errors for each in found])
    stated = np.array([each.errors for each in found])
    least = np.sqrt(np.diagonal(bound(model(), spheres, SHAPE, NOISE), axis1=1, axis2=2))
    # chi-square of so many numbers, as some of a sphere's errors go together: 4 sigma
    assert (ratios**2).mean() == pytest.approx(1, abs=4 * np.sqrt(2 / (images * len(spheres))))
    assert np.median(stated, axis=0) == pytest.approx(least, rel=0.3)


def test_light_tells_the_product_of_size_and_index_far_better_than_each():
    (covariance,) = bound(model(), SMALL, SHAPE, NOISE)
    errors = np.sqrt(np.diag(covariance))
    correlation = covariance[RADIUS, INDEX] / (errors[RADIUS] * errors[INDEX])
    assert correlation < -0.97
    assert 0.002 < errors[RADIUS] < 0.006


def test_a_brighter_lamp_changes_nothing():
    found = fit_spheres(model(), photographed(LARGE, 3, background=1.02), LARGE, NOISE)
    assert found.ended.all()
    assert np.abs((found.spheres - LARGE) / found.errors).max() < 4


def test_a_start_a_fringe_off_in_depth_is_mended_by_the_search():
    start = LARGE + np.array([0, 0, 0.8, 0.02, 0])
    found = fit_spheres(model(), photographed(LARGE, 4), start, NOISE, seek_um=1.0)
    assert found.spheres[0, Z] == pytest.approx(LARGE[0, Z], abs=0.01)


def test_what_the_model_does_not_draw_makes_the_errors_larger():
    image = photographed(LARGE, 5)
    rows = np.arange(SHAPE[0])[:, None]
    disturbed = image + 0.03 * np.sin(rows * 1.3) * np.ones(SHAPE)
    plain, other = (fit_spheres(model(), each, LARGE, NOISE) for each in (image, disturbed))
    assert plain.misfit == pytest.approx(1, abs=0.05)
    assert other.misfit > 1.5
    assert (other.errors > 1.4 * plain.errors).all()


def test_nothing_is_fitted_where_nothing_is():
    found = fit_spheres(model(), np.ones(SHAPE), np.empty((0, len(PARAMETERS))), NOISE)
    assert found.spheres.shape == (0, 5)
    assert found.errors.shape == (0, 5)
