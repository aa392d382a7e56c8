"""Reads the volumes of a recording, one at a time."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from acquisition.recorded_volumes.heights import heights_of, slice_times
from acquisition.recorded_volumes.layout import ABSENT, VolumeLayout, volume_layout
from acquisition.recorded_volumes.z_scale import measured_step_um, z_step_of
from acquisition.stacks.stack import NAN, ImageStack, Plane, StackInfo, VolumeStack
from stream.errors import SourceError
from stream.messages import ImageArray
from stream.volume_info import VolumeInfo


class VolumeReader:
    """The volumes of an open stack. Holds one volume at a time."""

    def __init__(
        self,
        path: Path,
        stack: ImageStack,
        *,
        z_step_um: float | None,
        pixel_size_um: float,
    ) -> None:
        """`z_step_um` takes precedence over the file; `pixel_size_um` is NaN if it is not known.

        Raises `SourceError` if the stack has no volumes, or if the size of a voxel is not known or impossible.
        """
        self._path, self._stack = path, stack
        found = stack.info
        self.layout: VolumeLayout = volume_layout(path, found)
        focus_um = self._of_planes(found.focus_um)
        self.z_step_um, self.remarks = z_step_of(
            path.name,
            found.z_step_um,
            measured_step_um(focus_um),
            found.z_step_remark,
            z_step_um,
            pixel_size_um,
        )
        self.scale_remarks = self.remarks
        self._is_given = z_step_um is not None
        self._stamps_s = self._of_planes(found.stamps_s)
        self._broken: SourceError | None = None
        if self.layout.partial:
            why = f" ({found.absent_remark})" if found.absent_remark else ""
            count = f"{self.layout.partial} of its {len(self.layout)} volumes lack slices"
            self.remarks += (f"{count}{why}: they are read as partial",)
        lost = self.layout.lost
        if lost and found.absent_remark:
            self.remarks += (f"{lost} volumes between have no slice at all: they are counted as lost",)

    @property
    def times_s(self) -> npt.NDArray[np.float64] | None:
        """Time stamp of the first slice taken of each volume (volumes,), s; None if the file has none."""
        if self._stack.info.stamps_s is None:
            return None
        known = np.isfinite(self._stamps_s)
        earliest = np.where(known, self._stamps_s, np.inf).min(axis=1)
        return np.where(known.any(axis=1), earliest, NAN)

    @property
    def damage(self) -> str:
        """Why the last volume that was read lacks slices that the file should have; else empty."""
        return "" if self._broken is None else str(self._broken)

    @property
    def as_images(self) -> StackInfo:
        """The stack as if each volume were one image."""
        return replace(self._stack.info, planes=len(self.layout), volume=1, stamps_s=self.times_s)

    def number(self, index: int) -> int:
        """The place in time of volume `index`; a gap is lost volumes."""
        return int(self.layout.number[index])

    def read(self, index: int, interval_s: float = NAN) -> tuple[Plane, VolumeInfo]:
        """Volume `index` (Z, H, W) with the position of its lowest slice and the time of the first one taken.

        `interval_s` is the time between volumes, NaN if unknown.

        Slices that cannot be read are missing, and reading the next volume raises why. Raises `SourceError` if none
        can be read.
        """
        if self._broken is not None:
            raise self._broken
        places = self.layout.planes[index]
        image, planes = self._pixels(places)
        focus_um = np.array([NAN if plane is None else plane.focus_um for plane in planes])
        step_um = self.z_step_um
        heights = heights_of(focus_um, step_um, exact=self._is_given)
        longest_s = interval_s if interval_s > 0 else math.inf
        stamps_s = np.where([plane is None for plane in planes], NAN, self._stamps_s[index])
        time_s = slice_times(stamps_s, heights.order, longest_s)
        missing = [at for at, place in enumerate(heights.order) if planes[place] is None]
        first = next(plane for plane in planes if plane is not None)
        turned = bool(heights.order[0] > heights.order[-1])
        info = VolumeInfo(
            z_um=tuple(heights.z_um.tolist()),
            time_s=time_s,
            missing=tuple(missing),
            upwards=time_s[-1] > time_s[0] if time_s else heights.upwards,
        )
        began_s = float(np.nanmin(stamps_s)) if np.isfinite(stamps_s).any() else NAN
        pixels = image[::-1].copy() if turned else image
        return Plane(pixels, began_s, heights.lowest_um, first.exposure_ms, self.number(index)), info

    def _pixels(self, places: npt.NDArray[np.int64]) -> tuple[ImageArray, list[Plane | None]]:
        """The slices (Z, H, W) in the order of the file, 0 for missing ones, and what is known about each."""
        found = self._stack.info
        in_a_row = bool((places == places[0] + np.arange(places.size)).all())
        if in_a_row and isinstance(self._stack, VolumeStack):
            try:
                whole = self._stack.read_planes(int(places[0]), places.size)
            except SourceError:
                whole = None  # plane by plane, to keep those that can be read
            if whole is not None:
                return whole[0], list(whole[1])
        image: ImageArray = np.zeros((places.size, found.height, found.width), found.dtype)
        planes: list[Plane | None] = [None] * places.size
        for at, place in enumerate(places.tolist()):
            if place == ABSENT:
                continue
            try:
                plane = self._stack.read(place)
            except SourceError as error:
                if at == 0 or not any(plane is not None for plane in planes):
                    raise
                self._broken = error
                break
            image[at] = plane.image
            planes[at] = Plane(plane.image[:0], plane.time_s, plane.focus_um, plane.exposure_ms)
        return image, planes

    def _of_planes(self, values: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64]:
        """Values of all planes (N,) as (volumes, depth); NaN for those that are missing or unknown."""
        table = np.full(self.layout.planes.shape, NAN)
        there = self.layout.planes != ABSENT
        if values is not None:
            table[there] = values[self.layout.planes[there]]
        return table
