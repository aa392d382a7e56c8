"""Fits beads with a shape: position, amplitude and background of each, and the shape's width.

Each window holds amplitude * shape + background with a gradient. Fisher scoring with the variance of the noise
model at the fitted value, which is maximum likelihood for Poisson noise with gain and read noise (McCullagh &
Nelder 1989, section 9.2: quasi-likelihood), damped as by Levenberg and Marquardt.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calibration.volumes.likelihood import deviance
from calibration.volumes.psf.shapes import GaussianShape, Shape
from calibration.volumes.windows import Windows, background_terms
from engines.volumes.surroundings.noise import Noise

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

AMPLITUDE, BACKGROUND = 3, 4
LINEAR = 8
"""Parameters of each bead: offsets z, y, x, amplitude, background and its slopes along z, y, x."""
ROUNDS = 60
CONVERGED = 1e-4
"""A step of a position that is smaller ends the iteration, voxels: a hundredth of the best standard error."""
MOST_NUMBERS = 12_000_000
"""Numbers of the derivatives held at once (100 MB); more beads are fitted in pieces."""


@dataclass(frozen=True, slots=True, eq=False)
class BeadFits:
    """Fitted parameters (N, P) with their standard errors, and how well they fit.

    Columns: offset z, y, x (voxels), amplitude, background (grey values) and its slopes per voxel along z, y, x;
    then, where the widths were free, the logarithms of the standard deviations along z, y, x. `chi_square` (N,)
    is per degree of freedom. A bead that could not be fitted has NaN.
    """

    parameters: FloatArray
    errors: FloatArray
    chi_square: FloatArray

    @property
    def offset(self) -> FloatArray:
        """Offsets (N, 3) from the windows' centre voxels."""
        return self.parameters[:, :3]

    @property
    def amplitude(self) -> FloatArray:
        """Amplitudes (N,), grey values."""
        return self.parameters[:, AMPLITUDE]


def expected(parameters: FloatArray, image: FloatArray, half: tuple[int, int, int]) -> FloatArray:
    """Grey values (N, D, H, W) from parameters and the shape's image."""
    ground = np.tensordot(parameters[:, BACKGROUND:LINEAR], background_terms(half), axes=1)
    return np.asarray(parameters[:, AMPLITUDE, None, None, None] * image + ground)


def first_guess(windows: Windows) -> FloatArray:
    """Parameters (N, 8) to begin with: background from the dimmer half, amplitude from the middle voxels."""
    masked = np.where(windows.counts, windows.values, np.nan)
    flat = masked.reshape(len(windows), -1)
    ground = np.nanpercentile(flat, 30, axis=1)
    hz, hy, hx = windows.half
    middle = masked[:, max(hz - 1, 0) : hz + 2, hy - 1 : hy + 2, hx - 1 : hx + 2].reshape(len(windows), -1)
    guess = np.zeros((len(windows), LINEAR))
    guess[:, AMPLITUDE] = np.maximum(np.nanmax(middle, axis=1) - ground, 1e-3)
    guess[:, BACKGROUND] = ground
    return guess


