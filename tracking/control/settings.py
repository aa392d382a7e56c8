"""Settings of the controllers, `[controller]`, and of the protocol, `[protocol]`, in the experiment file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from stream.property_range import PropertyRange
from stream.settings import Section

# The largest of each quantity that means anything, by the end of its name: 10 m, 1 km/s, 1 L/s, 100 days.
LARGEST = {"_um": 1e7, "_um_s": 1e9, "_ul_s": 1e6, "_s": 1e7, "_percent": 100.0, "": 1e9}
SMALLEST = 1e-15  # less than that is 0 or a slip; divided by, it would overflow
MOST_POSITIONS = 10_000
LONGEST_TEXT = 1000
FLOW_QUANTITIES = ("profile", "flow_rate", "wall_shear", "diffusion")
"""Most entries of a list and characters of a text. More is a slip or an attack, not an experiment: 10,000 slices
of a second are three hours."""
MAX_AGE = (
    "oldest result that is acted on, as time since its exposure; left out: 2 s, at most half of "
    "`limits.watchdog_s`"
)


def check_max_age(max_age_s: float | None, watchdog_s: float, setting: str) -> None:
    """Raise `ValueError` if a limit that is given, s, is not below `watchdog_s`; `setting` names it."""
    if max_age_s is not None and max_age_s >= watchdog_s:
        raise ValueError(
            f"{setting} ({max_age_s:g} s) must be less than limits.watchdog_s ({watchdog_s:g} s), from which on "
            "commands are refused"
        )


class _Section(Section):
    @field_validator("*")
    @classmethod
    def _sane(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse a number, a list or a text beyond anything that a microscope has."""
        name = info.field_name or ""
        largest = next(limit for end, limit in LARGEST.items() if name.endswith(end))
        if isinstance(value, str) and len(value) > LONGEST_TEXT:
            raise ValueError(f"the text is longer than {LONGEST_TEXT} characters")
        if isinstance(value, list) and len(value) > MOST_POSITIONS:
            raise ValueError(f"there are {len(value)} of them, at most {MOST_POSITIONS} are taken")
        inner = value if isinstance(value, list) else value.values() if isinstance(value, dict) else [value]
        for number in inner:
            if isinstance(number, int | float) and not isinstance(number, bool) and number:
                if abs(number) > largest:
                    raise ValueError(f"it is larger than {largest:g}, which no microscope reaches")
                if abs(number) < SMALLEST:
                    raise ValueError(f"it is smaller than {SMALLEST:g}; give 0 or a larger number")
        return value


class PumpLoopSettings(_Section):
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


class HoldFocusSettings(_Section):
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


class Enough(_Section):
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


class Foci(_Section):
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


class StepSettings(_Section):
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


class ProtocolSettings(_Section):
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


class PulseOnEntrySettings(_Section, PropertyRange):
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


class StopWhenSettings(_Section):
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


class ControllerSettings(_Section):
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
