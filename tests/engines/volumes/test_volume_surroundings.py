"""Background and noise of a volume are found from the volume itself, with particles in it."""

import numpy as np
import pytest

from benchmarks.volume_scene import Scene, draw
from engines.volumes.surroundings.estimate import estimate_surroundings
from engines.volumes.surroundings.noise import Noise

SHAPE = (8, 192, 160)


def _estimated(image, missing=None, noise=None):
    return estimate_surroundings(
        image, np.zeros(len(image), bool) if missing is None else missing, 1.3, noise
    )


@pytest.mark.parametrize("snr", [1, 7])
def test_particles_do_not_raise_the_background_by_a_tenth_of_the_noise(snr):
    volume = draw(Scene(snr, 70, 3, shape=SHAPE))
    background, _ = _estimated(volume.image)
    off = background.field(*SHAPE[1:]) - 10
    assert abs(off.mean()) < 0.1
    assert off.std() < 0.12
    assert background.sd < 0.2


def test_an_uneven_background_and_a_light_that_fades_from_slice_to_slice_are_followed():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: SHAPE[1], : SHAPE[2]]
    pattern = 100 * (1 + 0.4 * np.sin(y / 80) * np.cos(x / 100))
    fading = 0.9 ** np.arange(SHAPE[0])
    fading[3] *= 1.3  # a flash
    light = fading[:, None, None] * pattern
    background, noise = _estimated(rng.poisson(light).astype(np.uint16))
    assert np.abs(background.field(*SHAPE[1:]) / light - 1).mean() < 0.02
    assert noise.gain == pytest.approx(1, rel=0.06)


def test_gain_and_offset_are_told_apart_where_the_background_varies():
    rng = np.random.default_rng(1)
    light = np.broadcast_to(np.linspace(20, 300, SHAPE[2]), SHAPE)
    image = np.rint(2.0 * rng.poisson(light) + 100 + rng.normal(0, 3, SHAPE)).astype(np.uint16)
    _, noise = _estimated(image)
    assert noise.gain == pytest.approx(2, rel=0.1)
    dark = noise.variance(100.0)
    assert dark < 60  # true: 9; at 100 grey values and an offset of 0 it would be 200


def test_a_given_noise_is_kept():
    given = Noise(2.0, 90.0, 5.0)
    assert _estimated(draw(Scene(2, 5, 1, shape=(4, 40, 40))).image, noise=given)[1] is given


@pytest.mark.parametrize("value", [0, 255])
def test_a_volume_of_one_grey_value_has_that_background_and_the_noise_of_rounding(value):
    background, noise = _estimated(np.full((3, 40, 50), value, np.uint8))
    np.testing.assert_allclose(background.field(40, 50), value, atol=1e-3)
    assert noise.variance(value) == pytest.approx(1 / 12)


def test_missing_slices_have_the_background_of_their_neighbours():
    image = draw(Scene(2, 10, 5, shape=(6, 64, 64), background=40)).image
    missing = np.array([True, False, True, True, False, False])
    image[missing] = 0
    background, _ = _estimated(image, missing)
    np.testing.assert_allclose(background.grid, 40, atol=1.5)


@pytest.mark.parametrize("shape", [(1, 5, 5), (3, 1, 40), (2, 7, 33), (1, 2, 2)])
def test_small_volumes_have_a_background(shape):
    image = np.random.default_rng(0).poisson(50, shape).astype(np.uint16)
    background, noise = _estimated(image)
    assert np.isfinite(background.field(*shape[1:])).all()
    assert 30 < background.field(*shape[1:]).mean() < 70
    assert noise.variance(50.0) > 0


def test_a_volume_without_any_slice_has_some():
    background, noise = _estimated(np.zeros((3, 20, 20), np.uint16), np.ones(3, bool))
    assert np.isfinite(background.grid).all()
    assert noise.variance(0.0) > 0


def test_the_background_between_cells_is_straight():
    background, _ = _estimated(np.random.default_rng(0).poisson(50, (2, 96, 128)).astype(np.uint16))
    y, x = np.array([10.0, 50.5, 95.0]), np.array([3.0, 77.2, 127.0])
    field = background.field(96, 128)
    at = background.at(np.rint(x), np.rint(y), np.array([0.0, 1.0, 0.4]))
    expected = [field[0, 10, 3], field[1, 50, 77], field[0, 95, 127]]
    np.testing.assert_allclose(at, expected, rtol=1e-5)


def test_a_wide_bump_of_the_light_that_hardly_exceeds_the_noise_of_a_cell_is_followed():
    rng = np.random.default_rng(1)
    shape = (12, 256, 256)
    y, x = np.mgrid[: shape[1], : shape[2]]
    bump = 20 + 3 * np.exp(-0.5 * ((y - 110) ** 2 + (x - 150) ** 2) / 48**2)
    background, _ = _estimated(rng.poisson(np.broadcast_to(bump, shape)).astype(np.uint16))
    off = (background.field(*shape[1:]) - bump)[:, 95:125, 135:165]
    assert abs(off.mean()) < 0.6  # a fifth of the bump; smoothed once it was a quarter
