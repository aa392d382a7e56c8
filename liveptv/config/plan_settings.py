"""Settings of the plan of an experiment, `[plan]`: what is wanted, and what the other sections do not say."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from stream.settings import Section
from tracking.control.protocol_settings import Foci

MOST_SLICES = 200


class WantedErrors(Section):
    """Standard errors that the experiment shall end with."""

    profile: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="of the velocity, over its maximum: root mean square over the section; 0.01 is 1 %",
    )
    flow_rate: float | None = Field(None, gt=0, lt=1, description="of the flow rate, relative")
    wall_shear: float | None = Field(None, gt=0, lt=1, description="of the mean wall shear stress, relative")
    pressure_gradient: float | None = Field(
        None, gt=0, lt=1, description="of the pressure gradient, relative"
    )
    diffusion: float | None = Field(None, gt=0, lt=1, description="of the diffusion coefficient, relative")
    floor_um: float | None = Field(None, gt=0, description="of the height of the channel's floor")
    ceiling_um: float | None = Field(None, gt=0, description="of the height of the channel's ceiling")
    depth_um: float | None = Field(None, gt=0, description="of the channel's depth, with unknown = depth_um")
    width_um: float | None = Field(None, gt=0, description="of the channel's width, with unknown = width_um")
    center_y_um: float | None = Field(None, gt=0, description="of the y of the channel's centre line")

    def given(self) -> dict[str, float]:
        """Those that are given, by name."""
        return {name: value for name, value in self.model_dump().items() if value is not None}


class PlanSettings(Section):
    """What `liveptv plan` plans for. What is left out is taken from an earlier run, the model or other sections."""

    wanted: WantedErrors = Field(
        default_factory=WantedErrors, description="standard errors that the experiment shall end with"
    )
    like: Path | None = Field(
        None,
        description="trajectory file of an earlier run: localisation errors over depth, particles, image and frame "
        "rate are as there",
    )
    flow_ul_s: float | None = Field(None, gt=0, description="flow through the channel")
    velocity_um_s: float | None = Field(
        None, gt=0, description="mean velocity over the section, in place of flow_ul_s"
    )
    particles_per_ml: float | None = Field(None, gt=0, description="number of particles in a millilitre")
    particles_in_image: float | None = Field(
        None, gt=0, description="number of particles in one image, in place of particles_per_ml"
    )
    frame_rate_hz: float | None = Field(None, gt=0, description="frame rate of the camera")
    exposure_ms: float | None = Field(
        None, gt=0, description="exposure time; left out: microscope.exposure_ms, else none"
    )
    image_px: tuple[int, int] | None = Field(None, description="pixels of the image along x and y")
    pixel_size_um: float | None = Field(
        None, gt=0, description="pixel size in object space; left out: that of the source"
    )
    depth_range_um: tuple[float, float] | None = Field(
        None, description="depths z that are measured, off the focus; left out: those of the model"
    )
    localisation_um: list[float] | list[list[float]] | None = Field(
        None,
        description="standard errors of x, y and z; or a list of depth, x, y and z at several depths",
    )
    snr: float | None = Field(
        None,
        gt=0,
        description="signal-to-noise ratio of particles in focus; with a width curve or calibration as the model, "
        "localisation errors follow (a lower bound)",
    )
    image_diameter_um: float | None = Field(
        None, gt=0, description="diameter of a particle's image, to tell overlap and motion blur"
    )
    unknown: list[Literal["width_um", "depth_um", "slip_um", "flow_index"]] = Field(
        default_factory=list, description="what the fit shall find too, as `liveptv flow --unknown`"
    )
    slices: Literal["cover", "best"] | Foci | list[float] = Field(
        "cover",
        description="focus positions; cover: equally spaced, all depths of the channel are seen; best: those that "
        "take the least time, whatever is seen of the rest",
    )
    frames: int | None = Field(
        None, ge=1, description="frames of each slice; left out: as many as the wanted errors take"
    )
    settle_s: float = Field(0.5, ge=0, description="time between two slices")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for one, other in (("flow_ul_s", "velocity_um_s"), ("particles_per_ml", "particles_in_image")):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise ValueError(f"give {one} or {other}, not both")
        if self.depth_range_um is not None and not self.depth_range_um[0] < self.depth_range_um[1]:
            raise ValueError("depth_range_um needs the lower depth first")
        if self.image_px is not None and min(self.image_px) < 1:
            raise ValueError("image_px needs two numbers of pixels above 0")
        if isinstance(self.slices, list) and not 0 < len(self.slices) <= MOST_SLICES:
            raise ValueError(f"give 1 to {MOST_SLICES} slices")
        return self
