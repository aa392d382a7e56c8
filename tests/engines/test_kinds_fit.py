"""Particles of two kinds are fitted each with its own PSF model."""

import numpy as np
import pytest
from scipy import ndimage

from engines.refine.kinds import KindsRefiner, open_kinds_refiner
from engines.refine.psf import FitModel
from engines.refine.refiner import NETWORK_SEARCH_UM, Refiner
from stream.messages import Detections

PIXEL_UM = 0.8
GREY, NOISE_SD = 200.0, 0.01
FIRST_UM, STEP_UM, NODES, HALF_PX = -80.0, 4.0, 41, 30
PEAK = 0.3
ROW = {name: row for row, name in enumerate(Detections.COLUMNS)}


def images(kind, z_um, dx=0.0, dy=0.0):
    """Contrast (N, P, P) of Gaussian particles; those of the second kind are half as wide again."""
    y, x = np.mgrid[-HALF_PX : HALF_PX + 1, -HALF_PX : HALF_PX + 1]
    wide = 1.5 if kind else 1.0
    found = []
    for z in np.atleast_1d(z_um):
        sx, sy = (wide * np.hypot(2, 0.05 * (z + side * 30)) for side in (1, -1))
        spot = np.exp(-((x - dx) ** 2) / (2 * sx**2) - (y - dy) ** 2 / (2 * sy**2))
        found.append(PEAK * (1 + kind) * 4 / (sx * sy) * spot)
    return np.array(found)


def model(kind):
    nodes = FIRST_UM + STEP_UM * np.arange(NODES)
    spline = ndimage.spline_filter(images(kind, nodes), order=3, mode="mirror").astype(np.float32)
    options = {"pixel_size_um": PIXEL_UM, "polarity": "dark"}
    return FitModel.of(spline, FIRST_UM, STEP_UM, (-60.0, 60.0), read=0.0, shot=NOISE_SD**2, **options)


MODELS = [model(kind) for kind in (0, 1)]


def seen(truth, seed=0, shape=(400, 500)):
    """A frame of particles (N, 4: x px, y px, z um, kind), in grey values."""
    contrast = np.zeros((shape[0] + 2 * HALF_PX + 2, shape[1] + 2 * HALF_PX + 2))
    for x, y, z, kind in truth:
        column, row = round(x), round(y)
        spot = images(int(kind), z, x - column, y - row)[0]
        contrast[row + 1 : row + 2 + 2 * HALF_PX, column + 1 : column + 2 + 2 * HALF_PX] += spot
    edge = HALF_PX + 1
    inner = contrast[edge : edge + shape[0], edge : edge + shape[1]]
    noise = np.random.default_rng(seed).normal(0, NOISE_SD, shape) * np.sqrt(np.maximum(1 - inner, 0.05))
    return (GREY * 20 * (1 - inner + noise)).astype(np.float32)


def table_of(truth, seed=1):
    """What a network says: within 0.4 px and 5 um, and the kind."""
    rng = np.random.default_rng(seed)
    table = np.full((len(ROW), len(truth)), np.nan)
    for axis, name in enumerate("xy"):
        table[ROW[f"{name}_um"]] = (truth[:, axis] + rng.normal(0, 0.4, len(truth))) * PIXEL_UM
        table[ROW[f"sigma_{name}_um"]] = 0.4 * PIXEL_UM
    table[ROW["z_um"]] = truth[:, 2] + rng.normal(0, 5, len(truth))
    table[ROW["sigma_z_um"]] = 5.0
    table[ROW["brightness"]], table[ROW["confidence"]] = 20 * GREY * 0.1, 0.9
    table[ROW["kind"]], table[ROW["p_kind"]], table[ROW["flags"]] = truth[:, 3], 0.95, 0.0
    return table


def grid(seed=2):
    """Lone particles of both kinds, away from the focal lines."""
    rng = np.random.default_rng(seed)
    x, y = (some.ravel() for some in np.meshgrid(np.arange(50, 460, 80.0), np.arange(50, 360, 80.0)))
    place = rng.uniform(-5, 5, (2, x.size))
    z_um = rng.choice([-1, 1], x.size) * rng.uniform(5, 20, x.size)
    return np.column_stack([x + place[0], y + place[1], z_um, np.arange(x.size) % 2])


def pulls(truth, table, axes="xyz"):
    true = np.column_stack([truth[:, :2] * PIXEL_UM, truth[:, 2]])
    found = np.column_stack([table[ROW[f"{name}_um"]] for name in axes])
    sigma = np.column_stack([table[ROW[f"sigma_{name}_um"]] for name in axes])
    return (found - true) / sigma


def fitted(truth, refiner=None):
    refiner = refiner or KindsRefiner(MODELS, PIXEL_UM, NETWORK_SEARCH_UM)
    return refiner.refine(seen(truth), table_of(truth))


