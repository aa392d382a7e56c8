"""Settings of volumes: the `[volume]` section of the experiment file."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from stream.settings import Section
from stream.volume_info import MOST_SLICES


class VolumeSettings(Section):
    """Volumes taken with [microscope]: stacks of slices, one after the other, while the focus drive scans.

    With `start_um` or `centre_um` left out, the volumes are centred on where the focus is when the run starts.
    """

    slices: int = Field(ge=2, le=MOST_SLICES, description="slices of a volume")
    z_step_um: float = Field(gt=0, description="distance between two slices")
    start_um: float | None = Field(None, description="focus position of the lowest slice")
    centre_um: float | None = Field(
        None,
        description="focus position of the middle of the volume, in place of start_um; both left out: where the "
        "focus is when the run starts",
    )
    direction: Literal["both", "up", "down"] = Field(
        "both",
        description="how the focus travels: both: up in one volume, down in the next, so that it never flies back; "
        "up or down: the same way in every volume",
    )
    mode: Literal["auto", "sequenced", "stepped"] = Field(
        "auto",
        description="sequenced: the camera's trigger moves the drive through positions loaded beforehand; stepped: "
        "the program moves it and waits before each slice; auto: sequenced where the drive can, else stepped",
    )
    volumes_per_s: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="volumes started per second; the camera rests in between; left out: without a pause",
    )
    settle_images: int = Field(
        0,
        ge=0,
        le=100,
        description="images at the start of each volume that are thrown away while the drive returns or settles",
    )
    settle_s: float = Field(
        0.0, ge=0, le=10, description="stepped: wait before each slice after the drive has come to rest"
    )
    second_image_at: Literal["second", "first"] = Field(
        "second",
        description="sequenced: the loaded position at which the drive takes the second image after its start; "
        "first: the drive goes to its first loaded position only at the first trigger",
    )
    drive_repeats: bool = Field(
        True,
        description="sequenced: whether the drive begins its loaded positions again after the last one; if not, "
        "camera and drive are started again for each filling of the drive",
    )
    first_image_number: int | None = Field(
        None,
        ge=0,
        description="what microscope.frame_number_key says of the first image after each start of the camera; left "
        "out: that image is taken for the first one that comes",
    )
    lag_up_um: float = Field(
        0.0,
        ge=-1000,
        le=1000,
        description="how far the drive is behind its commanded position while it travels up",
    )
    lag_down_um: float = Field(
        0.0,
        ge=-1000,
        le=1000,
        description="how far the drive is behind its commanded position while it travels down",
    )
    least_slices: int | None = Field(
        None,
        ge=1,
        description="a volume with fewer slices is counted as lost; left out: half of them",
    )

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.start_um is not None and self.centre_um is not None:
            raise ValueError("give volume.start_um or volume.centre_um, not both")
        if self.least_slices is not None and self.least_slices > self.slices:
            raise ValueError(
                f"volume.least_slices ({self.least_slices}) must not be above volume.slices ({self.slices})"
            )
        if self.mode == "stepped" and self.settle_images:
            raise ValueError("volume.settle_images is for sequenced volumes; set volume.settle_s instead")
        return self

    @property
    def depth_um(self) -> float:
        """Distance between the first and the last slice, um."""
        return (self.slices - 1) * self.z_step_um

    @property
    def needed_slices(self) -> int:
        """Slices that a volume needs so as not to count as lost."""
        return (self.slices + 1) // 2 if self.least_slices is None else self.least_slices
