"""Training volumes have the statistics that they claim."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.volumes.drawing.light import add_gaussians, counted, light_of
from calibration.volumes.drawing.placing import Crowd, peak_of, place
from calibration.volumes.drawing.source import VolumeSource
from calibration.volumes.drawing.surroundings import Surroundings
from engines.volumes.network.layout import ABSENT
from engines.volumes.psf import VolumePsf
from engines.volumes.surroundings.noise import Noise

EVEN = Surroundings(level=1.0, uneven=0.0, offset=(0.0, 0.0), uneven_offset=0.0, noise=0.0)
NOBODY = Crowd(filled=(1e-9, 2e-9), beyond=0.0)
SOURCE = VolumeSource(
    (1.2, 1.5, 1.5), Noise(2.0, 100.0, 9.0), 40.0, NOBODY, EVEN, slices=(8, 8), gaps=0.0, unlike=0.0
)


@pytest.mark.parametrize("light", [3.0, 40.0, 600.0])
@pytest.mark.parametrize("noise", [Noise(2.0, 100.0, 9.0), Noise(1.0, 0.0, 0.0), Noise(0.0, 10.0, 16.0)])
def test_a_background_alone_has_mean_0_and_variance_1(noise, light):
    source = replace(SOURCE, noise=noise, light=light)
    values = source.draw(np.random.default_rng(0), (96, 96), 4).images
    # whole grey values add a variance of a twelfth
    expected = 1 + (1 / 12 if noise.gain != 1.0 else 0) / float(noise.variance(noise.offset + light))
    assert values.mean() == pytest.approx(0, abs=0.01)
    assert values.var() == pytest.approx(expected, rel=0.05)


def test_photoelectrons_have_the_mean_variance_and_skewness_of_poissons_numbers():
    rng = np.random.default_rng(1)
    for mean in (0.4, 3.0, 6.0, 9.0, 40.0):
        numbers = counted(np.full(400_000, mean, np.float32), rng)
        assert (numbers == np.rint(numbers)).all()
        assert numbers.min() >= 0
        assert numbers.mean() == pytest.approx(mean, rel=0.01)
        assert numbers.var() == pytest.approx(mean, rel=0.03)
        skewness = ((numbers - numbers.mean()) ** 3).mean() / numbers.std() ** 3
        assert skewness == pytest.approx(mean**-0.5, rel=0.12)


@given(st.floats(0.5, 60), st.floats(0.1, 1e4), st.floats(0, 20))
def test_a_peak_has_its_signal_to_noise_ratio(snr, variance, gain):
    peak = float(peak_of(snr, variance, gain))
    assert peak / math.sqrt(gain * peak + variance) == pytest.approx(snr, rel=1e-6)


def test_a_particle_gives_the_light_of_its_psf():
    centres = np.array([[4.3, 20.2, 25.7], [7.8, 1.0, 40.0]])
    sigmas = np.array([[1.2, 1.5, 1.7], [1.0, 2.0, 1.4]])
    light = np.zeros((2, 9, 40, 50), np.float32)
    add_gaussians(light, np.array([1, 0]), centres, np.array([10.0, 3.0]), sigmas)
    z, y, x = np.meshgrid(*(np.arange(size) for size in light.shape[1:]), indexing="ij")
    for volume, centre, sigma, peak in zip((1, 0), centres, sigmas, (10.0, 3.0), strict=True):
        away = ((z - centre[0]) / sigma[0]) ** 2 + ((y - centre[1]) / sigma[1]) ** 2
        away = away + ((x - centre[2]) / sigma[2]) ** 2
        assert light[volume] == pytest.approx(peak * np.exp(-0.5 * away), abs=peak * 1e-4)


def test_a_measured_psf_is_drawn_as_measured():
    step, voxel = (0.1, 0.05, 0.05), (0.2, 0.1, 0.1)
    axes = [(np.arange(n) - n // 2) * d for n, d in zip((21, 25, 25), step, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    psf = VolumePsf.measured(np.exp(-0.5 * ((z / 0.3) ** 2 + (y / 0.15) ** 2 + (x / 0.2) ** 2)), step, voxel)
    light, centre = np.zeros((1, 10, 30, 32), np.float32), np.array([[5.2, 14.6, 15.1]])
    add = light_of(psf)
    add(light, np.array([0]), centre, np.array([50.0]), np.array([psf.sigma_voxels]))
    places = np.meshgrid(*(np.arange(size) for size in light.shape[1:]), indexing="ij")
    off = [(grid - at) * v for grid, at, v in zip(places, centre[0], voxel, strict=True)]
    expected = 50 * psf.value(*off)
    near = np.sqrt(sum((o / s) ** 2 for o, s in zip(off, psf.sigma_um, strict=True))) < 1.5
    assert light[0][near] == pytest.approx(expected[near], abs=0.05)
    wider = np.zeros_like(light)
    add(wider, np.array([0]), centre, np.array([50.0]), 1.1 * np.array([psf.sigma_voxels]))
    assert wider.sum() == pytest.approx(1.1**3 * light.sum(), rel=0.03)


def test_bright_particles_are_seen_where_they_are():
    crowd = Crowd((4e-3, 5e-3), 0.0, snr=(20.0, 20.0), bright=0.0, spread=0.0, mixed=0.0, beyond=0.0)
    scene = replace(SOURCE, crowd=crowd).draw(np.random.default_rng(2), (64, 64), 8)
    assert len(scene.peak) > 3
    for volume, centre, brightness in zip(scene.volume, scene.centres, scene.brightness, strict=True):
        k, j, i = np.clip(np.rint(centre), 0, np.array(scene.images.shape[1:]) - 1).astype(int)
        seen = scene.images[volume, k, j, i]
        off = (np.array([k, j, i]) - centre) / np.array(SOURCE.sigma)
        expected = math.exp(brightness) * math.exp(-0.5 * float(off @ off))
        noise = math.sqrt(1 + 2.0 * expected / math.sqrt(float(SOURCE.noise.variance(140.0))))
        assert abs(seen - expected) < 5 * noise


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.floats(0, 1), st.floats(0, 1))
def test_volumes_of_any_depth_say_what_is_in_them(seed, depth, grouped, gaps):
    source = replace(SOURCE, crowd=Crowd(grouped=grouped), slices=(depth, depth), gaps=gaps, unlike=0.05)
    scene = source.draw(np.random.default_rng(seed), (16, 24), 3)
    assert scene.images.shape == (3, depth + depth % 2, 16, 24)
    assert scene.images.dtype == np.float32
    absent = (scene.images == ABSENT).all(axis=(2, 3))
    assert (absent[:, :depth] == scene.missing).all()
    assert absent[:, depth:].all()
    assert not scene.missing.all(axis=1).any() or depth == 1
    present = np.broadcast_to(~absent[:, :, None, None], scene.images.shape)
    assert np.isfinite(scene.images).all()
    assert (np.abs(scene.images[present]) < 1e4).all()
    assert ((scene.centres >= -0.5) & (scene.centres < np.array([depth, 16, 24]) - 0.5)).all()
    assert len(scene.volume) == len(scene.centres) == len(scene.peak) == len(scene.brightness)
    assert (scene.peak > 0).all()


def test_crowds_have_the_density_and_the_neighbours_that_were_asked_for():
    shape, sigma, rng = (20, 100, 100), (1.3, 1.3, 1.3), np.random.default_rng(3)
    per_voxel = 0.01 / ((2 * math.pi) ** 1.5 * 1.3**3)
    alone = Crowd((0.01, 0.01), 0.0, beyond=0.0)
    close = replace(alone, grouped=1.0, near=(1.0, 1.0))

    def distances(crowd: Crowd) -> tuple[float, float]:
        placed = [place(crowd, rng, shape, sigma) for _ in range(10)]
        count = float(np.mean([len(p.snr) for p in placed]))
        near = []
        for p in placed:
            apart = np.linalg.norm(p.centres[:, None] - p.centres[None], axis=-1)
            np.fill_diagonal(apart, np.inf)
            near.append((apart.min(axis=1) < 3.9).mean())
        return count, float(np.mean(near))

    (count, few), (_, many) = distances(alone), distances(close)
    assert count == pytest.approx(per_voxel * 200_000, rel=0.12)
    assert few < 0.15
    assert many > few + 0.35


def test_a_seed_gives_the_same_volumes_again():
    source = VolumeSource((1.3, 1.3, 1.3), Noise(1.0, 0.0, 0.0), 10.0)
    first, again, other = (source.draw(np.random.default_rng(seed), (32, 32), 2) for seed in (5, 5, 6))
    assert (first.images == again.images).all()
    assert (first.centres == again.centres).all()
    assert first.images.shape != other.images.shape or (first.images != other.images).any()
