"""Slices in fluorescence have the widths, the light and the noise that the model says."""

import numpy as np
import pytest
from scipy import stats

from acquisition.physics.fluorescence import (
    FluorescenceModel,
    FluorescenceRenderer,
    background_map,
)
from acquisition.physics.switching import SwitchingModel, SwitchingMotion
from acquisition.simulated.fluorescence import Brightness
from acquisition.simulated.world import Particles
from stream.errors import ConfigurationError

SHAPE = (48, 64)


def drawn(model, x_um, y_um, z_um, count=1, seed=0, brightness=1.0):
    """Slices (count, H, W) of particles."""
    renderer = FluorescenceRenderer(model, SHAPE, "uint16", seed=seed)
    x, y, z = (np.atleast_1d(np.asarray(v, float)) for v in (x_um, y_um, z_um))
    slices = np.empty((count, *SHAPE), np.uint16)
    for out in slices:
        renderer.render(x, y, z, np.full(x.size, brightness), out)
    return slices


def moments(image):
    """Centre and variance of an image along x and y, pixels."""
    y, x = np.indices(image.shape)
    total = image.sum()
    cx, cy = (image * x).sum() / total, (image * y).sum() / total
    return cx, cy, (image * (x - cx) ** 2).sum() / total, (image * (y - cy) ** 2).sum() / total


QUIET = FluorescenceModel(
    background=0, read_noise=0, peak=50_000, offset=0, sigma_x_um=0.3, sigma_y_um=0.4, sigma_z_um=0.8
)


@pytest.mark.parametrize("z_um", [0.0, 0.5, -0.5])
def test_a_particle_has_its_place_its_widths_and_its_light(z_um):
    (image,) = drawn(QUIET, 6.13, 4.87, z_um).astype(float)
    cx, cy, vx, vy = moments(image)
    assert (0.2 * cx, 0.2 * cy) == pytest.approx((6.13, 4.87), abs=0.002)
    assert (0.2 * np.sqrt(vx), 0.2 * np.sqrt(vy)) == pytest.approx((0.3, 0.4), rel=0.01)
    peak = 50_000 * np.exp(-0.5 * (z_um / 0.8) ** 2)
    assert image.sum() == pytest.approx(peak * 2 * np.pi * 0.3 * 0.4 / 0.2**2, rel=0.01)


def test_a_light_sheet_widens_the_image_out_of_focus_and_keeps_its_light():
    sheet = QUIET.model_copy(update={"kind": "light_sheet", "sigma_z_um": 100.0, "depth_of_focus_um": 1.0})
    (focused,), (behind,) = (drawn(sheet, 6.0, 5.0, z).astype(float) for z in (0.0, 1.0))
    assert moments(behind)[2] == pytest.approx(2 * moments(focused)[2], rel=0.03)
    assert behind.sum() == pytest.approx(focused.sum(), rel=0.02)


def test_counts_are_poisson_numbers_of_particle_and_background():
    model = FluorescenceModel(background=9, unevenness=0, peak=20, offset=0, gain=1, read_noise=0)
    slices = drawn(model, 6.0, 5.0, 0.0, 400)
    at = slices[:, 25, 30].astype(float)
    assert at.mean() == pytest.approx(
        29.0, abs=5 * np.sqrt(9 / 64 + 20 / 400)
    )  # 64 backgrounds, 400 particles
    assert at.var() == pytest.approx(29.0, rel=0.4)
    far = slices[:, 40:, :].astype(float)
    assert far.mean() == pytest.approx(9.0, rel=0.01)
    assert far.var() == pytest.approx(9.0, rel=0.02)
    quiet = slices[:, 40:].ravel()
    seen = np.bincount(quiet, minlength=30)[:26]
    expected = stats.poisson.pmf(np.arange(26), 9.0) * quiet.size
    assert np.abs(seen - expected).max() < 0.002 * quiet.size


