from __future__ import annotations

from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import pytest
from astigmatic import BACKGROUND, FOCUS_UM, PIXEL_SIZE_UM, amplitude, curve, draw, frame, widths_px
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from engines.classical.engine import ClassicalEngine
from engines.engine import Engine
from engines.factory import open_engine
from engines.refine.fitting import Refined, fit_particles
from engines.refine.psf import FitModel, load_fit_model
from engines.refine.refiner import Refiner
from engines.refine.spline import Window, evaluate_window
from engines.settings import DetectorSettings
from stream.errors import ConfigurationError
from stream.messages import Detections

FIRST_UM, STEP_UM, NODES, HALF_PX = -150.0, 5.0, 61, 40
RANGE_UM = (-140.0, 140.0)
NOISE_SD = 0.008
SHOT = (0.0, NOISE_SD**2)
SHAPE = (120, 160)


def clean(shape: tuple[int, int], x: object, y: object, z: object, bright: float = 1.0) -> np.ndarray:
    """Contrast of the particles of `astigmatic`, exactly."""
    sx, sy = widths_px(z)
    return draw(shape, x, y, sx, sy, bright * amplitude(z) / BACKGROUND)


@pytest.fixture(scope="module")
def model() -> FitModel:
    nodes = FIRST_UM + STEP_UM * np.arange(NODES)
    size = 2 * HALF_PX + 1
    images = np.stack([clean((size, size), HALF_PX, HALF_PX, z) for z in nodes])
    spline = ndimage.spline_filter(images, order=3, mode="mirror").astype(np.float32)
    return FitModel.of(
        spline, FIRST_UM, STEP_UM, RANGE_UM, pixel_size_um=PIXEL_SIZE_UM, polarity="dark", shot=NOISE_SD**2
    )


def noisy(rng: np.random.Generator, contrast: np.ndarray) -> np.ndarray:
    sd = NOISE_SD * np.sqrt(np.maximum(1 - contrast, 0))
    return (contrast + rng.normal(size=contrast.shape) * sd).astype(np.float32)


def fit(model: FitModel, image: np.ndarray, start: object, sigma_z_um: float = 10.0) -> Refined:
    points = np.atleast_2d(np.asarray(start, np.float64))
    return fit_particles(image, model, points, np.full(len(points), sigma_z_um), SHOT)


def calibration(path: Path, model: FitModel, pixel_size_um: float = PIXEL_SIZE_UM) -> Path:
    """A calibration file, of which the classical engine reads the width curve and the PSF model."""
    with h5py.File(path, "w") as file:
        file.attrs.update(pixel_size_um=pixel_size_um, polarity="dark")
        group = file.create_group("model")
        group["coefficients"] = model.coefficients
        for name in ("z_first_um", "z_step_um", "z_min_um", "z_max_um"):
            group.attrs[name] = getattr(model, name)
        file.create_group("noise").attrs.update(
            read_variance=0.0, gain=NOISE_SD**2 * BACKGROUND, background_grey=BACKGROUND
        )
        curve().write(file.create_group("width_curve"))
    return path


@settings(max_examples=25, deadline=None)
@given(
    st.floats(3.1, 40.0), st.floats(-0.9, 0.9), st.floats(-0.9, 0.9), st.integers(4, 20), st.integers(4, 20)
)
def test_derivatives_of_a_window_are_those_of_its_image(
    node: float, dy: float, dx: float, tall: int, wide: int
) -> None:
    rng = np.random.default_rng(5)
    spline = ndimage.gaussian_filter(rng.normal(size=(45, 41, 41)), 2.0).astype(np.float32)

    def window(node: float, y: float, x: float) -> np.ndarray:
        out = np.zeros((4, tall, wide), np.float32)
        evaluate_window(spline, Window(node, 10 - y, 9 - x, tall, wide), 0.5, True, out)
        return out.astype(np.float64)

    h, here = 0.01, window(node, dy, dx)
    scale = np.abs(here).max() * 2e-3 + 1e-4
    for axis, (a, b, c) in ((1, (0, 0, h)), (2, (0, h, 0)), (3, (h / 2, 0, 0))):
        forth, back = window(node + a, dy + b, dx + c)[0], window(node - a, dy - b, dx - c)[0]
        np.testing.assert_allclose((forth - back) / (2 * h), here[axis], atol=20 * scale)


