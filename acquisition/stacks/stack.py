"""What a stack of recorded images is, whatever file it lies in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from stream.errors import SourceError

NAN = math.nan
PIXEL_TYPES = ("uint8", "uint16")


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """One recorded image (H, W) with what the file says of it; what it does not say is NaN or None."""

    image: npt.NDArray[Any]
    time_s: float = NAN
    focus_um: float = NAN
    exposure_ms: float = NAN
    camera_frame: int | None = None


@dataclass(frozen=True, slots=True)
class StackInfo:
    """What a stack holds. `volume` is the number of planes of a volume where the file has any, else 1.

    `axes` names the axes before y and x, `lead` has their lengths; the last one runs fastest. Pixels may be of
    another size along y; `frame_rate_hz` counts points in time, as the file states it. `stamps_s` (planes,) are
    the time stamps of all planes, s, NaN where one has none; None where there are no stamps in the file.

    What was decided, is not believed or could not be followed is told in `remarks`; in `pixel_remarks` and
    `time_remarks` what does not matter where the user gives the size of a pixel or the frame rate; `pixel_change`
    says at which frame the size of a pixel changes. `lost_before`
    and `lost_after` are planes known to be lost before the first one and behind the last, as in a missing file.
    """

    planes: int
    height: int
    width: int
    dtype: str
    volume: int = 1
    pixel_size_um: float = NAN
    frame_rate_hz: float = NAN
    format: str = ""
    axes: str = ""
    lead: tuple[int, ...] = ()
    pixel_size_y_um: float = NAN
    stamps_s: npt.NDArray[np.float64] | None = field(default=None, compare=False, repr=False)
    remarks: tuple[str, ...] = ()
    pixel_remarks: tuple[str, ...] = ()
    pixel_change: str = ""
    time_remarks: tuple[str, ...] = ()
    lost_before: int = 0
    lost_after: int = 0


class ImageStack(Protocol):
    """An open file or folder of images.

    `damage` says why there should be more images than `info` tells: the file was cut short; else it is empty.
    """

    @property
    def info(self) -> StackInfo:
        """What the stack holds."""
        ...

    @property
    def damage(self) -> str:
        """Why there should be more images, or nothing."""
        ...

    def read(self, index: int) -> Plane:
        """Plane `index`, from 0. Raises `SourceError` with its number if it cannot be read."""
        ...

    def close(self) -> None:
        """Close the file. Idempotent."""
        ...


def check_pixels(path: Path, dtype: np.dtype[Any], what: str = "") -> str:
    """The name of the pixel type; raises `SourceError` for all but uint8 and uint16."""
    native = np.dtype(dtype).newbyteorder("=").name
    if native not in PIXEL_TYPES:
        raise SourceError(
            f"{path}{what} has {native} pixels; cameras deliver uint8 or uint16, so convert it (ImageJ: Image > "
            "Type > 16-bit)"
        )
    return native


def type_name(path: Path, dtype: npt.DTypeLike, *, any_type: bool) -> str:
    """The name of the pixel type, which must be a camera's, but in references (`any_type`) any number."""
    found = np.dtype(dtype)
    return found.newbyteorder("=").name if any_type and found.kind in "iufb" else check_pixels(path, found)


@dataclass(frozen=True, slots=True)
class Layout:
    """How the planes of an array lie behind its leading axes."""

    lead: tuple[int, ...]
    axes: str
    height: int
    width: int

    @property
    def planes(self) -> int:
        """How many planes there are."""
        return math.prod(self.lead)

    def position(self, index: int, axis: str) -> int:
        """Where plane `index` is along an axis; 0 for an axis that is not there."""
        if axis not in self.axes:
            return 0
        return int(np.unravel_index(index, self.lead)[self.axes.index(axis)])

    def positions(self, axis: str) -> npt.NDArray[np.int64]:
        """Where all planes (N,) are along an axis; 0 for an axis that is not there."""
        if axis not in self.axes:
            return np.zeros(self.planes, np.int64)
        return np.asarray(np.indices(self.lead)[self.axes.index(axis)].ravel(), np.int64)

    def size(self, axis: str) -> int:
        """The length of an axis; 1 if it is not there."""
        return self.lead[self.axes.index(axis)] if axis in self.axes else 1

    @property
    def volume(self) -> int:
        """Planes of a volume: where z runs fastest and there are several times."""
        return self.size("Z") if self.axes.endswith("Z") and self.planes > self.size("Z") > 1 else 1


def layout_of(path: Path, shape: Sequence[int], axes: str) -> Layout:
    """Sort the axes of an array. Raises `SourceError` for colour, several channels, and what is no image."""
    if len(shape) != len(axes) or "Y" not in axes or "X" not in axes:
        hint = "; name its axes, as in --axes TZYX" if "?" in axes else ""
        raise SourceError(f"{path} holds no images: its array is {tuple(shape)} ({axes}){hint}")
    sizes = dict(zip(axes, shape, strict=True))
    for name, what in (
        ("S", "colour images; convert them to grey"),
        ("C", "channels; save one of them alone (or say --axes TYX if they are times)"),
    ):
        if sizes.get(name, 1) > 1:
            raise SourceError(f"{path} has {sizes[name]} {what}")
    if not axes.replace("S", "").endswith("YX"):
        raise SourceError(f"{path} has the axes {axes}; y and x must be the last two")
    lead = [(name, size) for name, size in sizes.items() if name not in "YXSC" or size > 1]
    lead = [(name, size) for name, size in lead if name not in "YX"]
    if min(shape) == 0:
        raise SourceError(f"{path} is empty: its array is {tuple(shape)}")
    return Layout(tuple(size for _, size in lead), "".join(name for name, _ in lead), sizes["Y"], sizes["X"])


def axes_of(dimensions: int) -> str:
    """Names for the axes of an array that has none: time first, y and x last."""
    return {2: "YX", 3: "TYX", 4: "TZYX"}.get(dimensions, "?" * dimensions)
