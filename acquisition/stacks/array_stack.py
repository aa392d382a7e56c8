"""The planes of an array on disk (HDF5 or Zarr), and its axes."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from acquisition.stacks.axes import AxisEvidence, assumed_axes, decide_axes, given_axes
from acquisition.stacks.claimed_size import check_count, check_size
from acquisition.stacks.library_errors import plain
from acquisition.stacks.scales import NAN, Scales
from acquisition.stacks.stack import Layout, Plane, StackInfo, axes_of, layout_of, type_name
from acquisition.stacks.unwritten_frames import Written
from acquisition.stacks.video_choice import Channel
from stream.errors import SourceError

MOST_CHANNELS = 4
"""A last axis without a name that is no longer than this, behind two longer ones, is colour or channels."""


class DiskArray(Protocol):
    """What is needed of an array on disk: `h5py.Dataset` and `zarr.Array` have it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __getitem__(self, index: tuple[int | slice, ...]) -> Any: ...


class ArrayStack:
    """The planes of an array on disk."""

    damage = ""

    def __init__(
        self,
        path: Path,
        array: DiskArray,
        axes: str,
        scales: Scales,
        kind: str,
        *,
        written: Written | None = None,
        planes: dict[str, Any] | None = None,
        remarks: tuple[str, ...] = (),
        any_type: bool = False,
        channel: Channel | None = None,
    ) -> None:
        """`channel` is the channel to read, if `axes` has several. `planes` are lists over z of measured positions,
        times and exposures, from our own scans. `written` says which frames were stored at all.
        """
        self._path, self._array, self._scales = path, array, scales
        self._planes = planes or {}
        self._fixed = [
            channel.number if channel is not None and axis == channel.axis else None
            for axis in range(len(axes))
            if axes[axis] not in "YX"
        ]
        shape, self._z_axis = array.shape, axes.find("Z")
        if channel is not None:
            shape, axes = channel.without(shape), "".join(channel.without(axes))
        self._layout: Layout = layout_of(path, shape, axes)
        check_size(path, self._layout.height, self._layout.width)
        check_count(path, self._layout.planes)
        has_depth = self._layout.size("Z") > 1
        written = written or Written(self._layout.planes)
        count, told = written.frames, written.remark
        if count < self._layout.planes and not self._layout.axes.startswith("T"):
            if self._layout.axes != "Z":
                raise SourceError(f"{path} is damaged: {told}")
            count, told = self._layout.planes, ""
        absent = written.absent() if has_depth else np.empty(0, np.int64)
        absent = absent[absent < count]
        self._never_written = frozenset(absent.tolist()) if self._layout.axes == "Z" else frozenset()
        remarks = (*remarks, told)
        self.info = StackInfo(
            planes=count,
            height=self._layout.height,
            width=self._layout.width,
            dtype=type_name(path, array.dtype, any_type=any_type),
            volume=self._layout.volume,
            pixel_size_um=scales.x.value,
            frame_rate_hz=scales.rate_hz,
            format=kind,
            axes=self._layout.axes,
            lead=self._layout.lead,
            pixel_size_y_um=scales.y.value,
            stamps_s=self._stamps(count),
            remarks=tuple(text for text in (*remarks, scales.z.remark if has_depth else "") if text),
            pixel_remarks=scales.pixel_remarks,
            time_remarks=tuple(text for text in (scales.interval.remark, *scales.remarks) if text),
            z_step_um=scales.z.value,
            z_step_remark=scales.z.remark,
            focus_um=self._positions(count),
            absent=absent,
            absent_remark=f"{absent.size} of {count} slices were never written" if absent.size else "",
            plane_remarks=(f"{written.holes}: they are black frames",) if written.holes else (),
        )

    @property
    def planes_together(self) -> int:
        """How many planes are written at once (a chunk or shard along the first axis); 1 if it is not known."""
        pieces = getattr(self._array, "shards", None) or getattr(self._array, "chunks", None)
        lead = self._layout.lead
        if not pieces or not lead or len(pieces) != len(self._array.shape):
            return 1
        return int(pieces[0]) * math.prod(lead[1:])

    def _stamps(self, count: int) -> npt.NDArray[np.float64] | None:
        """Time stamps of all planes, s, if the file has them."""
        said = self._planes.get("time_s")
        if said is None:
            return None
        stamps_s = np.full(count, NAN)
        for index in range(count):
            z, t = self._layout.position(index, "Z"), self._layout.position(index, "T")
            with contextlib.suppress(
                LookupError, TypeError, ValueError
            ):  # reading that plane raises the error
                stamps_s[index] = float(said[z][t])
        return stamps_s

    def _positions(self, count: int) -> npt.NDArray[np.float64] | None:
        """Focus positions of all planes, um, if the file has them."""
        try:
            said = np.asarray(self._planes["focus_um"], np.float64)
            return said[self._layout.positions("Z")[:count]]
        except (LookupError, TypeError, ValueError):  # reading a plane raises the error
            return None

    def read_planes(self, first: int, count: int) -> tuple[npt.NDArray[Any], tuple[Plane, ...]]:
        """`count` planes from `first` on, and what is known about each; each chunk is read once.

        Raises `SourceError`, also if they are not one volume of an array whose last axis before y and x is z.
        """
        depth = self._layout.size("Z")
        if count != depth or first % depth or not self._layout.axes.endswith("Z"):
            raise SourceError(
                f"planes {first} to {first + count - 1} of {self._path} are not one of its volumes"
            )
        where = iter(np.unravel_index(first, self._layout.lead))
        place = [int(next(where)) if fixed is None else fixed for fixed in self._fixed]
        along = self._z_axis
        try:
            for z in range(count):
                self._check_chunks(tuple(z if at == along else index for at, index in enumerate(place)))
            pieces = tuple(slice(None) if at == along else index for at, index in enumerate(place))
            image = np.ascontiguousarray(self._array[pieces], self.info.dtype)
        except SourceError:
            raise
        except Exception as error:
            raise SourceError(f"frame {first} of {self._path} cannot be read ({self._why(error)})") from error
        return image, tuple(self._known(first + z, image[z, :0]) for z in range(count))

    def read(self, index: int) -> Plane:
        """Plane `index`. Raises `SourceError` if it cannot be read, or is a slice of one volume without pixels."""
        if index in self._never_written:
            raise SourceError(f"frame {index} of {self._path} was never written")
        where = iter(np.unravel_index(index, self._layout.lead) if self._layout.lead else ())
        place = tuple(int(next(where)) if fixed is None else fixed for fixed in self._fixed)
        try:
            self._check_chunks(place)
            image = np.asarray(self._array[place])
        except SourceError:
            raise
        except Exception as error:
            raise SourceError(
                f"frame {index} of {self._path} cannot be read ({self._why(error)}); copy it again"
            ) from error
        return self._known(index, np.ascontiguousarray(image, self.info.dtype))

    def _known(self, index: int, pixels: npt.NDArray[Any]) -> Plane:
        """A plane with what the file says about it."""
        t, z = self._layout.position(index, "T"), self._layout.position(index, "Z")
        if not self._planes:
            focus_um = self._scales.z_first_um + z * self._scales.z.value
            return Plane(pixels, focus_um=focus_um if self._layout.size("Z") > 1 else NAN)
        try:
            said = self._planes
            return Plane(
                pixels,
                time_s=float(said["time_s"][z][t]),
                focus_um=float(said["focus_um"][z]),
                exposure_ms=float(said["exposure_ms"][z]),
            )
        except (LookupError, TypeError, ValueError) as error:
            raise SourceError(
                f"the attributes of {self._path} have no position for plane {z}; copy it again"
            ) from error

    def camera_frame(self, index: int) -> int | None:
        """None: arrays have no frame numbers."""
        return None

    def _why(self, error: Exception) -> str:
        """Why a plane cannot be read."""
        return plain(error)

    def _check_chunks(self, place: tuple[int, ...]) -> None:
        """Check for damage that the library of the format does not notice."""

    def close(self) -> None:
        """Nothing is held open."""


def named_axes(
    path: Path,
    shape: tuple[int, ...],
    own: str | None,
    scales: Scales,
    given: str | None,
    is_scan: bool,
    focus_um: npt.NDArray[np.float64] | None = None,
) -> tuple[str, tuple[str, ...]]:
    """The axes of an array (those given, its `own` or the default ones) and remarks about them."""
    if given is not None:
        return given_axes(path, shape, given), ()
    if own is None:
        axes = axes_of(len(shape))
        if len(shape) == 4 and shape[-1] <= MOST_CHANNELS < min(shape[-3:-1]):
            raise SourceError(
                f"{path} is an array of {' x '.join(map(str, shape))} without names of its axes; the last one "
                "seems to be channels or colours, not x: save one channel as a separate array"
            )
        return axes, (assumed_axes(axes, "the array"),) if len(shape) > 2 else ()
    evidence = AxisEvidence(scales.interval.value, scales.z.value, scales.x.value, focus_um)
    axes, remark = decide_axes(own, shape, evidence, is_scan=is_scan)
    return axes, (remark,) if remark else ()