def test_errors_away_from_the_focal_lines_are_what_their_standard_errors_say(model: FitModel) -> None:
    rng = np.random.default_rng(1)
    pulls, accepted = [], 0
    for _ in range(12):
        x, y = (a.ravel() for a in np.meshgrid(np.arange(60, 700, 120.0), np.arange(60, 400, 110.0)))
        truth = np.column_stack([x, y, np.zeros(x.size)]) + rng.uniform(-0.5, 0.5, (x.size, 3))
        truth[:, 2] = rng.uniform(-120, 120, x.size)
        image = noisy(rng, clean((420, 720), *truth.T))
        found = fit(model, image, truth + rng.normal(size=truth.shape) * [0.5, 0.5, 10.0])
        accepted += found.accepted.sum()
        regular = found.accepted & (np.abs(np.abs(truth[:, 2]) - FOCUS_UM) > 12)
        pulls.append(((found.theta[:, :3] - truth) / found.sigma[:, :3])[regular])
    pull = np.concatenate(pulls)
    assert accepted > 0.97 * 12 * x.size
    assert len(pull) > 150
    np.testing.assert_allclose(np.sqrt((pull**2).mean(axis=0)), 1.0, atol=0.13)


def test_errors_of_particles_cut_by_the_edge_of_the_frame_are_what_their_standard_errors_say(
    model: FitModel,
) -> None:
    rng = np.random.default_rng(9)
    pulls, accepted = [], []
    for _ in range(14):
        x = np.arange(60, 700, 80.0) + rng.uniform(-5, 5, 8)
        truth = np.column_stack([x, rng.uniform(-1, 15, x.size), rng.uniform(-110, 110, x.size)])
        found = fit(
            model,
            noisy(rng, clean((120, 720), *truth.T)),
            truth + rng.normal(size=truth.shape) * [0.4, 0.4, 8.0],
        )
        n = len(truth)
        regular = found.accepted[:n] & (np.abs(np.abs(truth[:, 2]) - FOCUS_UM) > 12)
        accepted.append(found.accepted[:n].mean())
        pulls.append(((found.theta[:n, :3] - truth) / found.sigma[:n, :3])[regular])
    pull = np.concatenate(pulls)
    assert np.mean(accepted) > 0.85
    assert len(pull) > 60
    np.testing.assert_allclose(np.sqrt((pull**2).mean(axis=0)), 1.0, atol=0.15)


def test_a_start_in_the_wrong_focal_line_finds_its_depth(model: FitModel) -> None:
    rng = np.random.default_rng(2)
    for z in (-95.0, -60.0, 0.0, 45.0, 100.0):
        image = noisy(rng, clean(SHAPE, 80.2, 60.7, z))
        for off_um in (-28.0, 28.0):
            found = fit(model, image, [80.9, 60.1, z + off_um])
            assert found.accepted.all()
            assert abs(found.theta[0, 2] - z) < 5 * found.sigma[0, 2]


def test_overlapping_particles_fitted_together_do_not_bias_each_other(model: FitModel) -> None:
    rng = np.random.default_rng(3)
    truth = np.array([[80.3, 60.2, -35.0], [84.1, 62.8, 35.0]])
    errors, stated = [], []
    for _ in range(40):
        found = fit(
            model, noisy(rng, clean(SHAPE, *truth.T)), truth + rng.normal(size=(2, 3)) * [0.4, 0.4, 8]
        )
        assert found.accepted.all()
        errors.append(found.theta[:, :3] - truth)
        stated.append(found.sigma[:, :3])
    bias = np.abs(np.median(errors, axis=0))
    assert (bias < 4 * 1.25 * np.mean(stated, axis=0) / np.sqrt(40)).all()


def test_where_there_is_no_particle_the_detector_is_believed(model: FitModel) -> None:
    rng = np.random.default_rng(4)
    image = noisy(rng, np.zeros(SHAPE))
    refiner = Refiner(model, PIXEL_SIZE_UM)
    table = np.full((len(Detections.COLUMNS), 1), 5.0)
    table[0], table[1], table[2] = 64.0, 48.0, 10.0
    grey = np.rint(BACKGROUND * (1 - image)).astype(np.uint8)
    np.testing.assert_array_equal(refiner.refine(grey, table), table)
    assert refiner.counts() == {"refined": 0, "not_refined": 1, "added": 0, "not_there": 0}


def test_an_image_unlike_the_particle_is_not_taken_for_it(model: FitModel) -> None:
    rng = np.random.default_rng(5)
    square = np.zeros(SHAPE)
    square[50:70, 70:90] = 0.4
    found = fit(model, noisy(rng, square), [80.0, 60.0, 0.0])
    assert not found.accepted.any()


