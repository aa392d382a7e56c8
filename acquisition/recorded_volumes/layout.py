"""Which planes of a recording belong to which volume."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from acquisition.stacks.stack import Layout, StackInfo
from stream.errors import SourceError
from stream.hdf5_checks import check_memory
from stream.volume_info import MOST_SLICES

ABSENT = -1


@dataclass(frozen=True, slots=True, eq=False)
class VolumeLayout:
    """The volumes of a recording in order of time.

    `planes` (volumes, depth) are the indices of their planes in the stack, in the order of the file's z axis, and
    `ABSENT` where the recording has none. `number` (volumes,) are the places in time: a gap is volumes without any
    plane. `partial` counts the volumes that lack planes.
    """

    planes: npt.NDArray[np.int64]
    number: npt.NDArray[np.int64]

    @property
    def depth(self) -> int:
        """Planes of a whole volume."""
        return int(self.planes.shape[1])

    @property
    def partial(self) -> int:
        """Volumes that lack planes."""
        return int(np.count_nonzero((self.planes == ABSENT).any(axis=1)))

    @property
    def lost(self) -> int:
        """Volumes without any plane, between others."""
        return int(self.number[-1] - self.number[0]) + 1 - len(self) if len(self) else 0

    def __len__(self) -> int:
        return int(self.planes.shape[0])


def volume_layout(path: Path, info: StackInfo) -> VolumeLayout:
    """The volumes of a stack with a z axis. Raises `SourceError` if it has none, or one of one plane."""
    layout = Layout(info.lead, info.axes, info.height, info.width)
    depth = layout.size("Z")
    if depth < 2:
        way = "--axes ZYX if they are the slices of one volume" if len(info.lead) == 1 else "--axes TZYX"
        raise SourceError(f"{path} has no z axis{_found(info)}, but volumes need one; give {way}")
    if depth > MOST_SLICES:
        raise SourceError(
            f"{path} has volumes of {depth} slices{_found(info)}, more than the {MOST_SLICES} of a stack; if they "
            "are times, give --axes TYX and leave --z-step out"
        )
    other = "".join(axis for axis in info.axes if axis not in "TZ" and layout.size(axis) > 1)
    if other:
        raise SourceError(
            f"{path} has the axes {info.axes}YX, but volumes have only T and Z; give --axes TZYX"
        )
    check_memory(
        depth * info.height * info.width * np.dtype(info.dtype).itemsize, f"{path}: one of its volumes"
    )
    planes = np.full((layout.size("T"), depth), ABSENT, np.int64)
    index = np.arange(layout.planes)
    there = index < info.planes
    if info.absent is not None:
        there[info.absent] = False
    planes[layout.positions("T")[there], layout.positions("Z")[there]] = index[there]
    number = np.flatnonzero((planes != ABSENT).any(axis=1))
    return VolumeLayout(planes[number], number)


def _found(info: StackInfo) -> str:
    sizes = " x ".join(map(str, (*info.lead, info.height, info.width)))
    return f" (its images are {sizes}, read as {info.axes}YX)"
