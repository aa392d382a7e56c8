"""Mean squared displacements and exponents are those of the motion, with errors that know of their correlation."""

from __future__ import annotations

import numpy as np
import pytest
from brownian_tracks import brownian_tracks

from stream.errors import ConfigurationError
from tracking.physics.diffusion.msd import anomalous_exponent, mean_squared_displacements

DT = 0.04


def curves(seed, lags=10, drift=False, **made):
    track, time_s, position = brownian_tracks(seed, axes=1, velocity_um_s=3.0 if drift else 0.0, **made)
    return mean_squared_displacements(track, np.rint(time_s / DT), position, DT, lags=lags, drift=drift)


@pytest.mark.parametrize("made", [{"tracks": 60, "frames": 50}, {"tracks": 1, "frames": 300}])
def test_errors_are_the_scatter_of_repeated_experiments(made):
    found = [curves(seed, **made) for seed in range(60)]
    msd = np.array([one.msd_um2[0] for one in found])
    assert msd.mean(axis=0) == pytest.approx(0.8 * found[0].lag_s + 2 * 0.05**2, rel=0.08)
    stated = np.sqrt(np.mean([one.standard_error_um2[0] ** 2 for one in found], axis=0))
    assert stated == pytest.approx(msd.std(axis=0, ddof=1), rel=0.35)
    correlation = np.corrcoef(msd[:, 4], msd[:, 8])[0, 1]
    covariance = np.mean([one.covariance_um4[0] for one in found], axis=0)
    expected = covariance[4, 8] / np.sqrt(covariance[4, 4] * covariance[8, 8])
    assert expected == pytest.approx(correlation, abs=0.15)


def test_brownian_motion_has_the_exponent_one_with_the_error_stated():
    found = [anomalous_exponent(curves(seed, lags=12, tracks=80, frames=60)) for seed in range(40)]
    alpha = np.array([one.alpha for one in found])
    stated = np.array([one.standard_error_alpha for one in found])
    assert abs(alpha.mean() - 1.0) < 3.5 * alpha.std() / np.sqrt(alpha.size)
    assert np.sqrt((stated**2).mean()) == pytest.approx(alpha.std(ddof=1), rel=0.35)


def test_motion_that_is_not_brownian_has_another_exponent():
    frames, tracks = 64, 200
    lag = np.arange(frames)
    for alpha in (0.6, 1.4):
        # fractional Brownian motion, from the covariance of its positions
        t = np.arange(1, frames + 1) * DT
        position_covariance = 0.5 * (
            t[:, None] ** alpha + t[None] ** alpha - np.abs(t[:, None] - t[None]) ** alpha
        )
        root = np.linalg.cholesky(position_covariance)
        x = np.random.default_rng(5).normal(size=(tracks, frames)) @ root.T
        found = mean_squared_displacements(
            np.repeat(np.arange(tracks), frames), np.tile(lag, tracks), x.reshape(1, -1), DT, drift=False
        )
        exponent = anomalous_exponent(found)
        assert exponent.alpha == pytest.approx(alpha, abs=4 * exponent.standard_error_alpha)
        assert exponent.standard_error_alpha < 0.1


def test_a_common_velocity_is_subtracted():
    with_drift, without = curves(1, drift=True, tracks=200), curves(1, drift=False, tracks=200)
    assert with_drift.msd_um2 == pytest.approx(without.msd_um2, rel=0.05)


def test_tracks_without_pairs_are_refused():
    with pytest.raises(ConfigurationError, match="longer tracks"):
        mean_squared_displacements([0, 1], [0, 0], np.zeros((1, 2)), DT)
    with pytest.raises(ConfigurationError, match="longer tracks"):
        mean_squared_displacements([], [], np.zeros((1, 0)), DT)