def fit_beads(
    windows: Windows,
    shape: Shape,
    noise: Noise,
    start: FloatArray | None = None,
    *,
    free_width: bool = False,
    slopes: bool = True,
    bound: float = 1.5,
) -> BeadFits:
    """Fit each window with `shape`; with `free_width` (Gaussians only) each bead has widths of its own.

    Offsets stay within `bound` voxels of the centre voxel.
    """
    number = LINEAR + (3 if free_width else 0)
    start = first_guess(windows) if start is None else start[:, :LINEAR]
    per_bead = windows.values[0].size * (number + 6) if len(windows) else 1
    piece = max(1, MOST_NUMBERS // per_bead)
    found = [
        _fit(windows.some(slice(k, k + piece)), shape, noise, start[k : k + piece], free_width, slopes, bound)
        for k in range(0, len(windows), piece)
    ]
    if not found:
        return BeadFits(np.empty((0, number)), np.empty((0, number)), np.empty(0))
    return BeadFits(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _fit(
    windows: Windows,
    shape: Shape,
    noise: Noise,
    start: FloatArray,
    free_width: bool,
    slopes: bool,
    bound: float,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    half, count = windows.half, len(windows)
    extra = 3 if free_width else 0
    parameters = np.concatenate([start, np.zeros((count, extra))], axis=1)
    base = np.log(shape.sigma) if free_width and isinstance(shape, GaussianShape) else np.zeros(3)
    if free_width:
        parameters[:, LINEAR:] = base
    terms = background_terms(half)
    if not slopes:
        parameters[:, BACKGROUND + 1 : LINEAR] = 0
    damping = np.full(count, 1e-3)
    active = np.ones(count, bool)
    cost, gradient, normal = normal_equations(windows, shape, noise, parameters, terms, free_width, slopes)
    for _ in range(ROUNDS):
        scale = np.einsum("nii->ni", normal)
        damped = normal + np.einsum("ni,ij->nij", damping[:, None] * scale + 1e-12, np.eye(normal.shape[1]))
        step = _solve(damped, gradient)
        tried = parameters.copy()
        tried[active] += step[active]
        tried[:, :3] = np.clip(tried[:, :3], -bound, bound)
        tried[:, AMPLITUDE] = np.maximum(tried[:, AMPLITUDE], 1e-3 * start[:, AMPLITUDE])
        if free_width:
            tried[:, LINEAR:] = np.clip(tried[:, LINEAR:], base - 1.2, base + 1.2)
        new = normal_equations(windows.some(active), shape, noise, tried[active], terms, free_width, slopes)
        better = new[0] <= cost[active] * (1 + 1e-12)
        rows = np.flatnonzero(active)
        good, bad = rows[better], rows[~better]
        moved = np.abs(tried[good, :3] - parameters[good, :3]).max(axis=1, initial=0.0)
        if free_width:
            moved = np.maximum(moved, np.abs(tried[good, LINEAR:] - parameters[good, LINEAR:]).max(axis=1))
        parameters[good] = tried[good]
        cost[good], gradient[good], normal[good] = (part[better] for part in new)
        damping[good] = np.maximum(damping[good] / 5, 1e-9)
        damping[bad] = damping[bad] * 8
        active[good[moved < CONVERGED]] = False
        active[bad[damping[bad] > 1e6]] = False
        if not active.any():
            break
    freedom = windows.counts.reshape(count, -1).sum(axis=1) - parameters.shape[1]
    covariance = _inverse(normal)
    errors = np.sqrt(np.maximum(np.einsum("nii->ni", covariance), 0))
    return (
        parameters,
        errors,
        _pearson(windows, shape, noise, parameters, free_width) / np.maximum(freedom, 1),
    )


def _shape_of(shape: Shape, parameters: FloatArray, free_width: bool) -> Shape:
    """The shape of all beads, or a Gaussian of each bead's own widths."""
    return GaussianShape(np.exp(parameters[:, LINEAR:])) if free_width else shape


def leverage(windows: Windows, shape: Shape, noise: Noise, parameters: FloatArray) -> FloatArray:
    """How much of each voxel's noise its bead's fit takes up, (N, D, H, W): residuals are smaller by sqrt(1 -
    this)."""
    terms = background_terms(windows.half)
    found = np.zeros(windows.values.shape)
    piece = max(1, MOST_NUMBERS // (windows.values[0].size * (LINEAR + 6))) if len(windows) else 1
    for k in range(0, len(windows), piece):
        some, mine = windows.some(slice(k, k + piece)), parameters[k : k + piece, :LINEAR]
        _, jacobian, _, weight = _linearised(some, shape, noise, mine, terms, False, True)
        inverse = _inverse(np.matmul(jacobian * weight[:, None], jacobian.transpose(0, 2, 1)))
        taken = (np.matmul(inverse, jacobian) * jacobian).sum(axis=1) * weight
        found[k : k + piece] = taken.reshape(some.values.shape)
    return np.clip(found, 0, 0.9)


def normal_equations(
    windows: Windows,
    shape: Shape,
    noise: Noise,
    parameters: FloatArray,
    terms: FloatArray,
    free_width: bool,
    slopes: bool,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Deviance (N,), gradient (N, P) and Fisher information (N, P, P)."""
    mean, jacobian, residual, weight = _linearised(
        windows, shape, noise, parameters, terms, free_width, slopes
    )
    weighted = jacobian * weight[:, None]
    gradient = np.einsum("npv,nv->np", weighted, residual)
    normal = np.matmul(weighted, jacobian.transpose(0, 2, 1))
    if not slopes:
        fixed = np.arange(BACKGROUND + 1, LINEAR)
        normal[:, fixed, fixed] = 1.0
    cost = deviance(noise, windows.values, mean, windows.counts).reshape(len(windows), -1).sum(axis=1)
    if slopes and windows.ground is not None and windows.ground_error is not None:
        rows, firm = np.arange(BACKGROUND, LINEAR), windows.ground_error**-2
        off = windows.ground - parameters[:, BACKGROUND:LINEAR]
        gradient[:, BACKGROUND:LINEAR] += firm * off
        normal[:, rows, rows] += firm
        cost = cost + (firm * off**2).sum(axis=1)
    return cost, gradient, normal


def _linearised(
    windows: Windows,
    shape: Shape,
    noise: Noise,
    parameters: FloatArray,
    terms: FloatArray,
    free_width: bool,
    slopes: bool,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Expected values (N, D, H, W), their derivatives (N, P, voxels), residuals and weights (N, voxels)."""
    count, half = len(windows), windows.half
    voxels = int(np.prod(windows.values.shape[1:]))
    jacobian = np.zeros((count, parameters.shape[1], voxels))
    one = _shape_of(shape, parameters, free_width)
    image, *moved = one.derivatives(parameters[:, :3], half)
    amplitude = parameters[:, AMPLITUDE, None, None, None]
    for axis in range(3):
        jacobian[:, axis] = (amplitude * moved[axis]).reshape(count, voxels)
    if isinstance(one, GaussianShape) and free_width:
        for axis, wider in enumerate(one.by_log_sigma(parameters[:, :3], half)):
            jacobian[:, LINEAR + axis] = (amplitude * wider).reshape(count, voxels)
    jacobian[:, AMPLITUDE] = image.reshape(count, voxels)
    jacobian[:, BACKGROUND : LINEAR if slopes else BACKGROUND + 1] = terms.reshape(4, voxels)[
        : 4 if slopes else 1
    ]
    mean = expected(parameters, image, half)
    residual = np.where(windows.counts, windows.values - mean, 0.0).reshape(count, voxels)
    weight = np.where(windows.counts, 1 / noise.variance(mean), 0.0).reshape(count, voxels)
    return mean, jacobian, residual, weight


def _pearson(
    windows: Windows, shape: Shape, noise: Noise, parameters: FloatArray, free_width: bool
) -> FloatArray:
    image = _shape_of(shape, parameters, free_width).image(parameters[:, :3], windows.half)
    mean = expected(parameters, image, windows.half)
    squared = np.where(windows.counts, (windows.values - mean) ** 2 / noise.variance(mean), 0.0)
    return np.asarray(squared.reshape(len(windows), -1).sum(axis=1))


def _solve(normal: FloatArray, gradient: FloatArray) -> FloatArray:
    scale = np.sqrt(np.maximum(np.einsum("nii->ni", normal), 1e-30))
    scaled = normal / (scale[:, :, None] * scale[:, None, :])
    scaled += 1e-10 * np.eye(normal.shape[1])
    return np.asarray(np.linalg.solve(scaled, (gradient / scale)[..., None])[..., 0] / scale)


def _inverse(normal: FloatArray) -> FloatArray:
    scale = np.sqrt(np.maximum(np.einsum("nii->ni", normal), 1e-30))
    scaled = normal / (scale[:, :, None] * scale[:, None, :])
    scaled += 1e-10 * np.eye(normal.shape[1])
    return np.asarray(np.linalg.inv(scaled) / (scale[:, :, None] * scale[:, None, :]))
