"""The standard error of D that a planned experiment will end with, by the estimators of `liveptv diffusion`."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tracking.physics.channel.derived import velocity_gradient
from tracking.physics.channel.fit import ChannelFit
from tracking.physics.diffusion.covariance import expected_moments
from tracking.physics.diffusion.estimate import LIKELIHOOD_BELOW, LONGEST_OF_ALL, NEEDED
from tracking.physics.diffusion.segments import LONGEST
from tracking.physics.diffusion.shear import NOT_TO_BE_USED
from tracking.physics.diffusion.theory import scatter_of_sums
from tracking.physics.planning.view import View
from tracking.physics.tracks.velocities import TrackVelocities

FloatArray = npt.NDArray[np.float64]

GROUPS = 16
"""Groups of tracks by their error, of which each counts with its mean."""


def relative_error_of_d(view: View, fit: ChannelFit, count: FloatArray, exposure_s: float) -> float:
    """Standard error of D over D, from all axes that are used; infinite where the tracks do not tell it.

    `count` (M,) is how often each of the fit's tracks comes. Each segment has a velocity of its own. Along the flow
    D is not used where uncertain places across it add too much, as `tracking.physics.diffusion.shear` has it.
    """
    tracks = fit.tracks
    if not view.diffusion_um2_s > 0 or not len(tracks):
        return math.inf
    sigma = tracks.position_sigma_um * np.sqrt(tracks.length)
    gradient = velocity_gradient(fit, tracks.position_um)[0, 1:]
    interval = tracks.duration_s / np.maximum(tracks.length - 1, 1)
    added = ((gradient * sigma[1:]) ** 2).sum(axis=0) * interval / 2.0
    sheared = np.average(added, weights=count * tracks.length) > NOT_TO_BE_USED * view.diffusion_um2_s
    used = (1, 2) if sheared else (0, 1, 2)
    known = sum(1.0 / _variance(view, tracks, count, sigma[axis], exposure_s) for axis in used)
    return 1.0 / math.sqrt(known) / view.diffusion_um2_s if known > 0 else math.inf


def _variance(
    view: View, tracks: TrackVelocities, count: FloatArray, sigma: FloatArray, exposure_s: float
) -> float:
    """Variance of D of one axis, (um^2/s)^2."""
    d = view.diffusion_um2_s
    steps = np.maximum(tracks.length - 1, 1)
    interval = tracks.duration_s / steps
    mean_s, mean_square = (float(np.average(x, weights=count * steps)) for x in (interval, sigma**2))
    snr = math.sqrt(d * mean_s / mean_square)
    order = np.argsort(sigma)
    parts = [part for part in np.array_split(order, GROUPS) if part.size]
    matrix, scatter = np.zeros((2, 2)), np.zeros((2, 2))
    longest = LONGEST
    if snr < LIKELIHOOD_BELOW:
        longest = int(min(max(NEEDED / max(snr, 1e-3) ** 2, LONGEST), LONGEST_OF_ALL))
    for part in parts:
        pieces = -(-steps[part] // longest)
        times = count[part] * pieces
        length = max(round(float(np.average(steps[part] / pieces, weights=times))), 1)
        over = float(np.average(interval[part], weights=times))
        square = float(np.average(sigma[part] ** 2, weights=times))
        number = float((count[part] * steps[part]).sum()) / length
        s = square - d * exposure_s / 3.0
        if snr < LIKELIHOOD_BELOW:
            matrix += number * _information(length, over, d, s, square / mean_square)
        else:
            one, spread = _sums(length, over, d, s)
            matrix += number * one
            scatter += number * spread
    if not abs(np.linalg.det(matrix)) > 1e-12 * abs(np.prod(np.diag(matrix))):
        return math.inf
    inverse = np.linalg.inv(matrix)
    covariance = inverse if snr < LIKELIHOOD_BELOW else inverse @ scatter @ inverse.T
    return float(covariance[0, 0])


def _sums(length: int, over_s: float, um2_s: float, s_um2: float) -> tuple[FloatArray, FloatArray]:
    """Expected sums and their covariance of one segment, as `tracking.physics.diffusion.covariance` has them."""
    u = np.full((1, length), over_s)
    n = np.array([length])
    inner = np.array([2.0 * over_s if length > 1 else 0.0])
    total, squares = u.sum(axis=1), (u * u).sum(axis=1)
    products = (u[:, 1:] * u[:, :-1]).sum(axis=1)
    one = expected_moments(n, total, squares, products, np.array([2.0 * over_s]), inner, drift=True)
    return one[..., 0], scatter_of_sums(u, n, um2_s, s_um2, drift=True)[..., 0]


def _information(length: int, over_s: float, um2_s: float, s_um2: float, relative: float) -> FloatArray:
    """Fisher information (2, 2) of one segment about D and the common s, of which its own is `relative` times.

    The covariance of the displacements has the eigenvalues 2 D dt + s (2 - 2 cos(pi j / (n + 1))); the velocity
    takes the lowest one.
    """
    wave = 2.0 - 2.0 * np.cos(np.pi * np.arange(2, length + 1) / (length + 1))
    value = 2.0 * um2_s * over_s + s_um2 * wave
    slope = np.stack([np.full_like(wave, 2.0 * over_s), relative * wave]) / value
    information: FloatArray = 0.5 * slope @ slope.T
    return information
