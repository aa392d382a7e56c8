"""In-line holograms of spheres: what passes loses what is scattered; derivatives and places are right."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acquisition.physics.hologram import PARAMETERS, HologramOptics, hologram_model
from acquisition.physics.mie import extinction_efficiency

OPTICS = HologramOptics()
SHAPE = (81, 81)


def model(reach_um=8.0):
    return hologram_model(OPTICS, reach_um, 8.0)


@pytest.mark.parametrize("radius_um", [0.15, 0.23, 0.5])
def test_the_passing_wave_loses_the_extinction_cross_section(radius_um):
    optics = HologramOptics(pixel_size_um=0.12, pixel_fill=0.0)
    middle = 60
    wave = hologram_model(optics, 7.2, 1.0).wave(np.array([middle, middle, 0.0, radius_um, 1.58]), (121, 121))
    rows = (np.arange(121) - middle) * optics.pixel_size_um
    window = np.exp(-0.5 * (rows**2 + rows[:, None] ** 2) / 2.0**2)
    lost_um2 = -2 * float((wave.real * window).sum()) * optics.pixel_size_um**2
    efficiency = extinction_efficiency(optics.wavenumber * radius_um, 1.58 / optics.medium_index)
    assert lost_um2 == pytest.approx(efficiency * np.pi * radius_um**2, rel=0.02)


@settings(max_examples=10, deadline=None)
@given(
    x_px=st.floats(30, 50),
    y_px=st.floats(30, 50),
    z_um=st.floats(-6, 6),
    radius_um=st.floats(0.1, 0.4),
    index=st.floats(1.4, 1.65),
)
def test_derivatives_are_those_of_the_wave(x_px, y_px, z_um, radius_um, index):
    sphere = np.array([x_px, y_px, z_um, radius_um, index])
    _, slopes = model().wave_and_slopes(sphere, SHAPE)
    for row, step in enumerate((0.2, 0.2, 0.01, 1e-3, 1e-3)):
        aside = np.zeros(len(PARAMETERS))
        aside[row] = step
        difference = model().wave(sphere + aside, SHAPE) - model().wave(sphere - aside, SHAPE)
        assert np.abs(difference / (2 * step) - slopes[row]).max() < 0.03 * np.abs(slopes[row]).max()


def test_a_sphere_moved_by_whole_pixels_moves_its_hologram():
    here = model().image(np.array([[40.3, 38.6, 3.0, 0.23, 1.58]]), SHAPE)
    there = model().image(np.array([[44.3, 33.6, 3.0, 0.23, 1.58]]), SHAPE)
    assert there[5:60, 14:70] == pytest.approx(here[10:65, 10:66], abs=1e-9)


def test_waves_of_two_spheres_interfere():
    first, second = np.array([38.0, 40.0, 3.0, 0.23, 1.58]), np.array([43.0, 40.0, 4.0, 0.15, 1.58])
    both = model().image(np.stack([first, second]), SHAPE) - 1
    alone = sum(model().image(one[None], SHAPE) - 1 for one in (first, second))
    crossed = 2 * (model().wave(first, SHAPE) * model().wave(second, SHAPE).conj()).real
    assert both == pytest.approx(alone + crossed, abs=1e-9)
    assert np.abs(crossed).max() > 1e-3


def test_polarised_light_makes_the_image_differ_along_it_and_across():
    image = model().image(np.array([[40.0, 40.0, 2.0, 0.23, 1.58]]), SHAPE)
    assert np.abs(image - image.T).max() > 0.01
    assert image == pytest.approx(image[::-1, ::-1], abs=1e-9)


def test_a_pixel_sees_the_mean_over_its_area():
    finer = hologram_model(HologramOptics(pixel_size_um=0.02, pixel_fill=0.0), 6.0, 8.0)
    sphere = np.array([[24.3, 25.6, 3.0, 0.23, 1.58]])
    fine = sphere * [5, 5, 1, 1, 1] + [2, 2, 0, 0, 0]
    mean = finer.image(fine, (250, 250)).reshape(50, 5, 50, 5).mean(axis=(1, 3))
    ours, centres = (
        hologram_model(HologramOptics(pixel_fill=fill), 6.0, 8.0).image(sphere, (50, 50))
        for fill in (1.0, 0.0)
    )
    fringes = np.abs(mean - 1).max()
    assert np.abs(ours - mean).max() < 0.004 * fringes
    assert np.abs(centres - mean).max() > 0.01 * fringes


def test_an_aperture_wider_than_the_medium_is_refused():
    with pytest.raises(ValueError, match="below medium_index"):
        HologramOptics(numerical_aperture=1.4)
