"""Settings of what begins an event by itself: `[record.on]` of the experiment file."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from stream.property_range import PropertyRange
from stream.settings import Section


class RegionSettings(PropertyRange):
    """A particle is seen in this region for the first time."""

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
    min_track_frames: int = Field(5, ge=1, description="shortest track that counts, in frames")
    kind: int | None = Field(None, ge=0, description="class of the particles that count; left out: all")
    min_p_kind: float = Field(0.9, ge=0, le=1, description="least probability of that class")

    @property
    def edges_um(self) -> tuple[tuple[float | None, float | None], ...]:
        """Lower and upper edge in x, y and height."""
        return (
            (self.min_x_um, self.max_x_um),
            (self.min_y_um, self.max_y_um),
            (self.min_height_um, self.max_height_um),
        )

    @model_validator(mode="after")
    def _a_region(self) -> Self:
        if all(low is None and high is None for low, high in self.edges_um):
            raise ValueError("the region has no edges; give at least one")
        if any(low is not None and high is not None and low >= high for low, high in self.edges_um):
            raise ValueError("the region is empty: its lower edges must be less than its upper edges")
        return self


class VelocityBandSettings(Section):
    """The median velocity of the particles in a frame is outside a band."""

    axis: Literal["x", "y", "z"] = Field("x", description="which component of the velocity")
    min_um_s: float | None = Field(None, description="lower edge of the band")
    max_um_s: float | None = Field(None, description="upper edge of the band")
    for_s: float = Field(
        0.2, ge=0, description="outside for this long without a break; shorter ones are noise"
    )
    min_tracks: int = Field(5, ge=1, description="fewest confirmed tracks in a frame whose median is judged")

    @model_validator(mode="after")
    def _a_band(self) -> Self:
        if self.min_um_s is None and self.max_um_s is None:
            raise ValueError("the band has no edges; give min_um_s, max_um_s or both")
        if self.min_um_s is not None and self.max_um_s is not None and self.min_um_s >= self.max_um_s:
            raise ValueError("min_um_s must be less than max_um_s")
        return self


class ConditionSettings(Section):
    """What begins an event by itself, beside those who ask: a controller, the page, the command line, a program."""

    particle_enters: RegionSettings | None = Field(None, description="a particle enters a region")
    velocity_leaves: VelocityBandSettings | None = Field(
        None, description="the median velocity leaves a band; the event lasts as long"
    )
    losses: int | None = Field(
        None, ge=1, description="so many frames are lost within a second, in the camera or on their way"
    )
    self_check: bool = Field(False, description="the self-check tells that something has changed")
    hardware: str | None = Field(
        None,
        description='"Device.Property" that becomes another number than 0; looked at read_hz times a second',
    )

    @field_validator("hardware")
    @classmethod
    def _a_property(cls, name: str | None) -> str | None:
        if name is not None and not all(name.partition(".")):
            raise ValueError('give it as "Device.Property"')
        return name

    @property
    def needs_tracks(self) -> bool:
        """Whether a condition is judged on the tracks of each frame."""
        return self.particle_enters is not None or self.velocity_leaves is not None

    @property
    def any(self) -> bool:
        """Whether there is any condition."""
        return self.needs_tracks or self.losses is not None or self.self_check or self.hardware is not None
