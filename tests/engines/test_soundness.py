from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maps import as_planes, empty_maps, put

from engines.image_structure import has_structure
from engines.network.layout import CHANNELS, LOGIT
from engines.network.soundness import fault_of

SHAPE = (120, 168)


def noise(seed, mean=200.0, sd=1.3):
    return mean + np.random.default_rng(seed).normal(0, sd, SHAPE)


def answer(planes):
    maps = empty_maps()
    put(maps, 30, 20, 0.0)
    return as_planes(maps) if planes else maps


@pytest.mark.parametrize("planes", [True, False])
def test_an_answer_that_says_different_things_in_different_places_is_sound(planes):
    assert fault_of(answer(planes)) == ""


@pytest.mark.parametrize("planes", [True, False])
def test_zeros_and_any_other_constant_are_the_answer_to_no_image(planes):
    assert fault_of(0 * answer(planes)) == "the same value everywhere"
    assert fault_of(0 * answer(planes) - 7.5) == "the same value everywhere"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channel", [LOGIT, CHANNELS + LOGIT])
def test_a_single_probability_that_is_no_number_is_found(channel, value):
    planes = answer(True)
    planes[channel, 3, 5] = value
    assert fault_of(planes) == "values that are not finite numbers"


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.5, 4), st.floats(0, 0.4))
def test_noise_and_shading_are_no_structure(seed, sd, shading):
    light = 1 - shading * np.linspace(0, 1, SHAPE[1])
    image = np.clip(np.rint(noise(seed, 150, sd) * light), 0, 255).astype(np.uint8)
    assert not has_structure(image)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(10, 150), st.floats(10, 100), st.sampled_from([-1, 1]))
def test_a_particle_of_five_times_the_noise_is_structure_wherever_it_lies(seed, x, y, sign):
    rows, columns = np.indices(SHAPE)
    spot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 3.0**2))
    image = np.rint(noise(seed, 150) + sign * 6.5 * spot)
    assert has_structure(image.astype(np.uint16))


def test_even_and_tiny_images_have_no_structure():
    assert not has_structure(np.full(SHAPE, 255, np.uint8))
    assert not has_structure(np.zeros((3, 3), np.uint8))
