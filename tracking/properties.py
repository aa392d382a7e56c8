"""Properties of each track (radius, refractive index ...): the mean over its detections, with its standard error.

Errors of one particle's detections are partly alike: a network errs alike on images that are alike. That part does
not average out, so the standard error of a mean of n is more than that of a detection over sqrt(n). A detector
states the whole error s of a detection; how much of s^2 is independent from detection to detection is seen in the
tracks, in the differences of successive values (von Neumann 1941, Ann. Math. Statist. 12, 367): `fast`. The rest,
1 - fast, counts as `alike`, or more, where values are seen to scatter more about the mean of their track. Where
`fast` is more than 1, the statement is disproved and no track shows what is alike; as much as it is wrong by, up to
the stated variance, is then taken for it. With the weights w = 1 / s^2 the variance of a mean is

    alike * n / sum(w) + fast / sum(w)

What changes slowly along a track counts as alike, which is cautious. An error that is the same for all particles
and that the detector does not state (another refractive index of the liquid) cannot be seen in any track.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from stream.messages import Detections, Properties, Tracks
from stream.particle_properties import ANGLES
from tracking.known_tracks import found_again

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

ENOUGH_PAIRS = 30
"""Differences from which on `fast` is used; before, everything counts as alike. The median of 30 is known to 35 %,
that of all later ones better."""
OCTAVES, BINS_AN_OCTAVE = 20, 4
"""Squares are counted from 2^-20 to 2^20, in bins of a fourth of an octave; the median is interpolated within."""
MEDIAN_SQUARE = 0.454936
"""Median of the square of a standard normal number. A median, as a wrong link gives a huge difference."""
BINS = 2 * OCTAVES * BINS_AN_OCTAVE


class Scatter:
    """The variance of numbers, by the median of their squares, as if they were normal; one for each of P rows."""

    def __init__(self, rows: int) -> None:
        self._counts = np.zeros((rows, BINS), np.int64)

    def add(self, row: int, squares: FloatArray) -> None:
        """Take squares (N,) that are finite."""
        octave = np.log2(np.maximum(squares, 2.0**-OCTAVES)) + OCTAVES
        at = np.clip(octave * BINS_AN_OCTAVE, 0, BINS - 1).astype(np.int64)
        np.add.at(self._counts[row], at, 1)

    def variance(self) -> FloatArray:
        """The variances (P,); NaN where there are too few numbers."""
        found = np.full(len(self._counts), np.nan)
        for row, counts in enumerate(self._counts):
            total = int(counts.sum())
            if total < ENOUGH_PAIRS:
                continue
            sums = np.cumsum(counts)
            at = int(np.searchsorted(sums, total / 2))
            within = (total / 2 - (sums[at] - counts[at])) / counts[at]
            found[row] = 2.0 ** ((at + within) / BINS_AN_OCTAVE - OCTAVES) / MEDIAN_SQUARE
        return found


class TrackProperties:
    """Remembers the properties of all live tracks; costs nothing until a detection has some.

    The names are those of the first detections that have any. A value whose detector states no standard error
    counts as much as any other, and the error of the mean is what values scatter; where others of the property
    have one, it is left out. Angles (`_rad`, `_deg`) wrap around and change as a particle turns: a row has its
    detection's.
    """

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self._tracks: IntArray = np.empty(0, np.int64)

    def _begin(self, properties: Properties) -> None:
        self.names = properties.names
        rows = len(self.names)
        self._states_errors = np.array([bool((e > 0).any()) for e in properties.errors])
        self._is_angle = np.array([name.endswith(ANGLES) for name in self.names])
        self._kept = np.zeros((5, rows, 0))
        self._fast, self._whole = Scatter(rows), Scatter(rows)

    def write(self, tracks: Tracks, detections: Detections) -> Tracks:
        """The tracks of a frame with the properties of their particles, by its `detections` and those before."""
        if not self.names:
            if not len(detections.properties) or not len(detections):
                return tracks
            self._begin(detections.properties)
        self._follow(tracks.track.astype(np.int64))
        detected = self._detected(tracks, detections.properties)
        value, variance = detected.values, self._variances(detected)
        self._learn(value, variance)
        mean = Properties(self.names, *self._means())
        mean.values[self._is_angle] = value[self._is_angle]
        mean.errors[self._is_angle] = detected.errors[self._is_angle]
        return replace(tracks, properties=mean, detected=detected)

    def _follow(self, tracks: IntArray) -> None:
        """Keep what is known of the tracks (N,) that there are now; both are in order of their numbers."""
        is_known, at = found_again(self._tracks, tracks)
        kept = np.zeros((*self._kept.shape[:2], tracks.size))
        kept[:, :, is_known] = self._kept[:, :, at]
        self._tracks, self._kept = tracks, kept

    def _detected(self, tracks: Tracks, properties: Properties) -> Properties:
        """What each track's own detection says (P, N); NaN without one."""
        found = Properties.unknown(self.names, len(tracks))
        there = np.flatnonzero(tracks.detection >= 0)
        at = tracks.detection[there].astype(np.int64)
        for row, name in enumerate(self.names):
            if name in properties:
                found.values[row, there] = properties.value(name)[at]
                found.errors[row, there] = properties.error(name)[at]
        found.values[~np.isfinite(found.values)] = np.nan
        found.errors[~(np.isfinite(found.errors) & (found.errors > 0))] = np.nan
        return found

    def _variances(self, detected: Properties) -> FloatArray:
        """The variances (P, N) as stated; 1 of a property without stated ones, NaN where a value does not count."""
        variance = np.where(self._states_errors[:, None], detected.errors**2, 1.0)
        usable = np.isfinite(variance) & (variance > 0) & ~np.isnan(detected.values)
        return np.where(usable, variance, np.nan)

    def _learn(self, value: FloatArray, variance: FloatArray) -> None:
        mean, weights, count, last, last_variance = self._kept
        for row in range(len(self.names)):
            there = np.flatnonzero(~np.isnan(variance[row]))
            known = there[count[row, there] > 0]
            v, s2 = value[row, known], variance[row, known]
            self._fast.add(row, (v - last[row, known]) ** 2 / (s2 + last_variance[row, known]))
            self._whole.add(row, (v - mean[row, known]) ** 2 / (s2 + 1.0 / weights[row, known]))
            weight = 1.0 / variance[row, there]
            weights[row, there] += weight
            mean[row, there] += (value[row, there] - mean[row, there]) * weight / weights[row, there]
            count[row, there] += 1
            last[row, there], last_variance[row, there] = value[row, there], variance[row, there]

    def _means(self) -> tuple[FloatArray, FloatArray]:
        """Means and their standard errors (P, N), NaN before the first detection."""
        mean, weights, count = self._kept[:3]
        fast, whole = self._fast.variance(), self._whole.variance()
        fast = np.where(self._states_errors & np.isnan(fast), 0.0, fast)
        unseen = np.where(self._states_errors, np.minimum(np.abs(1.0 - fast), 1.0), 0.0)
        alike = np.fmax(whole - fast, unseen)
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = (alike[:, None] * count + fast[:, None]) / weights
        known = count > 0
        return np.where(known, mean, np.nan), np.where(known, np.sqrt(variance), np.nan)
