"""How noise grows with light, and how large a window the fit needs, from images of objects."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.deeptrack.fit_window import padded, window_of
from calibration.deeptrack.image_noise import noise_in
from calibration.deeptrack.image_regression import Cutouts, ImageSpline
from engines.refine.psf import FitModel
from engines.refine.psf_text import pack, unpack

HALF = 9


def spline_of(peak: float, background: float, offset: float, read: float, lit: bool) -> ImageSpline:
    """The spline of blobs seen by a camera, grey values being photoelectrons and an offset."""
    rng = np.random.default_rng(6)
    v, u = np.mgrid[-HALF : HALF + 1, -HALF : HALF + 1]
    off = rng.uniform(-0.5, 0.5, (240, 2))
    blobs = np.array([np.exp(-((u - x) ** 2 + (v - y) ** 2) / 8) for x, y in off])
    grey = offset + rng.poisson(background + peak * blobs) + read * rng.standard_normal(blobs.shape)
    ground, noise = background + offset, np.sqrt(background + read**2)
    contrast = (grey - ground) / (ground if lit else noise)
    weight = np.full(contrast.shape, (ground / noise) ** 2 if lit else 1.0)
    spline = ImageSpline(Cutouts(contrast, weight, off), np.full(240, 2.0), 5)
    spline.solve()
    return spline


def test_the_growth_over_the_background_s_noise_is_that_of_photoelectrons() -> None:
    found = noise_in(spline_of(15.0, 2.0, 100.0, 1.5, lit=False), 1.0, lit=False)
    assert found.growth == pytest.approx(1 / np.sqrt(2.0 + 1.5**2), rel=0.15)


def test_an_offset_of_the_camera_is_told_from_light() -> None:
    found = noise_in(spline_of(400.0, 300.0, 100.0, 3.0, lit=True), 1.0, lit=True)
    assert found.shot / (found.read + found.shot) == pytest.approx(400 / (300 + 9), rel=0.1)
    assert found.read < 0


def test_the_variance_follows_the_measured_one() -> None:
    base = {"pixel_size_um": 0.1, "polarity": "bright"}
    room = np.zeros((5, 19, 19), np.float32)
    plain = FitModel.of(room, 0.0, 1.0, (0.0, 4.0), read=1.0, shot=3.0, **base)
    assert plain.variance_of(0.04) == pytest.approx((0.01, 0.03))
    grows = FitModel.of(room, 0.0, 1.0, (0.0, 4.0), read=1.0, shot=0.0, growth=0.5, **base)
    assert sum(grows.variance_of(0.04)) == pytest.approx(0.04)
    assert grows.variance_of(0.04)[1] == pytest.approx(0.5 * 0.2)
    assert unpack(pack(grows), "model").growth == pytest.approx(0.5)


def test_a_window_is_larger_than_the_light_where_the_background_is_unknown() -> None:
    v, u = np.mgrid[-20:21, -20:21]
    blobs = np.array([np.exp(-(u**2 + v**2) / (2 * r**2)) for r in np.linspace(1.5, 3, 13)])
    window = window_of(blobs, np.full((13, 2), 4))
    assert (window[:, 0] >= 2.5 * np.linspace(1.5, 3, 13)).all()
    assert window.max() < 20
    assert (np.diff(window[:, 0]) >= 0).all()


def test_padding_keeps_the_middle() -> None:
    some = np.random.default_rng(0).random((2, 7, 7))
    more = padded(some, 5)
    assert more.shape == (2, 11, 11)
    assert more[:, 2:-2, 2:-2] == pytest.approx(some)
    assert padded(some, 2) == pytest.approx(some)


@pytest.mark.parametrize("extent", [np.full((5, 2), 40), np.full((4, 2), 8), np.full((5, 2), -1)])
def test_an_extent_that_is_none_is_refused(extent: np.ndarray) -> None:
    with pytest.raises(ValueError, match="extent"):
        FitModel.of(
            np.zeros((5, 19, 19), np.float32), 0.0, 1.0, (0.0, 4.0),
            pixel_size_um=0.1, polarity="bright", extent_px=extent,
        )  # fmt: skip
