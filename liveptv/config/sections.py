"""Sections of the experiment file that belong to the application: run, channel, optics, links, session, viewers."""

from __future__ import annotations

import math
import uuid
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from acquisition.physics.refraction import refraction_factor, refraction_in_words
from stream.link import Policy
from stream.settings import LinkSettings, Section


class RunSettings(Section):
    """Where a run is written and when it ends."""

    output: Path = Field(
        Path("tracks.h5"), description="trajectory file; the event log and the report are written beside it"
    )
    overwrite: bool = Field(False, description="replace existing outputs")
    frames: int | None = Field(None, ge=1, le=10**9, description="end after this many frames")
    seconds: float | None = Field(
        None, gt=0, le=1e9, description="end after this many seconds of the camera's time"
    )
    notes: str = Field("", description="free text, kept in the trajectory file")


class ChannelSettings(Section):
    """The flow channel: flow along x, width along y, depth along z. Needed for the theoretical profile."""

    width_um: float = Field(gt=0, description="inner width of the channel, along y")
    depth_um: float = Field(gt=0, description="inner depth of the channel, along z")
    floor_um: float = Field(0.0, description="focus position at which the channel floor is in focus")
    center_y_um: float | None = Field(
        None, description="y of the channel's centre line in the image; left out: the middle of the image"
    )


class OpticsSettings(Section):
    """How the focus drive's travel relates to height in the channel."""

    refraction_factor: float = Field(
        1.0,
        gt=0,
        description="true height per focus travel; left out: from the indices, or 1, where they match",
    )
    sample_index: float | None = Field(
        None, ge=1, le=5, description="refractive index of the liquid in the channel, such as 1.333 for water"
    )
    immersion_index: float | None = Field(
        None, ge=1, le=5, description="refractive index that the lens is made for: 1 for an air lens"
    )
    numerical_aperture: float | None = Field(
        None, gt=0, le=5, description="of the lens; with the indices: rays are averaged over its pupil"
    )

    @model_validator(mode="before")
    @classmethod
    def _factor_from_the_indices(cls, data: Any) -> Any:
        names = ("sample_index", "immersion_index", "numerical_aperture")
        if not isinstance(data, dict) or not any(data.get(name) is not None for name in names):
            return data
        sample, immersion, aperture = (_number(data.get(name)) for name in names)
        if sample is None or immersion is None:
            raise ValueError("give both sample_index and immersion_index, or refraction_factor alone")
        found = refraction_factor(sample, immersion, aperture)
        given = _number(data.get("refraction_factor"))
        if given is not None and not math.isclose(given, found, rel_tol=1e-6):
            raise ValueError(
                f"refraction_factor is {given:g} and the indices give {found:.6g}; leave one of them out"
            )
        return {**data, "refraction_factor": found}

    def in_words(self) -> str:
        """The factor, where it is from, and the focal shift that follows."""
        return refraction_in_words(
            self.refraction_factor, self.sample_index, self.immersion_index, self.numerical_aperture
        )


class TransportSettings(LinkSettings):
    """The message links between the pipeline stages."""

    transport: Literal["shm", "tcp", "inproc"] = Field(
        "shm", description="shm: shared memory; tcp: sockets; inproc: within one process (mode threads)"
    )

    def fresh_address(self) -> str:
        """An unused address; for shm and tcp the system chooses the port when it is bound."""
        if self.transport == "inproc":
            return f"inproc://{uuid.uuid4().hex}"
        return f"{self.transport}://127.0.0.1:0"

    @property
    def is_live(self) -> bool:
        """Whether the policy `live` was asked for."""
        return self.policy is Policy.LIVE


class SessionSettings(Section):
    """How the pipeline stages run, and what happens when one of them fails."""

    mode: Literal["processes", "threads"] = Field(
        "processes",
        description="run each pipeline stage in a process of its own, or all in threads of one process",
    )
    restart_detector: int = Field(3, ge=0, description="how many times a failed detector is restarted")
    hang_s: float = Field(
        10.0,
        gt=0,
        description="a pipeline stage that is silent for this long is taken for hung and is killed",
    )
    recover_s: float = Field(
        30.0, gt=0, description="longest wait for a restarted detector before the run ends"
    )
    start_timeout_s: float = Field(
        300.0,
        gt=0,
        description="longest start-up of the pipeline stages; the first one compiles the detector",
    )
    stop_timeout_s: float = Field(
        60.0, gt=0, description="longest time to process the frames still in the pipeline at the end"
    )
    monitor: str = Field(
        "tcp://127.0.0.1:0",
        description="address for viewers; port 0: any free port, for viewers of the same user only",
    )
    keys: Path | None = Field(
        None, description="folder of CURVE keys (`liveptv keys make`); needed if other computers may connect"
    )
    monitor_hz: float = Field(2.0, gt=0, description="camera images per second sent to viewers")


class RecalibrationSettings(Section):
    """Whether a run tells that its model no longer fits, and what to use in its place."""

    live: Literal["off", "propose"] = Field(
        "off",
        description="propose: look now and then, in a process of the lowest priority, whether the run's own "
        "particles show that named terms of the PSF model have changed; a new version of the model is written "
        "beside the trajectory file and told, never used by this run",
    )
    every_minutes: float = Field(10.0, ge=0.5, le=1e5, description="time between two looks")
    wall_distance_um: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="distance of two walls with particles at rest on both: tells the depth scale",
    )
    wall_focus_um: float | None = Field(
        None, ge=-1e6, le=1e6, description="focus position at which particles at rest on a wall are in focus"
    )


def _number(value: Any) -> float | None:
    """A number as a setting gives it, None where there is none; what is no number is refused afterwards."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None
