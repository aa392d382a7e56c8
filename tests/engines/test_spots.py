from __future__ import annotations

import numpy as np
import pytest
from astigmatic import draw
from scipy import ndimage

from engines.classical.filtering import difference_of_gaussians, gaussian_kernel
from engines.classical.maxima import strongest_only
from engines.classical.spots import SURROUND, SpotFilter, Template, false_alarm_threshold


def test_the_filter_is_a_difference_of_gaussians() -> None:
    image = np.random.default_rng(0).normal(size=(60, 80)).astype(np.float32)
    halves = [gaussian_kernel(s) for s in (2.0, 3.0, 2.0 * SURROUND, 3.0 * SURROUND)]
    narrow, wide, out = (np.empty_like(image) for _ in range(3))
    difference_of_gaussians(image, *halves, narrow, wide, out)
    kx, ky, wx, wy = (np.concatenate([half[:0:-1], half]).astype(float) for half in halves)
    reference = ndimage.convolve1d(ndimage.convolve1d(image, kx, 1, mode="nearest"), ky, 0, mode="nearest")
    reference -= ndimage.convolve1d(ndimage.convolve1d(image, wx, 1, mode="nearest"), wy, 0, mode="nearest")
    np.testing.assert_allclose(out, reference, atol=1e-5)


def test_noise_alone_gives_a_false_alarm_in_about_one_frame_of_ten() -> None:
    rng = np.random.default_rng(1)
    spots = SpotFilter(256, 256, [Template(2.0, 2.0), Template(3.0, 3.0)])
    found = sum(
        spots.candidates(rng.normal(100, 5, (256, 256)).astype(np.float32), 1.0).shape[1] for _ in range(60)
    )
    assert found <= 18


def test_the_threshold_rises_with_the_size_of_the_image() -> None:
    assert 3 < false_alarm_threshold(1e3) < false_alarm_threshold(1e6) < 6


@pytest.mark.parametrize(("sx", "sy"), [(1.3, 12.0), (12.0, 1.3), (4.5, 4.5), (15.0, 5.0)])
def test_one_astigmatic_image_is_one_candidate_near_its_centre(sx: float, sy: float) -> None:
    rng = np.random.default_rng(2)
    shapes = [(1.3, 12.0), (12.0, 1.3), (4.5, 4.5), (15.0, 5.0), (2.5, 8.0), (8.0, 2.5)]
    image = draw((160, 160), 80.3, 77.8, sx, sy, 8.0) + rng.normal(0, 1, (160, 160))
    spots = SpotFilter(160, 160, [Template(*shape) for shape in shapes])
    found = spots.candidates(image.astype(np.float32), 1.0)
    assert found.shape[1] == 1
    assert abs(found[0, 0] - 80.3) < sx / 2 + 0.5
    assert abs(found[1, 0] - 77.8) < sy / 2 + 0.5


def test_dark_particles_answer_to_the_negative_sign_only() -> None:
    image = (100 - draw((64, 64), 30, 30, 2, 2, 20) + np.random.default_rng(3).normal(0, 1, (64, 64))).astype(
        np.float32
    )
    spots = SpotFilter(64, 64, [Template(2.0, 2.0)])
    assert spots.candidates(image, -1.0).shape[1] == 1
    strongest_bright = spots.candidates(image, 1.0)[3].max(initial=0)
    assert strongest_bright < 0.3 * spots.candidates(image, -1.0)[3, 0]


def test_a_constant_background_has_the_noise_of_rounding() -> None:
    image = np.zeros((64, 64), np.float32)
    spots = SpotFilter(64, 64, [Template(2.0, 2.0)])
    assert spots.candidates(image, 1.0).shape[1] == 0
    assert spots.candidates((image + draw((64, 64), 30, 30, 2, 2, 20)).astype(np.float32), 1.0).shape[1] == 1


def test_an_image_smaller_than_a_filter_is_searched_all_the_same() -> None:
    spots = SpotFilter(12, 12, [Template(9.0, 9.0)])
    assert spots.candidates(np.ones((12, 12), np.float32), 1.0).shape == (4, 0)


def test_a_weaker_maximum_outside_of_the_stronger_ones_shape_is_kept() -> None:
    shapes = np.array([[10.0, 1.5]])
    found = np.array([[50.0, 62.0, 50.0], [50.0, 50.0, 58.0], [0, 0, 0], [9.0, 8.0, 7.0]])
    assert strongest_only(found, shapes, 2.0).tolist() == [0, 2]
