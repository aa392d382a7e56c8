"""Cubic splines over depth, by least squares from samples at known depths."""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np
import numpy.typing as npt
from scipy.linalg import solveh_banded

FloatArray = npt.NDArray[np.float64]

STIFFNESSES = 10.0 ** np.arange(-3, 7)
"""Weights of the second difference that cross-validation chooses from, relative to the nodes' information. A decade
apart: the score is flat around its minimum."""
SUPPORT = 0.15
"""Part of the typical (median) information of the nodes below which a node counts as unknown. At the ends of the
scan only the highest and the lowest particles contribute; a spline through these few would bend at will."""


def support_level(information: FloatArray) -> float:
    """The least information with which a node counts as known, given that of all nodes (J,)."""
    return SUPPORT * float(np.median(information[information > 0]))


def node_weights(node: FloatArray, nodes: int) -> tuple[npt.NDArray[np.int64], FloatArray, FloatArray]:
    """First of the four nodes (M,) around coordinates (M,), their weights (M, 4) and the weights' slopes.

    Coordinates below 1 or above `nodes - 2` have weights 0.
    """
    base = np.clip(np.floor(node), 1, nodes - 3).astype(np.int64)
    inside = ((node >= 1) & (node <= nodes - 2))[:, None]
    t = node - base
    s = 1.0 - t
    value = [s**3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (3 * s**3 - 6 * s**2 + 4) / 6, t**3 / 6]
    slope = [-(s**2) / 2, (3 * t**2 - 4 * t) / 2, (-3 * s**2 + 4 * s) / 2, t**2 / 2]
    return base - 1, np.stack(value, axis=1) * inside, np.stack(slope, axis=1) * inside


class SplineSums:
    """The sums of a least-squares spline through samples; they can be added and subtracted.

    A sample (Q,) is its `brightness` times the spline's value at coordinate `node`.
    """

    def __init__(self, normal: FloatArray, right: FloatArray) -> None:
        self.normal, self.right = normal, right

    @classmethod
    def of(cls, samples: FloatArray, node: FloatArray, brightness: FloatArray, nodes: int) -> SplineSums:
        """Sums for samples (M, Q) at coordinates (M,)."""
        first, weight, _ = node_weights(node, nodes)
        weight = weight * brightness[:, None]
        normal = np.zeros((nodes, nodes))
        right = np.zeros((nodes, samples.shape[1]))
        for p in range(4):
            np.add.at(right, first + p, weight[:, p, None] * samples)
            for q in range(4):
                np.add.at(normal, (first + p, first + q), weight[:, p] * weight[:, q])
        return cls(normal, right)

    def __add__(self, other: SplineSums) -> SplineSums:
        return SplineSums(self.normal + other.normal, self.right + other.right)

    def __sub__(self, other: SplineSums) -> SplineSums:
        return SplineSums(self.normal - other.normal, self.right - other.right)

    @property
    def information(self) -> FloatArray:
        """The information on each node (J,): the sum of squared brightnesses that contribute to it."""
        return np.asarray(self.normal.sum(axis=1))

    def solve(self, stiffness: FloatArray) -> FloatArray:
        """Coefficients (J, Q) of smoothing splines, the squared second difference of each weighted (Q,).

        The weight is relative to the median information of the nodes (Eilers & Marx 1996).
        """
        nodes = len(self.normal)
        known = self.information[self.information > 0]
        bend = np.diff(np.eye(nodes), 2, axis=0)
        penalty = float(np.median(known)) * (bend.T @ bend)
        out = np.empty_like(self.right)
        for value in np.unique(stiffness):
            normal = self.normal + value * penalty
            normal[np.diag_indices(nodes)] += 1e-9 * float(known.max())
            bands = np.zeros((4, nodes))
            for below in range(4):
                bands[below, : nodes - below] = np.diagonal(normal, -below)
            same = stiffness == value
            out[:, same] = solveh_banded(bands, self.right[:, same], lower=True)
        return out

    def misfit(self, coefficients: FloatArray) -> FloatArray:
        """Sum of squared differences (Q,) of the samples from a spline, less that of the samples themselves."""
        fitted = np.einsum("jq,jk,kq->q", coefficients, self.normal, coefficients, optimize=True)
        misfit: FloatArray = fitted - 2 * (coefficients * self.right).sum(axis=0)
        return misfit


def best_stiffness(folds: list[SplineSums]) -> FloatArray:
    """The stiffness (Q,) with which splines through all folds but one predict the left-out fold best."""
    total = reduce(add, folds)
    scores = np.zeros((STIFFNESSES.size, total.right.shape[1]))
    for index, value in enumerate(STIFFNESSES):
        for fold in folds:
            spline = (total - fold).solve(np.full(total.right.shape[1], value))
            scores[index] += fold.misfit(spline)
    best: FloatArray = STIFFNESSES[np.argmin(scores, axis=0)]
    return best
