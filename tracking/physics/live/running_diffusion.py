"""D during a run, from some of the tracks in each frame, added up as they come."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.messages import TrackFlag, Tracks
from tracking.physics.diffusion.covariance import Moments, expected_moments, solve

FloatArray = npt.NDArray[np.float64]

WATCHED = 256
"""Tracks that are followed at a time at most: D is known to 2 % from ten looks at them, and the cost does not grow
with the number of particles."""
STEPS, FEWEST = 8, 3
"""Displacements of a look at most, and of a track in it at least. In a sheared flow the velocity changes less along
few; each track costs one for its velocity."""
PERIOD_S = 0.5  # between the beginnings of two looks: no more is needed to follow changes within seconds
LOOKS = 4  # after which D is computed anew: every two seconds, 9 ms of processor time
KEPT = 10_000  # segments that D is from, the oldest are dropped: 20 s with 256 tracks
OUTLIER = 5.0
"""Median sums of squares from which one displacement was a wrong link: 5 in 100,000 right segments have more."""
AXES = "xyz"
NOTHING: dict[str, Any] = {"um2_s": None, "error_um2_s": None, "axes": [], "displacements": 0}
SQUARES, PRODUCTS, MOVED, WEIGHTED, CROSSED = (slice(3 * at, 3 * at + 3) for at in range(5))
COUNT, TOTAL, TIMES_SQUARED, TIMES_PRODUCT, FIRST, SECOND, LAST_BUT_ONE, LAST = range(15, 23)
ROWS = 23
"""Rows of the sums of a track, of displacements d over times u: for each axis those of d^2, d_i d_i+1, d, d u, and
d_i u_i+1 + d_i+1 u_i; then n, and the sums of u, u^2 and u_i u_i+1, and the times at the ends."""


class RunningDiffusion:
    """Looks at 256 tracks for eight displacements, twice a second; `facts` is D from the newest looks."""

    def __init__(self, refraction_factor: float = 1.0) -> None:
        self._factor = refraction_factor
        self._names: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._at: FloatArray = np.empty((4, 0))
        self._before: FloatArray = np.empty((4, 0))
        self._sums: FloatArray = np.empty((ROWS, 0))
        self._frames = 0
        self._next_s = -math.inf
        self._done: list[tuple[FloatArray, npt.NDArray[np.int64]]] = []
        self._count = 0
        self._fresh = 0
        self._facts: dict[str, Any] = dict(NOTHING)

    def update(self, tracks: Tracks) -> None:
        """Add one frame's tracks; predicted, tentative and second ones are left out."""
        info = tracks.info
        if self._frames == 0:
            if self._next_s > info.time_s > self._next_s - 2 * PERIOD_S:
                return
            self._next_s = info.time_s + PERIOD_S
        self._frames += 1
        self._follow(tracks)
        if self._frames > STEPS:
            self._frames = 0
            self._names = np.empty(0, np.int64)

    def _follow(self, tracks: Tracks) -> None:
        """Add the displacements since the frame before to the sums of the tracks that are in both."""
        unfit = int(TrackFlag.PREDICTED | TrackFlag.SECOND_DETECTION | TrackFlag.TENTATIVE)
        chosen = np.flatnonzero((tracks.flags.astype(np.int64) & unfit) == 0)
        if chosen.size > WATCHED:
            # the same tracks in every frame: the oldest
            chosen = chosen[np.argpartition(tracks.track[chosen], WATCHED)[:WATCHED]]
        name = tracks.track[chosen].astype(np.int64)
        order = np.argsort(name)
        name, chosen = name[order], chosen[order]
        info = tracks.info
        focus = info.focus_um if math.isfinite(info.focus_um) else 0.0
        offset = np.nan_to_num(tracks.time_offset_s[chosen])
        now = np.stack(
            [
                tracks.x_um[chosen],
                tracks.y_um[chosen],
                self._factor * (focus + tracks.z_um[chosen]),
                info.time_s + offset,
            ]
        )
        place = np.searchsorted(self._names, name)
        place[place == self._names.size] = 0
        known = self._names.size > 0 and self._names[place] == name
        known = np.broadcast_to(known, name.shape)
        sums = np.zeros((self._sums.shape[0], name.size))
        before = np.zeros((4, name.size))
        d = np.zeros((4, name.size))
        old = place[known]
        sums[:, known] = self._sums[:, old]
        before[:, known] = self._before[:, old]
        d[:, known] = now[:, known] - self._at[:, old]
        self._add(sums, d, before, known & (d[3] > 0))
        if self._frames > STEPS:
            self._finish(sums, name)
        self._names, self._at, self._before, self._sums = name, now, d, sums

    def _add(self, sums: FloatArray, d: FloatArray, before: FloatArray, moved: npt.NDArray[np.bool_]) -> None:
        """Add a displacement d (axes and time, N) to the sums of the tracks that have `moved`."""
        step, u = np.where(moved, d, 0.0)[:3], np.where(moved, d[3], 0.0)
        earlier = np.where(moved, before, 0.0)
        sums[SQUARES] += step * step
        sums[PRODUCTS] += step * earlier[:3]
        sums[MOVED] += step
        sums[WEIGHTED] += step * u
        sums[CROSSED] += step * earlier[3] + earlier[:3] * u
        sums[COUNT] += moved
        sums[TOTAL] += u
        sums[TIMES_SQUARED] += u * u
        sums[TIMES_PRODUCT] += u * earlier[3]
        for row, number in ((FIRST, 1), (SECOND, 2)):
            sums[row] = np.where(moved & (sums[COUNT] == number), u, sums[row])
        sums[LAST_BUT_ONE] = np.where(moved, sums[LAST], sums[LAST_BUT_ONE])
        sums[LAST] = np.where(moved, u, sums[LAST])

    def _finish(self, sums: FloatArray, name: npt.NDArray[np.int64]) -> None:
        enough = sums[COUNT] >= FEWEST
        if not enough.any():
            return
        self._done.append((sums[:, enough], name[enough]))
        self._count += int(enough.sum())
        self._fresh += 1
        while self._count - self._done[0][1].size >= KEPT:
            self._count -= self._done.pop(0)[1].size

    def facts(self) -> dict[str, Any]:
        """Mean D of x and y and D of each axis, with standard errors, um^2/s, and of how many displacements."""
        if self._fresh >= (LOOKS if self._facts["displacements"] else 1):
            self._fresh = 0
            self._facts = self._estimated()
        return self._facts

    def _estimated(self) -> dict[str, Any]:
        done = list(self._done)  # `update` may go on in another thread
        sums = np.concatenate([one for one, _ in done], axis=1)
        name = np.concatenate([one for _, one in done])
        deep = np.isfinite(sums[SQUARES][2]).all()
        axes = 3 if deep else 2
        n, total = sums[COUNT], sums[TOTAL]
        v = (sums[MOVED] / total)[:axes]
        squares = sums[SQUARES][:axes] - 2 * v * sums[WEIGHTED][:axes] + v**2 * sums[TIMES_SQUARED]
        products = sums[PRODUCTS][:axes] - v * sums[CROSSED][:axes] + v**2 * sums[TIMES_PRODUCT]
        typical = np.median(squares, axis=1, keepdims=True)
        good = (squares <= OUTLIER * typical * np.maximum(n / np.median(n), 1.0)).all(axis=0)
        expected = expected_moments(
            n.astype(np.int64),
            total,
            sums[TIMES_SQUARED],
            sums[TIMES_PRODUCT],
            sums[FIRST] + sums[LAST],
            sums[SECOND] + sums[LAST_BUT_ONE],
            drift=True,
        )
        found = np.stack([squares, products], axis=1)
        times = np.where(np.arange(STEPS) < n[:, None], (total / n)[:, None], 0.0)
        all_of_them = Moments(found, expected, times, name, n.astype(np.int64), drift=True)
        estimates = solve(all_of_them.of(good))
        d, error = estimates.um2_s[:, 0], estimates.standard_error_um2_s[:, 0]
        rows = [
            {"axis": AXES[axis], "um2_s": _plain(d[axis]), "error_um2_s": _plain(error[axis])}
            for axis in range(axes)
        ]
        mean, mean_error = float(d[:2].mean()), float(np.hypot(*error[:2]) / 2)
        return {
            "um2_s": _plain(mean),
            "error_um2_s": _plain(mean_error),
            "axes": rows,
            "displacements": int(estimates.steps[0]),
        }


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
