"""The fit of all particles of a volume, as the engines call it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from engines.volumes.fit.arguments import A, BoolArray, FloatArray, KernelPsf, Stack, X, Y, Z
from engines.volumes.fit.in_part import Limit, fit_before
from engines.volumes.fit.judgement import CHI_SQUARE, NUMBERS, RATIO
from engines.volumes.fit.volume import fit_volume, light_of
from engines.volumes.proposal import Proposals
from engines.volumes.psf import VolumePsf
from engines.volumes.surroundings.background import Background
from engines.volumes.surroundings.noise import LEAST_VARIANCE, Noise


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """The particles of a volume as fitted; arrays of length N, float64 where not said otherwise.

    `x`, `y` are in voxels from the centre of the first voxel, `z` in steps of the PSF's voxel above the first slice
    (slices, where they are evenly spaced): times `psf.voxel_um` they are um. `sigma_x`, `sigma_y`, `sigma_z` are
    their standard errors in the same units (`sigma_z` NaN where only one slice has an image). `amplitude` is the
    height of the peak above the background, in grey values; `background` what lies under it, the offset included.
    `log_likelihood_ratio` is 2 ln(L with / L without the particle), the others fitted again: the square of its
    detection strength in standard deviations; negative for a particle that takes light away. `chi_square` is the
    reduced one of its voxels. `source` (N, int64) is the row of the proposal, -1 for a particle that the fit found
    itself. `short` (N, bool): it had the short fit only. `at_end` (N, bool): it lies so near to an end of the
    stack, or outside of it, that part of its light is missing. `covariance` (N, 4, 4) of z, y, x, amplitude.
    """

    x: FloatArray
    y: FloatArray
    z: FloatArray
    amplitude: FloatArray
    background: FloatArray
    sigma_x: FloatArray
    sigma_y: FloatArray
    sigma_z: FloatArray
    sigma_amplitude: FloatArray
    log_likelihood_ratio: FloatArray
    chi_square: FloatArray
    source: npt.NDArray[np.int64]
    short: BoolArray
    at_end: BoolArray
    covariance: FloatArray

    def __len__(self) -> int:
        return int(self.x.size)

    def take(self, which: npt.NDArray[Any]) -> Self:
        """Those that `which` names, a mask or indices."""
        return type(self)(*(getattr(self, column.name)[which] for column in fields(self)))


ROOM = 4
"""Particles for which there is room, per proposal: a group of one may gain three, `windows.SPARE`."""
AT_END_SIGMAS = 1.0
"""Standard deviations of the PSF from the outermost slice with an image within which a particle is `at_end`: there
the standard error of z begins to rise, by 80 % at the slice itself."""


SECOND_ORDER, THIRD_ORDER = 9.0, 80.0
"""Of `with_second_order`. The first is the expansion for a Gaussian in even noise: +12 as the curvature at the
maximum is itself noisy, +5 as the maximum is not a parabola, +3 as it is chosen, -11 as the noise is as smooth as
the PSF. The second is measured on lone particles: true over stated errors are then 0.96 to 1.03 at ratios of 23 to
84 (sizes 0.8 to 2 voxels, backgrounds 2 and 10); without both they are 1.04 to 1.28."""
LEAST_RATIO = 9.0
"""Log-likelihood ratio below which the errors are not raised further: such a place is hardly a particle's."""


def with_second_order(covariance: FloatArray, ratio: FloatArray) -> FloatArray:
    """Covariances (N, 4, 4) with the places' raised to what they are for faint particles.

    The Fisher information is the limit for bright ones. The error of the maximum of a noisy likelihood exceeds it
    by a factor that is a series in 1 / L, with L the log-likelihood `ratio` (N,), the square of the signal-to-noise
    ratio: 1 + `SECOND_ORDER` / L + `THIRD_ORDER` / L^2 for variances.
    """
    strength = np.maximum(np.abs(ratio), LEAST_RATIO)
    factor = np.ones(covariance.shape[:2])
    factor[:, :A] = np.sqrt(1 + SECOND_ORDER / strength + THIRD_ORDER / strength**2)[:, None]
    return covariance * factor[:, :, None] * factor[:, None, :]


def kernel_psf(psf: VolumePsf) -> KernelPsf:
    """The PSF as the kernels take it."""
    voxel, reach = np.array(psf.voxel_um), np.array(psf.reach_um) / psf.voxel_um
    sigma, misfit = np.array(psf.sigma_voxels), float(psf.misfit)
    if psf.coefficients is None or psf.step_um is None or psf.centre is None:
        return KernelPsf(
            sigma, reach, False, np.zeros((1, 1, 1), np.float32), np.ones(3), np.zeros(3), misfit
        )
    grid = np.ascontiguousarray(psf.coefficients, np.float32)
    return KernelPsf(sigma, reach, True, grid, voxel / psf.step_um, np.array(psf.centre, np.float64), misfit)


