"""Recorded images as a source: the same frames as from a camera, from a file."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from acquisition.source import SourceInfo
from acquisition.stacks.arrays import Hdf5Stack, open_zarr
from acquisition.stacks.choice import file_of, name_of, parse_choice
from acquisition.stacks.folder import SUFFIXES, TIFF, open_folder
from acquisition.stacks.library import GuardedStack
from acquisition.stacks.numbers import RecordedNumbers
from acquisition.stacks.stack import ImageStack
from acquisition.stacks.tiff import TiffStack
from stream.errors import SourceError
from stream.messages import Frame, FrameInfo, ImageArray

HDF5 = (".h5", ".hdf5", ".hdf", ".he5")
ZARR_MARKS = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
FILMS = (".avi", ".mp4", ".mov", ".mkv", ".wmv", ".cine", ".mpg", ".webm")


def open_stack(path: Path, *, any_type: bool = False) -> ImageStack:
    """Open a TIFF, OME-TIFF, OME-Zarr, HDF5 file or a folder of images, by what it is.

    Behind `::` stands which of several is meant: `FILE.h5::DATASET`, `FOLDER::position=1,channel=0`. With `any_type`
    the pixels may be of any numeric type, else of a camera's. Raises `SourceError` with what it is instead, or why it
    cannot be read.
    """
    return GuardedStack(path, lambda: _open_unguarded(path, any_type))


def _open_unguarded(path: Path, any_type: bool) -> ImageStack:
    plain, choice = file_of(path), parse_choice(path)
    suffix = plain.suffix.lower()
    if not plain.exists():
        raise SourceError(f"there is no recording {plain}")
    if plain.is_dir():
        if suffix != ".zarr" and not any((plain / mark).is_file() for mark in ZARR_MARKS):
            return open_folder(plain, choice, any_type=any_type)
        choice.refuse_rest(plain, ())
        return open_zarr(plain, any_type=any_type)
    if plain.stat().st_size == 0:
        raise SourceError(f"{plain} is empty")
    if suffix in HDF5:
        if choice.given:
            choice.refuse_rest(plain, ())
        return Hdf5Stack(path, any_type=any_type)
    if suffix in FILMS:
        raise SourceError(
            f"{plain} is a film, which is not read; convert it to images without loss, as with: "
            "ffmpeg -i FILM -pix_fmt gray frames/%06d.png, and give the folder"
        )
    if suffix in TIFF or suffix not in SUFFIXES:
        return TiffStack(plain, choice, any_type=any_type)
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
        self._numbers = RecordedNumbers(found.lost_before)
        self.info = SourceInfo(
            height=found.height,
            width=found.width,
            depth=self._depth,
            dtype=found.dtype,
            pixel_size_um=pixel_um,
            frame_rate_hz=said or math.nan,
            frames=self._count,
            name=name_of(path),
            description=", ".join(
                [f"{name_of(path)} ({found.format}, {self._count} frames)", *assumed, *found.remarks]
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

    @property
    def first_number(self) -> int:
        """The number (`camera_frame`) of the first frame that was read; 0 before that."""
        return self._numbers.first

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
        number = self._numbers.take(first.camera_frame if self._depth == 1 else None)
        time_s = self._time_of(first.time_s)
        image: ImageArray = first.image if self._depth == 1 else np.stack([plane.image for plane in planes])
        info = FrameInfo(
            run_id=self._run_id,
            frame=self._next,
            camera_frame=number,
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
        by_rate_s = self._numbers.since_first / self._rate_hz
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
        """`received` frames, and `lost_in_recording`: those that gaps in its numbers and missing files leave out."""
        behind = self._stack.info.lost_after if self._next >= self._count else 0
        return {
            "received": self._next,
            "lost_in_camera": 0,
            "lost_in_recording": self._numbers.lost + behind,
        }

    def gauges(self) -> dict[str, float]:
        """Nothing waits in a file."""
        return {}

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._stack.close()
