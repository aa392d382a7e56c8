"""Splines over depth whose coefficients depend on a particle's place and brightness: linear least squares.

Image k of particle i, in the basis, is a_i sum_t phi_ti s_t(z_ik): splines s_t times terms phi_ti (polynomials of
the place and of the logarithm of the brightness), the first of which is 1. All s_t are found at once. The sums over
a particle's images are made once; any set of terms, and any set of particles, is then a small linear problem.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import solveh_banded

from calibration.field.samples import Samples

FloatArray = npt.NDArray[np.float64]

TAPS = 4
"""Nodes on which a cubic B-spline is not zero between two nodes."""
STIFFNESS = 0.1
"""Weight of the squared second difference of every spline over depth, relative to the information on a node. Real
images change little from node to node; 0.01 and 1 change the errors of left-out beads by less than 2 %."""
LEAST_RIDGE = 1e-6
"""Weight of the mean spline's own square, only to keep nodes without images at 0."""


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """For each particle the normal matrix of its images' weights on the nodes, and right sides (N, J, R).

    A cubic spline couples a node with the next three only: `normal` (N, 4, J) holds the products of node j and j +
    p.
    """

    normal: FloatArray
    right: FloatArray

    @classmethod
    def of(cls, samples: Samples) -> Sums:
        """Sum over the planes."""
        first, weight, _ = samples.weights()
        nodes, (count, planes, size) = samples.nodes.count, samples.values.shape
        brightness = samples.traces.brightness
        spread = np.zeros((planes, nodes + TAPS - 1))
        normal, right = np.zeros((count, TAPS, nodes)), np.empty((count, nodes, size))
        rows = np.arange(planes)
        for i in range(count):
            spread[:] = 0.0
            for p in range(TAPS):
                spread[rows, first[i] + p] += brightness[i] * weight[i, :, p]
            for p in range(TAPS):
                normal[i, p] = np.einsum("kj,kj->j", spread[:, :nodes], spread[:, p : p + nodes])
            right[i] = spread[:, :nodes].T @ samples.values[i]
        return cls(normal, right)


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """The sums over some particles for given terms: `normal` (T, T, 4, J), `right` (T, J, R)."""

    normal: FloatArray
    right: FloatArray

    @classmethod
    def of(cls, sums: Sums, terms: FloatArray, chosen: npt.NDArray[Any]) -> Problem:
        """The problem of the `chosen` particles; `terms` (N, T)."""
        phi = terms[chosen]
        count, nodes = terms.shape[1], sums.normal.shape[2]
        pairs = np.einsum("nt,ns->nts", phi, phi).reshape(len(phi), -1)
        normal = pairs.T @ sums.normal[chosen].reshape(len(phi), -1)
        right = phi.T @ sums.right[chosen].reshape(len(phi), -1)
        return cls(normal.reshape(count, count, TAPS, nodes), right.reshape(count, nodes, -1))

    def __sub__(self, other: Problem) -> Problem:
        return Problem(self.normal - other.normal, self.right - other.right)

    def solve(self, ridge: float) -> FloatArray:
        """The splines' coefficients (T, J, R); `ridge` is the weight of the squares of all but the first spline.

        Both weights are relative to the median information on a node. With the terms of each node side by side the
        matrix is banded.
        """
        terms, nodes = self.normal.shape[0], self.normal.shape[3]
        on_node = self.normal[0, 0, 0]
        information = float(np.median(on_node[on_node > 0]))
        bend = np.diff(np.eye(nodes), 2, axis=0)
        stiff = STIFFNESS * information * (bend.T @ bend)
        bands = np.zeros((TAPS * terms, nodes * terms))
        for p in range(TAPS):
            columns = np.arange(nodes - p) * terms
            for t in range(terms):
                for s in range(terms):
                    below = p * terms + s - t
                    if below < 0:
                        continue
                    value = self.normal[t, s, p, : nodes - p].copy()
                    if s == t:
                        value += np.diagonal(stiff, p)
                        if p == 0:
                            value += information * (ridge if t else LEAST_RIDGE)
                    bands[below, columns + t] = value
        right = self.right.transpose(1, 0, 2).reshape(nodes * terms, -1)
        found: FloatArray = solveh_banded(bands, right, lower=True)
        return np.ascontiguousarray(found.reshape(nodes, terms, -1).transpose(1, 0, 2))


@dataclass(frozen=True, slots=True, eq=False)
class Residuals:
    """What splines leave of some particles' images.

    `change` (M, K, 4) are the changes of brightness (relative), x, y (px) and z (um) of each image that fit best,
    to first order; 0 where not seen. `information` (M, K, 4) is 1 over their variances for a pixel noise of 1.
    """

    change: FloatArray
    information: FloatArray


def residuals(
    samples: Samples, splines: FloatArray, terms: FloatArray, chosen: npt.NDArray[Any]
) -> Residuals:
    """Compare the images of the `chosen` particles with splines (T, J, R) and their `terms` (N, T)."""
    first, weight, slope = (part[chosen] for part in samples.weights())
    own = np.einsum("nt,tjr->njr", terms[chosen], splines)
    around = first[..., None] + np.arange(4)
    near = own[np.arange(len(own))[:, None, None], around]
    a = samples.traces.brightness[chosen][:, None, None]
    value = a * np.einsum("nkp,nkpr->nkr", weight, near)
    by_z = a * np.einsum("nkp,nkpr->nkr", slope, near)
    seen = samples.traces.seen[chosen]
    rest = (samples.values[chosen] - value) * seen[..., None]
    design = np.stack([value, -value @ samples.by_x, -value @ samples.by_y, by_z], axis=2)
    normal = np.einsum("nkar,nkbr->nkab", design, design)
    right = np.einsum("nkar,nkr->nka", design, rest)
    scale = np.sqrt(np.diagonal(normal, axis1=2, axis2=3))
    scale = np.where(seen[..., None] & (scale > 0), scale, 1.0)
    normal = normal / scale[..., :, None] / scale[..., None, :] + 1e-9 * np.eye(4)
    inverse = np.linalg.inv(normal)
    change = np.einsum("nkab,nkb->nka", inverse, right / scale) / scale
    variance = np.diagonal(inverse, axis1=2, axis2=3) / scale**2
    information = np.where(seen[..., None], 1.0 / variance, 0.0)
    return Residuals(change * seen[..., None], information)
