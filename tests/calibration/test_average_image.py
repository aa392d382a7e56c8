"""The PSF shows the particle alone, and is as clean as its spectrum allows."""

from __future__ import annotations

import numpy as np
from test_alignment import HALF, STEP_UM, traces
from training_particles import gaussian_model

from calibration.alignment.denoise import wiener
from calibration.alignment.joint import align
from calibration.alignment.neighbours import without_neighbours


def test_noise_is_taken_out_of_average_images_and_the_particle_stays():
    rng = np.random.default_rng(0)
    clean = gaussian_model().images(np.linspace(-50, 50, 41)).astype(np.float64)
    noise = 0.001 * rng.normal(size=clean.shape)
    found = wiener(clean + noise)
    left = (found - clean).std() / noise.std()
    assert left < 0.5
    slope = np.diff(found - clean, axis=2).std() / np.diff(noise, axis=2).std()
    assert slope < 0.3
    np.testing.assert_allclose(found.max(axis=(1, 2)), clean.max(axis=(1, 2)), rtol=0.1)


def test_images_without_noise_stay_as_they_are():
    clean = gaussian_model().images(np.linspace(-50, 50, 21)).astype(np.float64)
    np.testing.assert_allclose(wiener(clean), clean, atol=1e-4 * clean.max())


def test_a_neighbour_in_a_corner_leaves_no_ghost_in_the_average():
    images, focus, true = traces(11, count=12)
    lone = align(images, focus, true, z_step_um=STEP_UM)
    rng = np.random.default_rng(0)
    for index in rng.choice(12, 3, replace=False):  # an in-focus neighbour that stays in its corner
        y, x = np.mgrid[-HALF : HALF + 1, -HALF : HALF + 1]
        images[index] += np.exp(-((x - 9) ** 2 + (y - 8) ** 2) / 8).astype(np.float32)
    found = align(images, focus, true, z_step_um=STEP_UM)
    again = found
    for _ in range(3):
        clean = without_neighbours(images, again, focus, 0.02**2)
        again = align(clean, focus, again.positions, z_step_um=STEP_UM, max_steps=2)

    def ghost(aligned):
        known = aligned.information > 0.5 * np.median(aligned.information)
        return float(aligned.images(known)[:, HALF + 6 : HALF + 11, HALF + 7 : HALF + 12].mean())

    assert ghost(found) - ghost(lone) > 0.1
    assert abs(ghost(again) - ghost(lone)) < 0.2 * (ghost(found) - ghost(lone))
