"""Images of an object tell its image model: by regression, over the one number with which they change."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.deeptrack.image_model import _checked, _misfit, _spline
from calibration.deeptrack.image_regression import Cutouts, shifts_of, symmetric

HALF = 9


def blob(x: float, y: float, radius: float, long: float = 1.0) -> np.ndarray:
    """A Gaussian with its own radius, longer along x."""
    v, u = np.mgrid[-HALF : HALF + 1, -HALF : HALF + 1]
    return np.exp(-(((u - x) / long) ** 2 + (v - y) ** 2) / (2 * radius**2))


def seen(count: int = 120, long: float = 1.0, second: bool = False) -> tuple[Cutouts, np.ndarray]:
    """Noisy images of blobs on sloped backgrounds, of any brightness; their radii."""
    rng = np.random.default_rng(4)
    off = rng.uniform(-0.5, 0.5, (count, 2))
    radius = rng.uniform(1.5, 3.0, count)
    stretch = rng.uniform(1.0, 2.5, count) if second else np.full(count, long)
    v, u = np.mgrid[-HALF : HALF + 1, -HALF : HALF + 1] / HALF
    images = np.array(
        [
            rng.uniform(0.5, 2) * blob(x, y, r, s) + rng.normal() * u + rng.normal() * v + rng.normal()
            for (x, y), r, s in zip(off, radius, stretch, strict=True)
        ]
    )
    noise = 0.02
    images += noise * rng.standard_normal(images.shape)
    return Cutouts(images, np.full(images.shape, noise**-2), off), radius


def test_a_shift_moves_a_spline_by_as_much() -> None:
    across = shifts_of(np.array([0.0, 1.0]), 9)
    coefficients = np.arange(9.0)
    assert (across[0] @ coefficients)[2:-2] == pytest.approx(np.arange(2.0, 7.0))
    assert (across[1] @ coefficients)[3:-2] == pytest.approx(np.arange(2.0, 6.0))


def test_the_number_that_changes_images_is_told_from_one_that_does_not() -> None:
    cutouts, radius = seen()
    other = np.random.default_rng(8).uniform(0, 1, radius.size)
    right, wrong, none = (_misfit(cutouts, column) for column in (radius, other, None))
    assert right < 0.03
    assert min(wrong, none) > 4 * right


def test_the_model_shows_an_object_as_it_is() -> None:
    cutouts, radius = seen()
    spline = _spline(cutouts, radius)
    spline.make_symmetric()
    left = spline.residual() * 50
    assert float(np.sqrt(np.mean(left**2))) == pytest.approx(1.0, abs=0.1)


def test_only_what_looks_alike_from_all_sides_is_made_symmetric() -> None:
    round_, long = seen(), seen(long=1.8)
    assert _checked(*round_)[1]
    assert not _checked(*long)[1]


def test_images_that_change_with_two_numbers_have_no_model() -> None:
    cutouts, radius = seen(second=True)
    assert _misfit(cutouts, radius) > 0.1


def test_the_symmetric_part_is_kept_as_it_is() -> None:
    rng = np.random.default_rng(0)
    made = symmetric(rng.random((2, 7, 7)))
    assert made == pytest.approx(np.rot90(made, axes=(1, 2)))
    assert symmetric(made) == pytest.approx(made)
