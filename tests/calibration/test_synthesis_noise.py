from copy import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_particles import HALF_PX, SILENCE, gaussian_cutouts, gaussian_model, noise_cutouts

from calibration.synthesis import BackgroundModel, CutAndPaste, Distribution, Layout, NoiseModel, Rendered
from calibration.synthesis.canvas import Canvas, Light, Pasted, Scale, Stock, develop, paste
from calibration.synthesis.reach import mask

NOISE = NoiseModel.steady(2e-5, 4e-5, 2000.0)
WANTED = NOISE.read + NOISE.shot
SHAPE = (96, 96)
IMAGES = 40
CONTRAST = Scale.of(np.dtype(np.float32), -1.0, NOISE.grey)


def stacked(cutouts, overlapping, reach_px, seed, light=None, images=IMAGES):
    """Images (B, H, W) of so many cut-outs on top of one another, in the middle."""
    rng = np.random.default_rng(seed)
    count = cutouts.z_um.size
    found = np.empty((images, *SHAPE), np.float32)
    place = np.full(overlapping, SHAPE[0] // 2)
    for image in found:
        canvas = Canvas.empty(SHAPE)
        reach = np.full((count, 2), reach_px)
        stock = Stock(cutouts.contrast, cutouts.scale, np.zeros(count), reach, cutouts.dx_px, cutouts.dy_px)
        chosen = rng.permutation(count)[:overlapping]
        repeat = rng.integers(0, cutouts.repeats, overlapping)
        paste(canvas, stock, Light(-1.0, 1.0, NOISE.read, NOISE.shot), Pasted(chosen, repeat, place, place))
        white = rng.standard_normal(SHAPE, np.float32)
        develop(
            canvas, light or Light(-1.0, 1.0, NOISE.read, NOISE.shot), CONTRAST, cutouts.repeats, white, image
        )
    return found


def middle_and_rim(reach_px):
    distance = np.abs(np.arange(SHAPE[0]) - SHAPE[0] // 2)
    far = np.maximum(distance[:, None], distance)
    return far <= reach_px, (far > reach_px) & (far < reach_px + 5)


@settings(max_examples=12, deadline=None)
@given(st.integers(2, 6), st.integers(1, 6), st.integers(0, 1000))
def test_overlaps_are_as_noisy_as_the_rest_for_any_number_up_to_the_repeats(repeats, overlapping, seed):
    overlapping = min(overlapping, repeats)
    cutouts = noise_cutouts(NOISE, 40, repeats, seed)
    images = stacked(cutouts, overlapping, 20.0, seed)
    middle, rim = middle_and_rim(20.0)
    # 67,000 and 42,000 pixels: standard errors of 0.5 and 0.7 %; cut-outs repeat, so somewhat more
    assert images[:, middle].var() == pytest.approx(WANTED, rel=0.03)
    assert images[:, rim].var() == pytest.approx(WANTED, rel=0.03)
    assert images[:, ~(middle | rim)].var() == pytest.approx(WANTED, rel=0.02)


def test_beyond_the_repeats_the_noise_grows_as_the_overlap():
    images = stacked(noise_cutouts(NOISE, 40, 3), 6, 20.0, 1)
    middle, _ = middle_and_rim(20.0)
    assert images[:, middle].var() == pytest.approx(2 * WANTED, rel=0.05)


@pytest.mark.parametrize(("level", "background"), [(0.7, 1.0), (1.5, 1.0), (1.0, 0.9), (1.2, 1.1)])
def test_noise_level_and_background_of_an_image_hold_within_cutouts_too(level, background):
    light = Light(-1.0, background, NOISE.read * level**2, NOISE.shot * level**2)
    images = stacked(noise_cutouts(NOISE, 40, 4), 2, 20.0, 3, light)
    middle, _ = middle_and_rim(20.0)
    wanted = level**2 * (NOISE.read + NOISE.shot * background)
    for part in (middle, ~middle):
        assert images[:, part].var() == pytest.approx(wanted, rel=0.03)
        assert images[:, part].mean() == pytest.approx(1 - background, abs=1e-3)


def test_noise_stays_white_under_masks_and_overlaps():
    images = stacked(noise_cutouts(NOISE, 80, 4), 3, 20.0, 4)
    middle, rim = middle_and_rim(20.0)
    inside = np.where(middle | rim, images, np.nan)
    for one, other in ((inside[:, 1:], inside[:, :-1]), (inside[..., 1:], inside[..., :-1])):
        assert abs(np.nanmean(one * other)) < 0.02 * WANTED


def test_a_lone_cutout_shows_the_very_pixels_of_one_repeat():
    cutouts = noise_cutouts(NOISE, 1, 4)
    image = stacked(cutouts, 1, 20.0, 5, images=1)[0]
    middle = image[48 - 20 : 48 + 21, 48 - 20 : 48 + 21]
    inner = slice(HALF_PX - 20, HALF_PX + 21)
    apart = [np.abs(middle - shown[inner, inner] * cutouts.scale).max() for shown in cutouts.contrast[0]]
    assert min(apart) < 1e-6


@pytest.mark.parametrize("polarity", ["dark", "bright"])
def test_in_whole_scenes_the_noise_is_the_same_wherever_particles_are(polarity):
    noisy = gaussian_cutouts(NOISE, 400, 4, polarity)
    layout = Layout(density_per_px=(1e-4, 2e-3))
    source = CutAndPaste(noisy, NOISE, None, layout)
    clean = copy(source)
    clean.cutouts, clean.noise = gaussian_cutouts(SILENCE, 400, 4, polarity), SILENCE
    np.testing.assert_array_equal(clean.cutouts.z_um, noisy.z_um)
    source.level[:] = 0
    scenes = [s.draw(np.random.default_rng(6), (200, 200), 60) for s in (source, clean)]
    truth = scenes[1].images
    sign = -1 if polarity == "dark" else 1
    noise = (scenes[0].images - truth) / np.sqrt(NOISE.read + NOISE.shot * (1 + sign * truth))
    crowd = coverage(source, scenes[0])
    for low, high in ((-0.5, 0.01), (0.01, 0.99), (0.99, 1.01), (1.5, 2.5), (2.5, 3.99)):
        part = noise[(crowd > low) & (crowd < high)]
        assert part.size > 15_000
        assert part.var() == pytest.approx(1, abs=0.03)
        assert part.mean() == pytest.approx(0, abs=0.02)


def coverage(source, scene):
    """Sum of the squared masks at each pixel, (B, H, W)."""
    total = np.zeros(scene.images.shape)
    rows, columns = (np.arange(n) for n in scene.images.shape[1:])
    smooth = np.vectorize(mask.py_func)
    for particles in (scene.particles, scene.outside):
        for n in range(len(particles)):
            (index,) = np.nonzero(source.cutouts.z_um == particles.z_um[n])
            reach_y, reach_x = source.reach_px[index[0]]
            across = smooth(columns - particles.x_px[n], reach_x)
            total[particles.frame[n]] += np.outer(smooth(rows - particles.y_px[n], reach_y), across) ** 2
    return total


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("source", ["pasted", "rendered"])
def test_grey_values_have_the_reference_brightness_and_the_noise_with_rounding_included(dtype, source):
    grey = 180.0 if dtype == np.uint8 else 3000.0
    noise = NoiseModel.steady(0.0, (1.1 / 180) ** 2, grey)
    nothing = Layout(density_per_px=(0, 0))
    full = Layout(density_per_px=(1e-3, 1e-3), overlapped=1.0)
    for layout in (nothing, full):
        if source == "pasted":
            drawn = CutAndPaste(noise_cutouts(noise, 40, 5), noise, None, layout)
        else:
            faint = Distribution.constant(0.0)
            drawn = Rendered(gaussian_model(), noise, None, layout, brightness=faint)
        images = drawn.draw(np.random.default_rng(0), (128, 128), 12, dtype).images
        assert images.dtype == dtype
        assert images.mean() == pytest.approx(grey, rel=1e-3)
        assert images.var() / grey**2 == pytest.approx(noise.shot, rel=0.03)


def test_every_image_has_a_background_and_a_noise_level_of_its_own():
    noise = NoiseModel(1e-4, 0.0, 100.0, Distribution.uniform(0.8, 1.2), Distribution.uniform(0.5, 2.0))
    source = Rendered(gaussian_model(), noise, None, Layout(density_per_px=(0, 0)))
    images = source.draw(np.random.default_rng(0), (64, 64), 200).images
    assert np.ptp(images.mean(axis=(1, 2))) == pytest.approx(0.4, rel=0.1)
    sd = images.std(axis=(1, 2))
    assert sd.min() == pytest.approx(0.005, rel=0.1)
    assert sd.max() == pytest.approx(0.02, rel=0.1)


def test_a_scan_with_one_image_a_plane_can_be_pasted_and_overlaps_are_noisier():
    images = stacked(noise_cutouts(NOISE, 40, 1), 2, 20.0, 1)
    middle, _ = middle_and_rim(20.0)
    assert images[:, middle].var() == pytest.approx(2 * WANTED, rel=0.05)


def test_bright_background_patterns_are_noisier_and_dark_ones_less_so():
    noise = NoiseModel.steady(0.0, 1e-4, 1000.0)
    pattern = BackgroundModel((400, 400), (400, 400), 0.4, (-2.9, -2.9))
    for polarity, sign in (("dark", -1), ("bright", 1)):
        source = Rendered(gaussian_model(polarity), noise, pattern, Layout(density_per_px=(0, 0)))
        images = source.draw(np.random.default_rng(2), (64, 64), 30).images
        for image in images:
            patch = image[:32, :32]
            ripple = (patch[1:] - patch[:-1]).var() / 2
            assert ripple == pytest.approx(1e-4 * (1 + sign * patch.mean()), rel=0.2)
