"""D during a run, from some of the tracks in each frame, added up as they come."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.messages import FrameInfo, Tracks
from tracking.physics.diffusion.averages import AveragedDiffusion, from_averages
from tracking.physics.diffusion.covariance import Moments
from tracking.physics.diffusion.lasting import AXES
from tracking.physics.diffusion.plane_map import PlaneMap
from tracking.physics.live.diffusion_of_looks import (
    AxisFound,
    Looks,
    along_y,
    axes_found,
    diffusion_of_looks,
    in_plane,
    looks_of,
    mapped,
)
from tracking.physics.live.followed import Followed
from tracking.physics.live.long_looks import PERIOD_S as LONG_PERIOD_S
from tracking.physics.live.long_looks import LongLooks
from tracking.physics.live.look_sums import COUNT, FIELDS, add_frame

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

WATCHED = 256
"""Tracks that are followed at a time at most: D is known to 2 % from ten looks at them, and the cost does not grow
with the number of particles."""
STEPS, FEWEST = 8, 3
"""Displacements of a look at most, and of a track in it at least. In a sheared flow the velocity changes less along
few; each track costs one for its velocity."""
FIRST_STEPS = 4
"""Displacements of the first look: D is known, if roughly, before any track is long enough for a flow's fit."""
PERIOD_S = 0.5  # between the beginnings of two looks: no more is needed to follow changes within seconds
LOOKS = 4  # after which D is computed anew: every two seconds
KEPT = 10_000  # segments that D is from, the oldest are dropped: 20 s with 256 tracks
MAPS = 4
"""Times that D is computed anew until the map is: it is from 20 s of looks, and costs as much as all else."""
DIGITS = 4  # of a map's numbers: two more than their errors let one tell


class RunningDiffusion:
    """Looks at 256 tracks for eight displacements, twice a second; `facts` is D from the newest looks.

    Whether errors last over frames, and D along the depth, is from longer looks (`LongLooks`).
    """

    def __init__(
        self, refraction_factor: float = 1.0, *, with_map: bool = False, long_period_s: float = LONG_PERIOD_S
    ) -> None:
        """`with_map`: D over the image too; `long_period_s` between the beginnings of two longer looks at least."""
        self._with_map = with_map
        self._followed = Followed(WATCHED, refraction_factor)
        self._sums = np.full((WATCHED, FIELDS), np.nan)
        self._long = LongLooks(refraction_factor, period_s=long_period_s)
        self._frames = 0
        self._next_s = -math.inf
        self._done: list[tuple[FloatArray, IntArray]] = []
        self._count = 0
        self._fresh = 0
        self._known = False
        self._of_frames: list[Moments] = []
        self._means: dict[int, AveragedDiffusion | None] = {}
        self._map_in = 0
        self._facts: dict[str, Any] = {"um2_s": None, "error_um2_s": None, "axes": [], "displacements": 0}

    def warmup(self) -> None:
        """Compile, or load what was compiled; for tables that came by message too. Before the first frame."""
        table = np.empty((len(Tracks.COLUMNS), 0))
        for writeable in (True, False):
            table.flags.writeable = writeable
            tracks = Tracks(FrameInfo("", 0, 0, 0.0, 0, 0.0), table)
            self._followed.begin(tracks)
            self._follow(tracks)

    def update(self, tracks: Tracks) -> None:
        """Add one frame's tracks; those that are not counted are left out."""
        info = tracks.info
        self._long.update(tracks)
        if self._frames == 0:
            if self._next_s > info.time_s > self._next_s - 2 * PERIOD_S:
                return
            self._next_s = info.time_s + PERIOD_S
            self._followed.begin(tracks)
        self._frames += 1
        self._follow(tracks)
        if self._frames > (STEPS if self._done else FIRST_STEPS):
            self._finish()
            self._frames = 0
            self._sums[:] = np.nan

    def _follow(self, tracks: Tracks) -> None:
        """Add the displacements since the frame before to the sums of the tracks that are followed."""
        now, _ = self._followed.see(tracks)
        add_frame(now, self._sums)

    def _finish(self) -> None:
        names = self._followed.names
        enough = self._sums[: names.size, COUNT] >= FEWEST
        if not enough.any():
            return
        self._done.append((self._sums[: names.size][enough], names[enough]))
        self._count += int(enough.sum())
        self._fresh += 1
        while self._count - self._done[0][1].size >= KEPT:
            self._count -= self._done.pop(0)[1].size

    def renewed(self, looks: int = LOOKS) -> Looks | None:
        """The newest looks, if so many have come in since the last call (for the first one: one); else None."""
        done = list(self._done)  # `update` may go on in another thread
        if self._count >= KEPT:  # one look more changes less than before
            looks *= 2
        if not done or self._fresh < (looks if self._known else 1):
            return None
        self._fresh, self._known = 0, True
        of_frames = self._long.renewed()
        if of_frames is not None:
            self._of_frames, self._means = of_frames, {}
        return looks_of(np.concatenate([one for one, _ in done]), np.concatenate([one for _, one in done]))

    def along_y(self, looks: Looks) -> AxisFound:
        """D along y from these looks, or from the longer ones where errors last over frames."""
        return along_y(looks, self._mean_along(1))

    def _mean_along(self, axis: int) -> AveragedDiffusion | None:
        """What the longer looks say of an axis; None where they do not."""
        if axis not in self._means:
            told = self._of_frames and axis < len(self._of_frames[0].found)
            self._means[axis] = from_averages(self._of_frames, axis) if told else None
        return self._means[axis]

    def facts(self) -> dict[str, Any]:
        """D in the plane and D of each axis, with standard errors, um^2/s, and of how many displacements.

        Axes along which a sheared flow adds `sheared_um2_s` do not count in the plane, nor do those whose errors
        last too long to tell D: of them `at_most_um2_s` is what D is below. `frames` is over how many of them means
        are taken where errors last, else 1. `map`: D over the image, of the axes that count, from single frames.
        """
        looks = self.renewed()
        if looks is not None:
            found = diffusion_of_looks(looks)
            axes = axes_found(found, [self._mean_along(axis) for axis in range(len(AXES))])
            drawn = self._facts.get("map")
            self._facts = _facts_of(axes, found.displacements)
            if self._with_map:
                self._facts["map"] = drawn if self._map_in else _map_facts(mapped(looks, axes))
                self._map_in = (self._map_in or MAPS) - 1
        return self._facts


def _facts_of(axes: list[AxisFound], displacements: int) -> dict[str, Any]:
    d, error = in_plane(axes)
    return {
        "um2_s": _plain(d),
        "error_um2_s": _plain(error),
        "axes": [
            {
                "axis": one.axis,
                "um2_s": _plain(one.um2_s),
                "error_um2_s": _plain(one.error_um2_s),
                "sheared_um2_s": one.sheared_um2_s,
                "at_most_um2_s": _plain(one.at_most_um2_s),
                "frames": one.frames,
            }
            for one in axes
        ],
        "displacements": displacements,
    }


def _map_facts(found: PlaneMap | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "x_um": found.x_um.tolist(),
        "y_um": found.y_um.tolist(),
        "um2_s": [[_plain(one, DIGITS) for one in row] for row in found.um2_s.tolist()],
        "error_um2_s": [[_plain(one, DIGITS) for one in row] for row in found.standard_error_um2_s.tolist()],
        "differs": found.differs.tolist(),
    }


def _plain(value: float, digits: int = 17) -> float | None:
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None
