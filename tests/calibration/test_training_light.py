"""Training images are as dark and as noisy as an experiment may be, not only as the calibration was."""

from dataclasses import replace

import numpy as np
import pytest
from training_particles import gaussian_cutouts, gaussian_model, noise_cutouts

from calibration.synthesis import CutAndPaste, Distribution, Layout, NoiseModel, Rendered
from calibration.synthesis.canvas import Canvas
from calibration.synthesis.sources import View

NOISE = NoiseModel.steady(1e-5, 1e-5, 1000.0)
SPARSE = Layout(density_per_px=(4e-5, 4e-5), overlapped=0.0)
FACTORS = Distribution.uniform(0.5, 1.5)


def sources(noise=NOISE, layout=SPARSE):
    cutouts = gaussian_cutouts(NOISE, 200)
    return [
        CutAndPaste(cutouts, noise, None, layout, exposure=FACTORS),
        Rendered(gaussian_model(), noise, None, layout, exposure=FACTORS),
    ]


@pytest.mark.parametrize("which", [0, 1])
def test_all_particles_of_an_image_are_brighter_by_one_factor_that_its_truth_has(which):
    scene = sources(layout=Layout(density_per_px=(1e-3, 1e-3)))[which].draw(
        np.random.default_rng(0), (96, 96), 40
    )
    truth = scene.particles
    factors = [truth.brightness[truth.frame == frame] for frame in range(40)]
    assert all(np.ptp(some) < 1e-9 for some in factors)
    means = np.array([some.mean() for some in factors])
    assert means.min() < 0.6
    assert means.max() > 1.4


@pytest.mark.parametrize("which", [0, 1])
def test_the_image_of_a_particle_is_brighter_by_the_factor(which):
    source, pictures = sources(replace(NOISE, read=0.0, shot=1e-12))[which], []
    for factor in (1.0, 0.6):
        canvas = Canvas.empty((128, 160))
        source.place(np.random.default_rng(3), canvas, View(brightness=factor))
        pictures.append(canvas)
    np.testing.assert_allclose(pictures[1].contrast, 0.6 * pictures[0].contrast, atol=1e-6)
    np.testing.assert_allclose(pictures[1].variance, 0.36 * pictures[0].variance, atol=1e-12)


@pytest.mark.parametrize(("level", "expected"), [(0.5, 0.5), (1.0, 1.0), (1.5, 1.5), (0.2, 0.45)])
def test_the_noise_is_the_level_that_was_drawn_within_cutouts_too(level, expected):
    """Down to that of the mean of a cut-out's four repeats, which cannot be taken off."""
    noise = replace(NOISE, level=Distribution.constant(level))
    cutouts = noise_cutouts(NOISE, 300, 4)
    source = CutAndPaste(cutouts, noise, None, Layout((1e-3, 1e-3)), exposure=Distribution.constant(0.9))
    images = source.draw(np.random.default_rng(1), (96, 96), 60).images
    assert images.std() == pytest.approx(expected * np.sqrt(2e-5), rel=0.05)
