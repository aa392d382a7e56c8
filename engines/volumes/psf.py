"""The image of a point in a volume: a Gaussian with a size per axis, or one that was measured, as a cubic spline.

A point of amplitude A at r gives the voxel at s the light A f(s - r), with f = 1 at its peak. Voxel values are f at
the voxel's centre: the size of a Gaussian is the effective one, that of the image after the optics and the voxel
(for a Gaussian and an even voxel: sqrt(sigma^2 + voxel^2 / 12), to 0.2 % of the peak from sigma = 0.8 voxels on).
A measured f is

    f(z, y, x) = sum_jkl c_jkl B(z / dz - j) B(y / dy - k) B(x / dx - l)    (1)

with the cubic B-spline B (Unser 1999, IEEE Signal Processing Magazine 16(6), 22), and 0 beyond its grid.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import h5py
import numpy as np
import numpy.typing as npt
from scipy.interpolate import NdBSpline
from scipy.ndimage import convolve1d, spline_filter

from engines.bounded_reading import MOST_IMAGE_BYTES, inflate
from stream.errors import ConfigurationError
from stream.hdf5_reading import attribute, find, values

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
Triple = tuple[float, float, float]

PAD = 2
"""Nodes of zeros added around a measured PSF, so that it falls to 0 within one node beyond its grid."""
FEWEST_NODES, MOST_NODES = 3, 257
"""Nodes of a measured PSF along an axis: fewer do not show a peak, more are no PSF but a stack."""
LEAST_UM, MOST_UM = 1e-4, 1e4
"""Bounds of voxels, grid steps and sizes: far beyond any microscope, a damaged file."""
LARGEST_COEFFICIENT = 100.0
"""Far above any coefficient of a spline whose peak is 1: a damaged file."""
REACH_SIGMAS = 3.0
"""Standard deviations of a Gaussian that are looked at: 1 % of what is known of its place is beyond."""
REACH_LEVEL = 0.011
"""Part of the peak to which a measured PSF is looked at: that of a Gaussian at `REACH_SIGMAS`."""
MOST_REACH_SIGMAS = 4.5
"""Bound of the same, as a PSF measured with noise is above any level somewhere."""
PEAK_FINENESS = 8
"""Points a node at which the peak of a measured PSF is looked for: it is found to 0.1 %."""
VERSION = 1


@dataclass(frozen=True, slots=True, eq=False)
class VolumePsf:
    """The image of a point in a volume; all triples are (z, y, x).

    `voxel_um` is the size of the voxels that it is for, `sigma_um` its size in standard deviations; for a measured
    one that of the Gaussian whose square has the same spread. `coefficients` (J, K, L) of (1) with nodes `step_um`
    apart and the point at node `centre` (may be a fraction); None: a Gaussian. `reach_um` is the distance from the
    point that is looked at. `misfit` is how far real images are from it: the root of the part of their light's
    square, weighted by the noise, that it leaves over (0: not known).
    """

    voxel_um: Triple
    sigma_um: Triple
    coefficients: Float32Array | None = None
    step_um: Triple | None = None
    centre: Triple | None = None
    misfit: float = 0.0
    reach_um: Triple = field(init=False)

    def __post_init__(self) -> None:
        for name in ("voxel_um", "sigma_um", "step_um"):
            triple = getattr(self, name)
            if triple is not None and not (
                len(triple) == 3 and all(LEAST_UM <= v <= MOST_UM for v in triple)
            ):
                raise ValueError(
                    f"{name} = {triple}: three sizes from {LEAST_UM:g} to {MOST_UM:g} um are needed"
                )
        if not 0 <= self.misfit < 1:
            raise ValueError(f"a misfit of {self.misfit}: a part of the light, from 0 to below 1, is needed")
        if self.coefficients is None:
            if self.step_um is not None or self.centre is not None:
                raise ValueError("a Gaussian has no grid")
            object.__setattr__(self, "reach_um", _triple([REACH_SIGMAS * s for s in self.sigma_um]))
            return
        grid, centre = self.coefficients, self.centre
        if self.step_um is None or centre is None:
            raise ValueError("a measured PSF needs the step of its grid and its centre")
        least, most = FEWEST_NODES + 2 * PAD, MOST_NODES + 2 * PAD
        if grid.ndim != 3 or not all(least <= n <= most for n in grid.shape):
            raise ValueError(f"a measured PSF of shape {grid.shape}")
        if not (np.isfinite(grid).all() and np.abs(grid).max() <= LARGEST_COEFFICIENT):
            raise ValueError("a measured PSF with values that are not finite, or far above 1")
        if not (
            len(centre) == 3 and all(PAD <= c <= n - 1 - PAD for c, n in zip(centre, grid.shape, strict=True))
        ):
            raise ValueError(f"a measured PSF of shape {grid.shape} with its centre at {centre}")
        reach = _reach(grid, centre, self.step_um)
        farthest = [MOST_REACH_SIGMAS * s for s in self.sigma_um]
        object.__setattr__(self, "reach_um", _triple(np.minimum(reach, farthest)))

    @classmethod
    def gaussian(
        cls, sigma_x_um: float, sigma_y_um: float, sigma_z_um: float, voxel_um: Sequence[float]
    ) -> VolumePsf:
        """A Gaussian of these standard deviations for voxels of `voxel_um` (z, y, x); raises `ValueError`."""
        return cls(_triple(voxel_um), (float(sigma_z_um), float(sigma_y_um), float(sigma_x_um)))

    @classmethod
    def measured(
        cls,
        image: npt.ArrayLike,
        step_um: Sequence[float],
        voxel_um: Sequence[float],
        centre: Sequence[float] | None = None,
    ) -> VolumePsf:
        """The PSF whose values on a grid (J, K, L) of `step_um` (z, y, x) are `image`, without background.

        The point is at node `centre` (z, y, x), by default the middle of the grid. Scaled to a peak of 1. Raises
        `ValueError` where the values cannot be those of a PSF.
        """
        grid = np.asarray(image, np.float64)
        if grid.ndim != 3 or not all(FEWEST_NODES <= n <= MOST_NODES for n in grid.shape):
            raise ValueError(f"a measured PSF of shape {grid.shape}")
        if not (np.isfinite(grid).all() and grid.max() > 0):
            raise ValueError("a measured PSF needs finite values with a peak above 0")
        middle = _triple([(n - 1) / 2 for n in grid.shape] if centre is None else centre)
        coefficients = spline_filter(np.pad(grid / grid.max(), PAD), order=3, mode="mirror")
        at = cast(Triple, tuple(c + PAD for c in middle))
        step = _triple(step_um)
        coefficients /= _peak(coefficients)
        sigma = _spread(np.pad(grid, PAD), at, step)
        return cls(_triple(voxel_um), sigma, np.asarray(coefficients, np.float32), step, at)

    @property
    def sigma_x_um(self) -> float:
        """Standard deviation along x, um."""
        return self.sigma_um[2]

    @property
    def sigma_y_um(self) -> float:
        """Standard deviation along y, um."""
        return self.sigma_um[1]

    @property
    def sigma_z_um(self) -> float:
        """Standard deviation along z, um."""
        return self.sigma_um[0]

    @property
    def sigma_voxels(self) -> Triple:
        """Standard deviations (z, y, x) in voxels."""
        return cast(Triple, tuple(s / v for s, v in zip(self.sigma_um, self.voxel_um, strict=True)))

    @property
    def is_measured(self) -> bool:
        """Whether it is a spline."""
        return self.coefficients is not None

    def with_voxel(self, voxel_um: Sequence[float]) -> VolumePsf:
        """The same PSF for voxels of another size (z, y, x), um."""
        return replace(self, voxel_um=_triple(voxel_um))

    def value(self, z_um: npt.ArrayLike, y_um: npt.ArrayLike, x_um: npt.ArrayLike) -> FloatArray:
        """f at voxels that lie these distances from the point, um; the three are broadcast together."""
        return self._evaluate(z_um, y_um, x_um, (0, 0, 0))

    def derivatives(self, z_um: npt.ArrayLike, y_um: npt.ArrayLike, x_um: npt.ArrayLike) -> FloatArray:
        """Derivatives (3, ...) of `value` by the point's z, y and x (not by the voxel's), 1/um."""
        orders = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
        return np.stack([-self._evaluate(z_um, y_um, x_um, order) for order in orders])

    def _evaluate(
        self, z_um: npt.ArrayLike, y_um: npt.ArrayLike, x_um: npt.ArrayLike, order: tuple[int, int, int]
    ) -> FloatArray:
        axes = np.broadcast_arrays(*(np.asarray(a, np.float64) for a in (z_um, y_um, x_um)))
        if self.coefficients is None or self.step_um is None or self.centre is None:
            value = np.exp(-0.5 * sum((a / s) ** 2 for a, s in zip(axes, self.sigma_um, strict=True)))
            for a, s, n in zip(axes, self.sigma_um, order, strict=True):
                value = value * (-a / s**2) if n else value
            return np.asarray(value, np.float64)
        nodes = np.stack(
            [a / d + c for a, d, c in zip(axes, self.step_um, self.centre, strict=True)], axis=-1
        )
        value = _spline(self.coefficients)(nodes, nu=order)
        last = np.array(self.coefficients.shape) - PAD
        inside = ((nodes >= PAD - 1) & (nodes <= last)).all(axis=-1)
        scale = math.prod(d**-n for d, n in zip(self.step_um, order, strict=True))
        return np.where(inside, value * scale, 0.0)

    def save(self, group: h5py.Group) -> None:
        """Write it to an HDF5 group, which must be empty."""
        group.attrs["version"] = VERSION
        group.attrs["voxel_um"], group.attrs["sigma_um"] = self.voxel_um, self.sigma_um
        group.attrs["misfit"] = self.misfit
        if self.coefficients is not None:
            group.attrs["step_um"], group.attrs["centre"] = self.step_um, self.centre
            group.create_dataset("coefficients", data=self.coefficients, compression="gzip", shuffle=True)

    @classmethod
    def load(cls, group: h5py.Group) -> VolumePsf:
        """Read what `save` wrote; raises `ConfigurationError` where it is damaged."""
        try:
            if int(attribute(group, "version")) != VERSION:
                raise ValueError(
                    f"version {attribute(group, 'version')} is not {VERSION}: another liveptv wrote it"
                )
            voxel, sigma = (_triple(attribute(group, name)) for name in ("voxel_um", "sigma_um"))
            misfit = float(attribute(group, "misfit", float) or 0.0)
            if find(group, "coefficients") is None:
                return cls(voxel, sigma, misfit=misfit)
            grid = values(group, "coefficients", ndim=3, most_bytes=MOST_IMAGE_BYTES).astype(np.float32)
            step, centre = (_triple(attribute(group, name)) for name in ("step_um", "centre"))
            return cls(voxel, sigma, grid, step, centre, misfit)
        except (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError) as error:
            raise ConfigurationError(
                f"cannot read the PSF of the volumes ({error}); calibrate again"
            ) from error

    def to_json(self) -> str:
        """It as text, for the metadata of a model file."""
        fields: dict[str, Any] = {"version": VERSION, "voxel_um": self.voxel_um, "sigma_um": self.sigma_um}
        fields["misfit"] = self.misfit
        if self.coefficients is not None:
            packed = zlib.compress(self.coefficients.astype("<f4").tobytes(), 9)
            fields |= {"step_um": self.step_um, "centre": self.centre, "shape": self.coefficients.shape}
            fields["coefficients"] = base64.b64encode(packed).decode("ascii")
        return json.dumps(fields)

    @classmethod
    def from_json(cls, text: str) -> VolumePsf:
        """Read what `to_json` wrote; raises `ConfigurationError` where it is damaged."""
        try:
            fields = json.loads(text)
            if fields["version"] != VERSION:
                raise ValueError(f"version {fields['version']} is not {VERSION}: another liveptv wrote it")
            voxel, sigma = _triple(fields["voxel_um"]), _triple(fields["sigma_um"])
            misfit = float(fields.get("misfit", 0.0))
            if "coefficients" not in fields:
                return cls(voxel, sigma, misfit=misfit)
            shape = tuple(int(n) for n in fields["shape"])
            content = inflate(base64.b64decode(fields["coefficients"]), MOST_IMAGE_BYTES, "a measured PSF")
            if len(shape) != 3 or min(shape) < 1 or 4 * math.prod(shape) != len(content):
                raise ValueError(f"{len(content)} bytes for a measured PSF of shape {shape}")
            grid = np.frombuffer(content, "<f4").reshape(shape).astype(np.float32)
            return cls(voxel, sigma, grid, _triple(fields["step_um"]), _triple(fields["centre"]), misfit)
        except (LookupError, ValueError, TypeError, ArithmeticError, RecursionError, zlib.error) as error:
            raise ConfigurationError(
                f"the PSF of a volume model is damaged ({error}); train it again"
            ) from error


def _triple(numbers: Sequence[float] | FloatArray) -> Triple:
    z, y, x = (float(v) for v in numbers)
    return z, y, x


def _spline(coefficients: npt.NDArray[Any]) -> NdBSpline:
    """(1) as a function of nodes (..., 3); valid from node 1 to the last but one, which `PAD` is made for."""
    knots = tuple(np.arange(-2.0, n + 2.0) for n in coefficients.shape)
    return NdBSpline(knots, np.asarray(coefficients, np.float64), 3)


def _peak(coefficients: FloatArray) -> float:
    """The greatest value of (1), near the greatest coefficient."""
    middle = np.unravel_index(int(np.argmax(coefficients)), coefficients.shape)
    near = [
        np.clip(m + np.arange(-PEAK_FINENESS, PEAK_FINENESS + 1) / PEAK_FINENESS, 1, n - 2)
        for m, n in zip(middle, coefficients.shape, strict=True)
    ]
    return float(_spline(coefficients)(np.stack(np.meshgrid(*near, indexing="ij"), axis=-1)).max())


def _reach(coefficients: Float32Array, centre: Triple, step_um: Triple) -> Triple:
    """Distance (z, y, x) from the point, um, beyond which (1) is below `REACH_LEVEL` everywhere."""
    at_nodes, reach = coefficients.astype(np.float64), []
    for axis in range(3):
        at_nodes = convolve1d(at_nodes, np.array([1, 4, 1]) / 6, axis=axis, mode="mirror")
    for axis in range(3):
        along = np.abs(at_nodes).max(axis=tuple(a for a in range(3) if a != axis))
        far = np.abs(np.flatnonzero(along > REACH_LEVEL) - centre[axis]).max(initial=1.0)
        reach.append(max(far, 1.0) * step_um[axis])
    return _triple(reach)


def _spread(grid: FloatArray, centre: Triple, step_um: Triple) -> Triple:
    """Standard deviations (z, y, x), um, of the Gaussian whose square is spread as that of a `grid` is.

    The square of a Gaussian has the variance sigma^2 / 2, and is hardly changed by a halo or by noise.
    """
    squared = np.maximum(grid, 0.0) ** 2
    sigma = []
    for axis in range(3):
        along = squared.sum(axis=tuple(a for a in range(3) if a != axis))
        off = (np.arange(along.size) - centre[axis]) * step_um[axis]
        sigma.append(math.sqrt(2 * float((along * off**2).sum() / along.sum())))
    return _triple([max(s, 0.3 * d) for s, d in zip(sigma, step_um, strict=True)])
