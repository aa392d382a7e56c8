from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engines.flatfield import FlatField
from engines.network.preparation import LEVELS_OF_LIGHT, Preparation

SHAPE = (90, 130)
NOISE = 0.008
LEVEL = 1 / LEVELS_OF_LIGHT


def shaded(seed, light, dtype, dark_grey):
    """A shaded image whose light is `light` times that of its references, and these."""
    rng = np.random.default_rng(seed)
    full = 180.0 if dtype == np.uint8 else 3000.0
    bright = dark_grey + full * (1 - 0.3 * np.linspace(0, 1, SHAPE[1])) * np.ones(SHAPE)
    dark = np.full(SHAPE, float(dark_grey))
    relative = light * (1 + rng.normal(0, NOISE, SHAPE))
    image = np.rint(dark + relative * (bright - dark)).clip(0, np.iinfo(dtype).max).astype(dtype)
    return image, FlatField(bright, dark)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 1.2), st.sampled_from([np.uint8, np.uint16]), st.integers(0, 20))
@example(486, 0.544769041211787, np.uint8, 0)
def test_with_references_the_input_is_contrast_against_the_median_light(seed, light, dtype, dark_grey):
    image, flat_field = shaded(seed, light, dtype, dark_grey)
    preparation = Preparation(SHAPE, -1.0, NOISE, flat_field)
    background = preparation.fill(image)
    expected = np.empty(SHAPE, np.float32)
    flat_field.correct(image, expected)
    np.testing.assert_allclose(preparation.corrected, expected, atol=1e-6)
    below, above = np.sort(1 - expected, axis=None)[expected.size // 2 - 1 :][
        :2
    ]  # a median may lie anywhere between
    found = background / flat_field.grey_values
    assert below - 1.1 * LEVEL <= found <= above + 1.1 * LEVEL
    contrast = (1 - (1 - expected) * flat_field.grey_values / background) / NOISE
    np.testing.assert_allclose(preparation.input[0, 0, :90, :130], contrast, atol=1e-3)


@pytest.mark.parametrize("light", [2.5, 12.0])
def test_an_image_far_brighter_than_the_reference_has_its_light_measured_too(light):
    image, flat_field = shaded(0, light, np.uint16, 0)
    background = Preparation(SHAPE, -1.0, NOISE, flat_field).fill(image)
    assert background == pytest.approx(light * flat_field.grey_values, rel=1e-3)


def test_without_light_there_is_no_background():
    image, flat_field = shaded(0, 0.0, np.uint8, 5)
    assert Preparation(SHAPE, -1.0, NOISE, flat_field).fill(image) == 0
