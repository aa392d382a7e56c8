"""The volumes of a file that may still be growing: which are whole, and reading them.

Volumes are counted by their place in time, also those of which nothing is written yet. A volume that lacks slices
is waited for; what does not come is missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from acquisition.recorded_volumes.layout import ABSENT
from acquisition.recorded_volumes.reader import VolumeReader
from acquisition.recorded_volumes.z_scale import UnknownVoxelError
from acquisition.stacks.stack import ImageStack, Plane, StackInfo
from stream.errors import SourceError
from stream.volume_info import VolumeInfo


@dataclass(slots=True)
class VolumeRules:
    """How volumes of a run are read. `depth` and `run_step_um` are those of its first one, None before that.

    `wanted`: whether files hold volumes: True, False, or None where a file with a z axis decides.
    """

    wanted: bool | None = None
    z_step_um: float | None = None
    pixel_size_um: float | None = None
    model_pixel_size_um: Callable[[], float | None] = field(default=lambda: None)
    depth: int | None = None
    run_step_um: float | None = None

    def pixel_um(self, found: StackInfo) -> float:
        """The width of a voxel of a file, NaN if it is not known."""
        for size_um in (self.pixel_size_um, found.pixel_size_um, found.pixel_size_y_um):
            if size_um is not None and size_um > 0:
                return size_um
        size_um = self.model_pixel_size_um()
        return math.nan if size_um is None else size_um


class VolumesOfFile:
    """The volumes of an open file. `z_step_um` is the distance between their slices, `remarks` are about it."""

    def __init__(self, path: Path, stack: ImageStack, rules: VolumeRules) -> None:
        """Raises `SourceError` if it has no volumes, and `UnknownVoxelError` if their voxels are not known."""
        self._path, self._depth = path, rules.depth
        pixel_um = rules.pixel_um(stack.info)
        try:
            self._reader = VolumeReader(path, stack, z_step_um=rules.z_step_um, pixel_size_um=pixel_um)
        except UnknownVoxelError:
            if rules.run_step_um is None:
                raise
            self._reader = VolumeReader(path, stack, z_step_um=rules.run_step_um, pixel_size_um=pixel_um)
        self.z_step_um, self.remarks = self._reader.z_step_um, self._reader.scale_remarks
        layout = self._reader.layout
        self._number = layout.number
        self._is_whole = (layout.planes != ABSENT).all(axis=1) & (layout.depth >= (self._depth or 0))
        self.planes = int(self._number[-1]) + 1 if len(layout) else 0
        self.depth = layout.depth

    def is_whole(self, index: int) -> bool:
        """Whether volume `index` has all its slices."""
        at = self._at(index)
        return at is not None and bool(self._is_whole[at])

    def _at(self, index: int) -> int | None:
        at = int(np.searchsorted(self._number, index))
        return at if at < len(self._number) and self._number[at] == index else None

    def read(self, index: int) -> tuple[Plane, VolumeInfo]:
        """Volume `index` as it is now; what it lacks is missing. Raises `SourceError` if it has no slice at all."""
        at = self._at(index)
        if at is None:
            raise SourceError(f"volume {index} of {self._path} has no slice")
        plane, volume = self._reader.read(at)
        lacking = (self._depth or 0) - volume.slices
        if lacking <= 0:
            return plane, volume
        image = np.concatenate([plane.image, np.zeros((lacking, *plane.image.shape[1:]), plane.image.dtype)])
        beyond = range(1, lacking + 1)
        heights_um = (*volume.z_um, *(volume.z_um[-1] + self.z_step_um * k for k in beyond))
        missing = (*volume.missing, *range(volume.slices, volume.slices + lacking))
        return replace(plane, image=image), VolumeInfo(heights_um, (), missing, volume.upwards)
