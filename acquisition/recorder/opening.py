"""Opens a recording: image file and frame table, and says what the disk allows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from acquisition.recorder.compression_choice import CompressionChoice
from acquisition.recorder.disk_rate import DiskRate
from acquisition.recorder.frame_table import FrameTableWriter, head_line
from acquisition.recorder.image_writer import ImageFacts, ImageWriter
from acquisition.recorder.output import RecordingOutput
from acquisition.recorder.settings import RecordSettings, frame_table_of, name_beside
from acquisition.recorder.tiff_images import TiffImages
from acquisition.recorder.zarr_images import ZarrImages
from stream.errors import LivePTVError

NEAR = 1.25  # a disk that is faster than the camera by less than this may be slower at times


def open_output(
    settings: RecordSettings,
    facts: ImageFacts,
    trajectories: Path,
    tell: Callable[[str], None],
    *,
    overwrite: bool = False,
) -> RecordingOutput:
    """Create image file and frame table of a run. Raises `OutputError`; nothing of ours is left then."""
    images = settings.images(trajectories)
    table_path = frame_table_of(images)
    named = {"run_id": facts.run_id, "trajectories": name_beside(trajectories, images), "images": images.name}
    head = head_line(**named, mode=settings.mode, image=asdict(facts))
    table = FrameTableWriter(table_path, head, overwrite=overwrite)
    try:
        writer = _images(settings, facts, images, named | {"frame_table": table_path.name}, overwrite)
    except LivePTVError:
        table.close()
        table_path.unlink(missing_ok=True)
        raise
    return RecordingOutput(
        writer,
        table,
        images.parent,
        keep_free_bytes=settings.keep_free_mb * 1e6,
        image_bytes=facts.nbytes,
        stops=settings.when_full == "stop",
        tell=tell,
    )


def _images(
    settings: RecordSettings, facts: ImageFacts, path: Path, named: dict[str, str], overwrite: bool
) -> ImageWriter:
    if settings.format == "ome-tiff":
        return TiffImages(
            path, facts, "zstd" if settings.compression == "zstd" else "none", overwrite=overwrite
        )
    choice = None if settings.compression == "none" else CompressionChoice(settings.compression)
    return ZarrImages(path, facts, choice, attributes={"liveptv": named}, overwrite=overwrite)


@dataclass(frozen=True, slots=True)
class DiskNeed:
    """What the camera delivers (bytes/s; NaN: not known) beside what the disk takes, and its free bytes."""

    camera: float
    disk: DiskRate
    free: float

    def in_words(self) -> str:
        """For a user."""
        text = f"the camera delivers {_rate(self.camera)}"
        if math.isnan(self.camera):
            text = "the camera's rate is not known"
        if self.disk.bytes_per_s > 0:
            text += f", the disk takes {_rate(self.disk.bytes_per_s)} ({self.disk.how})"
            if self.disk.bytes_per_s < self.camera:
                text += ": frames will be lost, and declared, unless compression saves them"
            elif self.disk.bytes_per_s < NEAR * self.camera:
                text += ": hardly more"
        else:
            text += f", the disk's rate is not known: {self.disk.how}"
        if self.camera > 0:
            text += f"; there is room for {self.free / self.camera / 60:.0f} min without compression"
        return text

    def to_dict(self) -> dict[str, Any]:
        """As it is stored."""
        return {
            "camera_bytes_per_s": self.camera,
            "disk_bytes_per_s": self.disk.bytes_per_s,
            "measured_by": self.disk.how,
            "free_bytes": self.free,
        }


def _rate(bytes_per_s: float) -> str:
    return f"{bytes_per_s / 1e6:.0f} MB/s" if bytes_per_s >= 1e7 else f"{bytes_per_s / 1e6:.2g} MB/s"
