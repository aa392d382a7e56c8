"""What a fit of the flow says at one moment of a run, as plain numbers: for page, controllers and record."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from stream.errors import LinkError


class Number(msgspec.Struct, frozen=True):
    """A value and its standard error."""

    value: float
    error: float


class Parameter(Number, frozen=True):
    """A parameter of the fit; `told` by the tracks, or known only from before."""

    told: bool


class FittedProfile(msgspec.Struct, frozen=True):
    """Velocity along x, um/s, and its standard error over the absolute height, um, averaged across the tracks."""

    height_um: list[float]
    velocity_um_s: list[float]
    error_um_s: list[float]


class Residuals(msgspec.Struct, frozen=True):
    """Tracks less fit in cells of the section, um/s, (height, y); None where there are too few tracks.

    `significant` are those that chance would not give.
    """

    y_um: list[float]
    z_um: list[float]
    residual_um_s: list[list[float | None]]
    significant: list[list[bool]]


class Test(msgspec.Struct, frozen=True):
    """How likely at least this difference is by chance, and its size as a part of the maximum velocity (rms)."""

    p: float
    size: float


class FlowFindings(msgspec.Struct, frozen=True):
    """The flow at `time_s` of a run, from `tracks` since `from_s`, at the present set-point of the pump.

    `parameters` are those of `PARAMETERS` by name, center and floor at `reference_x_um`. `profile_error` is the
    standard error of the velocity over the section (rms) as a part of its maximum. Shear (Pa) and pressure gradient
    (Pa/m) are None without a viscosity, set-point and diffusion (across the flow) where they are not known. `told`
    names the tests that say that the flow is another one.
    """

    frame: int
    time_s: float
    from_s: float
    tracks: int
    set_point_ul_s: float | None
    reference_x_um: float
    parameters: dict[str, Parameter]
    maximum_um_s: Number
    flow_rate_ul_s: Number
    mean_shear_pa: Number | None
    max_shear_pa: Number | None
    pressure_gradient_pa_m: Number | None
    profile_error: float
    profile: FittedProfile
    residuals: Residuals
    told: list[str]
    tests: dict[str, Test]
    stuck: float
    wrong: float
    diffusion_um2_s: Number | None = None

    def facts(self) -> dict[str, Any]:
        """In types that JSON knows."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found

    def percent(self, name: str) -> float:
        """Standard error of a quantity, % of its value (of the profile, of the maximum); NaN if unknown."""
        if name == "profile":
            return 100.0 * self.profile_error
        number: Number | None = getattr(self, name)
        if number is None or number.value == 0:
            return math.nan
        return 100.0 * number.error / abs(number.value)


def findings_from(facts: dict[str, Any]) -> FlowFindings:
    """The findings of a record's entry. Raises `LinkError` if it is none."""
    try:
        return msgspec.convert(facts, FlowFindings)
    except msgspec.ValidationError as error:
        raise LinkError(f"an entry of the run's record is not a fit of the flow: {error}") from error
