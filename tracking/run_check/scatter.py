"""Scatter of positions along tracks against the stated standard errors, whatever the flow and the diffusion.

Of four positions in successive frames, with a constant velocity, random steps of variance w and independent errors
of variance s^2, the differences of displacements a = d_2 - d_1 and b = d_3 - d_2 have

    <a^2> = 6 s^2 + 2 w,    <a b> = -4 s^2 - w,    so that    s^2 = -(<a^2> + 2 <a b>) / 2               (1)

without the velocity and the steps (from the same idea as the covariance-based estimator of diffusion: Vestergaard,
Blainey & Flyvbjerg 2014, Phys. Rev. E 89, 022726). Errors that a particle keeps along its track, as those from its
size, do not scatter and are not seen.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stream.evidence import is_sure
from stream.messages import TrackFlag, Tracks
from tracking.analysis.robust import SIGMA_OF_MAD

FloatArray = npt.NDArray[np.float64]

FRAMES = 4
KEPT = 150
"""Looks at four frames each that are judged together, 25 s at 24 frames/s: with 200 particles the squared ratio is
then good to 2 % without diffusion."""
FEWEST = 400
TOLERATED = 1.15
"""Ratio of true over stated error that is tolerated: what a calibration is asked to keep."""
OUTLIER = 4.0
"""Robust standard deviations at which a difference of displacements is a wrong link: 1 in 16,000 right ones is."""
YOUNGEST_FRAMES = 8
"""Age from which a track counts: before, links are sought in wide gates."""
AXES = "xyz"


class Ratio(NamedTuple):
    """True over stated error of x, y, z (3,), and its standard error (3,)."""

    value: FloatArray
    error: FloatArray


class ScatterCheck:
    """Takes the tracks of each frame; `factor` (3,) is by what stated errors are to be widened, 1 if they hold."""

    def __init__(self) -> None:
        self._before: deque[Tracks] = deque(maxlen=FRAMES - 1)
        self._sums: deque[FloatArray] = deque(maxlen=KEPT)
        self._looks = 0
        self._directions: set[bool] = set()
        self.factor: FloatArray = np.ones(3)
        self.ratio = Ratio(np.full(3, np.nan), np.full(3, np.inf))

    def look(self, tracks: Tracks) -> list[str]:
        """Take the tracks of a frame, whose errors are `factor` times the stated ones; returns what to tell."""
        if tracks.info.volume is not None:
            self._directions.add(tracks.info.volume.upwards)
        is_next = not self._before or tracks.info.frame == self._before[-1].info.frame + 1
        if not is_next:
            self._before.clear()
        if len(self._before) < FRAMES - 1:
            self._before.append(tracks)
            return []
        squares = squares_of([*self._before, tracks], self.factor)
        self._before.clear()  # the next four are independent of these
        self._sums.append(sums_of(squares))
        sums = np.sum(self._sums, axis=0)
        if sums[0].min() < FEWEST:
            return []
        self._looks += 1
        self.ratio = ratio_of(sums)
        return self._widen()

    def _widen(self) -> list[str]:
        value, error = self.ratio
        told = []
        for axis in range(3):
            # of the squares, which are normal; where diffusion is large, their roots are not
            square, square_error = value[axis] ** 2, 2 * value[axis] * error[axis]
            sure = is_sure(square, square_error, TOLERATED**2, self._looks, 3)
            if sure and self.factor[axis] == 1.0 and value[axis] > 1:
                told.append(f"{AXES[axis]} by {value[axis]:.1f} times")
                self.factor[axis] = value[axis]
            elif self.factor[axis] > 1:
                self.factor[axis] = max(value[axis], 1.0)
        if not told:
            return []
        return [
            f"positions scatter along tracks more than their standard errors state ({', '.join(told)}): "
            f"{self._reason(told)}; standard errors are widened by that from here on"
        ]

    def _reason(self, told: list[str]) -> str:
        """What may be the cause of it."""
        if len(self._directions) == 2 and all(text.startswith("z") for text in told):
            return (
                "upward and downward volumes alternate, and the drive that scans lags behind (measure that with "
                "`liveptv lag`), or the volumes are noisier than the detector takes them to be"
            )
        return "the images of particles are not those of the calibration, or the frames are noisier"

    def facts(self) -> dict[str, float]:
        """Gauges: the ratios that are known to 20 %, and the factors that are not 1."""
        value, error = self.ratio
        found = {
            f"check_scatter_{AXES[k]}": float(value[k])
            for k in range(3)
            if error[k] < 0.2 * max(value[k], 1.0)
        }
        return found | {f"check_widened_{AXES[k]}": float(f) for k, f in enumerate(self.factor) if f != 1.0}


def squares_of(tracks: list[Tracks], factor: FloatArray) -> FloatArray:
    """The terms of (1) over the stated variances (N, 3), of the tracks measured in all four frames."""
    good = [_measured(one) for one in tracks]
    common = good[0]
    for one in good[1:]:
        common = np.intersect1d(common, one)
    if common.size == 0:
        return np.empty((0, 3))
    rows = [np.searchsorted(one.track, common) for one in tracks]
    position = np.array(
        [np.array([t.x_um[r], t.y_um[r], t.z_um[r]]) for t, r in zip(tracks, rows, strict=True)]
    )
    focus = np.array([t.info.focus_um for t in tracks])
    position[:, 2] += np.where(np.isfinite(focus), focus, 0.0)[:, None]
    stated = np.array(
        [
            np.array([t.sigma_x_um[r], t.sigma_y_um[r], t.sigma_z_um[r]]) ** 2
            for t, r in zip(tracks, rows, strict=True)
        ]
    )
    step = np.diff(position, axis=0)
    first, second = step[1] - step[0], step[2] - step[1]
    variance = stated.mean(axis=0) / factor[:, None] ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        term = -(0.5 * (first**2 + second**2) + 2 * first * second) / (2 * variance)
        pair = np.abs(np.stack([first, second])) / np.sqrt(variance)
    typical = pair.max(axis=0) < OUTLIER * SIGMA_OF_MAD * np.nanmedian(pair, axis=(0, 2))[:, None]
    return np.where(typical, term, np.nan).T


def sums_of(terms: FloatArray) -> FloatArray:
    """Numbers, sums and sums of squares (3, 3) of terms (N, 3), those that are not known left out."""
    return np.stack([np.isfinite(terms).sum(axis=0), np.nansum(terms, axis=0), np.nansum(terms**2, axis=0)])


def ratio_of(sums: FloatArray) -> Ratio:
    """True over stated errors from `sums_of` the terms."""
    count, total, squares = sums
    mean = total / np.maximum(count, 1)
    spread = np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, 0.0) / np.maximum(count, 1))
    value = np.sqrt(np.maximum(mean, 1e-6))
    return Ratio(value, np.where(count > 1, spread / (2 * value), np.inf))


def _measured(tracks: Tracks) -> FloatArray:
    flags = tracks.flags.astype(np.int64)
    left = TrackFlag.SECOND_DETECTION | TrackFlag.REDUCED | TrackFlag.TENTATIVE
    good = (tracks.detection >= 0) & (flags & left == 0) & (tracks.age_frames >= YOUNGEST_FRAMES)
    return np.asarray(tracks.track[good])
