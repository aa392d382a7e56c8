"""Shapes of a bead's image in a stack: a Gaussian, and a Gaussian with a measured deviation.

A shape is evaluated in windows around many beads at once. Voxels count from the window's centre voxel; offsets are
those of the beads from it. All lengths are in voxels, in the order z, y, x; the peak of the Gaussian is 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

NODES_PER_SIGMA = 1.6
"""Nodes of the deviation per standard deviation of the Gaussian. A cubic spline follows a Gaussian of unit sigma to
0.2 % at this spacing, and a deviation is as smooth as the optics' pass band, no finer than the Gaussian itself."""


class Shape(Protocol):
    """The image of a bead of amplitude 1."""

    def image(self, offset: FloatArray, half: tuple[int, int, int]) -> FloatArray:
        """Values (N, D, H, W) in windows of `half` voxels around the centre, for `offset` (N, 3)."""
        ...

    def derivatives(self, offset: FloatArray, half: tuple[int, int, int]) -> tuple[FloatArray, ...]:
        """Value, and derivatives by the offset along z, y and x; each (N, D, H, W)."""
        ...


def axis_of(offset: FloatArray, half: int) -> FloatArray:
    """Distances (N, 2 half + 1) of a window's voxels from the beads."""
    return np.arange(-half, half + 1.0)[None, :] - offset[:, None]


def product(z: FloatArray, y: FloatArray, x: FloatArray) -> FloatArray:
    """Outer product (N, D, H, W) of factors (N, D), (N, H), (N, W)."""
    return z[:, :, None, None] * y[:, None, :, None] * x[:, None, None, :]


@dataclass(frozen=True, slots=True, eq=False)
class GaussianShape:
    """A Gaussian sampled at the voxels' centres; `sigma` (3,) along z, y, x, or (N, 3) for beads of their own
    widths."""

    sigma: FloatArray

    def _factors(self, offset: FloatArray, half: tuple[int, int, int]) -> list[tuple[FloatArray, FloatArray]]:
        """For each axis the factor (N, voxels) and the distance in sigmas."""
        sigma = np.broadcast_to(self.sigma, (len(offset), 3))
        found = []
        for axis in range(3):
            u = axis_of(offset[:, axis], half[axis]) / sigma[:, axis, None]
            found.append((np.exp(-0.5 * u**2), u))
        return found

    def image(self, offset: FloatArray, half: tuple[int, int, int]) -> FloatArray:
        """Values (N, D, H, W)."""
        z, y, x = (factor for factor, _ in self._factors(offset, half))
        return product(z, y, x)

    def derivatives(self, offset: FloatArray, half: tuple[int, int, int]) -> tuple[FloatArray, ...]:
        """Value and its derivatives by the offset along z, y, x."""
        factors = self._factors(offset, half)
        sigma = np.broadcast_to(self.sigma, (len(offset), 3))
        value = product(*(factor for factor, _ in factors))
        moved = (value * _along(u / sigma[:, axis, None], axis) for axis, (_, u) in enumerate(factors))
        return (value, *moved)

    def by_log_sigma(self, offset: FloatArray, half: tuple[int, int, int]) -> tuple[FloatArray, ...]:
        """Derivatives by the logarithms of the standard deviations."""
        factors = self._factors(offset, half)
        value = product(*(factor for factor, _ in factors))
        return tuple(value * _along(u**2, axis) for axis, (_, u) in enumerate(factors))


@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """Nodes of a cubic B-spline around a bead: `spacing` voxels apart, from -count to count along each axis."""

    spacing: tuple[float, float, float]
    count: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of nodes along z, y, x."""
        return (2 * self.count[0] + 1, 2 * self.count[1] + 1, 2 * self.count[2] + 1)

    def positions(self, axis: int) -> FloatArray:
        """Places of the nodes along an axis, voxels."""
        return np.arange(-self.count[axis], self.count[axis] + 1.0) * self.spacing[axis]

    def basis(self, offset: FloatArray, half: tuple[int, int, int], axis: int) -> FloatArray:
        """Values (N, voxels, nodes) of the B-splines of one axis at a window's voxels."""
        u = axis_of(offset[:, axis], half[axis])[:, :, None] / self.spacing[axis]
        return bspline(u - np.arange(-self.count[axis], self.count[axis] + 1.0))

    def slope(self, offset: FloatArray, half: tuple[int, int, int], axis: int) -> FloatArray:
        """Derivatives of `basis` by the offset."""
        u = axis_of(offset[:, axis], half[axis])[:, :, None] / self.spacing[axis]
        u = u - np.arange(-self.count[axis], self.count[axis] + 1.0)
        return -bspline_slope(u) / self.spacing[axis]


