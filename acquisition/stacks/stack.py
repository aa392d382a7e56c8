"""The protocol of a stack of recorded images, its description, and the layout of its planes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from stream.errors import SourceError

NAN = math.nan
PIXEL_TYPES = ("uint8", "uint16")


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """One recorded image (H, W) with its metadata; NaN or None if unknown."""

    image: npt.NDArray[Any]
    time_s: float = NAN
    focus_um: float = NAN
    exposure_ms: float = NAN
    camera_frame: int | None = None


@dataclass(frozen=True, slots=True)
class StackInfo:
    """Description of a stack. `volume` is the number of planes per volume, 1 without volumes.

    `axes` names the axes before y and x, `lead` has their lengths; the last one runs fastest. Pixels may have
    another size along y; `frame_rate_hz` counts time points, as stated in the file. `stamps_s` (planes,) are the
    time stamps of all planes, s, NaN if missing; None if the file has none.

    `z_step_um` is the distance between planes of the z axis as stated in the file, `focus_um` (planes,) are the
    focus positions that it has for its planes, NaN if missing; None if it has none. `absent` are the planes within
    the axes that were never stored, None if there are none, and `absent_remark` may say more.

    `remarks` tell what was decided, what is implausible and what was not followed; `pixel_remarks`,
    `time_remarks`, `z_step_remark` and `plane_remarks` matter only if the user does not give pixel size, frame rate
    or z step, and if planes are read one by one. `pixel_change` says at which frame the pixel size changes.
    `lost_before` and `lost_after` are planes lost before the first one and after the last, as in a missing file.
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
    z_step_um: float = NAN
    z_step_remark: str = ""
    focus_um: npt.NDArray[np.float64] | None = field(default=None, compare=False, repr=False)
    absent: npt.NDArray[np.int64] | None = field(default=None, compare=False, repr=False)
    absent_remark: str = ""
    plane_remarks: tuple[str, ...] = ()


class ImageStack(Protocol):
    """An open file or folder of images.

    `damage` says why there should be more images than in `info` (the file is truncated); else it is empty.
    """

    @property
    def info(self) -> StackInfo:
        """Description of the stack."""
        ...

    @property
    def damage(self) -> str:
        """Why there should be more images, or ""."""
        ...

    def read(self, index: int) -> Plane:
        """Plane `index`, from 0. Raises `SourceError` with its number if it cannot be read."""
        ...

    def close(self) -> None:
        """Close the file. Idempotent."""
        ...


@runtime_checkable
class NumberedStack(Protocol):
    """A stack that knows the camera's number of a plane without reading its pixels."""

    def camera_frame(self, index: int) -> int | None:
        """The `camera_frame` of plane `index`, as `read` gives it."""
        ...


@runtime_checkable
class VolumeStack(Protocol):
    """A stack that reads planes in succession faster together than one by one."""

    def read_planes(self, first: int, count: int) -> tuple[npt.NDArray[Any], tuple[Plane, ...]] | None:
        """`count` planes from `first` on (count, H, W), and what is known about each, with an empty image.

        None where they can only be read one by one. Raises `SourceError` if one of them cannot be read.
        """
        ...


def camera_frame_of(stack: ImageStack, index: int) -> int | None:
    """The `camera_frame` of plane `index`; its pixels are read only where the stack knows no other way."""
    return stack.camera_frame(index) if isinstance(stack, NumberedStack) else stack.read(index).camera_frame


def check_pixels(path: Path, dtype: np.dtype[Any], what: str = "") -> str:
    """The name of the pixel type; raises `SourceError` for all but uint8 and uint16."""
    native = np.dtype(dtype).newbyteorder("=").name
    if native not in PIXEL_TYPES:
        raise SourceError(
            f"{path}{what} has {native} pixels, but they must be uint8 or uint16; convert it (ImageJ: Image > "
            "Type > 16-bit)"
        )
    return native


def type_name(path: Path, dtype: npt.DTypeLike, *, any_type: bool) -> str:
    """The name of the pixel type: uint8 or uint16, or, with `any_type` (references), any number."""
    found = np.dtype(dtype)
    return found.newbyteorder("=").name if any_type and found.kind in "iufb" else check_pixels(path, found)


@dataclass(frozen=True, slots=True)
class Layout:
    """The leading axes of an array, and the order of its planes along them."""

    lead: tuple[int, ...]
    axes: str
    height: int
    width: int

    @property
    def planes(self) -> int:
        """Number of planes."""
        return math.prod(self.lead)

    def position(self, index: int, axis: str) -> int:
        """Index of a plane along an axis; 0 for an axis that does not exist."""
        if axis not in self.axes:
            return 0
        return int(np.unravel_index(index, self.lead)[self.axes.index(axis)])

    def positions(self, axis: str) -> npt.NDArray[np.int64]:
        """Indices of all planes (N,) along an axis; 0 for an axis that does not exist."""
        if axis not in self.axes:
            return np.zeros(self.planes, np.int64)
        return np.asarray(np.indices(self.lead)[self.axes.index(axis)].ravel(), np.int64)

    def size(self, axis: str) -> int:
        """The length of an axis; 1 if it does not exist."""
        return self.lead[self.axes.index(axis)] if axis in self.axes else 1

    @property
    def volume(self) -> int:
        """Planes per volume, if z runs fastest and there are several times; else 1."""
        return self.size("Z") if self.axes.endswith("Z") and self.planes > self.size("Z") > 1 else 1


def layout_of(path: Path, shape: Sequence[int], axes: str) -> Layout:
    """The layout of an array. Raises `SourceError` for colour, several channels, and arrays without images."""
    if len(shape) != len(axes) or "Y" not in axes or "X" not in axes:
        hint = "; name its axes, as in --axes TZYX" if "?" in axes else ""
        raise SourceError(f"{path} contains no images: its array is {tuple(shape)} ({axes}){hint}")
    sizes = dict(zip(axes, shape, strict=True))
    for name, what in (
        ("S", "colours; convert it to greyscale"),
        ("C", "channels; save one of them separately (or pass --axes TYX if they are times)"),
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
    """Default names of the axes of an array: time first, y and x last."""
    return {2: "YX", 3: "TYX", 4: "TZYX"}.get(dimensions, "?" * dimensions)
