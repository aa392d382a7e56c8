"""Without a cylindrical lens both sides of focus look alike: the fit finds both, and says how sure it is."""

from __future__ import annotations

import numpy as np
import pytest
from astigmatic import BACKGROUND, PIXEL_SIZE_UM, draw
from scipy import ndimage

from engines.refine.psf import FitModel
from engines.refine.refiner import Refiner
from engines.refine.twins import twins_of
from engines.refine.typical import misfit_of
from stream.messages import Detections

FIRST_UM, STEP_UM, NODES, HALF_PX = -70.0, 2.5, 57, 30
NOISE_SD = 0.004
SHAPE = (420, 720)
COLUMN = Detections.COLUMNS.index
FAR_UM = 12.0


def seen(shape: tuple[int, int], x: object, y: object, z: object, lopsided: float) -> np.ndarray:
    """Round spots, alike on both sides of focus but for a ring that is there behind it only."""
    z = np.asarray(z, np.float64)
    wide = 1.6 * np.hypot(1, z / 14.0)
    peak = 0.3 / (1 + (z / 20.0) ** 2)
    ring = lopsided * peak * (1 + np.tanh(z / 10.0)) / 2
    return draw(shape, x, y, wide, wide, peak) - draw(shape, x, y, 0.5 * wide, 0.5 * wide, ring)


def model_of(lopsided: float) -> FitModel:
    size = 2 * HALF_PX + 1
    nodes = FIRST_UM + STEP_UM * np.arange(NODES)
    images = np.stack([seen((size, size), HALF_PX, HALF_PX, z, lopsided) for z in nodes])
    spline = ndimage.spline_filter(images, order=3, mode="mirror").astype(np.float32)
    return FitModel.of(
        spline,
        FIRST_UM,
        STEP_UM,
        (-60.0, 60.0),
        pixel_size_um=PIXEL_SIZE_UM,
        polarity="dark",
        shot=NOISE_SD**2,
    )


def measured(lopsided: float, seed: int, start_sign: float = -1.0) -> tuple[np.ndarray, np.ndarray]:
    """True depths (N,) and the detections (columns, N) of lone particles that begin on the wrong side of focus."""
    rng = np.random.default_rng(seed)
    x, y = (a.ravel() for a in np.meshgrid(np.arange(60, 700, 85.0), np.arange(60, 400, 70.0)))
    z = rng.uniform(FAR_UM, 40.0, x.size) * rng.choice([-1.0, 1.0], x.size)
    contrast = seen(SHAPE, x, y, z, lopsided) + NOISE_SD * rng.normal(size=SHAPE)
    grey = np.rint(200 * BACKGROUND * (1 - contrast)).astype(np.uint16)
    table = np.full((len(Detections.COLUMNS), x.size), np.nan)
    table[0], table[1], table[2] = x * PIXEL_SIZE_UM, y * PIXEL_SIZE_UM, start_sign * z
    table[5], table[COLUMN("flags")] = 2.0, 0.0
    found = Refiner(model_of(lopsided), PIXEL_SIZE_UM, 8.0).refine(grey, table)
    assert found.shape[1] == x.size
    return z, found


@pytest.mark.parametrize(("lopsided", "least"), [(0.3, 0.88), (0.6, 0.98)])
def test_a_fit_that_began_on_the_wrong_side_ends_on_the_right_one_where_the_images_differ(
    lopsided: float, least: float
) -> None:
    z, found = measured(lopsided=lopsided, seed=1)
    assert (np.abs(found[2] - z) < 5.0).mean() > least


def test_where_images_are_alike_both_depths_are_reported_with_true_odds() -> None:
    odds, other_is_true = [], []
    for seed in range(6):
        z, found = measured(lopsided=0.03, seed=seed, start_sign=1.0)
        known = np.isfinite(found[COLUMN("p_other")])
        assert known.mean() > 0.5
        right, other = np.abs(found[2] - z) < 5.0, np.abs(found[COLUMN("z_other_um")] - z) < 5.0
        assert (right | other)[known].mean() > 0.97
        odds.append(found[COLUMN("p_other")][known])
        other_is_true.append(other[known])
    p, true = np.concatenate(odds), np.concatenate(other_is_true)
    assert (p < 0.5).all()
    for low, high in ((0.0, 0.1), (0.1, 0.3), (0.3, 0.5)):
        some = (p >= low) & (p < high)
        chance = np.sqrt(max(p[some].mean(), 0.01) / some.sum())
        assert true[some].mean() == pytest.approx(p[some].mean(), abs=3 * chance)


def test_the_twin_of_a_depth_is_the_other_side_of_focus() -> None:
    twins = twins_of(model_of(0.03).coefficients)
    nodes = FIRST_UM + STEP_UM * np.arange(NODES)
    for z in (-45.0, -20.0, 15.0, 40.0):
        node = int(np.argmin(np.abs(nodes - z)))
        assert nodes[int(twins[node, 0])] == pytest.approx(-z, abs=2 * STEP_UM)
    assert (twins_of(model_of(0.3).coefficients)[:, 1] > 10 * twins[:, 1])[
        np.abs(nodes) > FAR_UM
    ].mean() > 0.9


def test_an_image_that_only_widens_has_no_twin() -> None:
    size = 2 * HALF_PX + 1
    images = [draw((size, size), HALF_PX, HALF_PX, 2 + 0.1 * k, 2 + 0.1 * k, 1.0) for k in range(NODES)]
    spline = ndimage.spline_filter(np.stack(images), order=3, mode="mirror").astype(np.float32)
    assert np.isinf(twins_of(spline)[:, 1]).all()


def test_beads_that_are_broader_than_the_model_stay_one_each() -> None:
    rng = np.random.default_rng(3)
    x, y = (a.ravel() for a in np.meshgrid(np.arange(60, 700, 85.0), np.arange(60, 400, 70.0)))
    z = rng.uniform(FAR_UM, 40.0, x.size)
    size, bright = rng.uniform(0.97, 1.03, x.size), rng.uniform(0.5, 2.0, x.size)
    wide, peak = size * 1.6 * np.hypot(1, z / 14.0), bright * 0.3 / (1 + (z / 20.0) ** 2)
    contrast = draw(SHAPE, x, y, wide, 1.04 * wide, peak) + 0.0008 * rng.normal(size=SHAPE)
    grey = np.rint(200 * BACKGROUND * (1 - contrast)).astype(np.uint16)
    table = np.full((len(Detections.COLUMNS), x.size), np.nan)
    table[0], table[1], table[2] = x * PIXEL_SIZE_UM, y * PIXEL_SIZE_UM, z
    table[5], table[COLUMN("flags")] = 2.0, 0.0
    found = Refiner(model_of(0.0), PIXEL_SIZE_UM, 8.0).refine(grey, table)
    assert found.shape[1] == x.size


def test_the_typical_misfit_is_what_chi_square_gains_with_brightness() -> None:
    rng = np.random.default_rng(4)
    power = rng.uniform(1, 50, 200)
    chi = 1 + 0.02 * power + 0.05 * rng.normal(size=200)
    assert misfit_of(chi, power) == pytest.approx(0.02, rel=0.15)
    assert misfit_of(1 + 0.05 * rng.normal(size=200), power) < 0.0005
    assert misfit_of(chi, np.full(200, 3.0)) == 0.0
