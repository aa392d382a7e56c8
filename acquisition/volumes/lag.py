"""How far a scanning drive is behind its commanded position: from upward and downward volumes of resting beads.

A drive that lags takes each slice of an upward volume lower than commanded, and of a downward one higher. A bead at
the height h therefore appears at h + lag in upward and at h - lag in downward volumes; the difference is the sum of
both lags. With a volume taken slice by slice, where the drive rests, each of them is known by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage, optimize

from stream.errors import LivePTVError

FloatArray = npt.NDArray[np.float64]

LEAST_BEADS = 3
"""Beads for a median and a scatter; with fewer a wrong one could not be told."""
MOST_BEADS = 400
"""Brightest beads that are used: the median's standard error is then a twentieth of the scatter."""
WINDOW = 2
"""Pixels to either side of a bead's brightest one that are added up: 5 x 5 hold most of the light of a bead of 1 to
2 pixels sigma. Neighbours within are part of the bead in both volumes alike."""
APART = 4
"""Pixels between two beads at least, so that their windows share less than a half."""
BRIGHT = 6.0
"""A bead's brightness over the noise of the largest values of the image: random maxima are below."""
END_SLICES = 1.0
"""Beads nearer than this many slices to an end of the stack are left out: half of their profile is missing."""
SCALED_MAD = 1.4826
SIGNIFICANT = 4.0
"""Standard errors from which on a slope is told: chance alone does that once in 15,000 scans."""


class LagError(LivePTVError, ValueError):
    """The lag cannot be measured in these volumes."""


@dataclass(frozen=True, slots=True)
class LagEstimate:
    """Lags in um, positive where the drive is behind, with standard errors.

    `shift_um` is how much higher beads appear in upward than in downward volumes; `sd_um` the scatter of single
    beads. `separate`: whether both lags were measured; else each is half of the shift. `per_um` is how much the
    shift changes along the stack, with its standard error: a drive that has not settled after turning round.
    """

    lag_up_um: float
    lag_down_um: float
    error_um: float
    shift_um: float
    sd_um: float
    beads: int
    separate: bool
    per_um: float
    per_um_error: float

    @property
    def changes(self) -> bool:
        """Whether the lag changes along the stack by more than chance."""
        return abs(self.per_um) > SIGNIFICANT * self.per_um_error


def estimate_lag(
    up_stack: npt.ArrayLike,
    down_stack: npt.ArrayLike,
    z_um: Sequence[float],
    rest_stack: npt.ArrayLike | None = None,
) -> LagEstimate:
    """Estimate the lag from volumes of the same resting beads, (Z, H, W), slices by rising commanded focus.

    Parameters
    ----------
    up_stack, down_stack
        Upward and downward volumes, without missing slices; means of several are better.
    z_um
        Commanded height of each slice, (Z,), rising.
    rest_stack
        A volume for which the drive rested at each slice.

    Each bead's light in a small window is fitted with a Gaussian along z in each volume; the lag is the median over
    the beads of the difference of its centres. Raises `LagError` where there are too few beads.
    """
    stacks = [np.asarray(up_stack, float), np.asarray(down_stack, float)]
    if rest_stack is not None:
        stacks.append(np.asarray(rest_stack, float))
    heights = np.asarray(z_um, float)
    _check(stacks, heights)
    rows, columns = find_beads(np.mean(stacks, axis=0))
    centres = np.array([_centres(stack, heights, rows, columns) for stack in stacks])
    step = float(np.median(np.diff(heights)))
    margin = END_SLICES * step
    inside = np.all((centres > heights[0] + margin) & (centres < heights[-1] - margin), axis=0)
    centres = centres[:, inside]
    if centres.shape[1] < LEAST_BEADS:
        raise LagError(
            f"the lag cannot be measured: {centres.shape[1]} beads of {len(rows)} lie within both volumes, and "
            f"{LEAST_BEADS} are needed; take resting, bright beads near the middle of the volume"
        )
    difference = centres[0] - centres[1]
    shift, sd, kept = _robust(difference)
    count = int(kept.sum())
    per_um, per_um_error = _slope(centres.mean(axis=0)[kept], difference[kept])
    error = 1.2533 * sd / math.sqrt(count)
    lags = (shift / 2, shift / 2)
    if rest_stack is not None:
        lags = (_robust(centres[0] - centres[2])[0], _robust(centres[2] - centres[1])[0])
    separate = rest_stack is not None
    error_um = error if separate else error / 2
    return LagEstimate(*lags, error_um, shift, sd, count, separate, per_um, per_um_error)