def nodes_for(sigma: FloatArray, half: tuple[int, int, int]) -> Nodes:
    """Nodes that cover windows of `half` voxels and half a voxel more."""
    spacing = tuple(float(s) / NODES_PER_SIGMA for s in sigma)
    count = tuple(int(np.ceil((h + 0.5) / step)) for h, step in zip(half, spacing, strict=True))
    return Nodes(spacing, count)  # type: ignore[arg-type]


def bspline(u: FloatArray) -> FloatArray:
    """The cubic B-spline with nodes 1 apart."""
    a = np.abs(u)
    return np.where(a < 1, 2 / 3 - a**2 + a**3 / 2, np.where(a < 2, np.clip(2 - a, 0, None) ** 3 / 6, 0.0))


def bspline_slope(u: FloatArray) -> FloatArray:
    """Derivative of the cubic B-spline."""
    a = np.abs(u)
    size = np.where(a < 1, -2 * a + 1.5 * a**2, np.where(a < 2, -0.5 * np.clip(2 - a, 0, None) ** 2, 0.0))
    return np.sign(u) * size


@dataclass(frozen=True, eq=False)
class MeasuredShape:
    """A Gaussian plus a deviation: cubic B-splines with `coefficients` at `nodes`."""

    gaussian: GaussianShape
    nodes: Nodes
    coefficients: FloatArray

    def image(self, offset: FloatArray, half: tuple[int, int, int]) -> FloatArray:
        """Values (N, D, H, W)."""
        bases = [self.nodes.basis(offset, half, axis) for axis in range(3)]
        return self.gaussian.image(offset, half) + spread(self.coefficients, bases)

    def derivatives(self, offset: FloatArray, half: tuple[int, int, int]) -> tuple[FloatArray, ...]:
        """Value and its derivatives by the offset along z, y, x."""
        bases = [self.nodes.basis(offset, half, axis) for axis in range(3)]
        smooth = self.gaussian.derivatives(offset, half)
        found = [smooth[0] + spread(self.coefficients, bases)]
        for axis in range(3):
            turned = list(bases)
            turned[axis] = self.nodes.slope(offset, half, axis)
            found.append(smooth[axis + 1] + spread(self.coefficients, turned))
        return tuple(found)

    def sampled(self, z: FloatArray, y: FloatArray, x: FloatArray) -> FloatArray:
        """Values on a grid of distances from the bead along z, y, x, voxels."""
        places = (z, y, x)
        bases = [
            bspline(
                place[None, :, None] / self.nodes.spacing[axis]
                - np.arange(-self.nodes.count[axis], self.nodes.count[axis] + 1.0)
            )
            for axis, place in enumerate(places)
        ]
        factors = [
            np.exp(-0.5 * (place[None] / sigma) ** 2)
            for place, sigma in zip(places, self.gaussian.sigma, strict=True)
        ]
        return np.asarray(product(*factors)[0] + spread(self.coefficients, bases)[0])

    @cached_property
    def largest_deviation(self) -> float:
        """Largest deviation from the Gaussian, as a part of its peak."""
        places = [self.nodes.positions(axis) for axis in range(3)]
        smooth = [
            np.exp(-0.5 * (place[None] / sigma) ** 2)
            for place, sigma in zip(places, self.gaussian.sigma, strict=True)
        ]
        return float(np.abs(self.sampled(*places) - product(*smooth)[0]).max())


def spread(coefficients: FloatArray, bases: list[FloatArray]) -> FloatArray:
    """Values (N, D, H, W) of a spline with `coefficients`, from the bases (N, voxels, nodes) of the axes."""
    bz, by, bx = bases
    p, q, r = coefficients.shape
    first = (bz @ coefficients.reshape(p, q * r)).reshape(*bz.shape[:2], q, r)
    second = np.matmul(by[:, None], first)
    return np.asarray(np.matmul(second, bx.transpose(0, 2, 1)[:, None]))


def gather(images: FloatArray, bases: list[FloatArray]) -> FloatArray:
    """The adjoint of `spread`, summed over the beads: (nodes z, y, x) from images (N, D, H, W)."""
    bz, by, bx = bases
    first = np.matmul(images, bx[:, None])
    second = np.matmul(by.transpose(0, 2, 1)[:, None], first)
    n, d, q, r = second.shape
    found = np.tensordot(bz, second.reshape(n, d, q * r), axes=([0, 1], [0, 1]))
    return np.asarray(found).reshape(bz.shape[2], q, r)


def _along(values: FloatArray, axis: int) -> FloatArray:
    """Values (N, voxels) of an axis, as (N, D, H, W) with length 1 along the others."""
    shape = [values.shape[0], 1, 1, 1]
    shape[axis + 1] = values.shape[1]
    return values.reshape(shape)
