"""What a fit leaves of an image moves the places of objects as far as is stated: noise, shade, and what is even."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from calibration.psf_model import PsfModel
from engines.refine.arguments import Noise
from engines.refine.psf import FitModel
from engines.refine.quantity import HALF_SPAN_UM, Quantity
from engines.refine.uneven_rest import in_standard_deviations, is_alike_after_half_a_turn, widened_by

HALF, SIDE_PX, PITCH_PX = 12, 480, 40


def disc(radius: float, aside_px: float = 0.0) -> np.ndarray:
    """A soft disc, with a smaller one at its side if it is not to be symmetric."""
    y, x = np.mgrid[-HALF : HALF + 1, -HALF : HALF + 1].astype(float)
    image = 1 / (1 + np.exp((np.hypot(x, y) - radius) / 0.8))
    if aside_px:
        image += 1 / (1 + np.exp((np.hypot(x - aside_px, y) - 1.5) / 0.5))
    return np.asarray(image, np.float64)


def model(aside_px: float = 0.0) -> FitModel:
    images = np.array([disc(r, aside_px) for r in np.linspace(4.0, 6.0, 9)])
    step = 2 * HALF_SPAN_UM / 8
    made = PsfModel.from_images(images, -HALF_SPAN_UM, step, pixel_size_um=1.0, polarity="bright")
    return replace(made, quantity=Quantity.over("radius_px", 4.0, 6.0)).for_fit()


@pytest.fixture(scope="module")
def of_discs() -> FitModel:
    return model()


def objects(seed: int) -> np.ndarray:
    """Objects (N, 4) that stand alone, of the middle size."""
    lattice = np.arange(PITCH_PX / 2, SIDE_PX, PITCH_PX)
    places = np.stack(np.meshgrid(lattice, lattice), axis=-1).reshape(-1, 2)
    places = places + np.random.default_rng(seed).uniform(-0.5, 0.5, places.shape)
    return np.column_stack([places, np.zeros(len(places)), np.ones(len(places))])


def moved(rest: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far a least squares fit is moved by a rest, in its standard errors (N,) along x, and what that leaves."""
    y, x = np.mgrid[-HALF : HALF + 1, -HALF : HALF + 1].astype(float)
    off, left = [], rest.copy()
    for at_x, at_y in theta[:, :2]:
        row, column = round(at_y), round(at_x)
        slopes = np.gradient(ndimage.shift(disc(5.0), (at_y - row, at_x - column), order=3))
        terms = np.stack([*slopes[::-1], np.ones_like(x), x, y]).reshape(5, -1)
        where = slice(row - HALF, row + HALF + 1), slice(column - HALF, column + HALF + 1)
        found = np.linalg.solve(terms @ terms.T, terms @ left[where].ravel())
        left[where] -= (found @ terms).reshape(x.shape)
        off.append(found[0] / np.sqrt(np.linalg.inv(terms @ terms.T)[0, 0]))
    return np.array(off), left


@pytest.mark.parametrize(("shade_px", "strength"), [(1.5, 1.0), (1.5, 2.0), (3.0, 0.5), (3.0, 1.0)])
def test_shade_moves_objects_as_far_as_is_stated_to_a_factor_of_two(
    of_discs: FitModel, shade_px: float, strength: float
) -> None:
    rng = np.random.default_rng(1)
    shade = ndimage.gaussian_filter(rng.normal(size=(SIDE_PX, SIDE_PX)), shade_px)
    rest = rng.normal(size=shade.shape) + strength * shade / shade.std()
    theta = objects(1)
    off, left = moved(rest, theta)
    factors = widened_by(left.astype(np.float32), theta, of_discs)[:, 0]
    by_noise, stated = np.sqrt(np.mean(off**2)), np.sqrt(np.mean((off / factors) ** 2))
    assert by_noise > 2
    assert 0.7 < stated < 2
    assert stated < 0.7 * by_noise


def test_noise_alone_widens_nothing(of_discs: FitModel) -> None:
    theta = objects(1)
    _, left = moved(np.random.default_rng(1).normal(size=(SIDE_PX, SIDE_PX)), theta)
    assert np.median(widened_by(left.astype(np.float32), theta, of_discs)) < 1.1


def test_what_is_the_same_on_both_sides_widens_nothing(of_discs: FitModel) -> None:
    theta = objects(2)
    rows, columns = np.indices((SIDE_PX, SIDE_PX)).astype(float)
    rest = np.random.default_rng(2).normal(size=(SIDE_PX, SIDE_PX))
    for x, y in theta[:, :2]:
        rest += 8 * np.exp(-((np.hypot(columns - x, rows - y) - 5) ** 2) / 4)
    left = moved(rest, theta)[1]
    row, column = np.rint(theta[0, 1::-1]).astype(int)
    by_chi_square = left[row - 9 : row + 10, column - 9 : column + 10].std()
    assert by_chi_square > 2.5
    assert np.median(widened_by(left.astype(np.float32), theta, of_discs)) < 0.7 * by_chi_square


def test_shade_on_one_object_widens_its_errors_and_not_those_of_all_others(of_discs: FitModel) -> None:
    theta = objects(3)
    rest = np.random.default_rng(3).normal(size=(SIDE_PX, SIDE_PX))
    rows, columns = np.indices(rest.shape)
    rest += 6 * np.exp(-((columns - theta[30, 0] - 5) ** 2 + (rows - theta[30, 1]) ** 2) / 18)
    factors = widened_by(rest.astype(np.float32), theta, of_discs)[:, 0]
    assert factors[30] > 2.5 * np.median(factors)


def test_an_object_at_the_edge_of_the_image_has_errors_too(of_discs: FitModel) -> None:
    theta = np.array([[0.0, 0.2, 0.0, 1.0], [-0.4, 30.0, 0.0, 1.0], [40.0, 30.0, 0.0, 1.0]])
    factors = widened_by(np.random.default_rng(4).normal(size=(60, 80)).astype(np.float32), theta, of_discs)
    assert factors.shape == (3, 2)
    assert np.isfinite(factors).all()
    assert widened_by(np.zeros((60, 80), np.float32), theta[:0], of_discs).shape == (0, 2)


def test_a_model_that_is_not_symmetric_is_told_from_one_that_is(of_discs: FitModel) -> None:
    assert is_alike_after_half_a_turn(of_discs)
    assert not is_alike_after_half_a_turn(model(7.0))


def test_a_rest_is_measured_in_the_noise_of_each_pixel() -> None:
    light = np.array([[0.0, 3.0], [-0.75, 99.0]], np.float32)
    rest = in_standard_deviations(light + np.float32(0.2), light, Noise(0.0, 0.01, 1.0))
    np.testing.assert_allclose(rest, 2.0 / np.sqrt(1 + light), rtol=1e-4)