@pytest.mark.parametrize("mean", [0.05, 0.7, 5.0, 11.9, 12.1, 60.0])
def test_photons_of_particles_are_poisson_numbers_for_every_mean(mean):
    model = FluorescenceModel(background=0, read_noise=0, peak=mean, offset=0)
    renderer = FluorescenceRenderer(model, (8, 8), "uint16", seed=2)
    out, one = np.empty((8, 8), np.uint16), np.ones(1)
    counts = np.empty(4000)
    for k in range(counts.size):
        renderer.render(0.8 * one, 0.8 * one, 0 * one, one, out)
        counts[k] = out[4, 4]
    assert counts.mean() == pytest.approx(mean, abs=5 * np.sqrt(mean / counts.size))
    assert counts.var() == pytest.approx(mean, rel=0.12 + 0.3 * (mean < 0.1))


def test_no_two_slices_of_a_volume_have_the_same_noise():
    slices = drawn(FluorescenceModel(unevenness=0), [], [], [], 20).astype(float)
    correlation = np.corrcoef(slices.reshape(20, -1))[np.triu_indices(20, 1)]
    assert np.abs(correlation).max() < 0.1


def test_the_background_is_uneven_as_far_as_asked():
    model = FluorescenceModel(background=10, unevenness=0.4)
    uneven = background_map(model, SHAPE)
    assert uneven.mean() == pytest.approx(10)
    assert np.abs(uneven - 10).max() == pytest.approx(4)
    dark = FluorescenceRenderer(model, SHAPE, "uint16", seed=0)
    dark.lamp = 0.0
    out = np.empty(SHAPE, np.uint16)
    dark.render(*[np.full(1, 5.0)] * 2, np.zeros(1), np.ones(1), out)
    assert out.mean() == pytest.approx(model.offset, abs=0.2)


def test_images_of_another_shape_or_type_are_refused():
    renderer = FluorescenceRenderer(FluorescenceModel(), SHAPE, "uint16")
    one = np.ones(1)
    with pytest.raises(ConfigurationError, match="matching array"):
        renderer.render(one, one, one, one, np.empty((4, 4), np.uint16))
    with pytest.raises(ConfigurationError, match="uint8 or uint16"):
        FluorescenceRenderer(FluorescenceModel(), SHAPE, "float32")


def particles(time_s, identity):
    nothing = np.zeros(len(identity))
    return Particles(time_s, np.asarray(identity), *[nothing] * 6)


def test_particles_bleach_from_when_they_came():
    brightness = Brightness(0.3, 2.0, seed=1)
    first = brightness.of(particles(0.0, [0, 1, 2]))
    later = brightness.of(particles(2.0, [2, 0, 5]))
    assert later[:2] == pytest.approx(first[[2, 0]] / np.e)
    assert brightness.of(particles(4.0, [5]))[0] == pytest.approx(later[2] / np.e)
    assert np.std(first) > 0


def test_driven_particles_go_straight_and_switch_at_their_rates():
    rng = np.random.default_rng(0)
    model = SwitchingModel(speed_um_s=3.0, starts_per_s=0.5, stops_per_s=1.5)
    motion = SwitchingMotion(model, 4000, rng)
    assert motion.driven.mean() == pytest.approx(0.25, abs=0.04)
    assert np.linalg.norm(motion.velocity_um_s()[:, motion.driven], axis=0) == pytest.approx(3.0)
    starts = stops = resting_s = driven_s = 0.0
    for _ in range(200):
        before, direction = motion.driven.copy(), motion.direction.copy()
        moved = motion.advance(0.01)
        assert not moved[:, ~before].any()
        stays = before & motion.driven
        assert np.array_equal(direction[:, stays], motion.direction[:, stays])
        starts += np.count_nonzero(~before & motion.driven)
        stops += np.count_nonzero(before & ~motion.driven)
        resting_s += 0.01 * np.count_nonzero(~before)
        driven_s += 0.01 * np.count_nonzero(before)
    assert starts / resting_s == pytest.approx(0.5, rel=0.1)
    assert stops / driven_s == pytest.approx(1.5, rel=0.1)
    assert motion.driven.mean() == pytest.approx(0.25, abs=0.04)
