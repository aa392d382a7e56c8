"""Walls slow particles down as published, and two of temperature, viscosity and size give the third."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stream.errors import ConfigurationError
from tracking.physics.diffusion.settings import DiffusionSettings
from tracking.physics.diffusion.stokes_einstein import (
    Known,
    derive,
    diffusion_um2_s,
    water_viscosity_mpa_s,
)
from tracking.physics.diffusion.walls import between_walls, parallel_factor, perpendicular_factor


def test_drag_towards_a_wall_is_that_of_brenners_table():
    heights = np.cosh([0.5, 1.0, 1.5, 2.0, 3.0])
    table = [9.2518, 3.0361, 1.8375, 1.4129, 1.1252]
    assert 1.0 / perpendicular_factor(heights, 1.0) == pytest.approx(table, rel=3e-4)


def test_drag_close_to_a_wall_is_that_of_lubrication_and_far_from_it_that_of_lorentz():
    gap = np.array([1e-3, 3e-3])
    # Cox & Brenner (1967): 1 / gap + ln(1 / gap) / 5 + 0.9713
    near = 1.0 / gap + np.log(1.0 / gap) / 5.0 + 0.9713
    assert 1.0 / perpendicular_factor(1.0 + gap, 1.0) == pytest.approx(near, rel=2e-3)
    assert perpendicular_factor(100.0, 1.0) == pytest.approx(1 - 9 / 8 / 100, abs=1e-5)
    assert parallel_factor(100.0, 1.0) == pytest.approx(1 - 9 / 16 / 100, abs=1e-5)


def test_drag_along_a_wall_is_near_the_exact_one():
    # Goldman, Cox & Brenner (1967), force on a sphere that does not rotate
    exact = {3.7622: 1.1738, 2.3524: 1.3079, 1.5431: 1.5675}
    for height, drag in exact.items():
        assert 1.0 / parallel_factor(height, 1.0) == pytest.approx(drag, rel=0.015)


@given(st.floats(0.6, 99.4))
def test_two_walls_slow_down_more_than_one_and_alike_from_both_sides(height):
    along, towards = between_walls(height, 0.5, 0.0, 100.0)
    mirrored, _ = between_walls(100.0 - height, 0.5, 0.0, 100.0)
    one, _ = between_walls(height, 0.5, 0.0, None)
    assert 0 < towards < along < one < 1
    assert mirrored == pytest.approx(along, rel=1e-9)


def test_water_has_the_viscosity_of_the_tables():
    assert water_viscosity_mpa_s(20.0) == pytest.approx(1.0016, abs=0.0005)
    assert water_viscosity_mpa_s(25.0) == pytest.approx(0.8900, abs=0.0005)
    assert water_viscosity_mpa_s(50.0) == pytest.approx(0.5465, abs=0.001)
    with pytest.raises(ConfigurationError, match="give the viscosity itself"):
        water_viscosity_mpa_s(150.0)


@given(st.floats(1.0, 90.0), st.floats(0.3, 50.0), st.floats(0.05, 20.0))
def test_each_of_the_three_follows_from_d_and_the_other_two(celsius, viscosity, diameter):
    d = diffusion_um2_s(celsius, viscosity, diameter)
    known = {
        "temperature_c": Known(celsius),
        "viscosity_mpa_s": Known(viscosity),
        "diameter_um": Known(diameter),
    }
    for left_out, expected in (
        ("temperature_c", celsius),
        ("viscosity_mpa_s", viscosity),
        ("diameter_um", diameter),
    ):
        found = derive(d, 0.01 * d, **{name: value for name, value in known.items() if name != left_out})
        assert found.value == pytest.approx(expected, rel=1e-6, abs=1e-6)
        kelvin = 273.15 if left_out == "temperature_c" else 0.0
        assert found.standard_error == pytest.approx(0.01 * (expected + kelvin), rel=1e-6)
    water = diffusion_um2_s(celsius, water_viscosity_mpa_s(celsius), diameter)
    found = derive(water, 0.0, diameter_um=Known(diameter), water=True)
    assert found.value == pytest.approx(celsius, abs=1e-6)


def test_errors_of_what_is_known_are_those_of_repeated_measurements():
    rng = np.random.default_rng(1)
    d = 0.43 + 0.004 * rng.normal(size=4000)
    celsius = 22.0 + 0.5 * rng.normal(size=4000)
    sizes = [
        derive(a, 0.0, temperature_c=Known(b), water=True).value for a, b in zip(d, celsius, strict=True)
    ]
    stated = derive(0.43, 0.004, temperature_c=Known(22.0, 0.5), water=True)
    # the correlation's own 1 % is stated too
    assert stated.standard_error == pytest.approx(np.hypot(np.std(sizes), 0.01 * stated.value), rel=0.04)


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"temperature_c": 20, "viscosity_mpa_s": 1, "particle_diameter_um": 1}, "leave out the one to find"),
        ({"water": True, "viscosity_mpa_s": 1}, "water has its own viscosity"),
        ({"water": True, "temperature_c": 200}, "is known from"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(given_, words):
    with pytest.raises(ValidationError, match=words):
        DiffusionSettings(**given_)


def test_too_little_gives_no_third():
    assert DiffusionSettings(temperature_c=20).third(0.4, 0.01) is None
    assert DiffusionSettings().third(0.4, 0.01) is None
    assert DiffusionSettings(temperature_c=20, particle_diameter_um=1).third(float("nan"), 0.01) is None
    assert DiffusionSettings(temperature_c=20, particle_diameter_um=1).third(0.4, 0.01).unit == "mPa s"
