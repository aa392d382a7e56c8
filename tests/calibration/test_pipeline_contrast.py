"""An image of a pipeline and the same one from a camera look alike to a network."""

import numpy as np
import pytest

from calibration.deeptrack.contrast import contrast_of
from engines.network.preparation import Preparation


def ring(noise):
    rows, columns = np.indices((64, 80)) - 30.0
    radius = np.hypot(rows, columns)
    light = np.exp(-((radius - 6) ** 2) / 18) + 0.3 * np.exp(-((radius - 14) ** 2) / 30)
    return light + np.random.default_rng(2).normal(0, 1, light.shape) * noise


@pytest.mark.parametrize("noise", [0.0, 1e-4, 0.02, 0.2])
def test_a_camera_shows_the_contrast_that_a_network_was_trained_on_with_or_without_noise(noise):
    image = ring(noise)
    trained = contrast_of(image, "noise", 1.0)
    seen = Preparation(image.shape, 1.0, 1.0, None, "noise")
    grey = np.rint(30_000 + 15_000 * image).astype(np.uint16)
    assert seen.fill(grey) > 0
    slope = np.polyfit(trained.ravel(), seen.input[0, 0, :64, :80].ravel(), 1)[0]
    assert slope == pytest.approx(1.0, abs=0.05)


def test_a_saturated_speck_of_dirt_does_not_take_the_contrast_from_all_others():
    rng = np.random.default_rng(3)
    grey = np.rint(200 + 4 * rng.normal(size=(600, 800))).astype(np.uint16)
    dirty = grey.copy()
    dirty[40:55, 50:65] = 4095
    plain, odd = (Preparation(grey.shape, 1.0, 1.0, None, "noise") for _ in range(2))
    assert odd.fill(dirty) == pytest.approx(plain.fill(grey), rel=0.01)


def test_a_hot_pixel_does_not_take_the_contrast_from_all_others():
    grey = np.rint(1500 + 300 * ring(0.05)).astype(np.uint16)
    hot = grey.copy()
    hot[3, 3] = 65535
    plain, odd = (Preparation(grey.shape, 1.0, 1.0, None, "noise") for _ in range(2))
    assert odd.fill(hot) == pytest.approx(plain.fill(grey), rel=0.01)