def find_beads(stack: FloatArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows and columns (N,) of lone bright places in the maximum along z of a stack (Z, H, W)."""
    largest = ndimage.uniform_filter(stack, (0, 3, 3)).max(axis=0)
    background = float(np.median(largest))
    noise = SCALED_MAD * float(np.median(np.abs(largest - background)))
    peaks = largest == ndimage.maximum_filter(largest, 2 * APART + 1)
    peaks &= largest > background + BRIGHT * max(noise, 1e-9)
    peaks[:WINDOW] = peaks[-WINDOW:] = peaks[:, :WINDOW] = peaks[:, -WINDOW:] = False
    rows, columns = np.nonzero(peaks)
    brightest = np.argsort(-largest[rows, columns], kind="stable")[:MOST_BEADS]
    return rows[brightest], columns[brightest]


def _check(stacks: Sequence[FloatArray], heights: FloatArray) -> None:
    shapes = {stack.shape for stack in stacks}
    if len(shapes) != 1 or stacks[0].ndim != 3 or stacks[0].shape[0] != heights.size:
        found = ", ".join(str(stack.shape) for stack in stacks)
        raise LagError(
            f"the lag needs volumes (Z, H, W) of one shape and the height of each slice, not {found} and "
            f"{heights.size} heights"
        )
    if heights.size < 5 or not np.all(np.diff(heights) > 0):
        raise LagError("the lag needs at least 5 slices whose heights rise; take more slices")
    if min(stacks[0].shape[1:]) < 4 * WINDOW + 1:
        raise LagError(f"the lag needs images of at least {4 * WINDOW + 1} pixels to a side")


def _centres(
    stack: FloatArray, heights: FloatArray, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
) -> FloatArray:
    """Height of each bead (N,), um, by a Gaussian along z with background; NaN where that fails."""
    light = ndimage.uniform_filter(stack, (0, 2 * WINDOW + 1, 2 * WINDOW + 1))[:, rows, columns]
    return np.array([_centre(heights, profile) for profile in light.T])


def _centre(heights: FloatArray, profile: FloatArray) -> float:
    low, high = float(profile.min()), float(profile.max())
    brightest = float(heights[int(np.argmax(profile))])
    span = float(heights[-1] - heights[0])
    step = span / (heights.size - 1)
    weight = np.clip(profile - 0.5 * (low + high), 0, None)
    width = max(0.5 * step, float(weight.sum() / max(weight.max(), 1e-12)) * step / 1.6)

    def model(p: FloatArray) -> FloatArray:
        residual: FloatArray = p[3] + p[2] * np.exp(-0.5 * ((heights - p[0]) / p[1]) ** 2) - profile
        return residual

    start = np.array([brightest, min(width, span), high - low, low])
    scales = [step, step, *2 * [max(high - low, 1e-9)]]
    bounds = (
        [heights[0] - span, 0.3 * step, 0.0, -np.inf],
        [heights[-1] + span, 2 * span, np.inf, np.inf],
    )
    try:
        found = optimize.least_squares(model, start, bounds=bounds, x_scale=scales)
    except ValueError:
        return math.nan
    return float(found.x[0]) if found.success else math.nan


def _robust(values: FloatArray) -> tuple[float, float, npt.NDArray[np.bool_]]:
    """Median, scatter, and which values lie within four scatters of it."""
    kept = np.ones(values.size, bool)
    for _ in range(3):
        middle = float(np.median(values[kept]))
        sd = SCALED_MAD * float(np.median(np.abs(values[kept] - middle)))
        kept = np.abs(values - middle) <= 4 * max(sd, 1e-9)
    return middle, sd, kept


def _slope(heights: FloatArray, shifts: FloatArray) -> tuple[float, float]:
    """Slope of a line through the shifts, and its standard error; NaN with fewer than three beads or one height."""
    spread = float(np.sum((heights - heights.mean()) ** 2))
    if heights.size < 3 or spread <= 0:
        return math.nan, math.nan
    slope = float(np.sum((heights - heights.mean()) * shifts)) / spread
    rest = shifts - shifts.mean() - slope * (heights - heights.mean())
    return slope, math.sqrt(float(np.sum(rest**2)) / (heights.size - 2) / spread)
