"""Settings of the tracker and of the controllers."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TrackerSettings(_Section):
    """How detections are linked. `flow` predicts each particle's motion; `hungarian` is the plain method."""

    mode: Literal["flow", "hungarian"] = Field(
        "flow", description="flow: Kalman filter and learnt flow; hungarian: frame to frame, as in the paper"
    )
    frame_rate_hz: float = Field(1.0, gt=0, le=1e9, description="used where frames carry no times")
    sigma_xy_um: float = Field(
        0.1, gt=0, le=1e4, description="standard error of x and y where a detection states none"
    )
    sigma_z_um: float = Field(
        1.0, gt=0, le=1e4, description="standard error of z where a detection states none"
    )
    confirm_hits: int = Field(
        3, ge=1, le=10_000, description="detections before a track counts as real (flow)"
    )
    max_gap_frames: int = Field(
        3, ge=0, le=10_000, description="longest run of frames without a detection that is bridged (flow)"
    )
    gate_tail: float = Field(
        0.001,
        gt=0,
        lt=0.5,
        description="share of right links that the chi-square gate of a new track may cut (flow)",
    )
    detection_probability: float = Field(
        0.95, gt=0, lt=1, description="chance that a particle in view is detected (flow)"
    )
    max_displacement_um: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="farthest that a particle of unknown velocity may move between two frames; "
        "unset: twice the mean spacing of the particles (flow)",
    )
    diffusion_um2_s: float | None = Field(
        None,
        ge=0,
        le=1e9,
        description="diffusion coefficient; unset: learnt while tracking (flow)",
    )
    velocity_memory_frames: float = Field(
        20.0, ge=2, le=1e6, description="over how many frames a track's velocity is averaged (flow)"
    )
    max_distance_um: float = Field(
        5.0, gt=0, le=1e6, description="farthest link between two frames (hungarian)"
    )
    min_length_frames: int = Field(
        100, ge=1, description="tracks are flagged tentative until they are this long (hungarian)"
    )


class HoldFlowSettings(_Section):
    """Keep the median velocity in a band of the channel at a target by setting the pump."""

    target_um_s: float = Field(description="the velocity to hold; negative against the axis")
    axis: Literal["x", "y"] = Field("x", description="the direction that is measured")
    min_height_um: float | None = Field(None, description="lower edge of the band, focus position + z")
    max_height_um: float | None = Field(None, description="upper edge of the band, focus position + z")
    min_y_um: float | None = Field(None, description="edge of the band across the image")
    max_y_um: float | None = Field(None, description="edge of the band across the image")
    min_tracks: int = Field(5, ge=1, description="do nothing while fewer tracks are in the band")
    min_flow_ul_s: float = Field(0.0, description="lowest set-point that is asked for")
    max_flow_ul_s: float = Field(gt=0, description="highest set-point that is asked for")
    ul_s_per_um_s: float | None = Field(
        None, description="flow that changes the velocity by 1 um/s; unset: measured when control begins"
    )
    proportional: float = Field(0.3, ge=0, description="share of the error corrected at once")
    integral_time_s: float = Field(
        2.0, gt=0, description="time in which a lasting error is corrected in full"
    )
    period_s: float = Field(0.5, ge=0, description="shortest time between two commands")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_flow_ul_s >= self.max_flow_ul_s:
            raise ValueError("min_flow_ul_s must be less than max_flow_ul_s")
        for low, high in ((self.min_height_um, self.max_height_um), (self.min_y_um, self.max_y_um)):
            if low is not None and high is not None and low >= high:
                raise ValueError("the band is empty: its lower edges must be less than its upper edges")
        return self


class StopWhenSettings(_Section):
    """End the run once enough has been measured; whichever limit is reached first."""

    trajectories: int | None = Field(None, ge=1, description="so many trajectories of `length_frames`")
    length_frames: int = Field(10, ge=1, description="detections that make a trajectory count")
    frames: int | None = Field(None, ge=1, description="so many frames tracked")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.trajectories is None and self.frames is None:
            raise ValueError("give trajectories, frames or both")
        return self


class ControllerSettings(_Section):
    """The feedback controller: exactly one of `hold_flow`, `stop_when` and `file`."""

    hold_flow: HoldFlowSettings | None = None
    stop_when: StopWhenSettings | None = None
    file: Path | None = Field(None, description="a Python file with one controller class")
    options: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="keyword arguments of the class in `file`"
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in ("hold_flow", "stop_when", "file") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of hold_flow, stop_when and file (given: {given or 'none'})")
        if self.options and self.file is None:
            raise ValueError("options belong to a controller of your own; give its file")
        return self
