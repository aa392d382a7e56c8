"""Settings of the controllers, `[controller]`, in the experiment file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from stream.property_range import PropertyRange
from tracking.control.protocol_settings import UntilEnoughSettings
from tracking.control.setting_limits import MAX_AGE, LimitedSection, check_max_age


class PumpLoopSettings(LimitedSection):
    """A loop that holds a velocity, and what is proportional to it, by setting the pump."""

    min_tracks: int = Field(5, ge=1, description="no correction while fewer tracks count")
    min_flow_ul_s: float = Field(0.0, description="lowest set-point that the controller commands")
    max_flow_ul_s: float = Field(gt=0, description="highest set-point that the controller commands")
    ul_s_per_um_s: float | None = Field(
        None, description="flow that changes the velocity by 1 um/s; left out: measured when control begins"
    )
    proportional: float = Field(0.3, ge=0, description="fraction of the error that is corrected at once")
    integral_time_s: float = Field(
        1.5, gt=0, description="time in which a constant error is corrected in full"
    )
    derivative_time_s: float = Field(
        0.0, ge=0, description="time over which the measured trend is extrapolated; 0: none"
    )
    filter_time_s: float = Field(0.2, ge=0, description="time over which the measured velocity is averaged")
    period_s: float = Field(0.5, ge=0, description="shortest time between two commands")
    max_age_s: float | None = Field(None, gt=0, description=MAX_AGE)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_flow_ul_s >= self.max_flow_ul_s:
            raise ValueError("min_flow_ul_s must be less than max_flow_ul_s")
        return self


class HoldFlowSettings(PumpLoopSettings):
    """Keep the velocity in a band of the channel at a target by setting the pump."""

    target_um_s: float = Field(description="velocity to hold; negative: against the axis")
    axis: Literal["x", "y"] = Field("x", description="direction of the velocity")
    min_height_um: float | None = Field(
        None, description="lower edge of the band, as a height (focus position + z)"
    )
    max_height_um: float | None = Field(
        None, description="upper edge of the band, as a height (focus position + z)"
    )
    min_y_um: float | None = Field(None, description="lower edge of the band in y")
    max_y_um: float | None = Field(None, description="upper edge of the band in y")

    @model_validator(mode="after")
    def _a_band(self) -> Self:
        for low, high in ((self.min_height_um, self.max_height_um), (self.min_y_um, self.max_y_um)):
            if low is not None and high is not None and low >= high:
                raise ValueError("the band is empty: its lower edges must be less than its upper edges")
        return self


class HoldFlowRateSettings(PumpLoopSettings):
    """Keep the flow rate that the fit of the flow finds at a target by setting the pump; needs `[channel]`."""

    target_ul_s: float = Field(description="flow rate to hold; negative: against the x axis")


class HoldShearSettings(PumpLoopSettings):
    """Keep the shear stress at the wall at a target by setting the pump; needs `[channel]` and a viscosity."""

    target_pa: float = Field(gt=0, description="shear stress to hold, Pa")
    of: Literal["mean", "maximum"] = Field("mean", description="over the wall of the section")


class HoldFocusSettings(LimitedSection):
    """Keep the particles, or the wall, at the same depth by moving the focus."""

    reference: Literal["tracks", "median", "wall"] = Field(
        "tracks",
        description="tracks: the particles' own depths do not shift; median: their median depth is held; wall: "
        "the depth at which the velocity profile falls to zero is held",
    )
    set_point_um: float | None = Field(
        None,
        description="depth z at which to hold the median or the wall; left out: as it is when control begins",
    )
    wall: Literal["floor", "ceiling"] = Field("floor", description="wall to follow")
    axis: Literal["x", "y"] = Field(
        "x", description="flow direction; the velocity profile along it locates the wall"
    )
    reference_time_s: float = Field(
        20.0, gt=0, description="time over which the median or the wall is averaged"
    )
    min_tracks: int = Field(5, ge=1, description="no correction while there are fewer tracks")
    tolerance_um: float = Field(0.5, ge=0, description="smaller deviations are not corrected")
    max_step_um: float = Field(10.0, gt=0, description="longest single correction")
    period_s: float = Field(0.5, ge=0, description="shortest time between two moves")
    max_age_s: float | None = Field(None, gt=0, description=MAX_AGE)


class PulseOnEntrySettings(LimitedSection, PropertyRange):
    """Fire the trigger at the moment at which a particle is predicted to enter a region."""

    min_x_um: float | None = Field(None, description="lower edge of the region in x")
    max_x_um: float | None = Field(None, description="upper edge of the region in x")
    min_y_um: float | None = Field(None, description="lower edge of the region in y")
    max_y_um: float | None = Field(None, description="upper edge of the region in y")
    min_height_um: float | None = Field(
        None, description="lower edge of the region, as a height (focus position + z)"
    )
    max_height_um: float | None = Field(
        None, description="upper edge of the region, as a height (focus position + z)"
    )
    kind: int | None = Field(
        None,
        ge=0,
        description="class of the particles that get a pulse; left out: all, also of unknown class",
    )
    min_p_kind: float = Field(
        0.9,
        ge=0,
        le=1,
        description="least probability of the class of a particle that gets a pulse, with `kind`",
    )
    lead_s: float = Field(
        0.1,
        gt=0,
        description="time before the entry at which the command is sent; must exceed the latency of the loop",
    )
    delay_s: float = Field(0.0, description="delay of the pulse after the predicted entry")
    min_track_frames: int = Field(5, ge=2, description="shortest track whose entry is predicted")
    max_sigma_s: float = Field(
        0.02, gt=0, description="largest standard error of a predicted entry time that still gets a pulse"
    )

    @model_validator(mode="after")
    def _a_region(self) -> Self:
        edges = (
            (self.min_x_um, self.max_x_um),
            (self.min_y_um, self.max_y_um),
            (self.min_height_um, self.max_height_um),
        )
        if all(low is None and high is None for low, high in edges):
            raise ValueError("the region has no edges; give at least one")
        if any(low is not None and high is not None and low >= high for low, high in edges):
            raise ValueError("the region is empty: its lower edges must be less than its upper edges")
        return self


class StopWhenSettings(LimitedSection):
    """End the run once enough has been measured, at whichever limit is reached first."""

    trajectories: int | None = Field(
        None, ge=1, description="number of trajectories of at least `length_frames`"
    )
    length_frames: int = Field(
        10, ge=1, description="frames from its first to its last detection from which a trajectory counts"
    )
    frames: int | None = Field(None, ge=1, description="number of tracked frames")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.trajectories is None and self.frames is None:
            raise ValueError("give trajectories, frames or both")
        return self


KINDS = (
    "hold_flow",
    "hold_flow_rate",
    "hold_shear",
    "hold_focus",
    "until_enough",
    "pulse_on_entry",
    "stop_when",
    "file",
)


class ControllerSettings(LimitedSection):
    """The feedback controller: exactly one of the built-in ones, or a Python file of yours."""

    hold_flow: HoldFlowSettings | None = Field(None, description="hold a velocity by setting the pump")
    hold_flow_rate: HoldFlowRateSettings | None = Field(
        None, description="hold the fitted flow rate by setting the pump"
    )
    hold_shear: HoldShearSettings | None = Field(
        None, description="hold the fitted shear stress at the wall by setting the pump"
    )
    hold_focus: HoldFocusSettings | None = Field(None, description="hold the depth by moving the focus")
    until_enough: UntilEnoughSettings | None = Field(
        None, description="measure each slice until it is enough"
    )
    pulse_on_entry: PulseOnEntrySettings | None = Field(
        None, description="fire a trigger when a particle enters a region"
    )
    stop_when: StopWhenSettings | None = Field(None, description="end the run after enough data")
    file: Path | None = Field(None, description="Python file with one controller class")
    options: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="keyword arguments of the class in `file`"
    )

    def check_ages(self, watchdog_s: float) -> None:
        """Raise `ValueError` if it would act on results as old as `limits.watchdog_s`, s, or older."""
        for kind in ("hold_flow", "hold_flow_rate", "hold_shear", "hold_focus"):
            if (given := getattr(self, kind)) is not None:
                check_max_age(given.max_age_s, watchdog_s, f"controller.{kind}.max_age_s")

    @property
    def needs_flow(self) -> str:
        """The setting that needs the fit of the flow; "" if there is none."""
        for kind in ("hold_flow_rate", "hold_shear"):
            if getattr(self, kind) is not None:
                return f"controller.{kind}"
        if self.until_enough is not None and self.until_enough.of_the_flow:
            return f"controller.until_enough.{next(iter(self.until_enough.of_the_flow))}_percent"
        return ""

    @property
    def needs_viscosity(self) -> str:
        """The setting that needs the viscosity; "" if there is none."""
        if self.hold_shear is not None:
            return "controller.hold_shear"
        until = self.until_enough
        return (
            "controller.until_enough.wall_shear_percent"
            if until is not None and until.wall_shear_percent
            else ""
        )

    @property
    def steers_the_run(self) -> bool:
        """Whether it goes from slice to slice by itself."""
        return self.until_enough is not None

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of {', '.join(KINDS[:-1])} and {KINDS[-1]} (given: {given or 'none'})"
            )
        if self.options and self.file is None:
            raise ValueError("options belong to a controller of your own; give its file")
        return self