def test_a_neighbour_at_the_end_of_the_depths_does_not_spoil_the_fit(model: FitModel) -> None:
    rng = np.random.default_rng(6)
    truth = np.array([[80.0, 60.0, 10.0], [90.0, 60.0, 147.0]])
    found = fit(model, noisy(rng, clean(SHAPE, *truth.T)), truth)
    assert found.accepted.tolist() == [True, False]
    assert abs(found.theta[0, 2] - 10.0) < 6 * found.sigma[0, 2]


def test_two_detections_of_one_particle_are_not_both_refined_to_it(model: FitModel) -> None:
    rng = np.random.default_rng(7)
    image = noisy(rng, clean(SHAPE, 80.0, 60.0, 20.0))
    found = fit(model, image, [[80.0, 60.0, 20.0], [80.0, 60.0, 20.0]])
    assert found.accepted.sum() <= 1


def test_depth_is_measured_without_any_start_in_depth(model: FitModel) -> None:
    rng = np.random.default_rng(8)
    found = fit(model, noisy(rng, clean(SHAPE, 80.0, 60.0, -95.0)), [80.3, 59.8, np.nan], np.nan)
    assert found.accepted.all()
    assert abs(found.theta[0, 2] + 95.0) < 5 * found.sigma[0, 2]


def table_of(engine: Engine, image: np.ndarray) -> Detections:
    with closing(engine):
        engine.submit(frame(0, image))
        (found,) = engine.results(400.0)
    return found


def test_the_classical_engine_measures_with_the_model_of_a_calibration(
    tmp_path: Path, model: FitModel
) -> None:
    rng = np.random.default_rng(9)
    path = calibration(tmp_path / "calibration.h5", model)
    x, y = np.array([60.3, 160.6, 260.1]), np.array([60.7, 62.2, 59.4])
    z = np.array([-90.0, 5.0, 80.0])
    grey = np.rint(BACKGROUND * (1 - noisy(rng, clean((120, 320), x, y, z)))).astype(np.uint8)
    plain = table_of(
        open_engine(DetectorSettings(refine=False), model=path, pixel_size_um=PIXEL_SIZE_UM), grey
    )
    engine = open_engine(DetectorSettings(workers=1), model=path, pixel_size_um=PIXEL_SIZE_UM)
    fine = table_of(engine, grey)
    assert len(plain) == len(fine) == 3
    assert engine.info.details["refine"] == {"refined": 3, "not_refined": 0, "added": 0, "not_there": 0}
    order = np.argsort(fine.x_um)
    for found, sigma, truth in (
        (fine.x_um, fine.sigma_x_um, x * PIXEL_SIZE_UM),
        (fine.y_um, fine.sigma_y_um, y * PIXEL_SIZE_UM),
        (fine.z_um, fine.sigma_z_um, z),
    ):
        assert (np.abs(found[order] - truth) < 5 * sigma[order]).all()
    assert (fine.table[:3] != plain.table[:3]).all()


def test_a_flat_field_does_not_change_what_the_fit_measures(model: FitModel) -> None:
    rng = np.random.default_rng(10)
    contrast = noisy(rng, clean(SHAPE, 80.3, 60.1, 30.0))
    table = np.full((len(Detections.COLUMNS), 1), 5.0)
    table[:3, 0] = 80.0 * PIXEL_SIZE_UM, 60.0 * PIXEL_SIZE_UM, 25.0
    raw = BACKGROUND * (1 - contrast)
    corrected = 1 - raw / (1.25 * BACKGROUND)
    refiner = Refiner(model, PIXEL_SIZE_UM)
    plain = refiner.refine(raw, table)
    flat = refiner.refine(corrected, table, 1.25 * BACKGROUND)
    assert refiner.counts()["refined"] == 2
    np.testing.assert_allclose(flat, plain, rtol=2e-3)


def test_a_curve_without_a_model_leaves_the_detections_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "curve.h5"
    curve().save(path)
    assert load_fit_model(path) is None
    with closing(ClassicalEngine(DetectorSettings(), PIXEL_SIZE_UM, path)) as engine:
        assert engine.info.details["refine"] is False


def test_pixels_of_another_size_than_the_calibrations_are_not_fitted(tmp_path: Path, model: FitModel) -> None:
    path = calibration(tmp_path / "calibration.h5", model)
    with closing(ClassicalEngine(DetectorSettings(), 2 * PIXEL_SIZE_UM, path)) as engine:
        assert engine.info.details["refine"] is False


def test_a_damaged_model_is_named(tmp_path: Path, model: FitModel) -> None:
    path = calibration(tmp_path / "calibration.h5", model)
    with h5py.File(path, "a") as file:
        del file["noise"].attrs["gain"]
    with pytest.raises(ConfigurationError, match=r"PSF model in .*calibration\.h5"):
        load_fit_model(path)
