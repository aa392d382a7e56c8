"""Tells whether a flow is not the fitted one, and where it differs.

Three tests on the residuals: against any smooth difference over the section, against slip at the walls, and
against a flow index other than 1. Each is a score test whose covariance comes from the tracks themselves
(Hotelling's T^2 of the efficient scores; White 1982), so that its false alarms do not depend on the stated errors.
Residuals count up to `CLIP` standard deviations, so that neither wrong links nor the sorting into classes decide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import f as f_distribution
from scipy.stats import norm

from tracking.analysis.grid import VelocityField, velocity_field
from tracking.analysis.robust import SIGMA_OF_MAD
from tracking.physics.channel.fit import ChannelFit, difference_of, place_in_image
from tracking.physics.channel.model import axes_of, velocity_at
from tracking.physics.channel.parameters import INDEX, PARAMETERS, SLIP

FloatArray = npt.NDArray[np.float64]

ORDER = 4
"""Highest order of the Legendre polynomials of y and z together: 15 shapes, with details of a fourth of the
section. More look for finer ones with less power for broad ones."""
CLIP = 5.0
FALSE_ALARMS = 1e-4
"""Probability that one look finds a difference where there is none. A look a second for a minute: 0.6 % at most;
fewer, because what is known at one second is mostly known at the next."""
SMALLEST = 0.005
"""Difference, over the maximum velocity, that is worth telling: detectors' depths are not right to less."""
FEWEST_IN_A_CELL = 10
"""Tracks from which a cell's standard error, from their scatter, is known to a quarter."""
DISTINCT = 1e-6
"""Least information of a combination of shapes, over the largest, that is used."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`p` is the probability of at least this difference by chance, `size` the rms difference over the tracks, as a
    part of the maximum velocity; `value` and its `standard_error` are of the parameter, where one is tested."""

    p: float
    size: float
    value: float
    standard_error: float


@dataclass(frozen=True, slots=True, eq=False)
class Misfit:
    """The tests by name, `smooth`, `slip_um`, `flow_index`, and which of them have found something."""

    tests: dict[str, Finding]
    told: tuple[str, ...]


def misfit(fit: ChannelFit, *, false_alarms: float = FALSE_ALARMS, smallest: float = SMALLEST) -> Misfit:
    """Test the residuals of a fit. Parameters that were fitted are not tested."""
    place = place_in_image(fit.theta, fit.reference_x_um, fit.tracks, fit.expected)
    axes = axes_of(fit.theta)
    shapes = {"smooth": axes[:, 0][:, None, None] * _polynomials(fit.expected.place_um)}
    here = velocity_at(fit.section, fit.theta, fit.reference_x_um, place)
    for parameter in (SLIP, INDEX):
        plain = fit.theta[SLIP] == 0 and fit.theta[INDEX] == 1
        if plain and fit.prior.sigma[parameter] == 0:
            moved = fit.theta.copy()
            moved[parameter] += difference_of(fit.theta, parameter)
            there = velocity_at(fit.section, moved, fit.reference_x_um, place)
            slope = (there - here) / difference_of(fit.theta, parameter)
            shapes[PARAMETERS[parameter]] = slope[..., None]
    most = float(np.abs(here).max()) or 1.0
    tests = {name: _find(fit, shape, most) for name, shape in shapes.items()}
    limit = false_alarms / len(tests)
    told = tuple(name for name, test in tests.items() if test.p < limit and test.size >= smallest)
    return Misfit(tests, told)


def _polynomials(place_um: FloatArray) -> FloatArray:
    """Products of Legendre polynomials, (M, shapes), over the part of the section where there are tracks."""
    low, high = place_um.min(axis=1, keepdims=True), place_um.max(axis=1, keepdims=True)
    y, z = 2.0 * (place_um - low) / np.maximum(high - low, 1e-300) - 1.0
    every = np.polynomial.legendre.legvander2d(y, z, (ORDER, ORDER))
    orders = np.add.outer(np.arange(ORDER + 1), np.arange(ORDER + 1)).ravel()
    polynomials: FloatArray = every[:, orders <= ORDER]
    return polynomials


