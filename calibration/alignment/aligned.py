"""The result of an alignment: the traces' positions and the PSF as a spline over depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from calibration.alignment.basis import ImageBasis
from calibration.alignment.depth_spline import node_weights

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Positions:
    """Brightness, depth and offset (N,) of N traces.

    `z_um` is the focus at which a particle is at depth 0 of the spline; offsets are from the middle pixel.
    """

    brightness: FloatArray
    z_um: FloatArray
    dx_px: FloatArray
    dy_px: FloatArray

    def take(self, index: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Positions:
        """The positions of some of the traces."""
        return Positions(self.brightness[index], self.z_um[index], self.dx_px[index], self.dy_px[index])


@dataclass(frozen=True, slots=True, eq=False)
class Aligned:
    """Aligned traces and their PSF.

    `coefficients` (J, R) of `basis` on nodes `z_first_um + j * node_um`; `information` (J,) is the sum of
    squared brightnesses behind each node. `values` (N, K, R) are the images in the basis, `chi2` (N, K) the
    mean squared residual of each; `variances` (N, 4), for a pixel noise of 1, are those of brightness, z in um,
    x and y in px. `predicted` (J,) are the nodes at which the traces predict one another's images, that is, at
    which a particle is visible.
    """

    positions: Positions
    basis: ImageBasis
    coefficients: FloatArray
    information: FloatArray
    z_first_um: float
    node_um: float
    values: FloatArray
    chi2: FloatArray
    variances: FloatArray
    predicted: npt.NDArray[np.bool_]
    steps: int
    moved_um: float

    def nodes_um(self) -> FloatArray:
        """Depths of the nodes (J,)."""
        return self.z_first_um + self.node_um * np.arange(len(self.coefficients), dtype=np.float64)

    def node_values(self) -> FloatArray:
        """The spline (J, R) at its nodes, in the basis."""
        weights = np.array([1.0, 4.0, 1.0]) / 6.0
        values: FloatArray = ndimage.convolve1d(self.coefficients, weights, axis=0, mode="mirror")
        return values

    def at(self, depth_um: FloatArray) -> FloatArray:
        """The spline (M, R) at depths (M,), in the basis and for a particle of brightness 1."""
        node = (depth_um - self.z_first_um) / self.node_um
        first, weight, _ = node_weights(node, len(self.coefficients))
        values: FloatArray = np.einsum("mp,mpr->mr", weight, self.coefficients[first[:, None] + np.arange(4)])
        return values

    def images(self, nodes: npt.NDArray[np.bool_]) -> FloatArray:
        """The PSF (M, P, P) at some of the nodes."""
        picked = self.node_values()[nodes]
        return np.asarray(np.einsum("jr,rpq->jpq", picked, self.basis.images), dtype=np.float64)
