"""Images of objects on sloping light tell whether light multiplies them, and noise tells a camera's offset."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.deeptrack.image_noise import Noise
from calibration.deeptrack.image_regression import Cutouts, ImageSpline
from calibration.deeptrack.light import dark_part, light_factor, light_multiplies

HALF = 9
NOISE = 0.01


def seen(multiplies: bool, slope: float, sign: float = 1.0, offset: float = 0.0) -> ImageSpline:
    """The spline of noisy blobs in light with slopes of up to so much from side to side, as contrast of a `sign`.

    The part `offset` of the background is a camera's.
    """
    rng = np.random.default_rng(11)
    count = 60
    v, u = np.mgrid[-HALF : HALF + 1, -HALF : HALF + 1]
    off = rng.uniform(-0.5, 0.5, (count, 2))
    images = []
    for x, y in off:
        angle, steep = rng.uniform(-np.pi, np.pi), rng.uniform(0, slope)
        light = 1 + 0.5 * steep * (u * np.cos(angle) + v * np.sin(angle)) / HALF
        at = 1 + 0.5 * steep * (x * np.cos(angle) + y * np.sin(angle)) / HALF
        blob = 0.3 * rng.uniform(0.5, 1.5) * np.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * 2.5**2))
        image = offset + (1 - offset) * (light + sign * blob * (light / at if multiplies else 1.0))
        images.append(sign * (image - 1) + NOISE * rng.standard_normal(u.shape))
    spline = ImageSpline(
        Cutouts(np.array(images), np.full((count, *u.shape), NOISE**-2), off), np.full(count, 2.0), 5
    )
    spline.solve()
    return spline


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("multiplies", [True, False])
def test_sloping_light_tells_whether_it_multiplies_objects(multiplies: bool, sign: float) -> None:
    spline = seen(multiplies, 0.8, sign)
    factor, error = light_factor(spline, sign)
    assert error < 0.1
    assert abs(factor - multiplies) < 4 * error
    assert light_multiplies(spline, sign, by_optics=not multiplies) == multiplies


def test_beside_an_offset_light_is_more_uneven_than_the_background() -> None:
    factor, error = light_factor(seen(True, 0.8, offset=0.25), 1.0)
    assert abs(factor - 1 / (1 - 0.25)) < 4 * error


@pytest.mark.parametrize("by_optics", [True, False])
def test_where_light_is_flat_the_optics_decide(by_optics: bool) -> None:
    assert light_multiplies(seen(True, 0.0), 1.0, by_optics) == by_optics


def test_a_background_without_noise_is_an_offset() -> None:
    assert dark_part(Noise(-1 / 3, 4 / 3)) == pytest.approx(0.25)
    assert dark_part(Noise(0.2, 0.8)) == 0.0
    assert dark_part(Noise(-0.05, 1.05)) == 0.0
    assert dark_part(Noise(1.0, 0.0)) == 0.0