def _find(fit: ChannelFit, shapes: FloatArray, most_um_s: float) -> Finding:
    """Test whether shapes (3, M, K) of velocity are in the residuals."""
    ratio = fit.residual_um_s / np.sqrt(fit.variance)
    sigma = np.sqrt(fit.variance) * SIGMA_OF_MAD * np.median(np.abs(ratio), axis=1, keepdims=True)
    pull = np.clip(fit.residual_um_s / sigma, -CLIP, CLIP)
    shapes, jacobian = shapes / sigma[..., None], fit.jacobian / sigma[..., None]
    both = ((0, 1), (0, 1))
    curvature = np.tensordot(jacobian, jacobian, both) + np.diag(1.0 / fit.prior.sigma[fit.prior.free] ** 2)
    size = np.sqrt(np.diag(curvature))
    shared = np.tensordot(jacobian, shapes, both)
    explained = np.linalg.pinv(curvature / np.outer(size, size), hermitian=True) @ (shared / size[:, None])
    own = shapes - np.tensordot(jacobian / size, explained, (2, 0))
    information = np.tensordot(own, own, both)
    values, vectors = np.linalg.eigh(information)
    used = values > DISTINCT * max(float(np.trace(np.tensordot(shapes, shapes, both))), 1e-300)
    if not used.any():
        return Finding(1.0, 0.0, 0.0, np.inf)
    turn = vectors[:, used] / np.sqrt(values[used])
    scores = (pull[..., None] * (own @ turn)).sum(axis=0)
    count, number = scores.shape
    if count <= 2 * number:
        return Finding(1.0, 0.0, 0.0, np.inf)
    mean = scores.mean(axis=0)
    scatter = np.cov(scores, rowvar=False).reshape(number, number)
    square = count * float(mean @ np.linalg.pinv(scatter, hermitian=True) @ mean)
    p = float(f_distribution.sf(square * (count - number) / (number * (count - 1)), number, count - number))
    # What the shapes add, less what noise adds on average.
    found = scores.sum(axis=0)
    fitted = (own @ turn) @ found * sigma
    noise = (((own @ turn) * sigma[..., None]) ** 2).sum(axis=(0, 1)) @ (np.diag(scatter) * count)
    rms = np.sqrt(max(float((fitted**2).sum()) - float(noise), 0.0) / count) / most_um_s
    value = float((turn @ found)[0]) if shapes.shape[2] == 1 else 0.0
    error = float(np.sqrt(count * scatter[0, 0]) * turn[0, 0]) if shapes.shape[2] == 1 else np.inf
    return Finding(p, float(rms), value, abs(error))


@dataclass(frozen=True, slots=True, eq=False)
class ResidualMap:
    """Residuals over the section: `field` has z as a and y as b; `z_score` is residual over standard error.

    `significant` cells are those that one of 1 / `false_alarms` maps would have by chance somewhere.
    """

    field: VelocityField
    z_score: FloatArray
    significant: npt.NDArray[np.bool_]


def residual_map(
    fit: ChannelFit, cells_y: int = 8, cells_z: int = 8, *, false_alarms: float = 0.01
) -> ResidualMap:
    """Mean residual along the channel in each cell of the section's box, um/s."""
    along = axes_of(fit.theta)[:, 0]
    residual = along @ fit.residual_um_s
    sigma = np.sqrt(along**2 @ (fit.variance * fit.classes.dispersion[:, None] ** 2))
    y, z = fit.expected.place_um
    width, depth = fit.value("width_um"), fit.value("depth_um")
    edges_y = np.linspace(-width / 2.0, width / 2.0, cells_y + 1)
    edges_z = np.linspace(0.0, depth, cells_z + 1)
    field = velocity_field(z, y, residual, edges_z, edges_y, sigma)
    with np.errstate(invalid="ignore", divide="ignore"):
        score = field.velocity_um_s / field.standard_error_um_s
    limit = norm.isf(false_alarms / 2.0 / max(int(np.isfinite(score).sum()), 1))
    few = field.tracks < FEWEST_IN_A_CELL
    return ResidualMap(field, score, (np.abs(np.nan_to_num(score)) > limit) & ~few)
