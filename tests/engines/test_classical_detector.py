from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from astigmatic import PIXEL_SIZE_UM, amplitude, curve, draw, grid, particles, widths_px
from scipy.spatial import KDTree

from engines.classical.detector import SpotDetector, templates_of_curve
from engines.flatfield import FlatField
from engines.settings import DetectorSettings
from stream.messages import Detections

BULK_WATER = Path(__file__).parents[3] / "shared" / "data" / "bulk-water" / "video.ome.tif"
SHAPE = (384, 512)


def columns(table: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[np.float64]]:
    return dict(zip(Detections.COLUMNS, table, strict=True))


def nearest(
    found: dict[str, npt.NDArray[np.float64]], x_px: npt.ArrayLike, y_px: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    tree = KDTree(np.column_stack([found["x_um"], found["y_um"]]) / PIXEL_SIZE_UM)
    distance, index = tree.query(np.column_stack([x_px, y_px]))
    return distance, index


@pytest.fixture(scope="module")
def in_depth() -> SpotDetector:
    return SpotDetector(*SHAPE, DetectorSettings(), PIXEL_SIZE_UM, curve())


def test_lone_particles_are_found_where_they_are_with_the_errors_stated(in_depth: SpotDetector) -> None:
    rng = np.random.default_rng(0)
    scaled, errors, missed, false, total = [], [], 0, 0, 0
    for _ in range(8):
        x, y = (v + rng.uniform(-0.5, 0.5, v.size) for v in grid(SHAPE, 96))
        z = rng.uniform(-150, 150, x.size)
        table, _ = in_depth.detect(particles(rng, SHAPE, x, y, z), -1.0)
        found = columns(table)
        distance, index = nearest(found, x, y)
        seen = distance < 4
        total += x.size
        missed += int((~seen).sum())
        false += table.shape[1] - int(seen.sum())
        index = index[seen]
        error = np.stack(
            [
                found["x_um"][index] - x[seen] * PIXEL_SIZE_UM,
                found["y_um"][index] - y[seen] * PIXEL_SIZE_UM,
                found["z_um"][index] - z[seen],
            ]
        )
        errors.append(error)
        scaled.append(error / [found[f"sigma_{axis}_um"][index] for axis in "xyz"])
        assert (found["brightness"] > 0).all()
        assert ((found["confidence"] >= 0.5) & (found["confidence"] <= 1)).all()
    assert missed <= 0.02 * total
    assert false <= 0.02 * total
    everything = np.concatenate(errors, axis=1)
    rms = np.sqrt((everything**2).mean(axis=1))
    assert rms[0] < 0.5
    assert rms[1] < 0.5
    assert rms[2] < 4
    assert abs(everything[2].mean()) < 0.6
    calibration = np.sqrt(np.square(np.concatenate(scaled, axis=1)).mean(axis=1))
    assert (calibration > 0.6).all()
    assert (calibration < 1.4).all()


def test_depth_has_no_bias_at_any_depth(in_depth: SpotDetector) -> None:
    rng = np.random.default_rng(1)
    for depth_um in (-140.0, -75.0, -30.0, 0.0, 40.0, 75.0, 110.0):
        errors = []
        for _ in range(3):
            x, y = (v + rng.uniform(-0.5, 0.5, v.size) for v in grid(SHAPE, 96))
            table, _ = in_depth.detect(particles(rng, SHAPE, x, y, np.full(x.size, depth_um)), -1.0)
            errors.append(columns(table)["z_um"] - depth_um)
        assert abs(np.median(np.concatenate(errors))) < 1.5


def test_crossing_images_are_two_particles(in_depth: SpotDetector) -> None:
    rng = np.random.default_rng(2)
    x, y, z = np.array([200.0, 206.0]), np.array([200.0, 196.0]), np.array([-75.0, 75.0])
    table, _ = in_depth.detect(particles(rng, SHAPE, x, y, z), -1.0)
    found = columns(table)
    distance, index = nearest(found, x, y)
    assert table.shape[1] == 2
    assert (distance < 1).all()
    np.testing.assert_allclose(found["z_um"][index], z, atol=15)


def test_a_faint_particle_beside_a_bright_one_is_found(in_depth: SpotDetector) -> None:
    rng = np.random.default_rng(3)
    x, y, z = np.array([200.0, 222.0]), np.array([200.0, 200.0]), np.array([75.0, -130.0])
    table, _ = in_depth.detect(particles(rng, SHAPE, x, y, z), -1.0)
    assert (nearest(columns(table), x, y)[0] < 3).all()


def test_what_is_no_particle_of_the_curve_is_left_out_and_counted(in_depth: SpotDetector) -> None:
    noise = np.random.default_rng(4).normal(0, 1.3, SHAPE)
    speck = 180 - draw(SHAPE, 200, 200, 0.9, 0.9, 60) + noise
    table, left_out = in_depth.detect(np.rint(speck).astype(np.uint8), -1.0)
    assert table.shape == (len(Detections.COLUMNS), 0)
    assert sum(left_out.values()) >= 1


def test_an_empty_image_has_no_particles(in_depth: SpotDetector) -> None:
    rng = np.random.default_rng(5)
    flat = np.full(SHAPE, 180, np.uint8)
    noisy = np.rint(rng.normal(180, 1.3, SHAPE)).astype(np.uint8)
    assert in_depth.detect(flat, -1.0)[0].shape == (len(Detections.COLUMNS), 0)
    assert in_depth.detect(noisy, -1.0)[0].shape[1] <= 1


def test_every_width_of_the_curve_is_near_one_of_the_filters() -> None:
    table = curve().table(PIXEL_SIZE_UM)
    shapes = np.log([(t.sigma_x_px, t.sigma_y_px) for t in templates_of_curve(table)])
    apart = np.abs(table[1:].T[:, None] - shapes).max(axis=2).min(axis=1)
    assert apart.max() <= np.log(1.8)


@pytest.mark.parametrize("polarity", ["dark", "bright"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_round_spots_of_either_polarity_are_found_in_2d(polarity: str, dtype: type) -> None:
    rng = np.random.default_rng(6)
    x, y = (v + rng.uniform(-0.5, 0.5, v.size) for v in grid(SHAPE, 32))
    sigma = rng.uniform(1.4, 4.0, x.size)
    sign = 1 if polarity == "bright" else -1
    scale = np.iinfo(dtype).max / 255
    image = scale * (120 + sign * draw(SHAPE, x, y, sigma, sigma, 30.0) + rng.normal(0, 2, SHAPE))
    detector = SpotDetector(*SHAPE, DetectorSettings(), PIXEL_SIZE_UM)
    image = np.clip(np.rint(image), 0, np.iinfo(dtype).max).astype(dtype)
    assert detector.stronger_polarity(image) == polarity
    found = columns(detector.detect(image, float(sign))[0])
    distance, index = nearest(found, x, y)
    assert (distance < 1).mean() > 0.99
    assert found["x_um"].size <= 1.02 * x.size
    assert np.isnan(found["z_um"]).all()
    assert np.isnan(found["sigma_z_um"]).all()
    error = found["x_um"][index] / PIXEL_SIZE_UM - x
    assert abs(error.mean()) < 0.02
    assert np.sqrt((error**2).mean()) < 0.2
    np.testing.assert_allclose(found["brightness"][index], 30 * scale, rtol=0.25)


def test_with_references_uneven_light_and_brightness_in_grey_values_come_out_right() -> None:
    rng = np.random.default_rng(7)
    light = 180 * (0.6 + 0.4 * np.linspace(0, 1, SHAPE[1]))[None, :] * np.ones((SHAPE[0], 1))
    x, y = grid(SHAPE, 96)
    z = np.full(x.size, 20.0)
    sx, sy = widths_px(z)
    shadow = draw(SHAPE, x, y, sx, sy, amplitude(z) / 180)
    image = np.rint(light * (1 - shadow) + rng.normal(0, 0.6, SHAPE)).astype(np.uint8)
    detector = SpotDetector(*SHAPE, DetectorSettings(), PIXEL_SIZE_UM, curve(), FlatField(light))
    found = columns(detector.detect(image, -1.0)[0])
    assert found["x_um"].size == x.size
    np.testing.assert_allclose(found["brightness"], amplitude(20.0) * light.mean() / 180, rtol=0.25)
    assert abs(np.median(found["z_um"]) - 20) < 1.5


def test_of_too_many_particles_the_brightest_are_kept() -> None:
    x, y = grid(SHAPE, 64)
    height = np.linspace(20, 60, x.size)
    noise = np.random.default_rng(8).normal(0, 1, SHAPE)
    image = np.rint(100 + draw(SHAPE, x, y, 2, 2, height) + noise).astype(np.uint8)
    detector = SpotDetector(*SHAPE, DetectorSettings(max_particles=10), 1.0)
    table, _ = detector.detect(image, 1.0)
    assert table.shape[1] == 10
    assert columns(table)["brightness"].min() > np.sort(height)[-13]


@pytest.mark.skipif(not BULK_WATER.exists(), reason="the shared data are not here")
def test_beads_in_water_are_those_that_trackpy_finds() -> None:
    trackpy = pytest.importorskip("trackpy")
    trackpy.quiet()
    image = tifffile.imread(BULK_WATER, key=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # trackpy's, about itself and pandas
        theirs = trackpy.locate(image, 11, invert=True, minmass=20)
    theirs = theirs[(theirs["mass"] > 50) & (theirs["size"] < 2.6) & (theirs["ecc"] < 0.3)]
    detector = SpotDetector(*image.shape, DetectorSettings(), 1.0)
    assert detector.stronger_polarity(image) == "dark"
    ours = columns(detector.detect(image, -1.0)[0])
    tree = KDTree(np.column_stack([ours["x_um"], ours["y_um"]]))
    distance, index = tree.query(theirs[["x", "y"]].to_numpy())
    seen = distance < 3
    assert seen.mean() > 0.95
    assert abs(np.mean(ours["x_um"][index[seen]] - theirs["x"].to_numpy()[seen])) < 0.1
    assert abs(np.mean(ours["y_um"][index[seen]] - theirs["y"].to_numpy()[seen])) < 0.1
