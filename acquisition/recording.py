"""Recorded images as a source: the same frames as from a camera, from a file."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from acquisition.source import SourceInfo
from acquisition.stacks.arrays import SEPARATOR, Hdf5Stack, open_zarr
from acquisition.stacks.folder import SUFFIXES, TIFF, FolderStack
from acquisition.stacks.stack import ImageStack
from acquisition.stacks.tiff import TiffStack
from stream.errors import SourceError
from stream.messages import Frame, FrameInfo, ImageArray
from stream.text import storable

HDF5 = (".h5", ".hdf5", ".hdf", ".he5")
ZARR_MARKS = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
FILMS = (".avi", ".mp4", ".mov", ".mkv", ".wmv", ".cine", ".mpg", ".webm")


def open_stack(path: Path) -> ImageStack:
    """Open a TIFF, OME-TIFF, OME-Zarr, HDF5 file or a folder of images, by what it is.

    Raises `SourceError` with what it is instead, or why it cannot be read.
    """
    plain = Path(str(path).partition(SEPARATOR)[0])
    suffix = plain.suffix.lower()
    if not plain.exists():
        raise SourceError(f"there is no recording {plain}")
    if plain.is_dir():
        is_zarr = suffix == ".zarr" or any((plain / mark).is_file() for mark in ZARR_MARKS)
        return open_zarr(plain) if is_zarr else FolderStack(plain)
    if plain.stat().st_size == 0:
        raise SourceError(f"{plain} is empty")
    if suffix in HDF5:
        return Hdf5Stack(path)
    if suffix in FILMS:
        raise SourceError(
            f"{plain} is a film, which is not read; convert it to images without loss, as with: "
            "ffmpeg -i FILM -pix_fmt gray frames/%06d.png, and give the folder"
        )
    if suffix in TIFF or suffix not in SUFFIXES:
        return TiffStack(plain)
    raise SourceError(f"{plain} is a single picture; give the folder that it is in")


def open_recording(
    path: Path,
    *,
    run_id: str,
    frame_rate_hz: float | None = None,
    pixel_size_um: float | None = None,
    model_pixel_size_um: Callable[[], float | None] = lambda: None,
    pace: bool = False,
    volumes: bool = False,
) -> Recording:
    """Open a recording. `frame_rate_hz` and `pixel_size_um` take precedence over what the file says.

    Where nobody says how large a pixel is, `model_pixel_size_um` is asked, that of the images a detector was made
    for; without that it is 1 um.

    With `pace` frames come at their own rate. With `volumes` the z planes of each time are one frame (Z, H, W)
    instead of frames one after the other, each with its focus position. Raises `SourceError`.
    """
    stack = open_stack(Path(path))
    pixel = _pixel_size(pixel_size_um, stack.info.pixel_size_um, model_pixel_size_um)
    return Recording(stack, Path(path), run_id, frame_rate_hz, pixel, pace, volumes)


def read_image(path: Path) -> npt.NDArray[np.float64]:
    """The mean (H, W) of the images in a file: a bright or a dark reference. Raises `SourceError`."""
    stack = open_stack(Path(path))
    try:
        total = np.zeros((stack.info.height, stack.info.width))
        for index in range(stack.info.planes):
            total += stack.read(index).image
        return total / stack.info.planes
    finally:
        stack.close()


def _pixel_size(
    given_um: float | None, found_um: float, ask_model: Callable[[], float | None]
) -> tuple[float, str]:
    """The size of a pixel, um, and what was assumed for it."""
    if given_um is not None or found_um > 0:
        return given_um or found_um, ""
    model_um = ask_model()
    if model_um is not None:
        return model_um, f"{model_um:g} um a pixel assumed, as the model was made for"
    return 1.0, "1 um a pixel assumed (--pixel-size)"


class Recording:
    """The `Source` of recorded frames."""

    def __init__(
        self,
        stack: ImageStack,
        path: Path,
        run_id: str,
        frame_rate_hz: float | None,
        pixel: tuple[float, str],
        pace: bool,
        volumes: bool,
    ) -> None:
        self._stack = stack
        self._run_id = run_id
        self._pace = pace
        found = stack.info
        self._depth = found.volume if volumes else 1
        self._count = found.planes // self._depth
        said = frame_rate_hz or (found.frame_rate_hz if found.frame_rate_hz > 0 else None)
        self._rate_hz = said or 1.0
        self._file_times = frame_rate_hz is None
        pixel_um, self.assumed_pixel = pixel
        assumed = ["1 frame/s assumed (--frame-rate)"] if said is None else []
        assumed += [self.assumed_pixel] if self.assumed_pixel else []
        self.info = SourceInfo(
            height=found.height,
            width=found.width,
            depth=self._depth,
            dtype=found.dtype,
            pixel_size_um=pixel_um,
            frame_rate_hz=said or math.nan,
            frames=self._count,
            name=storable(path.name),
            description=", ".join(
                [f"{storable(path.name)} ({found.format}, {self._count} frames)", *assumed]
            ),
        )
        self._next = 0
        self._first_time_s: float | None = None
        self._began_s = 0.0
        self._began_wall_s = 0.0
        self._previous_s = -math.inf
        self._stopped = False

    @property
    def ended(self) -> bool:
        """Whether all frames have been read, or the recording was stopped."""
        return self._stopped or (self._next >= self._count and not self._stack.damage)

    def start(self) -> None:
        """Begin at the first frame; with `pace` the clock starts now."""
        self._began_s, self._began_wall_s = time.monotonic(), time.time()

    def read(self, timeout_s: float) -> Frame | None:
        """Return the next frame; with `pace`, None if it is not due within `timeout_s`.

        Raises `SourceError` with the frame's number where the file is damaged or cut short.
        """
        if self.ended:
            return None
        if self._next >= self._count:
            raise SourceError(self._stack.damage)
        if self._pace:
            due_s = self._began_s + self._next / self._rate_hz
            wait_s = due_s - time.monotonic()
            if wait_s > timeout_s:
                time.sleep(max(0.0, timeout_s))
                return None
            time.sleep(max(0.0, wait_s))
        planes = [self._stack.read(self._next * self._depth + z) for z in range(self._depth)]
        first = planes[0]
        time_s = self._time_of(first.time_s)
        image: ImageArray = first.image if self._depth == 1 else np.stack([plane.image for plane in planes])
        info = FrameInfo(
            run_id=self._run_id,
            frame=self._next,
            camera_frame=self._next if first.camera_frame is None else first.camera_frame,
            time_s=time_s,
            monotonic_ns=time.perf_counter_ns(),
            wall_s=time.time(),
            camera_time_s=first.time_s,
            focus_um=first.focus_um,
            exposure_ms=first.exposure_ms,
            pixel_size_um=self.info.pixel_size_um,
        )
        self._next += 1
        return Frame(info, image)

    def _time_of(self, said_s: float) -> float:
        """The frame's time from the first one on: the file's while it rises, else by the frame rate."""
        by_rate_s = self._next / self._rate_hz
        if not (self._file_times and math.isfinite(said_s)):
            return by_rate_s
        if self._first_time_s is None:
            if self._next > 0:
                return by_rate_s
            self._first_time_s = said_s
        time_s = said_s - self._first_time_s
        if time_s <= self._previous_s:
            time_s = self._previous_s + 1 / self._rate_hz
        self._previous_s = time_s
        return time_s

    def stop(self) -> None:
        """Read no more."""
        self._stopped = True

    def pause(self) -> None:
        """Nothing to do: frames are only read when asked for."""

    def resume(self) -> None:
        """With `pace`, go on from here."""
        self._began_s = time.monotonic() - self._next / self._rate_hz

    def counts(self) -> dict[str, int]:
        """`received` frames."""
        return {"received": self._next, "lost_in_camera": 0}

    def gauges(self) -> dict[str, float]:
        """Nothing waits in a file."""
        return {}

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._stack.close()
