"""What follows from the flow in a channel, with standard errors.

Velocities, flow rate, shear stress at the wall, and pressure gradient. Standard errors are those of the
parameters, carried on by numerical derivatives (delta method).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tracking.physics.channel.fit import ChannelFit, difference_of
from tracking.physics.channel.model import flow_of, section_of, velocity_at
from tracking.physics.channel.parameters import INDEX, PARAMETERS, VELOCITY

FloatArray = npt.NDArray[np.float64]

UM3_PER_UL = 1e9
UM_PER_M = 1e6
GRADIENT_STEP = 1e-3
"""Of a central difference, over the smaller size of the section."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its standard error."""

    value: float
    standard_error: float


@dataclass(frozen=True, slots=True, eq=False)
class WallShear:
    """Shear stress, Pa, in pieces of the wall around the section, (W,), with its standard error.

    `y_um`, `z_um` are the middles of the pieces in the section (y from the middle, z from the bottom), `length_um`
    their lengths. `mean` and `maximum` are over the wall.
    """

    y_um: FloatArray
    z_um: FloatArray
    length_um: FloatArray
    stress_pa: FloatArray
    standard_error_pa: FloatArray
    mean: Estimate
    maximum: Estimate


def with_errors(
    fit: ChannelFit,
    function: Callable[[FloatArray], FloatArray],
    depends_on: Collection[int] = range(len(PARAMETERS)),
) -> tuple[FloatArray, FloatArray]:
    """Values of a function of the parameters (10,), and their standard errors, of the same shape.

    It is evaluated for each free one of those that it `depends_on`.
    """
    here = np.asarray(function(fit.theta))
    columns = []
    for parameter in fit.prior.free:
        if parameter not in depends_on:
            columns.append(np.zeros_like(here))
            continue
        moved = fit.theta.copy()
        moved[parameter] += difference_of(fit.theta, int(parameter))
        columns.append((function(moved) - here) / difference_of(fit.theta, int(parameter)))
    free = fit.prior.free
    if not free.size:
        return here, np.zeros_like(here)
    slope = np.stack(columns, axis=-1)
    covariance = fit.covariance[np.ix_(free, free)]
    variance = np.einsum("...i,ij,...j->...", slope, covariance, slope)
    return here, np.sqrt(np.maximum(variance, 0.0))


def _estimate(fit: ChannelFit, function: Callable[[FloatArray], float]) -> Estimate:
    value, error = with_errors(fit, lambda theta: np.array(function(theta)))
    return Estimate(float(value), float(error))


def velocity_along(fit: ChannelFit, position_um: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Velocity and its standard error, um/s, (3, K) each, at positions x, y, height (3, K) on any line."""
    places = np.asarray(position_um, np.float64)
    return with_errors(fit, lambda theta: velocity_at(fit.section, theta, fit.reference_x_um, places))


def velocity_gradient(fit: ChannelFit, position_um: FloatArray) -> FloatArray:
    """Gradient of the velocity along a by the position along b, 1/s, (3, 3, K), at x, y, height (3, K)."""
    step = GRADIENT_STEP * min(fit.value("width_um"), fit.value("depth_um"))
    columns = []
    for axis in range(3):
        to = np.zeros((3, 1))
        to[axis] = step
        ends = [
            velocity_at(fit.section, fit.theta, fit.reference_x_um, position_um + sign * to)
            for sign in (-1, 1)
        ]
        columns.append((ends[1] - ends[0]) / (2.0 * step))
    return np.stack(columns, axis=1)


def velocity_over_section(
    fit: ChannelFit, y_um: npt.ArrayLike, z_um: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Velocity along the channel and its standard error, um/s, at places of the section that broadcast.

    `y_um` from the middle of the section and `z_um` from its bottom, so that where it is does not add to the error.
    """
    y, z = np.broadcast_arrays(np.asarray(y_um, np.float64), np.asarray(z_um, np.float64))

    def along(theta: FloatArray) -> FloatArray:
        velocity: FloatArray = theta[VELOCITY] * flow_of(fit.section, theta).at(y.ravel(), z.ravel())
        return velocity

    value, error = with_errors(fit, along)
    return value.reshape(y.shape), error.reshape(y.shape)


def flow_rate_ul_s(fit: ChannelFit) -> Estimate:
    """Flow rate through the channel, uL/s: mean velocity times area."""
    return _estimate(
        fit, lambda theta: theta[VELOCITY] * section_of(fit.section, theta).area_um2 / UM3_PER_UL
    )


def pressure_gradient_pa_m(fit: ChannelFit, consistency: float) -> Estimate:
    """Fall of the pressure along the channel, Pa/m.

    `consistency` is the viscosity, Pa s; of a power-law liquid (flow index m) its consistency K, Pa s^m.
    """

    def gradient(theta: FloatArray) -> float:
        speed = theta[VELOCITY]
        resistance = flow_of(fit.section, theta).resistance
        return float(np.sign(speed) * consistency * abs(speed) ** theta[INDEX] * resistance * UM_PER_M)

    return _estimate(fit, gradient)


def wall_shear(fit: ChannelFit, consistency: float) -> WallShear:
    """Shear stress along the wall, from viscosity or consistency as in `pressure_gradient_pa_m`."""

    def stress(theta: FloatArray) -> FloatArray:
        rate = np.abs(theta[VELOCITY]) * flow_of(fit.section, theta).wall().shear_per_um
        pascal: FloatArray = consistency * rate ** theta[INDEX]
        return pascal

    wall = flow_of(fit.section, fit.theta).wall()
    value, error = with_errors(fit, stress)
    mean = _estimate(fit, lambda theta: float(np.average(stress(theta), weights=wall.length_um)))
    most = int(np.argmax(value))
    return WallShear(
        wall.y_um,
        wall.z_um,
        wall.length_um,
        value,
        error,
        mean,
        Estimate(float(value[most]), float(error[most])),
    )
