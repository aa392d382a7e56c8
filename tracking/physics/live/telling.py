"""From a fit of the flow to what is told of it during a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from tracking.physics.channel.derived import UM3_PER_UL, UM_PER_M, with_errors
from tracking.physics.channel.fit import ChannelFit
from tracking.physics.channel.misfit import FEWEST_IN_A_CELL, misfit
from tracking.physics.channel.model import axes_of, flow_of, section_of, velocity_at
from tracking.physics.channel.parameters import DEPTH, INDEX, PARAMETERS, SLIP, VELOCITY, WIDTH
from tracking.physics.live.findings import (
    FittedProfile,
    FlowFindings,
    Number,
    Parameter,
    Residuals,
    Test,
)

FloatArray = npt.NDArray[np.float64]

HEIGHTS, ACROSS = 25, 7
"""Points of the profile over the height, each the mean over so many places across the tracks, as bins are."""
OVER_SECTION = 12
"""Points along each axis of the section at which the velocity's error is taken for `profile_error`."""
MAP_CELLS = 8
FALSE_ALARMS = 0.01
"""Probability that a map has a significant cell by chance."""
DIGITS = 6


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """Whether and where the flow is another one than the model's."""

    told: list[str]
    tests: dict[str, Test]
    residuals: Residuals


def look_at(fit: ChannelFit) -> Look:
    """Test the residuals of a fit, and map them."""
    tests = misfit(fit)
    return Look(
        list(tests.told),
        {name: Test(_short(one.p), _short(one.size)) for name, one in tests.tests.items()},
        _residuals(fit),
    )


def findings_of(
    fit: ChannelFit,
    looked: Look,
    viscosity_pa_s: float | None,
    y_um: tuple[float, float],
    **more: Any,
) -> FlowFindings:
    """What follows from a fit; `y_um` is the range across over which the profile is averaged, `more` the rest."""
    told = more.pop("told")
    heights = np.linspace(fit.value("floor_um"), fit.value("floor_um") + fit.value("depth_um"), HEIGHTS)
    across = np.linspace(*y_um, ACROSS)
    x = np.full(HEIGHTS * ACROSS, fit.reference_x_um)
    places = np.stack([x, np.tile(across, HEIGHTS), np.repeat(heights, ACROSS)])
    share = (np.arange(OVER_SECTION) + 0.5) / OVER_SECTION
    y, z = (grid.ravel() for grid in np.meshgrid(share - 0.5, share))

    def of_section(theta: FloatArray) -> FloatArray:
        """Every quantity that does not depend on where the channel is, so that each derivative solves the flow
        once."""
        flow, section = flow_of(fit.section, theta), section_of(fit.section, theta)
        wall = flow.wall()
        speed = theta[VELOCITY]
        rate = (abs(speed) * wall.shear_per_um) ** theta[INDEX]
        fall = math.copysign(abs(speed) ** theta[INDEX] * flow.resistance * UM_PER_M, speed)
        over = speed * flow.at(y * section.width_um, z * section.depth_um)
        most = speed * flow.at(np.zeros(1), np.array([section.depth_um / 2.0]))
        return np.concatenate(
            [
                [speed * section.area_um2 / UM3_PER_UL, np.average(rate, weights=wall.length_um), fall],
                most, rate, over,
            ]
        )  # fmt: skip

    def profile(theta: FloatArray) -> FloatArray:
        velocity = velocity_at(fit.section, theta, fit.reference_x_um, places)[0]
        mean: FloatArray = velocity.reshape(HEIGHTS, ACROSS).mean(axis=1)
        return mean

    value, error = with_errors(fit, of_section, (VELOCITY, WIDTH, DEPTH, SLIP, INDEX))
    along, along_error = with_errors(fit, profile)
    walls = value.size - 4 - y.size
    largest = 4 + int(np.argmax(value[4 : 4 + walls]))
    over_error = error[4 + walls : 4 + walls + y.size]
    most = float(np.abs(value[4 + walls : 4 + walls + y.size]).max()) or 1.0
    shear: list[Number | None] = [None, None, None]
    if viscosity_pa_s is not None:
        shear = [_number(value[i] * viscosity_pa_s, error[i] * viscosity_pa_s) for i in (1, largest, 2)]
    return FlowFindings(
        reference_x_um=_short(fit.reference_x_um),
        parameters={
            name: Parameter(_short(fit.value(name)), _short(fit.standard_error(name)), told(name))
            for name in PARAMETERS
        },
        maximum_um_s=_number(value[3], error[3]),
        flow_rate_ul_s=_number(value[0], error[0]),
        mean_shear_pa=shear[0],
        max_shear_pa=shear[1],
        pressure_gradient_pa_m=shear[2],
        profile_error=_short(float(np.sqrt(np.mean(over_error**2))) / most),
        profile=FittedProfile(_shorts(heights), _shorts(along), _shorts(along_error)),
        residuals=looked.residuals,
        told=looked.told,
        tests=looked.tests,
        stuck=_short(float(fit.classes.shares[1])),
        wrong=_short(float(fit.classes.shares[2])),
        **more,
    )


def _residuals(fit: ChannelFit) -> Residuals:
    """The residual along the channel, where the fit's tracks are sums over many (`length` of them)."""
    along = axes_of(fit.theta)[:, 0]
    width, depth = fit.value("width_um"), fit.value("depth_um")
    place = np.stack([fit.expected.place_um[1] / depth, fit.expected.place_um[0] / width + 0.5])
    row, column = np.clip(np.floor(place * MAP_CELLS), 0, MAP_CELLS - 1)
    at = (row * MAP_CELLS + column).astype(np.int64)
    weight = 1.0 / (along**2 @ (fit.variance * fit.classes.dispersion[:, None] ** 2))

    def summed(values: FloatArray) -> FloatArray:
        total = np.bincount(at, values, MAP_CELLS**2).astype(np.float64)
        return total.reshape(MAP_CELLS, MAP_CELLS)

    known, many = summed(weight), summed(fit.tracks.length.astype(np.float64)) >= FEWEST_IN_A_CELL
    mean = np.divide(
        summed(weight * (along @ fit.residual_um_s)), known, out=np.full_like(known, math.nan), where=many
    )
    limit = norm.isf(FALSE_ALARMS / 2.0 / max(int(many.sum()), 1))
    significant = many & (np.abs(np.nan_to_num(mean)) * np.sqrt(known) > limit)
    return Residuals(
        _shorts(np.linspace(-width / 2.0, width / 2.0, MAP_CELLS + 1)),
        _shorts(np.linspace(0.0, depth, MAP_CELLS + 1)),
        [[_short(one, 3) if math.isfinite(one) else None for one in row] for row in mean.tolist()],
        significant.tolist(),
    )


def _number(value: float, error: float) -> Number:
    return Number(_short(float(value)), _short(float(error)))


def _short(value: float, digits: int = DIGITS) -> float:
    return float(f"{value:.{digits}g}")


def _shorts(values: FloatArray) -> list[float]:
    return [_short(float(value)) for value in values]
