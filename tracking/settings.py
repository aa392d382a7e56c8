"""Settings of the tracker; those of the controllers are in `tracking.control.settings`."""

from __future__ import annotations

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
    double_test: Literal["auto", "likelihood", "paper", "off"] = Field(
        "auto",
        description="how second detections of one particle are found and flagged; auto: likelihood with flow, "
        "the paper's rule with hungarian",
    )
    double_distance_um: float = Field(
        5.0, gt=0, le=1e4, description="farthest that two detections of one particle lie apart in the plane"
    )
    double_displacement_um: float = Field(
        0.05,
        gt=0,
        le=1e4,
        description="two close tracks whose mean displacement a frame against each other is less are one "
        "particle (paper)",
    )

    @model_validator(mode="after")
    def _likelihood_needs_the_flow(self) -> Self:
        if self.mode == "hungarian" and self.double_test == "likelihood":
            raise ValueError("double_test likelihood needs mode flow; choose paper or off")
        return self
