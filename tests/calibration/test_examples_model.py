"""The image model of a few examples: what is between them, in which order they are, and where there is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from calibration.examples.crops import Crop
from calibration.examples.image_model import LOOK, model_of
from calibration.examples.objects import free
from calibration.quantity_model import SIZE
from engines.refine.psf import FitModel

LIGHT, SIDE = 1000.0, 45


def crop(high: float, wide: float, *, peak: float = 0.5, ring: float = 0.0, turn: float = 0.0) -> Crop:
    """A spot of these widths along y and x, turned; a `ring` is dark in its middle."""
    rows, columns = np.indices((SIDE, SIDE)) - SIDE // 2
    u, v = columns * np.cos(turn) + rows * np.sin(turn), rows * np.cos(turn) - columns * np.sin(turn)
    far = (u / wide) ** 2 + (v / high) ** 2
    shape = (1 - ring + ring * far) * np.exp(-far / 2)
    noise = np.random.default_rng(int(1e3 * (high + wide))).normal(0, 2.0, shape.shape)
    return Crop(LIGHT * (1 + peak * shape) + noise, "the crop")


def image_of(model: FitModel, value: float) -> np.ndarray:
    """The model's image at a value of its number, with its peak 1."""
    assert model.quantity is not None
    node = (model.quantity.depths([value])[0] - model.z_first_um) / model.z_step_um
    size = model.coefficients.shape[1]
    at = np.meshgrid([node], np.arange(size), np.arange(size), indexing="ij")
    image = ndimage.map_coordinates(model.coefficients, at, order=3, prefilter=False, mode="mirror")[0]
    return image / image.max()


def spot(size: int, high: float, wide: float) -> np.ndarray:
    rows, columns = np.indices((size, size)) - size // 2
    return np.exp(-((rows / high) ** 2 + (columns / wide) ** 2) / 2)


@pytest.mark.parametrize("peak", [0.5, -0.4])
def test_objects_between_the_sizes_of_the_examples_are_modelled(peak: float) -> None:
    widths = (2.0, 4.0, 2.9)
    found = model_of(free([crop(each, each, peak=peak) for each in widths]), 0.5)
    model = found.model
    assert model is not None
    assert model.quantity is not None
    assert (model.quantity.name, model.polarity) == (SIZE, "bright" if peak > 0 else "dark")
    assert found.misfit < 0.05
    mean = np.mean(widths)
    for width in (1.8, 2.4, 3.5, 4.4):
        true = spot(model.coefficients.shape[1], width, width)
        assert np.abs(image_of(model, width / mean) - true).max() < 0.04


def test_one_example_says_what_larger_and_smaller_ones_look_like() -> None:
    found = model_of(free([crop(2.5, 2.5)]), 0.5)
    assert found.model is not None
    assert np.isnan(found.misfit)
    size = found.model.coefficients.shape[1]
    assert np.abs(image_of(found.model, 1.1) - spot(size, 2.75, 2.75)).max() < 0.03


def test_looks_are_put_in_order_and_what_is_between_two_is_predicted() -> None:
    widths = [(6.0, 2.0), (2.4, 5.0), (4.2, 2.4), (2.0, 6.0), (3.2, 3.2)]  # as out of focus on both sides
    found = model_of(free([crop(*each) for each in widths]), 0.5)
    assert found.model is not None
    assert found.model.quantity is not None
    assert found.model.quantity.name == LOOK
    assert "in the order of examples 1, 3, 5, 2, 4" in found.words
    # half way from example 3 to 5 lies what is half way in both sizes
    images = [image_of(found.model, value) for value in np.linspace(0, 1, 101)]
    true = spot(images[0].shape[0], np.sqrt(4.2 * 3.2), np.sqrt(2.4 * 3.2))
    assert min(float(np.abs(image - true).max()) for image in images) < 0.06


KINDS = (
    (2.0, 2.0, 0.0, 0.0),
    (5.0, 5.0, 1.0, 0.0),
    (1.5, 8.0, 0.0, 0.0),
    (8.0, 1.5, 0.0, 0.0),
    (1.5, 8.0, 0.0, 0.8),
)


def test_objects_that_have_little_in_common_have_a_rough_model_as_bright_as_each_is() -> None:
    crops = [
        crop(high, wide, ring=ring, turn=turn, peak=0.8 / (n + 1))
        for n, (high, wide, ring, turn) in enumerate(KINDS)
    ]
    examples = free(crops)
    found = model_of(examples, 0.5)
    assert found.is_rough
    assert "not explained by the others" in found.words
    assert found.model is not None
    peaks = [each.peak for each in examples]
    inner = found.model.peak[2:-2]
    assert max(peaks) / min(peaks) > 3
    assert inner.max() > 0.6 * max(peaks)
    assert inner.min() < 1.6 * min(peaks)


def test_objects_with_neither_a_model_nor_a_symmetry_have_no_model() -> None:
    examples = [
        replace(each, symmetry="none")
        for each in free([crop(high, wide, ring=ring, turn=turn) for high, wide, ring, turn in KINDS])
    ]
    found = model_of(examples, 0.5)
    assert found.model is None
    assert "nor are they alike after half a turn" in found.words


def test_of_two_objects_that_are_not_round_the_direction_is_not_known() -> None:
    found = model_of(free([crop(2.0, 6.0), crop(2.1, 6.1)]), 0.5)
    assert found.model is None
    assert "three examples or more" in found.words
