"""Settings of the protocol, `[protocol]`, in the experiment file: slices, and when they are known well enough."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from tracking.control.setting_limits import MOST_POSITIONS, LimitedSection

FLOW_QUANTITIES = ("profile", "flow_rate", "wall_shear", "diffusion")
"""What the fit of the flow finds, and can be known well enough."""


class Enough(LimitedSection):
    """When a slice has been measured well enough: all criteria given must be met."""

    trajectories: int | None = Field(
        None, ge=1, description="number of trajectories of at least `length_frames`"
    )
    length_frames: int = Field(10, ge=2, description="detections from which a trajectory counts")
    standard_error_um_s: float | None = Field(
        None, gt=0, description="standard error of the velocity profile: root mean square over its bins"
    )
    axis: Literal["x", "y"] = Field("x", description="direction of the velocity profile")
    bin_um: float = Field(25.0, gt=0, description="width of the profile's bins in depth")
    min_depth_um: float | None = Field(None, description="only trajectories above this depth z count")
    max_depth_um: float | None = Field(None, description="only trajectories below this depth z count")
    profile_percent: float | None = Field(
        None,
        gt=0,
        description="standard error of the fitted velocity over the section (rms), % of its maximum",
    )
    flow_rate_percent: float | None = Field(None, gt=0, description="standard error of the flow rate, %")
    wall_shear_percent: float | None = Field(
        None, gt=0, description="standard error of the mean shear stress at the wall, %"
    )
    diffusion_percent: float | None = Field(
        None, gt=0, description="standard error of the diffusion coefficient, %"
    )
    longest_s: float | None = Field(
        None, gt=0, description="continue after this long even if the criteria are not met"
    )

    @property
    def of_the_flow(self) -> dict[str, float]:
        """The criteria on the fit of the flow: largest standard error, %, by quantity."""
        given = {name: getattr(self, f"{name}_percent") for name in FLOW_QUANTITIES}
        return {name: percent for name, percent in given.items() if percent is not None}

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.trajectories is None and self.standard_error_um_s is None and not self.of_the_flow:
            raise ValueError(
                "give at least one of trajectories, standard_error_um_s, "
                + ", ".join(f"{name}_percent" for name in FLOW_QUANTITIES)
            )
        low, high = self.min_depth_um, self.max_depth_um
        if low is not None and high is not None and low >= high:
            raise ValueError("min_depth_um must be less than max_depth_um")
        return self


class Foci(LimitedSection):
    """Equally spaced focus positions."""

    first_um: float = Field(description="first focus position")
    last_um: float = Field(description="last focus position")
    count: int = Field(ge=2, le=MOST_POSITIONS, description="number of positions")

    def positions_um(self) -> list[float]:
        """Every position, um."""
        step_um = (self.last_um - self.first_um) / (self.count - 1)
        return [self.first_um + index * step_um for index in range(self.count)]


class UntilEnoughSettings(Enough):
    """Measure every slice until it is known well enough, then go to the next; the run ends after the last one."""

    slices: Foci | list[float] = Field(description="focus positions of the slices, um")
    settle_s: float = Field(0.0, ge=0, description="wait between arriving at a slice and measuring")


class StepSettings(LimitedSection):
    """One step of a protocol: what is set, and how long to measure. Each focus position is a slice."""

    name: str = Field("", description="name of the step, for the record")
    focus_um: float | list[float] | Foci | None = Field(
        None, description="focus position, or several; left out: unchanged"
    )
    flow_ul_s: float | None = Field(None, description="set-point of the pump; left out: unchanged")
    target: float | None = Field(
        None,
        description="set-point of the controller beside it: um/s for hold_flow, uL/s for hold_flow_rate, Pa for "
        "hold_shear, um for hold_focus",
    )
    settle_s: float = Field(0.0, ge=0, description="wait between arriving and measuring")
    seconds: float | None = Field(None, gt=0, description="duration, in the camera's time")
    frames: int | None = Field(None, ge=1, description="number of frames")
    until: Enough | None = Field(None, description="criteria that end the step")

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if (self.seconds is not None) + (self.frames is not None) + (self.until is not None) != 1:
            raise ValueError("give exactly one of seconds, frames and until")
        return self

    def foci_um(self) -> list[float | None]:
        """Focus of each slice of this step."""
        if isinstance(self.focus_um, Foci):
            return list(self.focus_um.positions_um())
        return list(self.focus_um) if isinstance(self.focus_um, list) else [self.focus_um]


class ProtocolSettings(LimitedSection):
    """Steps that are gone through in order, `repeats` times; the run ends after the last one."""

    steps: list[StepSettings] = Field(min_length=1, description="the steps, in order")
    repeats: int = Field(1, ge=1, le=MOST_POSITIONS, description="how many times to go through all steps")
    resume_at: int = Field(
        0, ge=0, description="number of slices to skip because they have been measured already"
    )

    @property
    def needs_flow(self) -> str:
        """The setting that needs the fit of the flow; "" if there is none."""
        names = [name for step in self.steps if step.until is not None for name in step.until.of_the_flow]
        return f"protocol.steps.until.{names[0]}_percent" if names else ""

    @property
    def needs_viscosity(self) -> str:
        """The setting that needs the viscosity; "" if there is none."""
        needs = any(step.until is not None and step.until.wall_shear_percent for step in self.steps)
        return "protocol.steps.until.wall_shear_percent" if needs else ""
