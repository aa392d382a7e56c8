"""Particles that touch, that are darker than what surrounds them, and clouds of light between them."""

import numpy as np
import pytest

from benchmarks.volume_scene import Scene, draw
from engines.volumes.blurred_ball import blurred_ball
from engines.volumes.first_look import look
from engines.volumes.polarity import inverted
from engines.volumes.psf import VolumePsf
from engines.volumes.surroundings.crowding import is_crowded
from engines.volumes.surroundings.estimate import estimate_surroundings
from engines.volumes.surroundings.structure import with_structure

SHAPE = (24, 64, 64)
RADIUS, BLUR = 5.0, 1.0
BACKGROUND, LIGHT = 20.0, 60.0


def _packed() -> np.ndarray:
    """Balls that nearly touch, in layers, each moved a little; two fifths of the volume are theirs."""
    rng = np.random.default_rng(0)
    k, j, i = np.meshgrid(np.arange(-1, 4), np.arange(-1, 8), np.arange(-1, 8), indexing="ij")
    grid = np.stack([9.5 * k, 11.8 * j + 5.9 * (k % 2), 11.8 * i + 5.9 * (k % 2)], axis=-1).reshape(-1, 3)
    return grid + rng.uniform(-0.6, 0.6, grid.shape)


def _drawn(sign: float) -> np.ndarray:
    """A stack of them on an even background, with its noise."""
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    ball = np.zeros(SHAPE)
    for centre in _packed():
        away = np.sqrt((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2)
        ball = np.maximum(ball, 1 / (1 + np.exp((away - RADIUS) / (0.55 * BLUR))))
    ground = BACKGROUND if sign > 0 else BACKGROUND + LIGHT
    return np.random.default_rng(1).poisson(ground + sign * LIGHT * ball).astype(np.uint8)


def test_a_volume_full_of_balls_is_crowded_and_one_of_a_thousand_spots_is_not():
    crowded, none = _drawn(1), np.zeros(SHAPE[0], bool)
    assert is_crowded(crowded, none, 2.4)
    volume = draw(Scene(7, 100, 0, shape=(10, 160, 160))).image
    assert not is_crowded(volume, np.zeros(10, bool), 1.3)


def test_the_background_of_a_crowded_volume_is_what_lies_between_the_balls():
    background, _ = estimate_surroundings(_drawn(1), np.zeros(SHAPE[0], bool), 2.4)
    assert background.crowded
    level = background.grid.mean()
    assert BACKGROUND - 3 < level < BACKGROUND + 0.35 * LIGHT


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_first_look_tells_polarity_and_size_of_balls_that_touch(sign):
    found = look(_drawn(sign), np.zeros(SHAPE[0], bool), (0.1, 0.1, 0.1), None, None)
    assert found is not None
    assert found.dark == (sign < 0)
    assert found.radius_um == pytest.approx(0.5, rel=0.15)


def test_an_inverted_volume_has_the_type_of_the_volume_and_turns_back():
    image = _drawn(-1)
    assert inverted(image).dtype == np.uint8
    np.testing.assert_array_equal(inverted(inverted(image)), image)


@pytest.mark.parametrize("roundness", [0.0, 0.5, 0.9])
def test_a_blurred_ball_has_the_standard_deviations_that_were_asked_for(roundness):
    psf = blurred_ball((0.33, 0.25, 0.25), roundness, (0.1, 0.1, 0.1))
    axis = np.arange(-12, 13) * 0.1
    light = psf.value(axis[:, None, None], axis[:, None], axis)
    along = light.sum(axis=(1, 2))
    assert np.sqrt((along * axis**2).sum() / along.sum()) == pytest.approx(0.33, rel=0.01)
    assert light.max() == pytest.approx(1, abs=0.01)


def test_a_cloud_that_is_wider_than_a_spot_becomes_background():
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:128, :128]
    light = np.full((16, 128, 128), 4.0)
    for j, i in rng.uniform(10, 118, (30, 2)):
        light += 4 * np.exp(-0.5 * ((y - j) ** 2 + (x - i) ** 2) / 25)
    none, sigma = np.zeros(16, bool), (1.3, 1.3, 1.3)
    image = rng.poisson(light).astype(np.uint16)
    background, noise = estimate_surroundings(image, none, 1.3)
    finer = with_structure(image, none, background, noise, sigma)
    before, after = (np.abs(b.field(128, 128) - light).mean() for b in (background, finer))
    assert after < 0.6 * before


def test_a_background_without_clouds_stays_as_it_is():
    volume = draw(Scene(7, 100, 5, shape=(10, 160, 160)))
    none = np.zeros(10, bool)
    background, noise = estimate_surroundings(volume.image, none, 1.3)
    assert with_structure(volume.image, none, background, noise, (1.3, 1.3, 1.3)) is background


def test_the_misfit_of_a_psf_is_kept_in_its_text_and_must_be_a_part():
    psf = VolumePsf((0.3, 0.1, 0.1), (0.4, 0.13, 0.13), misfit=0.02)
    assert VolumePsf.from_json(psf.to_json()).misfit == 0.02
    with pytest.raises(ValueError, match="misfit"):
        VolumePsf((0.3, 0.1, 0.1), (0.4, 0.13, 0.13), misfit=1.5)
