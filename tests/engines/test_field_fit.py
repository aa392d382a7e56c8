"""Where the image of a particle changes over the field, the fit measures it as truly as in the middle."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pytest
from astigmatic import BACKGROUND, FOCUS_UM, PIXEL_SIZE_UM, amplitude, draw, widths_px
from scipy import ndimage
from test_refine import (
    FIRST_UM,
    HALF_PX,
    NODES,
    NOISE_SD,
    RANGE_UM,
    STEP_UM,
    calibration,
    clean,
    noisy,
)

from engines.refine.cells import CHANGE, cells_for
from engines.refine.field import FieldModel
from engines.refine.fitting import fit_particles
from engines.refine.misfit import Misfit
from engines.refine.psf import FitModel, load_fit_model
from engines.refine.psf_text import pack, unpack
from engines.refine.refiner import Refiner
from engines.refine.rendering import put
from engines.refine.sample import to_sample
from stream.errors import ConfigurationError
from stream.messages import Detections

SHAPE = (420, 720)
SMEAR = 1.6
NODES_UM = FIRST_UM + STEP_UM * np.arange(NODES)
SURFACE_UM = np.array([0.0, 6.0, -4.0, 5.0, 0.0, 3.0])
WALK_PER_UM = np.array([[1e-4, 0.0], [0.0, 1e-4]])
COLUMN = Detections.COLUMNS.index


def smeared(shape: tuple[int, int], x: object, y: object, z: object) -> np.ndarray:
    sx, sy = widths_px(z)
    return draw(shape, x, y, SMEAR * sx, SMEAR * sy, amplitude(z) / BACKGROUND / SMEAR)


def spline_of(image: object) -> np.ndarray:
    size = 2 * HALF_PX + 1
    images = np.stack([image((size, size), HALF_PX, HALF_PX, z) for z in NODES_UM])
    return ndimage.spline_filter(images, order=3, mode="mirror").astype(np.float32)


MEAN = spline_of(clean)
MODE = (spline_of(smeared) - MEAN)[None]
FIELD = FieldModel(SHAPE, SURFACE_UM, WALK_PER_UM, MODE, np.array([[0.0, 0.0, 0.0, 0.6, 0.0, 0.6]]), 2)


def model_of(field: FieldModel | None = FIELD, misfit: Misfit | None = None) -> FitModel:
    numbers = {"pixel_size_um": PIXEL_SIZE_UM, "shot": NOISE_SD**2, "field": field, "misfit": misfit}
    return FitModel.of(MEAN, FIRST_UM, STEP_UM, RANGE_UM, polarity="dark", **numbers)


@pytest.fixture(scope="module")
def model() -> FitModel:
    return model_of()


def seen(truth: np.ndarray) -> np.ndarray:
    """The image (H, W), contrast, of particles at `truth` (N, 3), in the sample, by the equations of `field`."""
    image = np.zeros(SHAPE)
    for x, y, z in FIELD.to_local(truth):
        weight = float(FIELD.weights_at(*FIELD.place(x, y))[0, 0])
        image += (1 - weight) * clean(SHAPE, x, y, z) + weight * smeared(SHAPE, x, y, z)
    return image


def grid(rng: np.random.Generator) -> np.ndarray:
    x, y = (a.ravel() for a in np.meshgrid(np.arange(50, 700, 100.0), np.arange(45, 400, 82.0)))
    return np.column_stack(
        [x + rng.uniform(-8, 8, x.size), y + rng.uniform(-8, 8, x.size), rng.uniform(-100, 100, x.size)]
    )


def table_of(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a network would see of particles in the sample: local coordinates, with errors."""
    local = FIELD.to_local(truth) + rng.normal(size=truth.shape) * [0.3, 0.3, 4.0]
    table = np.full((len(Detections.COLUMNS), len(truth)), np.nan)
    table[:3] = local.T * np.array([PIXEL_SIZE_UM, PIXEL_SIZE_UM, 1.0])[:, None]
    table[3:6] = np.array([0.3 * PIXEL_SIZE_UM, 0.3 * PIXEL_SIZE_UM, 4.0])[:, None]
    table[COLUMN("flags")] = 0.0
    return table


def grey_of(contrast: np.ndarray) -> np.ndarray:
    return np.rint(200 * BACKGROUND * (1 - contrast)).astype(np.uint16)


