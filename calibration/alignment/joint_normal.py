"""Normal equations of all traces together, with the PSF's spline eliminated (variable projection).

Golub & Pereyra (1973), SIAM J. Numer. Anal. 10, 413.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

PARAMETERS = 4
BRIGHTNESS, Z, X, Y = range(PARAMETERS)
"""Parameters of a trace: brightness, depth in nodes, offset in px."""
GAUGE = 1e-7
"""Least eigenvalue, of a matrix of unit diagonal, that is kept. The directions of a common shift or scale have 0
but for rounding. Half or twice as much changes nothing."""


class JointNormal:
    """The normal matrix of all traces, the spline eliminated.

    `normal` (N, K, 4, 4) are those of each image for a trace of brightness 1. Only changes of the traces relative
    to one another matter: a common shift or scale of all traces is left out.
    """

    def __init__(self, normal: FloatArray, node: FloatArray, brightness: FloatArray, nodes: int) -> None:
        count = len(node)
        self.factor = np.ones((count, 1, PARAMETERS))
        self.factor[:, 0, Z:] = brightness[:, None]
        blocks = (normal * self.factor[..., None] * self.factor[:, :, None, :]).sum(axis=1)
        matrix = np.zeros((count, PARAMETERS, count, PARAMETERS))
        matrix[np.arange(count), :, np.arange(count), :] = blocks
        # traces that show the same depth share their information on the spline there
        bins = np.clip(np.round(node).astype(int), 0, nodes - 1)
        present = np.zeros((count, nodes))
        np.add.at(present, (np.arange(count)[:, None], bins), 1.0)
        gram = np.zeros((nodes, PARAMETERS, PARAMETERS))
        np.add.at(gram, bins, normal)
        gram /= np.maximum(present.sum(axis=0), 1.0)[:, None, None]
        shared = np.maximum((present * brightness[:, None] ** 2).sum(axis=0), 1e-12)
        scaled = present[:, :, None] * (brightness[:, None] * self.factor[:, 0])[:, None, :]
        for p in range(PARAMETERS):
            for q in range(PARAMETERS):
                matrix[:, p, :, q] -= (scaled[:, :, p] * (gram[:, p, q] / shared)) @ scaled[:, :, q].T
        self._length = count * PARAMETERS
        full = matrix.reshape(self._length, self._length)
        diagonal = np.diagonal(blocks, axis1=1, axis2=2).reshape(self._length)
        self._scale = 1.0 / np.sqrt(np.maximum(diagonal, 1e-30))
        values, vectors = np.linalg.eigh((full + full.T) / 2 * self._scale[:, None] * self._scale)
        firm = values > GAUGE
        firm[:PARAMETERS] = False
        self._values, self._vectors = values[firm], vectors[:, firm]

    def solve(self, gradient: FloatArray) -> FloatArray:
        """The Gauss-Newton step (N, 4) for gradients (N, K, 4) of traces of brightness 1."""
        right = (gradient * self.factor).sum(axis=1).reshape(self._length)
        projected = self._vectors.T @ (right * self._scale)
        step: FloatArray = self._scale * (self._vectors @ (projected / self._values))
        return step.reshape(-1, PARAMETERS)

    def variances(self) -> FloatArray:
        """The diagonal (N, 4) of the inverse."""
        inverse: FloatArray = self._scale**2 * ((self._vectors**2) @ (1.0 / self._values))
        return inverse.reshape(-1, PARAMETERS)
