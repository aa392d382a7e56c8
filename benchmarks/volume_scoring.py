"""Scores of particles found in a volume: F1 and RMSE as published, and errors over the Cramer-Rao bound."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

GATE = 5.0
"""Voxels within which a detection is of a particle (Spilger et al.; the challenge cuts distances off there)."""
LONE = 8.0
"""Voxels to the nearest other particle from which on a particle of 1.3 voxels is a lone one: six deviations."""
END = 2.5
"""Voxels from the first or last slice within which a particle is at an end of the stack: two deviations."""


def pairs(truth: FloatArray, found: FloatArray, gate: float = GATE) -> tuple[IntArray, IntArray, FloatArray]:
    """True and found points (N, 3), (M, 3) paired such that the sum of min(distance, gate) is least.

    Returns the indices of the pairs within the gate and their distances (Chenouard et al. 2014, for one frame).
    """
    if not len(truth) or not len(found):
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    apart = cdist(truth, found)
    rows, columns = linear_sum_assignment(np.minimum(apart, gate))
    near = apart[rows, columns] < gate
    return rows[near], columns[near], apart[rows[near], columns[near]]


@dataclass(frozen=True, slots=True)
class Score:
    """`rmse` is in voxels, of the `right` detections; NaN without any."""

    right: int
    found: int
    true: int
    rmse: float

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 1 where there is nothing to find and nothing was found."""
        total = self.found + self.true
        return 2 * self.right / total if total else 1.0


def score(truth: FloatArray, found: FloatArray, gate: float = GATE) -> Score:
    """Score the detections (M, 3) of one volume against its particles (N, 3), in voxels."""
    _, _, apart = pairs(truth, found, gate)
    rmse = float(np.sqrt(np.mean(apart**2))) if len(apart) else math.nan
    return Score(len(apart), len(found), len(truth), rmse)


def bound(
    centre: FloatArray,
    amplitude: float,
    shape: tuple[int, int, int],
    sigma: tuple[float, float, float],
    background: float,
    read: float = 0.0,
    reach: float = 4.0,
) -> FloatArray:
    """Least standard errors (3,) of z, y, x, voxels, where amplitude and background are unknown as well.

    From the Fisher information of a Gaussian with Poisson and read noise in the voxels that there are within
    `reach` deviations of `centre`.
    """
    axes = [
        np.arange(max(0, math.ceil(c - reach * s)), min(n - 1, math.floor(c + reach * s)) + 1)
        for c, s, n in zip(centre, sigma, shape, strict=True)
    ]
    grid = np.stack(np.meshgrid(*axes, indexing="ij")).reshape(3, -1)
    off = (grid - centre[:, None]) / np.array(sigma)[:, None]
    spot = np.exp(-0.5 * (off**2).sum(axis=0))
    along = amplitude * spot * off / np.array(sigma)[:, None]
    slopes = np.vstack([along, spot, np.ones_like(spot)])
    information = (slopes / (background + amplitude * spot + read**2)) @ slopes.T
    return np.sqrt(np.diag(np.linalg.inv(information))[:3])


def is_lone(truth: FloatArray, apart: float = LONE) -> npt.NDArray[np.bool_]:
    """Whether each particle (N, 3) is further than `apart` from every other one."""
    if len(truth) < 2:
        return np.ones(len(truth), bool)
    distance, _ = KDTree(truth).query(truth, k=2)
    return np.asarray(distance[:, 1] > apart)


def is_at_end(truth: FloatArray, slices: int, reach: float = END) -> npt.NDArray[np.bool_]:
    """Whether each particle (N, 3) is within `reach` slices of the first or last one."""
    return np.asarray((truth[:, 0] < reach) | (truth[:, 0] > slices - 1 - reach))
