"""Noise far from normal (clipped, below a grey value, single counts): as few false particles as in any other."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from engines.classical.coarse_noise import PixelNoise, is_coarse, level_as_rare, noise_of
from engines.classical.detector import SpotDetector
from engines.classical.spots import FALSE_ALARMS_PER_FRAME, SpotFilter, Template
from engines.pixel_noise import pixel_noise
from engines.settings import DetectorSettings

SIDE = 400
FRAMES = 20
Draw = Callable[[np.random.Generator], npt.NDArray[np.float64]]


def normal(background: float, sigma: float) -> Draw:
    return lambda rng: np.round(rng.normal(background, sigma, (SIDE, SIDE)))


def counts(mean: float) -> Draw:
    return lambda rng: rng.poisson(mean, (SIDE, SIDE)).astype(float)


def across(low: float, high: float, sigma: float) -> Draw:
    return lambda rng: np.round(rng.normal(np.linspace(low, high, SIDE)[None], sigma, (SIDE, SIDE)))


NOISES = {
    "clipped at zero, 0.3": normal(0, 0.3),
    "clipped at zero, 1": normal(0, 1),
    "clipped at zero, 3": normal(0, 3),
    "clipped at zero, 12": normal(-5, 12),
    "near zero": normal(2, 1),
    "below a grey value, 0.1": normal(20, 0.1),
    "below a grey value, 0.3": normal(20, 0.3),
    "half a grey value": normal(128, 0.5),
    "clipped at saturation": normal(255, 3),
    "near saturation": normal(254, 1),
    "single counts, 0.01": counts(0.01),
    "single counts, 0.05": counts(0.05),
    "single counts, 0.2": counts(0.2),
    "few counts": counts(1.0),
    "some counts": counts(5.0),
    "partly dark": across(-3, 6, 2),
    "constant": lambda _: np.full((SIDE, SIDE), 7.0),
    "nothing": lambda _: np.zeros((SIDE, SIDE)),
    "ordinary": normal(100, 5),
}


@pytest.mark.parametrize("name", NOISES)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_an_empty_frame_has_a_false_particle_in_ten(name: str, sign: float) -> None:
    rng = np.random.default_rng(0)
    detector = SpotDetector(SIDE, SIDE, DetectorSettings(), 1.0)
    found = sum(
        detector.detect(np.clip(NOISES[name](rng), 0, 255).astype(np.uint8), sign)[0].shape[1]
        for _ in range(FRAMES)
    )
    assert found <= stats.poisson.ppf(0.999, 1.5 * FRAMES * FALSE_ALARMS_PER_FRAME)


@pytest.mark.parametrize(
    ("background", "amplitude"),
    [(counts(0.5), 6), (normal(20, 0.3), 2), (normal(0, 3), 12), (counts(0.05), 4), (normal(0, 0.3), 3)],
)
def test_particles_are_found_in_such_noise(background: Draw, amplitude: float) -> None:
    rng = np.random.default_rng(1)
    grid = np.arange(25, SIDE - 20, 35)
    x, y = (v.ravel() + rng.uniform(-5, 5, v.size) for v in np.meshgrid(grid, grid))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    light = sum(
        amplitude * np.exp(-((rows - b) ** 2 + (columns - a) ** 2) / 8) for a, b in zip(x, y, strict=True)
    )
    image = np.clip(background(rng) + rng.poisson(light), 0, 255).astype(np.uint8)
    table, _ = SpotDetector(SIDE, SIDE, DetectorSettings(), 1.0).detect(image, 1.0)
    apart = np.hypot(table[0][:, None] - x, table[1][:, None] - y)
    assert (apart.min(axis=0) < 2).mean() > 0.9
    assert (apart.min(axis=1) >= 3).sum() <= 2


def test_noise_is_coarse_where_many_pixels_have_the_least_or_the_greatest_value_near_the_median() -> None:
    rng = np.random.default_rng(2)

    def coarse(name: str) -> bool:
        image = np.clip(NOISES[name](rng), 0, 255).astype(np.float32)
        return is_coarse(image, max(0.3, pixel_noise(image, 1)))

    assert all(coarse(name) for name in NOISES if "clipped" in name or "below" in name or "single" in name)
    assert not coarse("ordinary")
    bubble = NOISES["ordinary"](rng).astype(np.float32)
    bubble[:100, :100] = 255
    bubble[-100:, :100] = 0
    assert not is_coarse(bubble, 5.0)


@given(st.floats(0.2, 50.0), st.floats(3.0, 7.0))
def test_of_normal_noise_the_level_is_the_threshold_in_standard_deviations(
    sigma: float, threshold: float
) -> None:
    quantiles = stats.norm.ppf((np.arange(4000) + 0.5) / 4000) * sigma
    noise = PixelNoise(quantiles, np.full(4000, 1 / 4000))
    bank = SpotFilter(64, 64, [Template(2.0, 2.0)])._filters[0]
    weights, number = bank.weights(2)
    expected = threshold * sigma * math.sqrt(float(number @ weights**2))
    assert level_as_rare(noise, weights, number, threshold) == pytest.approx(expected, rel=0.01)


def test_the_weights_of_a_filter_are_those_of_its_gain() -> None:
    for template in (Template(1.3, 1.3), Template(2.0, 6.0), Template(9.0, 4.0)):
        spots = SpotFilter(256, 256, [template])
        (bank,), binning = spots._filters, spots._levels[0]
        weights, number = bank.weights(binning)
        assert math.sqrt(float(number @ weights**2)) == pytest.approx(bank.gain(binning), rel=1e-5)
        assert float(number @ weights) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("draw", "sigma"),
    [
        (normal(20, 0.3), math.sqrt(2 * stats.norm.sf(0.5 / 0.3))),
        (normal(20, 0.1), 0.0),
        (counts(0.05), math.sqrt(0.05)),
        (counts(0.3), math.sqrt(0.3)),
        (counts(4.0), 2.0),
        (normal(100, 5), 5.0),
    ],
)
def test_the_noise_of_pixels_is_right_below_a_grey_value_too(draw: Draw, sigma: float) -> None:
    image = draw(np.random.default_rng(3)).astype(np.float32)
    assert pixel_noise(image, 1) == pytest.approx(sigma, rel=0.06, abs=0.01)
    smooth = image + np.float32(0.0)
    smooth[100:140, 100:140] += 200  # an object's edge is no noise
    assert pixel_noise(smooth, 1) == pytest.approx(sigma, rel=0.06, abs=0.02)


def test_a_distribution_is_not_taken_from_too_few_pixels() -> None:
    image = np.random.default_rng(4).poisson(0.1, (64, 64)).astype(np.float32)
    everywhere = np.array([[32.0], [32.0], [100.0]])
    assert noise_of(image, everywhere, 0.3, 1.0) is None
    assert noise_of(image, np.empty((3, 0)), 0.3, 1.0) is not None
    assert noise_of(np.zeros((64, 64), np.float32), np.empty((3, 0)), 0.3, 1.0) is None
