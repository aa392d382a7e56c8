"""Images that end at a limit: it is found where there is one, and what is measured beside it has no bias."""

from __future__ import annotations

import numpy as np
import pytest
from test_quantity_fit import model

from engines.refine.arguments import Noise
from engines.refine.joint_fit import LEAST_LIGHT, weigh_block
from engines.refine.limits import HIGH, LOW, ends_of, find_limits, within_limits
from engines.refine.rendering import BOX, set_box

SIDE = 41
NOISE = 0.02


def bump(height: float) -> np.ndarray:
    """A Gaussian on a slope."""
    v, u = np.mgrid[-20:21, -20:21]
    return height * np.exp(-(u**2 + v**2) / 40.0) + 0.01 * u


def limits_of(seen: np.ndarray, mean: np.ndarray, ends: np.ndarray | None = None) -> np.ndarray:
    """The limits that are found in an image whose model is known."""
    found = np.empty(2)
    image = seen.astype(np.float32)
    weight = np.full(image.shape, NOISE**-2, np.float32)
    find_limits(image, mean, np.zeros(BOX, np.int64), weight, ends_of(image) if ends is None else ends, found)
    return found


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_limit_is_found_where_there_is_one(sign: float) -> None:
    rng = np.random.default_rng(2)
    mean = sign * bump(1.0)
    seen = np.clip(mean, -0.6, 0.6) + NOISE * rng.standard_normal(mean.shape)
    found = limits_of(seen, mean)
    assert found[HIGH if sign > 0 else LOW] == pytest.approx(sign * 0.6, abs=0.01)
    assert np.isinf(found[LOW if sign > 0 else HIGH])


def test_noise_alone_has_no_limit() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        mean = bump(0.5)
        assert np.isinf(limits_of(mean + NOISE * rng.standard_normal(mean.shape), mean)).all()


def test_what_the_rest_of_the_frame_exceeds_is_no_limit() -> None:
    rng = np.random.default_rng(3)
    mean = bump(1.0)
    seen = np.minimum(mean, 0.6) + NOISE * rng.standard_normal(mean.shape)
    assert np.isinf(limits_of(seen, mean, np.array([-0.2, 1.5]))).all()


def test_pixels_beyond_a_limit_are_those_of_the_model_not_of_the_noise() -> None:
    mean, used = bump(1.0), np.ones((SIDE, SIDE), np.bool_)
    assert not within_limits(mean, np.array([-np.inf, 0.6]), used)
    assert (used == (mean < 0.6)).all()
    assert within_limits(mean, np.array([-np.inf, 0.6]), used)


def test_a_few_stray_pixels_are_not_the_ends_of_an_image() -> None:
    image = np.linspace(0, 1, 10_000).reshape(100, 100).astype(np.float32)
    image[0, :3], image[1, :3] = 50.0, -50.0
    assert ends_of(image) == pytest.approx([0.0, 1.0], abs=0.01)


def test_an_offset_has_no_noise_and_no_pixel_a_weight_without_bound() -> None:
    psf = model().for_kernels((SIDE, SIDE))
    theta = np.array([[20.0, 20.0, 0.0, 3.0]])
    boxes = np.empty((1, BOX), np.int64)
    set_box(theta[0], (SIDE, SIDE), psf, 0.0, boxes[0])
    nothing = np.zeros((SIDE, SIDE), np.float32)
    _, bright = weigh_block(nothing, theta, boxes, boxes, psf, Noise(-0.8, 1.0, 1.0))
    _, dark = weigh_block(nothing, theta, boxes, boxes, psf, Noise(-0.8, 1.0, -1.0))
    assert 1 / bright.max() == pytest.approx(0.2, rel=0.1)
    assert 1 / bright.min() == pytest.approx(0.2 + 3.0, rel=0.1)
    assert 1 / dark.max() == pytest.approx(LEAST_LIGHT * 0.2, rel=0.01)
