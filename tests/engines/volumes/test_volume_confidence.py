"""How many maxima noise has, and how sure a particle is: the numbers agree with what is drawn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.volumes.confidence.false_alarms import FalseAlarms, signed_root
from engines.volumes.confidence.mixture import estimate_mixture
from engines.volumes.proposing.matched_filter import MatchedFilter
from engines.volumes.surroundings.background import Background
from engines.volumes.surroundings.noise import Noise

SIGMA = (1.3, 1.3, 1.3)
SHAPE = (10, 200, 200)
LEAST = 2.8


def _places(seed, particles, amplitude, light=200.0):
    """Strengths, strength of an amplitude of 1, and which places are particles, of spots in Poisson noise."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(-0.5, np.array(SHAPE) - 0.5, (particles, 3))
    volume = np.full(SHAPE, light)
    for place in truth:
        box = [slice(max(0, int(c) - 6), min(n, int(c) + 8)) for c, n in zip(place, SHAPE, strict=True)]
        z, y, x = (
            np.exp(-0.5 * ((np.arange(b.start, b.stop) - c) / 1.3) ** 2)
            for b, c in zip(box, place, strict=True)
        )
        volume[tuple(box)] += amplitude * z[:, None, None] * y[:, None] * x
    found = MatchedFilter(SIGMA, LEAST).propose(
        rng.poisson(volume).astype(np.uint16),
        np.zeros(SHAPE[0], bool),
        Background.flat(light, SHAPE[0]),
        Noise(1.0, 0.0, 0.0),
    )
    at = np.stack([found.z, found.y, found.x], axis=1)
    near = np.full(len(found), np.inf)
    for place in truth:
        near = np.minimum(near, np.sqrt(((at - place) ** 2).sum(axis=1)))
    return found.strength, found.strength / found.amplitude, near < 3


def test_noise_has_as_many_maxima_as_the_geometry_of_random_fields_says():
    strength = np.concatenate([_places(seed, 0, 0.0)[0] for seed in range(4)])
    expected = FalseAlarms.of(SHAPE, SIGMA)
    for level in (3.0, 3.4, 3.8):
        number = 4 * float(expected.above(level))
        assert (strength > level).sum() == pytest.approx(number, abs=4 * np.sqrt(number))


def test_the_density_is_the_slope_of_the_number():
    alarms = FalseAlarms.of(SHAPE, SIGMA)
    levels = np.linspace(2.2, 8, 50)
    slope = (alarms.above(levels - 1e-4) - alarms.above(levels + 1e-4)) / 2e-4
    np.testing.assert_allclose(alarms.density(levels), slope, rtol=1e-4)


@given(st.floats(0, 0.3), st.floats(0.1, 8))
def test_a_skewed_answer_counts_less_above_and_keeps_its_order(skewness, strength):
    root = float(signed_root(strength, skewness))
    assert 0 < root <= strength * (1 + 1e-6)
    assert root < float(signed_root(strength * 1.01, skewness))


@pytest.mark.parametrize("particles", [20, 150])
def test_the_sum_of_probabilities_is_the_number_of_particles_kept(particles):
    """Faint particles, strength 4.5, of which noise hides a part."""
    kept = right = expected = 0.0
    for seed in range(6):
        strength, unit, is_particle = _places(seed, particles, 18.4)
        mixture = estimate_mixture(strength, unit, LEAST, FalseAlarms.of(SHAPE, SIGMA))
        p = mixture.probability(strength, unit)
        chosen = p > 0.5
        kept, right, expected = (
            kept + chosen.sum(),
            right + is_particle[chosen].sum(),
            expected + p[chosen].sum(),
        )
    assert kept > 1.5 * particles
    assert right == pytest.approx(expected, abs=4 * np.sqrt(kept - right + 4) + 0.05 * kept)


def test_an_empty_volume_has_no_particle_and_a_bright_one_in_it_is_sure():
    alarms = FalseAlarms.of(SHAPE, SIGMA)
    believed = 0
    for seed in range(5):
        strength, unit, _ = _places(seed, 0, 0.0)
        mixture = estimate_mixture(strength, unit, LEAST, alarms)
        believed += (mixture.probability(strength, unit) > 0.25).sum()
        one = mixture.probability(np.array([8.0, 60.0]), np.full(2, float(np.median(unit))))
        assert (one > 0.99).all()
    assert believed <= 1


def test_a_volume_without_any_place_has_probabilities_too():
    mixture = estimate_mixture(np.empty(0), np.empty(0), LEAST, FalseAlarms.of((1, 50, 50), SIGMA))
    p = mixture.probability(np.array([3.0, 12.0]), np.ones(2))
    assert p[0] < 0.2
    assert p[1] == 1
