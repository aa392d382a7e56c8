"""The filters of volumes do what their formulas say, at the ends of a stack and beside missing slices too."""

import numpy as np
import pytest
from scipy import ndimage

from engines.volumes.proposing.bands import BAND
from engines.volumes.proposing.matched_filter import MatchedFilter
from engines.volumes.proposing.sef3d import LaplacianOfGaussian
from engines.volumes.surroundings.background import Background
from engines.volumes.surroundings.noise import Noise

SHAPE = (7, 75, 44)  # three bands of rows, the last one not whole
SIGMA = (1.0, 1.6, 1.2)
NOISE = Noise(0.5, 3.0, 2.0)


def _spot(centre, amplitude, sigma=SIGMA, shape=SHAPE):
    z, y, x = (
        np.exp(-0.5 * ((np.arange(n) - c) / s) ** 2) for n, c, s in zip(shape, centre, sigma, strict=True)
    )
    return amplitude * z[:, None, None] * y[:, None] * x


def _uneven():
    rng = np.random.default_rng(4)
    return Background(rng.uniform(20, 60, (SHAPE[0], 3, 2)).astype(np.float32), 25)


def _volume(light):
    return np.random.default_rng(1).poisson(light).astype(np.uint16)


def _whole(half):
    return np.concatenate([half[:0:-1], half]).astype(np.float64)


def _along_axes(volume, kernels):
    for axis, kernel in enumerate(kernels):
        volume = ndimage.correlate1d(volume, kernel, axis, mode="constant")
    return volume


@pytest.mark.parametrize("missing", [(), (0,), (2, 3), (6,)])
def test_the_matched_filter_is_the_sum_over_the_voxels_that_there_are(missing):
    background = _uneven()
    image = _volume(background.field(*SHAPE[1:]))
    absent = np.zeros(SHAPE[0], bool)
    absent[list(missing)] = True
    image[absent] = 0
    matched = MatchedFilter(SIGMA)
    field = np.empty(SHAPE, np.float32)
    matched._filler(image, absent, background, NOISE, SHAPE[1])(0, field)

    kernels = [_whole(half) for half in matched._halves]
    above = np.where(absent[:, None, None], 0.0, image - background.field(*SHAPE[1:]))
    present = np.broadcast_to(~absent[:, None, None], SHAPE).astype(float)
    power = _along_axes(present, [kernel**2 for kernel in kernels])
    spread = Background(NOISE.variance(background.grid).astype(np.float32) ** -0.5, background.cell_px)
    expected = _along_axes(above, kernels) / np.sqrt(power) * spread.field(*SHAPE[1:])
    np.testing.assert_allclose(field, expected, atol=2e-4)


def test_noise_has_a_standard_deviation_of_one_everywhere_in_the_filtered_volume():
    light = np.full((9, 300, 300), 25.0)
    image = _volume(light)
    absent = np.zeros(9, bool)
    absent[4] = True
    image[4] = 0
    for tried in (MatchedFilter(SIGMA), LaplacianOfGaussian(SIGMA, 3.0)):
        field = np.empty(image.shape, np.float32)
        tried._filler(image, absent, Background.flat(25.0, 9), Noise(1.0, 0.0, 0.0), 300)(0, field)
        spread = field.std(axis=(1, 2))
        np.testing.assert_allclose(spread, 1.0, atol=0.06)
        assert 0.9 < field[:, :3].std() < 1.1
        assert tried.noise_scale(
            image, absent, Background.flat(25.0, 9), Noise(1.0, 0.0, 0.0)
        ) == pytest.approx(1, abs=0.06)


def test_noise_that_neighbours_share_is_told_by_its_scale():
    rng = np.random.default_rng(2)
    smooth = ndimage.gaussian_filter(rng.normal(0, 20, (6, 200, 200)), (0, 1, 1))
    image = np.rint(200 + smooth).astype(np.uint16)
    seen = np.zeros(6, bool)
    alike = MatchedFilter(SIGMA).noise_scale(
        image, seen, Background.flat(200.0, 6), Noise(0.0, 0.0, float(smooth.var()))
    )
    assert alike > 1.5


@pytest.mark.parametrize("centre", [(3.0, 30.3, 20.4), (0.0, 31.0, 10.6), (6.2, 33.0, 43.0), (2.6, 0.2, 0.0)])
def test_a_spot_is_proposed_at_its_place_with_its_amplitude_and_strength(centre):
    image = np.rint(_spot(centre, 400.0) + 100).astype(np.uint16)
    noise = Noise(0.0, 0.0, 100.0)
    found = MatchedFilter(SIGMA).propose(image, np.zeros(7, bool), Background.flat(100.0, 7), noise)
    first = found.take(np.arange(1))
    assert abs(first.z[0] - centre[0]) < 0.4
    assert abs(first.y[0] - centre[1]) < 0.4
    assert abs(first.x[0] - centre[2]) < 0.4
    assert first.amplitude[0] == pytest.approx(400, rel=0.12)
    exact = np.sqrt((_spot(centre, 400.0) ** 2).sum()) / 10
    assert first.strength[0] == pytest.approx(exact, rel=0.06)
    assert len(found) < 4


def test_the_maxima_are_those_of_scipy_whatever_the_bands():
    rng = np.random.default_rng(9)
    image = rng.poisson(30, (5, 2 * BAND + 5, 60)).astype(np.uint8)
    background, noise = Background.flat(30.0, 5), Noise(1.0, 0.0, 0.0)
    matched = MatchedFilter(SIGMA, 2.0)
    field = np.empty(image.shape, np.float32)
    matched._filler(image, np.zeros(5, bool), background, noise, image.shape[1])(0, field)
    expected = np.argwhere((field == ndimage.maximum_filter(field, 3)) & (field > 2.0))
    found = matched.propose(image, np.zeros(5, bool), background, noise)
    rounded = np.stack([np.rint(found.z), np.rint(found.y), np.rint(found.x)], axis=1)
    assert {tuple(row) for row in rounded.astype(int)} == {tuple(row) for row in expected}


def test_the_laplacian_gives_whole_voxels_and_does_not_see_an_even_background():
    sef = LaplacianOfGaussian(SIGMA, 4.0)
    image = np.rint(_spot((3.0, 40.3, 22.0), 300.0) + 100).astype(np.uint16)
    found = sef.propose(image, np.zeros(7, bool), Background.flat(100.0, 7), Noise(0.0, 0.0, 100.0))
    assert (found.z[0], found.y[0], found.x[0]) == (3, 40, 22)
    assert found.amplitude[0] == pytest.approx(300, rel=0.12)
    raised = sef.propose(image + 50, np.zeros(7, bool), Background.flat(100.0, 7), Noise(0.0, 0.0, 100.0))
    inner = (
        (raised.y > 8)
        & (raised.y < SHAPE[1] - 8)
        & (raised.x > 8)
        & (raised.x < SHAPE[2] - 8)
        & (raised.z == 3)
    )
    assert inner.sum() == 1


def test_a_volume_without_any_slice_has_no_places():
    empty = np.zeros(SHAPE, np.uint8)
    found = MatchedFilter(SIGMA).propose(empty, np.ones(7, bool), Background.flat(0.0, 7), NOISE)
    assert len(found) == 0
