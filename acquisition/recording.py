"""Recorded images as a source of frames, like a camera."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from acquisition.recorded_volumes.files import VolumeFiles, volume_files
from acquisition.recorded_volumes.reader import VolumeReader
from acquisition.source import SourceInfo
from acquisition.stacks.folder import open_folder
from acquisition.stacks.frame_numbers import RecordedNumbers
from acquisition.stacks.hdf5_stack import Hdf5Stack
from acquisition.stacks.image_files import SUFFIXES, TIFF, FolderStack
from acquisition.stacks.library_errors import GuardedStack
from acquisition.stacks.scales import check_pixel_change, pixel_size
from acquisition.stacks.stack import ImageStack, Plane, camera_frame_of
from acquisition.stacks.tiff import TiffStack
from acquisition.stacks.timing import timing_of
from acquisition.stacks.video_choice import file_of, name_of, parse_choice
from acquisition.stacks.zarr_stack import open_zarr
from stream.errors import SourceError
from stream.messages import Frame, FrameInfo, ImageArray
from stream.safe_text import storable
from stream.volume_info import VolumeInfo

HDF5 = (".h5", ".hdf5", ".hdf", ".he5")
ZARR_MARKS = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
FILMS = (".avi", ".mp4", ".mov", ".mkv", ".wmv", ".cine", ".mpg", ".webm")


def open_stack(
    path: Path,
    axes: str | None = None,
    *,
    is_scan: bool = False,
    any_type: bool = False,
    volumes: bool = False,
) -> ImageStack:
    """Open a TIFF, OME-TIFF, OME-Zarr or HDF5 file, or a folder of images.

    `::` selects one of several recordings: `FILE.h5::DATASET`, `FOLDER::position=1,channel=0`. `axes`, such as
    `TYX`, takes precedence over the file. With `is_scan`, planes that the file calls a focus series are more
    readily taken as one than in a video. With `any_type` pixels may have any numeric type, as in references;
    otherwise they must be uint8 or uint16. With `volumes` the same holds for Z, and the stacks in a folder may be
    the volumes of one recording.

    Raises `SourceError` if it is not a recording or cannot be read, and `ConfigurationError` for `axes` that do
    not fit it.
    """
    return GuardedStack(path, lambda: _open_unguarded(path, axes, is_scan or volumes, any_type, volumes))


def is_image(path: Path) -> bool:
    """Whether a path is a single image that `open_stack` takes as part of a folder only: PNG, BMP, JPEG or PGM."""
    return path.suffix.lower() in SUFFIXES and path.suffix.lower() not in TIFF and path.is_file()


def open_image(path: Path) -> ImageStack:
    """Open one PNG, BMP, JPEG or PGM image as a recording of one frame. Raises `SourceError`."""
    return GuardedStack(path, lambda: FolderStack(path.parent, [path]))


def _open_unguarded(path: Path, axes: str | None, is_scan: bool, any_type: bool, volumes: bool) -> ImageStack:
    plain, choice = file_of(path), parse_choice(path)
    suffix = plain.suffix.lower()
    if not plain.exists():
        raise SourceError(f"there is no recording {plain}")
    if plain.is_dir():
        if suffix != ".zarr" and not any((plain / mark).is_file() for mark in ZARR_MARKS):
            choice.refuse_dataset(plain)
            stacks = volume_files(plain, choice) if volumes else None
            if stacks is not None:
                return VolumeFiles(plain, stacks, choice, axes)
            return open_folder(plain, choice, axes, is_scan=is_scan, any_type=any_type)
        return open_zarr(path, axes, is_scan=is_scan, any_type=any_type)
    if plain.stat().st_size == 0:
        raise SourceError(f"{plain} is empty")
    if suffix in HDF5:
        return Hdf5Stack(path, axes, is_scan=is_scan, any_type=any_type)
    if suffix in FILMS:
        raise SourceError(
            f"{plain} is a compressed video, which cannot be read; convert it to images without loss, as with: "
            "ffmpeg -i VIDEO -pix_fmt gray frames/%06d.png, and give the folder"
        )
    if suffix in TIFF or suffix not in SUFFIXES:
        choice.refuse_dataset(plain)
        return TiffStack(plain, axes, choice=choice, is_scan=is_scan, any_type=any_type)
    raise SourceError(f"{plain} is a single image; give the folder that contains it")


def open_recording(
    path: Path,
    *,
    run_id: str,
    axes: str | None = None,
    frame_rate_hz: float | None = None,
    pixel_size_um: float | None = None,
    model_pixel_size_um: Callable[[], float | None] = lambda: None,
    pace: bool = False,
    volumes: bool | None = None,
    z_step_um: float | None = None,
    only_describe: bool = False,
) -> Recording:
    """Open a recording. `axes`, `frame_rate_hz`, `pixel_size_um` and `z_step_um` take precedence over the file.

    If the pixel size is unknown, `model_pixel_size_um` is called for the one that the detector was made for;
    without that it is 1 um.

    With `pace` frames come at their recorded rate. With `volumes`, which a `z_step_um` implies, the z planes of
    each time form one frame (Z, H, W), the lowest first, and the size of a voxel must be known; otherwise each
    plane is a frame with its own focus position. With `only_describe` pixels that are not square are reported as a
    remark, and their size is NaN.

    Raises `SourceError`, also for pixels that are not square or whose size changes, and for volumes without a known
    or possible size of a voxel, and `ConfigurationError` for `axes` that do not fit the file.
    """
    path = Path(path)
    volumes = z_step_um is not None if volumes is None else volumes
    stack = open_stack(path, axes, volumes=volumes)
    found = stack.info
    reader = None
    try:
        check_pixel_change(path.name, found.pixel_change, pixel_size_um)
        pixel = pixel_size(
            found.pixel_size_um, found.pixel_size_y_um, path.name, pixel_size_um, model_pixel_size_um
        )
    except SourceError as error:
        if not only_describe:
            stack.close()
            raise
        pixel = math.nan, str(error)
    except BaseException:
        stack.close()
        raise
    is_known = pixel_size_um is not None or found.pixel_size_um > 0 or found.pixel_size_y_um > 0
    if volumes:
        try:
            has_pixel = is_known or only_describe or model_pixel_size_um() is not None
            reader = VolumeReader(
                path, stack, z_step_um=z_step_um, pixel_size_um=pixel[0] if has_pixel else math.nan
            )
        except BaseException:
            stack.close()
            raise
    told = [*(found.pixel_remarks if pixel_size_um is None else ()), pixel[1]]
    if found.pixel_change and pixel_size_um is not None:
        told.append(f"the file has {found.pixel_change}; {pixel_size_um:g} um is used for all (--pixel-size)")
    told += reader.remarks if reader is not None else found.plane_remarks
    remarks = (*found.remarks, *(text for text in told if text))
    return Recording(stack, path, run_id, frame_rate_hz, pixel[0], remarks, pace, reader)


class Recording:
    """The `Source` of recorded frames.

    `title` names it. `remarks` are lines for the user: what was assumed, what was decided, and where the file was
    not followed.
    """

    def __init__(
        self,
        stack: ImageStack,
        path: Path,
        run_id: str,
        frame_rate_hz: float | None,
        pixel_size_um: float,
        remarks: tuple[str, ...],
        pace: bool,
        volumes: VolumeReader | None = None,
    ) -> None:
        self._stack = stack
        self._run_id = run_id
        self._pace = pace
        self._volumes = volumes
        found = stack.info
        self._depth = 1 if volumes is None else volumes.layout.depth
        self._count = found.planes if volumes is None else len(volumes.layout)
        self._numbers = RecordedNumbers(found.lost_before)
        self._timing = timing_of(found if volumes is None else volumes.as_images, frame_rate_hz)
        unit = "frames" if volumes is None else f"volumes of {self._depth} slices"
        self.remarks: tuple[str, ...] = (*remarks, *self._timing.remarks)
        self.title = f"{storable(name_of(path))} ({found.format}, {self._count} {unit})"
        self.info = SourceInfo(
            height=found.height,
            width=found.width,
            depth=self._depth,
            dtype=found.dtype,
            pixel_size_um=pixel_size_um,
            frame_rate_hz=self._timing.rate_hz if self._timing.is_known else math.nan,
            frames=self._count,
            z_step_um=math.nan if volumes is None else volumes.z_step_um,
            name=storable(name_of(path)),
            description="; ".join([self.title, *self.remarks]),
        )
        self._next = 0
        self._began_ns = 0
        self._stopped = False

    @property
    def ended(self) -> bool:
        """Whether all frames have been read, or the recording was stopped."""
        return self._stopped or (self._next >= self._count and not self._damage)

    @property
    def _damage(self) -> str:
        """Why there should be more frames; else empty."""
        return self._stack.damage or ("" if self._volumes is None else self._volumes.damage)

    @property
    def first_number(self) -> int:
        """The number (`camera_frame`) of the first frame that was read; 0 before that."""
        return self._numbers.first

    def start(self) -> None:
        """Start at the first frame; with `pace` the clock starts now."""
        self._began_ns = time.perf_counter_ns()

    def read(self, timeout_s: float) -> Frame | None:
        """Return the next frame; with `pace`, None if it is not due within `timeout_s`.

        With `pace` a frame's age counts from when it was due, also if it is read late, as that of a camera's frame
        that has waited.
        Raises `SourceError` with the frame number if the file is damaged or truncated.
        """
        if self.ended:
            return None
        if self._next >= self._count:
            raise SourceError(self._damage)
        if self._pace:
            wait_s = 1e-9 * (self._due_ns() - time.perf_counter_ns())
            if wait_s > timeout_s:
                time.sleep(max(0.0, timeout_s))
                return None
            time.sleep(max(0.0, wait_s))
        taken, volume = self._take()
        number = self._numbers.take(taken.camera_frame)
        now_ns = time.perf_counter_ns()
        taken_ns = min(self._due_ns(), now_ns) if self._pace else now_ns
        info = FrameInfo(
            run_id=self._run_id,
            frame=self._next,
            camera_frame=number,
            time_s=self._time_s(),
            monotonic_ns=taken_ns,
            wall_s=time.time() - 1e-9 * (now_ns - taken_ns),
            camera_time_s=taken.time_s,
            focus_um=taken.focus_um,
            exposure_ms=taken.exposure_ms,
            pixel_size_um=self.info.pixel_size_um,
            volume=volume,
        )
        self._next += 1
        return Frame(info, taken.image)

    def _take(self) -> tuple[Plane, VolumeInfo | None]:
        """The next image, or volume."""
        if self._volumes is None:
            return self._stack.read(self._next), None
        return self._volumes.read(self._next, 1 / self._timing.rate_hz if self._timing.is_known else math.nan)

    def skip_to(self, index: int) -> None:
        """Go on at frame `index`, counted from 0, as if those before had been read; their pixels are not.

        Frames that were read or skipped before do not come again.
        """
        while self._next < min(index, self._count):
            said = (
                camera_frame_of(self._stack, self._next)
                if self._volumes is None
                else self._volumes.number(self._next)
            )
            self._numbers.take(said)
            self._next += 1

    def frames(self, timeout_s: float = 1.0) -> Iterator[Frame]:
        """All frames from the first one on, as `read` returns them. Raises `SourceError` like it."""
        self.start()
        while not self.ended:
            frame = self.read(timeout_s)
            if frame is not None:
                yield frame

    def image(self, number: int) -> ImageArray:
        """Image `number` (H, W), or volume (Z, H, W), from 0. Raises `SourceError` if it cannot be read."""
        return (self._stack.read(number) if self._volumes is None else self._volumes.read(number)[0]).image

    def _due_ns(self) -> int:
        """When the next frame is due (`perf_counter_ns`)."""
        return self._began_ns + round(1e9 * self._planned_s())

    def _planned_s(self) -> float:
        """Time of the next frame after the first one, s, without the time of frames lost in the camera."""
        if self._timing.time_s is not None:
            return float(self._timing.time_s[self._next])
        return self._next / self._timing.rate_hz

    def _time_s(self) -> float:
        """Time of the frame after the first one, s: from the file, else from the frame rate.

        With the rate, frames that are missing by their numbers have taken their time.
        """
        if self._timing.time_s is not None:
            return float(self._timing.time_s[self._next])
        return self._numbers.since_first / self._timing.rate_hz

    def stop(self) -> None:
        """Read no more."""
        self._stopped = True

    def pause(self) -> None:
        """Nothing to do: frames are read only on request."""

    def resume(self) -> None:
        """With `pace`, continue from here."""
        planned_s = self._planned_s() if self._next < self._count else 0.0
        self._began_ns = time.perf_counter_ns() - round(1e9 * planned_s)

    def counts(self) -> dict[str, int]:
        """`received` frames, and `lost_in_recording`: those missing by gaps in numbers or missing files."""
        behind = self._stack.info.lost_after if self._next >= self._count else 0
        return {
            "received": self._next,
            "lost_in_camera": 0,
            "lost_in_recording": self._numbers.lost + behind,
        }

    def gauges(self) -> dict[str, float]:
        """A file has no queue."""
        return {}

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._stack.close()
