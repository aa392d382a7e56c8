"""D during a run, from some of the tracks in each frame, added up as they come."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.messages import FrameInfo, Tracks
from tracking.physics.diffusion.averages import AveragedDiffusion
from tracking.physics.diffusion.plane_map import PlaneMap
from tracking.physics.live.depth_looks import DepthLooks
from tracking.physics.live.diffusion_of_looks import (
    LiveDiffusion,
    Looks,
    diffusion_of_looks,
    looks_of,
    mapped,
)
from tracking.physics.live.look_sums import COUNT, FIELDS, add_frame

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

WATCHED = 256
"""Tracks that are followed at a time at most: D is known to 2 % from ten looks at them, and the cost does not grow
with the number of particles."""
STEPS, FEWEST = 8, 3
"""Displacements of a look at most, and of a track in it at least. In a sheared flow the velocity changes less along
few; each track costs one for its velocity."""
PERIOD_S = 0.5  # between the beginnings of two looks: no more is needed to follow changes within seconds
LOOKS = 4  # after which D is computed anew: every two seconds
KEPT = 10_000  # segments that D is from, the oldest are dropped: 20 s with 256 tracks
PLANE, DEPTH_AXIS = "xy", "z"
NEEDED = np.array([Tracks.COLUMNS.index(name) for name in ("x_um", "y_um", "z_um", "time_offset_s")])
DIGITS = 4  # of a map's numbers: two more than their errors let one tell


class RunningDiffusion:
    """Looks at 256 tracks for eight displacements, twice a second; `facts` is D from the newest looks.

    D along the depth is from longer looks (`DepthLooks`).
    """

    def __init__(
        self, refraction_factor: float = 1.0, *, with_map: bool = False, with_depth: bool = False
    ) -> None:
        """`with_map`: D over the image too; `with_depth`: D along the depth."""
        self._factor, self._with_map = refraction_factor, with_map
        self._depth = DepthLooks(refraction_factor) if with_depth else None
        self._names: IntArray = np.empty(0, np.int64)
        self._rows: FloatArray = np.empty((0, FIELDS))
        self._frames = 0
        self._next_s = -math.inf
        self._done: list[tuple[FloatArray, IntArray]] = []
        self._count = 0
        self._fresh = 0
        self._known = False
        self._facts: dict[str, Any] = {"um2_s": None, "error_um2_s": None, "axes": [], "displacements": 0}

    def warmup(self) -> None:
        """Compile, or load what was compiled before. Before the first frame."""
        self._follow(Tracks(FrameInfo("", 0, 0, 0.0, 0, 0.0), np.empty((len(Tracks.COLUMNS), 0))))

    def update(self, tracks: Tracks) -> None:
        """Add one frame's tracks; predicted, tentative and second ones are left out."""
        info = tracks.info
        if self._depth is not None:
            self._depth.update(tracks)
        if self._frames == 0:
            if self._next_s > info.time_s > self._next_s - 2 * PERIOD_S:
                return
            self._next_s = info.time_s + PERIOD_S
        self._frames += 1
        self._follow(tracks)
        if self._frames > STEPS:
            self._finish()
            self._frames = 0
            self._names, self._rows = np.empty(0, np.int64), np.empty((0, FIELDS))

    def _follow(self, tracks: Tracks) -> None:
        """Add the displacements since the frame before to the sums of the tracks that are in both."""
        chosen = np.flatnonzero(tracks.counted)
        name = tracks.track[chosen]
        if chosen.size > WATCHED:
            # the same tracks in every frame: the oldest
            oldest = np.argpartition(name, WATCHED)[:WATCHED]
            chosen, name = chosen[oldest], name[oldest]
        order = np.argsort(name)
        names = name[order].astype(np.int64)
        info = tracks.info
        now = tracks.table[NEEDED[:, None], chosen[order]]
        now[2] = self._factor * ((info.focus_um if math.isfinite(info.focus_um) else 0.0) + now[2])
        now[3] = info.time_s + np.nan_to_num(now[3])
        rows = np.empty((names.size, FIELDS))
        add_frame(self._names, self._rows, names, now, rows)
        self._names, self._rows = names, rows

    def _finish(self) -> None:
        enough = self._rows[:, COUNT] >= FEWEST
        if not enough.any():
            return
        self._done.append((self._rows[enough], self._names[enough]))
        self._count += int(enough.sum())
        self._fresh += 1
        while self._count - self._done[0][1].size >= KEPT:
            self._count -= self._done.pop(0)[1].size

    def renewed(self, looks: int = LOOKS) -> Looks | None:
        """The newest looks, if so many have come in since the last call (for the first one: one); else None."""
        done = list(self._done)  # `update` may go on in another thread
        if not done or self._fresh < (looks if self._known else 1):
            return None
        self._fresh, self._known = 0, True
        return looks_of(np.concatenate([one for one, _ in done]), np.concatenate([one for _, one in done]))

    def facts(self) -> dict[str, Any]:
        """D in the plane and D of each axis, with standard errors, um^2/s, and of how many displacements.

        Axes along which a sheared flow adds `sheared_um2_s` do not count in the plane. `at_most_um2_s`: what D
        along z is below, where errors of depth that last do not let it be told. `map`: D over the image.
        """
        looks = self.renewed()
        if looks is not None:
            found = diffusion_of_looks(looks)
            self._facts = _facts_of(found, None if self._depth is None else self._depth.found(found.in_plane))
            if self._with_map:
                self._facts["map"] = _map_facts(mapped(looks, found))
        return self._facts


def _facts_of(found: LiveDiffusion, depth: AveragedDiffusion | None) -> dict[str, Any]:
    d, error = found.in_plane
    axes: list[dict[str, Any]] = [
        {
            "axis": PLANE[axis],
            "um2_s": _plain(float(found.um2_s[axis])),
            "error_um2_s": _plain(float(found.standard_error_um2_s[axis])),
            "sheared_um2_s": float(found.sheared_um2_s[axis]),
        }
        for axis in range(len(PLANE))
    ]
    if depth is not None:
        axes.append(
            {
                "axis": DEPTH_AXIS,
                "um2_s": None if depth.at_most else _plain(depth.um2_s),
                "error_um2_s": None if depth.at_most else _plain(depth.standard_error_um2_s),
                "sheared_um2_s": 0.0,
                "at_most_um2_s": _plain(depth.limit_um2_s) if depth.at_most else None,
                "frames": depth.block,
            }
        )
    return {
        "um2_s": _plain(d),
        "error_um2_s": _plain(error),
        "axes": axes,
        "displacements": found.displacements,
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