def measured(model: FitModel, truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Errors over standard errors (N, 3) in the sample, after the fit; NaN near the focal lines, as in
    `test_refine`."""
    grey = grey_of(noisy(rng, seen(truth)))
    table = Refiner(model, PIXEL_SIZE_UM).refine(grey, table_of(truth, rng))
    assert table.shape[1] == len(truth)
    table = to_sample(table, model, PIXEL_SIZE_UM, SHAPE)
    off = table[:3].T - truth * [PIXEL_SIZE_UM, PIXEL_SIZE_UM, 1.0]
    near = np.abs(np.abs(FIELD.to_local(truth)[:, 2]) - FOCUS_UM) < 12
    return np.where(near[:, None], np.nan, off / table[3:6].T)


def test_errors_all_over_the_field_are_what_their_standard_errors_say(model: FitModel) -> None:
    rng = np.random.default_rng(1)
    pulls = np.concatenate([measured(model, grid(rng), rng) for _ in range(12)])
    assert (np.abs(np.sqrt(np.nanmean(pulls**2, axis=0)) - 1) < 0.15).all()


def test_one_image_for_the_whole_field_would_be_wrong_at_its_edges() -> None:
    rng = np.random.default_rng(2)
    truth = grid(rng)
    without = measured(model_of(None), truth, rng)
    u, v = FIELD.place(truth[:, 0], truth[:, 1])
    assert np.sqrt(np.nanmean(without[np.hypot(u, v) > 0.8] ** 2)) > 3.0


def test_two_particles_at_one_place_in_a_corner_are_counted_with_the_image_of_that_corner(
    model: FitModel,
) -> None:
    rng = np.random.default_rng(3)
    corner = np.array([[670.3, 380.2, 10.0], [671.2, 380.9, 60.0]])
    found = []
    for truth in (corner[:1], corner):
        contrast = noisy(rng, seen(truth)).astype(np.float32)
        start = FIELD.to_local(truth[:1])
        found.append(fit_particles(contrast, model, start, np.array([8.0]), (0.0, NOISE_SD**2)).present.sum())
    assert found == [1, 2]


def test_all_particles_are_taken_out_of_the_image_as_they_look_at_their_place(model: FitModel) -> None:
    rng = np.random.default_rng(8)
    one = grid(rng)
    beside = one + rng.uniform(6, 45, (len(one), 3)) * [1, 1, 0]  # fitted together, touching, or apart
    truth = np.concatenate([one, beside])
    contrast = noisy(rng, seen(truth)).astype(np.float32)
    drawn = np.zeros(len(truth), np.bool_)
    drawn[::5] = True
    total = np.zeros(SHAPE, np.float32)
    sigma = np.full(len(truth), 4.0)
    start, noise = FIELD.to_local(truth), (0.0, NOISE_SD**2)
    found = fit_particles(contrast, model, start, sigma, noise, total, drawn=drawn)
    expected = np.zeros_like(total)
    there = found.present.copy()
    there[: len(truth)] |= drawn
    for k in np.flatnonzero(there):
        put(expected, found.theta[k], 1.0, model.for_kernels(SHAPE))
    np.testing.assert_allclose(total, expected, atol=1e-5)


def test_a_region_in_the_middle_of_the_sensor_is_measured_like_the_whole(model: FitModel) -> None:
    rng = np.random.default_rng(4)
    truth = np.array([[250.0, 150.0, -40.0], [480.0, 290.0, 35.0], [360.0, 120.0, 80.0]])
    grey, table = grey_of(noisy(rng, seen(truth))), table_of(truth, rng)
    refiner = Refiner(model, PIXEL_SIZE_UM)
    whole = to_sample(refiner.refine(grey, table), model, PIXEL_SIZE_UM, SHAPE)
    cut = table.copy()
    cut[0] -= 100 * PIXEL_SIZE_UM
    cut[1] -= 60 * PIXEL_SIZE_UM
    region = grey[60:-60, 100:-100]
    part = to_sample(refiner.refine(region, cut), model, PIXEL_SIZE_UM, region.shape)
    part[0] += 100 * PIXEL_SIZE_UM
    part[1] += 60 * PIXEL_SIZE_UM
    assert (np.abs(part[:3] - whole[:3]) < 0.3 * whole[3:6]).all()


def test_what_a_network_saw_is_put_into_the_sample_without_a_fit(model: FitModel) -> None:
    rng = np.random.default_rng(5)
    truth = grid(rng)
    table = table_of(truth, rng)
    table[:3] = FIELD.to_local(truth).T * np.array([PIXEL_SIZE_UM, PIXEL_SIZE_UM, 1.0])[:, None]
    there = to_sample(table, model, PIXEL_SIZE_UM, SHAPE)
    np.testing.assert_allclose(there[:3].T, truth * [PIXEL_SIZE_UM, PIXEL_SIZE_UM, 1.0], atol=1e-9)
    assert to_sample(table, model_of(None), PIXEL_SIZE_UM, SHAPE) is table


def test_standard_errors_in_the_sample_follow_from_those_of_the_image(model: FitModel) -> None:
    rng = np.random.default_rng(6)
    truth = np.tile([[690.0, 30.0, 90.0]], (20_000, 1))
    local = FIELD.to_local(truth) + rng.normal(size=truth.shape) * [0.05, 0.05, 9.0]
    table = np.zeros((len(Detections.COLUMNS), len(truth)))
    table[:3] = local.T * np.array([PIXEL_SIZE_UM, PIXEL_SIZE_UM, 1.0])[:, None]
    table[3:6] = np.array([0.05 * PIXEL_SIZE_UM, 0.05 * PIXEL_SIZE_UM, 9.0])[:, None]
    there = to_sample(table, model, PIXEL_SIZE_UM, SHAPE)
    np.testing.assert_allclose(there[3:6].mean(axis=1), there[:3].std(axis=1), rtol=0.03)
    assert there[3, 0] > 2 * table[3, 0]


def test_what_the_calibration_found_beyond_noise_is_stated(model: FitModel) -> None:
    rng = np.random.default_rng(7)
    beyond = np.array([0.3, 0.2, 5.0])
    misfit = Misfit(SHAPE, np.array([-140.0, 140.0]), np.tile(beyond**2, (1, 1, 2, 1)))
    truth = grid(rng)
    grey, table = grey_of(noisy(rng, seen(truth))), table_of(truth, rng)
    plain = Refiner(model, PIXEL_SIZE_UM).refine(grey, table)
    wider = Refiner(model_of(FIELD, misfit), PIXEL_SIZE_UM).refine(grey, table)
    fisher = np.median(plain[3:6], axis=1)
    assert (np.abs(np.median(wider[3:6], axis=1) - np.hypot(fisher, beyond)) < 0.1 * fisher).all()
    reduced = Refiner(model_of(FIELD, misfit), PIXEL_SIZE_UM).reduce(table, SHAPE)
    np.testing.assert_allclose(reduced[3:6], np.hypot(table[3:6].T, beyond).T)


def test_a_particle_unlike_the_calibrated_ones_keeps_the_fit_with_wider_errors() -> None:
    rng = np.random.default_rng(12)
    truth = grid(rng)
    truth[:, 2] = rng.uniform(-60.0, 60.0, len(truth))
    unlike = np.arange(len(truth)) % 9 == 4
    speckle = rng.choice([-0.5, 0.5], SHAPE)
    contrast = clean(SHAPE, *truth.T) + speckle * clean(SHAPE, *truth[unlike].T)
    grey = np.rint(200 * BACKGROUND * (1 - contrast - 0.1 * NOISE_SD * rng.normal(size=SHAPE)))
    start = np.full((len(Detections.COLUMNS), len(truth)), np.nan)
    start[:3] = truth.T * np.array([PIXEL_SIZE_UM, PIXEL_SIZE_UM, 1.0])[:, None]
    start[2] += rng.choice([-25.0, 25.0], len(truth))
    start[3:6] = np.array([1.0, 1.0, 20.0])[:, None]
    start[COLUMN("flags")] = 0.0
    misfit = Misfit(SHAPE, np.array([-140.0, 140.0]), np.zeros((1, 1, 2, 3)))
    table = Refiner(model_of(None, misfit), PIXEL_SIZE_UM).refine(grey.astype(np.uint16), start)
    table = table[:, [int(np.argmin(np.hypot(table[0] - x, table[1] - y))) for x, y in start[:2].T]]
    chi_square = table[COLUMN("chi_square")]
    assert np.isfinite(chi_square).all()
    assert chi_square[unlike].min() > 5 * np.median(chi_square[~unlike])
    assert np.abs(table[2] - truth[:, 2])[unlike].max() < 10.0
    assert np.median(table[5][unlike]) > 3.0 * np.median(table[5][~unlike])


def test_cells_are_as_many_as_the_change_over_the_field_needs() -> None:
    flat = FieldModel(SHAPE, SURFACE_UM, WALK_PER_UM, MODE, np.zeros((1, 6)), 2)
    assert cells_for(MEAN, flat) == (1, 1)
    weak = FieldModel(SHAPE, SURFACE_UM, WALK_PER_UM, MODE, 0.1 * FIELD.weights, 2)
    rows, columns = cells_for(MEAN, weak)
    assert 4 < columns < 32
    assert rows < columns < cells_for(MEAN, FIELD)[1]
    tables = weak.tables(MEAN, rows, columns).astype(np.float64)
    norm = np.sqrt((tables**2).sum(axis=(2, 3)))
    beside = np.sqrt(((tables[1:columns] - tables[: columns - 1]) ** 2).sum(axis=(2, 3)))
    assert (beside < 2 * CHANGE * norm[1:columns]).all()


MISFIT = Misfit(
    SHAPE,
    np.array([-140.0, 0.0, 140.0]),
    np.random.default_rng(0).random((2, 3, 3, 3)),
    np.random.default_rng(1).random((2, 3, 3)),
)


def same(one: FitModel, other: FitModel, rounding: float) -> None:
    assert one.field is not None
    assert other.field is not None
    assert one.misfit is not None
    assert other.misfit is not None
    assert one.field.numbers() == other.field.numbers()
    assert one.misfit.numbers() == other.misfit.numbers()
    np.testing.assert_allclose(one.field.modes, other.field.modes, atol=rounding * np.abs(MODE).max())


def test_a_misfit_of_an_older_file_knows_nothing_of_the_images() -> None:
    numbers = MISFIT.numbers()
    del numbers["image"]
    old = Misfit.of_numbers(numbers)
    assert old.image is None
    assert not old.image_at([10.0, 20.0], [10.0, 20.0], [0.0, 50.0]).any()
    place = [10.0], [20.0], [50.0]
    np.testing.assert_array_equal(old.at(*place), MISFIT.at(*place))


@pytest.mark.parametrize("image", [np.zeros((2, 3, 2)), np.full((2, 3, 3), -1.0), np.full((2, 3, 3), np.nan)])
def test_a_misfit_of_images_that_cannot_be_is_refused(image: npt.NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="misfit of images"):
        Misfit(SHAPE, MISFIT.z_um, MISFIT.variance, image)


def test_field_and_misfit_come_back_from_a_model_file() -> None:
    model = model_of(FIELD, MISFIT)
    same(unpack(pack(model), "m.onnx"), model, 1 / 30000)
    bare = FieldModel(SHAPE, SURFACE_UM, WALK_PER_UM, MODE[:0], np.zeros((0, 1)), 0)
    back = unpack(pack(model_of(bare)), "m.onnx")
    assert back.field is not None
    assert back.field.numbers() == bare.numbers()
    assert len(back.for_kernels().modes) == 0


def test_field_and_misfit_come_back_from_a_calibration(tmp_path: Path) -> None:
    path = calibration(tmp_path / "c.h5", model_of())
    with h5py.File(path, "r+") as file:
        file["model/field/modes"] = MODE
        file["model/field/numbers"] = json.dumps(FIELD.numbers())
        file["model/misfit"] = json.dumps(MISFIT.numbers())
    found = load_fit_model(path)
    assert found is not None
    same(found, model_of(FIELD, MISFIT), 0.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"weights": [[1e300] * 6]},
        {"weights": [[0.0] * 5]},
        {"walk_per_um": [[0.1, 0.0], [0.0, 0.1]]},
        {"surface_um": [1e9, 0, 0, 0, 0, 0]},
        {"surface_um": [float("nan"), 0, 0, 0, 0, 0]},
        {"shape": [0, 5]},
        {"shape": "wide"},
        {"degree": 99},
    ],
)
def test_a_field_that_cannot_be_is_refused_in_one_line(
    wrong: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(FieldModel, "numbers", lambda self: {**NUMBERS, **wrong})
    with pytest.raises(ConfigurationError, match=r"^the PSF model in m\.onnx is damaged [^\n]*$"):
        unpack(pack(model_of()), "m.onnx")
    path = calibration(tmp_path / "c.h5", model_of())
    with h5py.File(path, "r+") as file:
        file["model/field/modes"] = MODE
        file["model/field/numbers"] = json.dumps({**NUMBERS, **wrong})
    with pytest.raises(ConfigurationError, match=r"^cannot read the PSF model in [^\n]*$"):
        load_fit_model(path)


NUMBERS = FIELD.numbers()