def fit_spots(
    image: npt.NDArray[Any],
    missing: BoolArray,
    proposals: Proposals,
    psf: VolumePsf,
    noise: Noise,
    background: Background,
    *,
    heights_um: FloatArray | None = None,
    background_sd: float | None = None,
    density: float | None = None,
    limit: Limit | None = None,
    more: bool = True,
) -> Fitted:
    """Fit the particles of a volume (Z, H, W) jointly, those that overlap and their background together.

    Starts from `proposals`; particles that are left in the residual are added (their `source` is -1) unless no
    `more` are asked for, and several proposals of one particle become one. `heights_um` (Z,) are the slices'
    heights above the first one, rising; by default `psf.voxel_um[0]` apart. Slices that are `missing` (Z,) are not
    used. `background_sd` is how far the background around a particle may differ from `background`, in grey values
    (standard deviation); None: it is fitted freely. `density` is how many particles are expected in a voxel, for
    the odds of particles beside others (`particle_count`); None: as many as proposals. `limit` says which are
    fitted whole, the others have the short fit; None: all are. Threads may call this at the same time. Raises
    `ValueError` for shapes that do not go together.
    """
    count = len(proposals)
    expected = max(count, 1) / max(image.size, 1) if density is None else density
    stack = stack_of(image, missing, psf, noise, background, heights_um, background_sd, expected)
    kernel = kernel_psf(psf)
    size = ROOM * (count + 1)
    theta, usable = np.zeros((size, 4)), np.zeros(size, np.bool_)
    steps = np.arange(len(stack.heights), dtype=np.float64)
    theta[:count, Z] = proposals.z + np.interp(proposals.z, steps, stack.heights - steps)
    theta[:count, Y], theta[:count, X] = proposals.y, proposals.x
    theta[:count, A] = _start_amplitudes(theta[:count], proposals.amplitude, stack)
    usable[:count] = np.isfinite(theta[:count]).all(axis=1)
    ground, covariance, fit = np.zeros(size), np.full((size, 4, 4), np.nan), np.full((size, NUMBERS), np.nan)
    others = light_of(theta[:count], usable[:count], stack, kernel)
    short = np.zeros(size, np.bool_)
    if limit is not None:
        first = slice(count)
        short[first] = fit_before(
            limit, stack, kernel, theta[first], usable[first], others,
            ground[first], covariance[first], fit[first],
        )  # fmt: skip
        usable &= ~short
    used = fit_volume(stack, kernel, theta, count, usable, others, ground, covariance, fit, more)
    usable[used:] = False
    usable |= short
    usable &= np.isfinite(theta).all(axis=1) & np.isfinite(covariance).all(axis=(1, 2))
    rows = np.flatnonzero(usable)
    source = np.where(rows < count, rows, -1)
    return _fitted(
        theta[rows], ground[rows], covariance[rows], fit[rows], source, short[rows], stack, kernel, background
    )


def stack_of(
    image: npt.NDArray[Any],
    missing: BoolArray,
    psf: VolumePsf,
    noise: Noise,
    background: Background,
    heights_um: FloatArray | None,
    background_sd: float | None,
    density: float,
) -> Stack:
    """A volume as the kernels take it; raises `ValueError` where shapes do not go together."""
    if image.ndim != 3 or min(image.shape) < 1 or missing.shape != image.shape[:1]:
        raise ValueError(f"a volume of shape {image.shape} with {missing.shape} marks of missing slices")
    if background.grid.shape[0] != image.shape[0]:
        raise ValueError(
            f"a background of {background.grid.shape[0]} slices for a volume of {image.shape[0]}"
        )
    heights = np.arange(image.shape[0], dtype=np.float64)
    if heights_um is not None:
        heights = np.asarray(heights_um, np.float64) / psf.voxel_um[0]
        if heights.shape != image.shape[:1] or not (np.diff(heights) > 0).all():
            raise ValueError(f"the heights of {image.shape[0]} slices must rise: {heights_um}")
    data = np.ascontiguousarray(image, np.float32)
    if noise.offset:
        data = data - np.float32(noise.offset)
    grid = np.ascontiguousarray(background.grid - np.float32(noise.offset), np.float32)
    stiffness = 0.0 if background_sd is None else 1.0 / max(background_sd, 1e-6) ** 2
    read = max(noise.read_variance, LEAST_VARIANCE if noise.gain == 0 else 0.0)
    shot, flat, cell = float(noise.gain), bool((~missing).sum() < 2), int(background.cell_px)
    return Stack(data, ~missing, heights, grid, cell, shot, float(read), stiffness, density, flat)


def _start_amplitudes(theta: FloatArray, given: FloatArray, stack: Stack) -> FloatArray:
    """The given amplitudes; where there is none, the nearest voxel's light above the mean of the background."""
    k = np.clip(np.searchsorted(stack.heights, theta[:, Z]), 0, stack.image.shape[0] - 1)
    j, i = (np.clip(np.rint(theta[:, a]), 0, stack.image.shape[a] - 1).astype(np.intp) for a in (Y, X))
    seen = stack.image[k, j, i] - stack.grid[k].mean(axis=(1, 2))
    return np.where(np.isfinite(given), given, np.maximum(seen, 1.0))


def _fitted(
    theta: FloatArray,
    ground: FloatArray,
    covariance: FloatArray,
    fit: FloatArray,
    source: npt.NDArray[np.int64],
    short: BoolArray,
    stack: Stack,
    psf: KernelPsf,
    background: Background,
) -> Fitted:
    covariance = with_second_order(covariance, fit[:, RATIO])
    sigma = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 0.0))
    seen = stack.heights[stack.seen] if stack.seen.any() else stack.heights
    near = AT_END_SIGMAS * psf.sigma[Z]
    steps = np.interp(theta[:, Z], stack.heights, np.arange(stack.heights.size, dtype=np.float64))
    return Fitted(
        x=theta[:, X],
        y=theta[:, Y],
        z=theta[:, Z],
        amplitude=theta[:, A],
        background=background.at(theta[:, X], theta[:, Y], steps) + ground,
        sigma_x=sigma[:, X],
        sigma_y=sigma[:, Y],
        sigma_z=np.full(len(theta), np.nan) if stack.flat else sigma[:, Z],
        sigma_amplitude=sigma[:, A],
        log_likelihood_ratio=fit[:, RATIO],
        chi_square=fit[:, CHI_SQUARE],
        source=source,
        short=short,
        at_end=(theta[:, Z] < seen.min() + near) | (theta[:, Z] > seen.max() - near),
        covariance=covariance,
    )
