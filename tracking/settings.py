"""Settings of the tracker; those of the controllers are in `tracking.control.settings`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from stream.settings import Section


class TrackerSettings(Section):
    """How detections are linked. `flow` predicts each particle's motion; `hungarian` is the plain method."""

    mode: Literal["flow", "hungarian"] = Field(
        "flow",
        description="flow: Kalman filter and learnt flow field; hungarian: frame to frame, as in Franchini & "
        "Krevor (2020)",
    )
    motion: Literal["auto", "flow", "switching"] = Field(
        "auto",
        description="how particles move. flow: with the flow around them, and random steps; switching: each by "
        "itself, now Brownian, now directed; auto: flow in images, switching in volumes (only for mode flow)",
    )
    frame_rate_hz: float = Field(1.0, gt=0, le=1e9, description="frame rate where frames carry no times")
    sigma_xy_um: float = Field(
        0.1, gt=0, le=1e4, description="standard error of x and y where a detection states none"
    )
    sigma_z_um: float = Field(
        1.0, gt=0, le=1e4, description="standard error of z where a detection states none"
    )
    confirm_hits: int = Field(3, ge=1, le=10_000, description="detections that confirm a track (flow)")
    max_gap_frames: int = Field(
        3,
        ge=0,
        le=10_000,
        description="longest gap, in frames without a detection, that a track bridges (flow)",
    )
    gate_tail: float = Field(
        0.001,
        gt=0,
        lt=0.5,
        description="fraction of correct links that the chi-square gate of a new track may reject (flow)",
    )
    detection_probability: float = Field(
        0.95, gt=0, lt=1, description="probability that a particle in view is detected (flow)"
    )
    max_displacement_um: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="largest displacement between two frames of a particle of unknown velocity; left out: "
        "twice the mean spacing of the particles (flow)",
    )
    diffusion_um2_s: float | None = Field(
        None,
        ge=0,
        le=1e9,
        description="diffusion coefficient; left out: learnt while tracking (flow)",
    )
    velocity_memory_frames: float = Field(
        20.0, ge=2, le=1e6, description="frames over which a track's velocity is averaged (flow)"
    )
    side_memory_frames: int = Field(
        200,
        ge=0,
        le=10_000,
        description="frames back that a track is revised once its motion shows that it is on the other side of "
        "focus (flow; only where detections have a second depth)",
    )
    max_distance_um: float = Field(
        5.0, gt=0, le=1e6, description="longest link between two frames (hungarian)"
    )
    min_length_frames: int = Field(
        100, ge=1, description="tracks are flagged tentative until they are this long (hungarian)"
    )
    double_test: Literal["auto", "likelihood", "paper", "off"] = Field(
        "auto",
        description="test for second detections of one particle; auto: likelihood with flow, the paper's rule "
        "with hungarian",
    )
    double_distance_um: float = Field(
        5.0, gt=0, le=1e4, description="largest distance in x and y between two detections of one particle"
    )
    double_displacement_um: float = Field(
        0.05,
        gt=0,
        le=1e4,
        description="two close tracks are one particle if their mean relative displacement per frame is "
        "smaller (paper)",
    )

    @model_validator(mode="after")
    def _likelihood_needs_the_flow(self) -> Self:
        if self.mode == "hungarian" and self.double_test == "likelihood":
            raise ValueError("double_test likelihood needs mode flow; choose paper or off")
        return self
