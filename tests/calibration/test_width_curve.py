from __future__ import annotations

import numpy as np
import pytest

from acquisition.physics.optics import OpticsModel, particle_images
from acquisition.physics.rendering import simulate_images
from calibration.errors import CalibrationError
from calibration.width_curve import (
    width_curve_from_images,
    width_curve_from_optics,
    width_curve_from_widths,
)
from engines.classical.detector import SpotDetector
from engines.classical.widths import WidthCurve
from engines.settings import DetectorSettings


@pytest.fixture(scope="module")
def optics() -> OpticsModel:
    return OpticsModel()


@pytest.fixture(scope="module")
def curve(optics: OpticsModel) -> WidthCurve:
    return width_curve_from_optics(optics, z_range_um=180, z_step_um=6)


def test_the_curve_is_sharp_in_y_below_the_focus_and_in_x_above(curve: WidthCurve) -> None:
    assert curve.z_um[np.argmin(curve.sigma_y_um)] == pytest.approx(-75, abs=10)
    assert curve.z_um[np.argmin(curve.sigma_x_um)] == pytest.approx(75, abs=10)
    below = curve.z_um < -5
    assert (curve.sigma_x_um[below] > curve.sigma_y_um[below]).all()
    assert curve.amplitude.max() == 1
    assert curve.polarity == "dark"
    assert curve.provenance["made_from"] == "optics model"


def test_a_fluorescing_particle_gives_a_bright_curve() -> None:
    made = width_curve_from_optics(OpticsModel(polarity="bright"), z_range_um=100, z_step_um=20)
    assert made.polarity == "bright"
    assert made.z_um[np.argmin(made.sigma_x_um)] > 50


def test_images_and_optics_give_the_same_curve(optics: OpticsModel, curve: WidthCurve) -> None:
    z_um = np.linspace(-180, 180, 61)
    images = 200 * (1 - particle_images(optics, z_um, 0.3, -0.2))
    made = width_curve_from_images(images, z_um, optics.pixel_size_um, polarity="dark")
    for name in ("sigma_x_um", "sigma_y_um"):
        ours = np.interp(z_um, made.z_um, getattr(made, name))
        np.testing.assert_allclose(ours, np.interp(z_um, curve.z_um, getattr(curve, name)), rtol=0.12)


def test_scattered_measurements_in_any_order_make_a_smooth_curve() -> None:
    rng = np.random.default_rng(0)
    z_um = rng.uniform(-100, 100, 400).round(0)
    true_x, true_y = np.hypot(1, (z_um - 50) / 20), np.hypot(1, (z_um + 50) / 20)
    made = width_curve_from_widths(
        z_um,
        true_x * rng.lognormal(0, 0.03, 400),
        true_y * rng.lognormal(0, 0.03, 400),
        1 / (true_x * true_y),
        1.0,
        polarity="bright",
    )
    np.testing.assert_allclose(made.sigma_x_um, np.hypot(1, (made.z_um - 50) / 20), rtol=0.06)
    np.testing.assert_allclose(made.sigma_y_um, np.hypot(1, (made.z_um + 50) / 20), rtol=0.06)


@pytest.mark.parametrize(
    ("images", "z_um", "says"),
    [
        (np.zeros((6, 20, 20)), np.arange(6.0), "shows no particle"),
        (np.zeros((6, 20, 20)), np.arange(5.0), "as many images"),
        (np.zeros((20, 20)), np.arange(20.0), "as many images"),
    ],
)
def test_images_without_a_particle_make_no_curve(images: np.ndarray, z_um: np.ndarray, says: str) -> None:
    with pytest.raises(CalibrationError, match=says):
        width_curve_from_images(images, z_um, 1.0)


def test_too_few_depths_make_no_curve() -> None:
    with pytest.raises(CalibrationError, match="at least five"):
        width_curve_from_widths(*(np.ones(3) for _ in range(4)), 1.0, polarity="dark")


@pytest.mark.slow
def test_particles_of_the_simulated_microscope_are_measured_with_their_optics_curve(
    optics: OpticsModel, curve: WidthCurve
) -> None:
    rng = np.random.default_rng(0)
    errors, missed, total = [], 0, 0
    detector = SpotDetector(512, 768, DetectorSettings(), 0.8, curve)
    columns, rows = np.meshgrid(np.arange(64, 768, 104.0), np.arange(64, 512, 104.0))
    for seed in range(3):
        x, y = (v.ravel() * 0.8 + rng.uniform(-0.4, 0.4, v.size) for v in (columns, rows))
        z = rng.uniform(-150, 150, x.size)
        image, _ = simulate_images(optics, x, y, z, (512, 768), seed=seed)
        table, _ = detector.detect(image, -1.0)
        distance = np.hypot(table[0][:, None] - x, table[1][:, None] - y)
        total += x.size
        missed += int((distance.min(axis=0) > 4).sum())
        nearest = distance.argmin(axis=1)
        own = distance.min(axis=1) < 4
        errors.append((table[:3] - np.stack([x, y, z])[:, nearest])[:, own])
    error = np.concatenate(errors, axis=1)
    rms = np.sqrt((error**2).mean(axis=1))
    assert missed <= 0.05 * total
    assert rms[0] < 0.5
    assert rms[1] < 0.5
    assert rms[2] < 8
    assert abs(error[2].mean()) < 1
