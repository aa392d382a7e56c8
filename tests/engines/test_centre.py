from __future__ import annotations

import numpy as np
import pytest
from astigmatic import draw
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.classical.centre import (
    CONVERGED,
    FULL_ITERATIONS,
    TOO_FEW_SAMPLES,
    add_particle,
    fit_gaussian,
)
from engines.classical.gaussian import AMPLITUDE, LN_SX, LN_SY, OFFSET, X, Y, solve_spd

SHAPE = (90, 90)


def fit(
    image: np.ndarray, start: tuple[float, float, float, float], *, circular: bool = False
) -> tuple[int, np.ndarray, np.ndarray]:
    x, y, sx, sy = start
    parameters, covariance = np.array([x, y, np.log(sx), np.log(sy), 0, 0]), np.zeros((6, 6))
    result = fit_gaussian(image.astype(np.float32), parameters, 1.0, circular, FULL_ITERATIONS, covariance)
    return result, parameters, covariance


@settings(max_examples=40, deadline=None)
@given(
    x=st.floats(40, 50),
    y=st.floats(40, 50),
    sx=st.floats(1.0, 12.0),
    sy=st.floats(1.0, 12.0),
    factor=st.floats(0.75, 1.35),
)
def test_a_gaussian_without_noise_is_recovered(
    x: float, y: float, sx: float, sy: float, factor: float
) -> None:
    image = draw(SHAPE, x, y, sx, sy, 50.0) + 20.0
    result, p, _ = fit(image, (x + 0.3 * sx, y - 0.3 * sy, factor * sx, sy / factor))
    assert result == CONVERGED
    assert abs(p[X] - x) < 0.02 * max(1, sx / 4)
    assert abs(p[Y] - y) < 0.02 * max(1, sy / 4)
    assert np.exp(p[LN_SX]) == pytest.approx(sx, rel=0.02)
    assert np.exp(p[LN_SY]) == pytest.approx(sy, rel=0.02)
    assert p[AMPLITUDE] == pytest.approx(50, rel=0.03)
    assert p[OFFSET] == pytest.approx(20, abs=0.5)


def test_the_centre_does_not_lock_to_pixels() -> None:
    rng = np.random.default_rng(0)
    phases = np.linspace(-0.5, 0.5, 11)
    bias = []
    for phase in phases:
        clean = draw(SHAPE, 45 + phase, 45 - phase, 1.6, 1.6, 40.0)
        fits = [fit(clean + rng.normal(0, 1, SHAPE), (45, 45, 2, 2), circular=True)[1] for _ in range(40)]
        bias.append(np.mean([[p[X] - 45 - phase, p[Y] - 45 + phase] for p in fits], axis=0))
    assert np.abs(bias).max() < 0.03


@pytest.mark.parametrize(
    ("sx", "sy", "height", "circular"),
    [
        (1.2, 9.0, 9.0, False),
        (4.0, 4.0, 5.0, False),
        (12.0, 4.5, 3.0, False),
        (2.3, 2.3, 15.0, True),
        (1.5, 1.5, 20.0, True),
    ],
)
def test_stated_errors_are_those_that_are_made(sx: float, sy: float, height: float, circular: bool) -> None:
    rng = np.random.default_rng(1)
    scaled = []
    for _ in range(200):
        x, y = 45 + rng.uniform(-0.5, 0.5, 2)
        image = draw(SHAPE, x, y, sx, sy, height) + rng.normal(0, 1, SHAPE)
        result, p, covariance = fit(image, (x, y, sx, sy), circular=circular)
        if result == CONVERGED:
            error = p[:4] - [x, y, np.log(sx), np.log(sy)]
            scaled.append(error / np.sqrt(np.diag(covariance)[:4]))
    assert len(scaled) > 190
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(scaled), axis=0)), 1, atol=0.25)


def test_an_image_cut_by_the_edge_is_fitted_with_what_is_there() -> None:
    result, p, _ = fit(draw(SHAPE, 1.5, 45, 2.0, 2.0, 50.0), (2, 45, 2, 2))
    assert result == CONVERGED
    assert p[X] == pytest.approx(1.5, abs=0.05)


def test_a_particle_outside_of_the_image_is_refused() -> None:
    assert fit(np.zeros(SHAPE), (-20, 45, 2, 2))[0] == TOO_FEW_SAMPLES


def test_noise_without_a_particle_gives_no_particle_of_many_sigmas() -> None:
    rng = np.random.default_rng(2)
    for _ in range(30):
        result, p, covariance = fit(rng.normal(0, 1, SHAPE), (45, 45, 3, 3))
        if result == CONVERGED:
            assert p[AMPLITUDE] < 6 * np.sqrt(covariance[AMPLITUDE, AMPLITUDE])


def test_adding_a_particle_and_taking_it_out_leaves_the_image() -> None:
    image = np.random.default_rng(3).normal(100, 1, SHAPE).astype(np.float32)
    before = image.copy()
    parameters = np.array([88.0, 3.0, np.log(9.0), np.log(2.0), 30.0, 0.0])
    add_particle(image, parameters, 1.0)
    assert image.max() > 120
    add_particle(image, parameters, -1.0)
    np.testing.assert_allclose(image, before, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_the_linear_solver_agrees_with_numpy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    half = rng.normal(size=(6, 6))
    matrix, right = half @ half.T + np.eye(6), rng.normal(size=6)
    solution = right.copy()
    assert solve_spd(matrix.copy(), solution, 6)
    np.testing.assert_allclose(solution, np.linalg.solve(matrix, right), rtol=1e-8, atol=1e-10)


def test_a_matrix_that_is_not_positive_is_refused() -> None:
    assert not solve_spd(-np.eye(3), np.ones(3), 3)
