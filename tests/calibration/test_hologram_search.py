"""Spheres are found in a hologram without being told where they are: inside, just outside, and over any depth."""

from __future__ import annotations

import numpy as np
import pytest

from acquisition.physics.hologram import HologramOptics, hologram_model
from calibration.holograms.fit import RADIUS, X, Y, Z
from calibration.holograms.search import SphereSearch

NOISE = 0.01
SHAPE = (80, 80)


def photographed(model, spheres, seed=1):
    return np.random.default_rng(seed).poisson(model.image(spheres, SHAPE) / NOISE**2) * NOISE**2


def in_order(spheres):
    return spheres[np.argsort(spheres[:, X])]


def test_spheres_of_two_sizes_are_found_and_measured_as_well_as_they_say():
    model = hologram_model(HologramOptics(), 4.8, 8.0)
    spheres = np.array([[20.3, 24.8, 3.1, 0.15, 1.58], [52.6, 47.1, 4.4, 0.23, 1.58]])
    found = SphereSearch(model, (2.0, 6.0), noise=NOISE).find(photographed(model, spheres))
    assert found.ended.all()
    order = np.argsort(found.spheres[:, X])
    assert len(order) == 2
    assert np.abs((found.spheres[order] - spheres) / found.errors[order]).max() < 4.5


def test_a_sphere_just_outside_of_the_image_is_found_and_disturbs_none_inside():
    model = hologram_model(HologramOptics(), 4.8, 8.0)
    spheres = np.array([[-8.4, 37.3, 3.0, 0.23, 1.58], [14.2, 41.6, 3.6, 0.15, 1.58]])
    image = photographed(model, spheres)
    found = SphereSearch(model, (2.0, 6.0), noise=NOISE).find(image)
    assert in_order(found.spheres)[:, [X, Y]] == pytest.approx(spheres[:, [X, Y]], abs=0.3)
    order = np.argsort(found.spheres[:, X])
    assert np.abs((found.spheres[order] - spheres) / found.errors[order]).max() < 4.5


def test_at_a_low_aperture_spheres_are_found_over_tens_of_micrometres():
    optics = HologramOptics(numerical_aperture=0.5, pixel_size_um=0.2)
    model = hologram_model(optics, 12.0, 40.0)
    spheres = np.array([[25.4, 30.2, 12.3, 0.5, 1.58], [55.1, 52.7, 26.8, 0.5, 1.58]])
    search = SphereSearch(model, (8.0, 30.0), typical_radius_um=0.5, noise=NOISE)
    found = in_order(search.find(photographed(model, spheres)).spheres)
    assert found[:, Z] == pytest.approx(spheres[:, Z], abs=0.1)
    assert found[:, RADIUS] == pytest.approx(spheres[:, RADIUS], abs=0.01)


@pytest.mark.parametrize("together", [True, False])
def test_two_spheres_a_diameter_and_a_half_apart_are_two_and_one_alone_stays_one(together):
    model = hologram_model(HologramOptics(), 4.8, 8.0)
    spheres = np.array([[40.7, 40.6, 4.46, 0.15, 1.58], [44.3, 42.8, 4.7, 0.15, 1.58]])[: 1 + together]
    found = SphereSearch(model, (2.0, 6.0), noise=NOISE).find(photographed(model, spheres))
    assert len(found.spheres) == len(spheres)
    order = np.argsort(found.spheres[:, X])
    assert np.abs((found.spheres[order] - spheres) / found.errors[order]).max() < 4.5


def test_nothing_is_found_in_noise():
    model = hologram_model(HologramOptics(), 4.8, 8.0)
    image = photographed(model, np.empty((0, 5)))
    assert len(SphereSearch(model, (2.0, 6.0), noise=NOISE).find(image).spheres) == 0
