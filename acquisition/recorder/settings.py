"""Settings of the recorder: `[record]` of the experiment file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from acquisition.recorder.conditions import ConditionSettings
from stream.settings import Section


class RecordSettings(Section):
    """Whether the camera images of a run are kept, and how."""

    mode: Literal["off", "events", "all"] = Field(
        "off", description="all: keep every frame; events: keep the frames around events; off: keep none"
    )
    format: Literal["ome-zarr", "ome-tiff"] = Field(
        "ome-zarr", description="format of the images: OME-Zarr 0.5 (sharded) or OME-TIFF (BigTIFF)"
    )
    compression: Literal["auto", "none", "lz4", "zstd"] = Field(
        "auto",
        description="lossless; auto: in OME-Zarr each image is compressed while processors are idle, so that it "
        "takes no time from the detector, and stored as it is otherwise; in OME-TIFF none",
    )
    output: Path | None = Field(
        None, description="image file; left out: beside the trajectory file, as in tracks.frames.ome.zarr"
    )
    when_full: Literal["go_on", "stop"] = Field(
        "go_on",
        description="when the disk is full, fails or is slower than the camera: go_on: the run goes on, and "
        "what is not kept is declared; stop: the run ends",
    )
    buffer_mb: float = Field(
        512.0,
        gt=0,
        le=1e6,
        description="memory for frames that wait for the disk; at most a quarter of the free memory is taken",
    )
    keep_free_mb: float = Field(
        500.0,
        ge=0,
        le=1e9,
        description="the disk counts as full when less than this is left, so that the trajectories find room",
    )

    before_s: float = Field(
        5.0, ge=0, le=3600, description="events: what is kept before the moment that is asked for"
    )
    after_s: float = Field(5.0, ge=0, le=3600, description="events: what is kept after it")
    memory_mb: float = Field(
        1024.0,
        gt=0,
        le=1e6,
        description="events: memory for the last `before_s`, and for frames that wait for the disk; what it "
        "holds is told at the start",
    )
    most_s: float = Field(
        600.0,
        gt=0,
        le=1e6,
        description="events: longest event; one that is asked for again and again is prolonged up to then",
    )
    on: ConditionSettings = Field(
        default_factory=ConditionSettings, description="what begins an event by itself"
    )

    @model_validator(mode="after")
    def _events_fit(self) -> Self:
        if self.after_s > self.most_s:
            raise ValueError("record.after_s must not be above record.most_s")
        return self

    @model_validator(mode="after")
    def _readable_by_others(self) -> Self:
        if self.format == "ome-tiff" and self.compression == "lz4":
            raise ValueError('record.compression "lz4" does not exist in TIFF; use "zstd" or "none"')
        return self

    @property
    def suffix(self) -> str:
        """The ending of the image file."""
        return ".ome.zarr" if self.format == "ome-zarr" else ".ome.tif"

    def images(self, trajectories: Path) -> Path:
        """The image file of a run whose trajectory file is `trajectories`."""
        return self.output or trajectories.with_name(f"{trajectories.stem}.frames{self.suffix}")


def name_beside(path: Path, other: Path) -> str:
    """What `other` calls `path`: its name where both are in one folder, else all of its path."""
    return path.name if path.absolute().parent == other.absolute().parent else str(path.absolute())


def frame_table_of(images: Path) -> Path:
    """The frame table of an image file: `tracks.frames.jsonl` of `tracks.frames.ome.zarr`."""
    name = images.name
    for suffix in (".ome.zarr", ".ome.tif", ".ome.tiff", ".zarr", ".tif", ".tiff"):
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
            break
    return images.with_name(f"{name}.jsonl")
