"""Recordings whose pixels follow from the frame number, made by a recording stage that can be killed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import tifffile
import zarr

from acquisition.recorder.frame_table import FrameTable
from acquisition.recorder.image_writer import ImageFacts
from acquisition.recorder.keeper import EveryFrame
from acquisition.recorder.opening import open_output
from acquisition.recorder.settings import RecordSettings
from acquisition.recorder.stage import RecordStage
from acquisition.recorder.writer_thread import WriterThread
from stream.links import open_receiver
from stream.messages import Frame, FrameInfo

RATE_HZ = 50.0


def pattern(frame: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """An image of this frame and of no other."""
    numbers = np.arange(int(np.prod(shape)), dtype=np.uint64).reshape(shape)
    return ((numbers * (1 + frame % 7) + 31 * frame) % (200 if dtype == "uint8" else 60_000)).astype(dtype)


def info(frame: int) -> FrameInfo:
    """What is known of it beside the pixels."""
    return FrameInfo(
        "a run", frame, frame, frame / RATE_HZ, 10**9 + frame, 1.7e9 + frame / RATE_HZ, exposure_ms=1.5
    )


def frame(number: int, shape: tuple[int, ...] = (6, 8), dtype: str = "uint8") -> Frame:
    """The frame of a number."""
    return Frame(info(number), pattern(number, shape, dtype))


def facts(shape: tuple[int, ...] = (6, 8), dtype: str = "uint8") -> ImageFacts:
    """What these images share."""
    return ImageFacts(shape, dtype, 0.5, RATE_HZ, "a run", "tracks", "made up")


def images_in(path: Path) -> np.ndarray:
    """All images of a recording as another program reads them: zarr-python, tifffile."""
    if path.suffix == ".zarr":
        return np.asarray(zarr.open_group(str(path), mode="r")["0"][:])
    with tifffile.TiffFile(path) as file:
        if not len(file.pages):
            return np.zeros((0,))
        found = file.series[0]
        images = found.asarray()
        return images if "T" in found.axes else images[None]


def wrong_in(path: Path, table: FrameTable) -> str:
    """What is wrong with the images of the rows of a frame table; "" if nothing is."""
    rows = table.rows
    images = images_in(path)
    if len(images) < len(rows):
        return f"{len(rows)} rows and {len(images)} images"
    for row, image in zip(rows, images, strict=False):
        if not np.array_equal(image, pattern(row.info.frame, image.shape, image.dtype.name)):
            return f"image {row.index} is not that of frame {row.info.frame}"
        if row.info.time_s != info(row.info.frame).time_s:
            return f"row {row.index} has another time"
    return ""


def record(
    address: str, tracks: Path, settings: RecordSettings, shape: tuple[int, ...], dtype: str
) -> RecordStage:
    """A recording stage that is connected to `address`."""

    def opener() -> object:
        return open_output(settings, facts(shape, dtype), tracks, lambda text: sys.stderr.write(f"{text}\n"))

    receiver = open_receiver(address, patience_s=5.0, lost_after_s=None)
    return RecordStage(receiver, EveryFrame(), WriterThread(opener))


def main() -> None:
    """ADDRESS TRACKS FORMAT COMPRESSION DTYPE SIZE...: record until killed or the stream ends.

    `WHEN_FULL` in the environment is the policy of that name.
    """
    address, tracks, kind, compression, dtype, *size = sys.argv[1:]
    settings = RecordSettings(
        mode="all",
        format=kind,
        compression=compression,
        keep_free_mb=0,
        when_full=os.environ.get("WHEN_FULL", "go_on"),
    )
    stage = record(address, Path(tracks), settings, tuple(map(int, size)), dtype)
    while stage.step(0.05):
        pass
    stage.close()


if __name__ == "__main__":
    main()