def test_each_kind_is_measured_as_well_as_its_noise_allows():
    truth = np.concatenate([grid(seed) for seed in range(3)])
    every = [fitted(grid(seed)) for seed in range(3)]
    table = np.hstack(every)
    assert table.shape[1] == len(truth)
    assert np.abs(pulls(truth, table)).max() < 5
    for kind in (0, 1):
        mine = truth[:, 3] == kind
        assert pulls(truth[mine], table[:, mine]).std() == pytest.approx(1, abs=0.25)
        assert (table[ROW["sigma_z_um"], mine] < 2.0).all()
    np.testing.assert_array_equal(table[ROW["kind"]], truth[:, 3])


def test_with_one_psf_model_the_other_kind_is_measured_wrong():
    truth = grid()
    second = truth[:, 3] == 1
    one = Refiner(MODELS[0], PIXEL_UM, NETWORK_SEARCH_UM).refine(seen(truth), table_of(truth))
    place = np.abs(one[ROW["x_um"]][:, None] - truth[:, 0] * PIXEL_UM).min(axis=0)
    place += np.abs(one[ROW["y_um"]][:, None] - truth[:, 1] * PIXEL_UM).min(axis=0)
    both = fitted(truth)
    own = np.abs(both[ROW["z_um"], second] - truth[second, 2])
    nearest = np.hypot(
        one[ROW["x_um"]][:, None] - truth[second, 0] * PIXEL_UM,
        one[ROW["y_um"]][:, None] - truth[second, 1] * PIXEL_UM,
    ).argmin(axis=0)
    other = np.abs(one[ROW["z_um"], nearest] - truth[second, 2])
    assert np.median(own) < 0.5 * np.median(other)


def test_particles_of_different_kinds_that_overlap_are_both_measured():
    rng = np.random.default_rng(5)
    first = grid()[::2]
    second = first + np.column_stack(
        [
            rng.uniform(6, 9, len(first)),
            rng.uniform(-3, 3, len(first)),
            np.zeros(len(first)),
            np.zeros(len(first)),
        ]
    )
    first[:, 3], second[:, 3] = 0, 1
    truth = np.concatenate([first, second])
    table = fitted(truth)
    fits = np.isfinite(table[ROW["chi_square"]])
    assert fits.mean() > 0.9
    wrong = pulls(truth[fits], table[:, fits])
    assert np.median(np.abs(wrong)) < 1.0
    assert np.median(np.abs(wrong[:, 2] * table[ROW["sigma_z_um"], fits])) < 1.0


def test_particles_of_an_unknown_kind_keep_what_the_network_says():
    truth = grid()
    given = table_of(truth)
    given[ROW["kind"], 3] = np.nan
    table = KindsRefiner(MODELS, PIXEL_UM, NETWORK_SEARCH_UM).refine(seen(truth), given)
    np.testing.assert_array_equal(table[:, 3], given[:, 3])


def test_nothing_is_fitted_where_the_psf_model_of_a_kind_is_missing():
    assert open_kinds_refiner([MODELS[0], None], PIXEL_UM, NETWORK_SEARCH_UM) is None
    assert open_kinds_refiner(MODELS, PIXEL_UM, NETWORK_SEARCH_UM) is not None
    empty = np.empty((len(ROW), 0))
    refiner = KindsRefiner(MODELS, PIXEL_UM, NETWORK_SEARCH_UM)
    assert refiner.refine(seen(grid()), empty).shape == empty.shape


def test_where_the_network_is_not_sure_of_the_kind_the_images_decide():
    truth = grid()
    given = table_of(truth)
    wrong = np.arange(len(truth)) % 3 == 0
    given[ROW["kind"], wrong] = 1 - truth[wrong, 3]
    given[ROW["p_kind"]] = 0.6
    table = KindsRefiner(MODELS, PIXEL_UM, NETWORK_SEARCH_UM).refine(seen(truth), given)
    np.testing.assert_array_equal(table[ROW["kind"]], truth[:, 3])
    assert (table[ROW["p_kind"]] > 0.99).all()
    assert np.abs(pulls(truth, table)).max() < 5
    assert (table[ROW["sigma_z_um"]] < 2.0).all()


def test_where_the_network_is_sure_and_the_fit_agrees_its_word_is_kept():
    truth = grid()
    given = table_of(truth)
    given[ROW["p_kind"]] = 0.995
    table = KindsRefiner(MODELS, PIXEL_UM, NETWORK_SEARCH_UM).refine(seen(truth), given)
    np.testing.assert_array_equal(table[ROW["p_kind"]], given[ROW["p_kind"]])


def test_images_that_either_kind_explains_leave_the_kind_open():
    truth = grid()
    given = table_of(truth)
    given[ROW["p_kind"]] = 0.6
    alike = KindsRefiner([MODELS[0], MODELS[0]], PIXEL_UM, NETWORK_SEARCH_UM)
    first = truth[:, 3] == 0
    table = alike.refine(seen(truth[first]), given[:, first])
    assert np.median(table[ROW["p_kind"]]) == pytest.approx(0.5, abs=0.05)
    assert (table[ROW["p_kind"]] < 0.7).all()
