"""Settings of frames that another program takes: the section `[source]` of the experiment file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from acquisition.stacks.axes import parse_axes
from stream.settings import Section
from stream.sockets import LinkAddress

ONLY_FOR = {
    "connect": ("socket",),
    "watch": ("existing", "pattern", "missing_s", "settled_s", "poll_s", "axes", "end_file"),
}
"""Settings that only one of the ways of getting frames has."""


class SourceSettings(Section):
    """Frames of another program: give one of `listen`, `connect` and `watch`."""

    listen: str | None = Field(
        None,
        description='address that a program sends its frames to, such as "tcp://127.0.0.1:5560"; it connects a '
        "PUSH socket",
    )
    connect: str | None = Field(
        None, description="address that a program has bound, from which its frames are taken"
    )
    socket: Literal["sub", "pull"] = Field(
        "sub", description="with `connect`, how that program sends: sub for a PUB socket, pull for PUSH"
    )
    name: str | None = Field(
        None,
        description="take only frames with this `source` in their header; left out: that of the first frame",
    )
    watch: Path | None = Field(
        None,
        description="folder in which a program puts its files: TIFF, OME-TIFF, OME-Zarr, PNG, BMP, JPEG, PGM",
    )
    existing: Literal["take", "skip"] = Field(
        "take", description="with `watch`, whether files that are there at the start are taken"
    )
    pattern: str | None = Field(
        None, description="with `watch`, take only files whose names fit, as in run3_*.tif"
    )
    missing_s: float = Field(
        5.0, gt=0, le=1e5, description="with `watch`, how long a missing number is waited for"
    )
    settled_s: float = Field(
        0.5, ge=0, le=1e4, description="with `watch`, how long a file must be unchanged before it is taken"
    )
    poll_s: float = Field(
        0.1, ge=0.01, le=1e3, description="with `watch`, time between two looks into the folder"
    )
    axes: str | None = Field(
        None, description='with `watch`, axes of the files, slowest first, as in "TYX"; overrides the files'
    )
    end_file: str = Field(
        "liveptv.end",
        min_length=1,
        description="with `watch`, a file of this name in the folder ends the run",
    )
    quiet_s: float | None = Field(
        None, gt=0, le=1e7, description="end after this long without a new frame; left out: wait for more"
    )
    frame_rate_hz: float | None = Field(
        None, ge=1e-6, le=1e7, description="frame rate; overrides the times that come with the frames"
    )
    pixel_size_um: float | None = Field(
        None, ge=1e-6, le=1e7, description="pixel size in object space; overrides the one of the frames"
    )

    z_step_um: float | None = Field(
        None,
        ge=1e-6,
        le=1e7,
        description="of volumes, the distance between their slices; overrides the heights that come with them",
    )

    @field_validator("axes")
    @classmethod
    def _known_axes(cls, axes: str | None) -> str | None:
        return None if axes is None else parse_axes(axes)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = [name for name in ("listen", "connect", "watch") if getattr(self, name) is not None]
        if len(ways) != 1:
            raise ValueError("give exactly one of source.listen, source.connect and source.watch")
        for way, names in ONLY_FOR.items():
            for name in names:
                if way not in ways and name in self.model_fields_set:
                    raise ValueError(f"source.{name} needs source.{way}; leave it out")
        if self.name is not None and "watch" in ways:
            raise ValueError("source.name is for frames from a socket; use source.pattern with source.watch")
        if self.address is not None:
            where = LinkAddress.parse(self.address)
            if where.scheme != "tcp":
                raise ValueError(f"source.{ways[0]} must be a tcp address, such as tcp://127.0.0.1:5560")
            if self.connect is not None and where.port == 0:
                raise ValueError("source.connect needs the port of the other program, not 0")
        return self

    @property
    def address(self) -> str | None:
        """The address of `listen` or `connect`; None with `watch`."""
        return self.listen if self.listen is not None else self.connect

    @property
    def is_live(self) -> bool:
        """Whether frames come as they are taken, so that they can be late; files wait."""
        return self.watch is None

    def in_words(self) -> str:
        """Where the frames come from, for a user."""
        if self.watch is not None:
            return f"the folder {self.watch}"
        return f"{self.address}"
