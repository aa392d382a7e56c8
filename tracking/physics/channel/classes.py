"""Sorts tracks into those that follow the flow, particles that are stuck, and wrong links or ghost particles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tracking.analysis.robust import SIGMA_OF_MAD

FloatArray = npt.NDArray[np.float64]

FOLLOWS, STUCK, WRONG = range(3)
"""The classes, in the order of `Classes.probability`."""
BROADER = 2.0
"""Velocities of wrong tracks scatter about the median of all with this times the standard deviation of all: what a
wrong link can be is decided by the tracker's gate. The classes change little between 1 and 5."""
FIRST_SHARES = (0.94, 0.03, 0.03)
"""Shares of the classes before they are learnt, and what they are held to with the weight of `HELD_TRACKS`."""
HELD_TRACKS = 10.0
ROUNDS = 8
"""Rounds of expectation and maximisation for given residuals; the shares then change by less than 1e-3."""
LEAST_DISPERSION = 0.2
"""Stated standard errors are never taken as larger than 5 times the true ones."""


@dataclass(frozen=True, slots=True, eq=False)
class Classes:
    """Probability of each class, (3, M), their shares (3,), and the dispersion of the errors, (3,).

    `dispersion` is the true standard error of the tracks that follow the flow over the stated one, for each axis.
    """

    probability: FloatArray
    shares: FloatArray
    dispersion: FloatArray


def classify(
    residual_um_s: FloatArray, variance: FloatArray, velocity_um_s: FloatArray, own_variance: FloatArray
) -> Classes:
    """Learn a mixture of the three classes from M tracks, by expectation and maximisation.

    `residual_um_s` (3, M), measured less expected velocity, has the `variance` (3, M) if the track follows the
    flow. The measured velocity `velocity_um_s` has its `own_variance` (3, M) about 0 if the particle is stuck, and
    scatters as broadly as all velocities if the track is wrong.
    """
    middle = np.median(velocity_um_s, axis=1, keepdims=True)
    broad = (BROADER * SIGMA_OF_MAD) ** 2 * np.median((velocity_um_s - middle) ** 2, axis=1, keepdims=True)
    broad = broad + np.median(variance, axis=1, keepdims=True) * BROADER**2 + variance
    # Logarithms of normal densities, but for a constant, in parts that do not change from round to round.
    square, of_rest = residual_um_s**2 / variance, velocity_um_s**2 / own_variance
    log_variance, log_of_rest = np.log(variance).sum(axis=0), np.log(own_variance).sum(axis=0)
    logs = np.empty((3, residual_um_s.shape[1]))
    wrong = -0.5 * ((velocity_um_s - middle) ** 2 / broad + np.log(broad)).sum(axis=0)
    dispersion = np.maximum(SIGMA_OF_MAD * np.median(np.sqrt(square), axis=1), LEAST_DISPERSION)
    shares = np.array(FIRST_SHARES)
    probability = np.empty((3, residual_um_s.shape[1]))
    for _ in range(ROUNDS):
        precision, log_of_all = 1.0 / dispersion**2, np.log(dispersion**2).sum()
        logs[FOLLOWS] = -0.5 * (precision @ square + log_variance + log_of_all) + np.log(shares[FOLLOWS])
        logs[STUCK] = -0.5 * (precision @ of_rest + log_of_rest + log_of_all) + np.log(shares[STUCK])
        logs[WRONG] = wrong + np.log(shares[WRONG])
        probability = np.exp(logs - logs.max(axis=0))
        probability /= probability.sum(axis=0)
        follows = probability[FOLLOWS]
        shares = probability.sum(axis=1) + HELD_TRACKS * np.array(FIRST_SHARES)
        shares /= shares.sum()
        spread = square @ follows / max(float(follows.sum()), 1e-300)
        dispersion = np.maximum(np.sqrt(spread), LEAST_DISPERSION)
    return Classes(probability, shares, dispersion)
