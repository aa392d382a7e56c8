"""What the tracker tells the detector: the filter's state of its tracks, as a table of `Predictions`.

A track has a place and a velocity after two detections. If that does not confirm it, it is flagged tentative: it
may be two particles, or none.

The filter is not touched: a table is a copy. Its `q` stands for all that makes a prediction less certain with time,
the particle's random steps and the changes of its velocity. A change of variance w each frame period tau adds
w tau^2 k^3 / 3 to the variance of the position after k frames: per second w tau k^2 / 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from stream.messages import Predictions, Tracks
from tracking.flow_field import ENOUGH, Flow, cell_at
from tracking.kalman import BRIGHTNESS, HITS, ID, POSITION, SEEN

FloatArray = npt.NDArray[np.float64]

HORIZON_FRAMES = 5.0
"""Frames ahead for which changes of the velocity are counted in `q`: the age of most predictions that a detector
uses. Twice as far ahead a steady shear's part is too small by a factor of 4; random steps, most of q, do not depend
on it."""
COLUMNS = len(Predictions.COLUMNS)
TRACK, X, Q, BRIGHT, OUT_HITS, MISSED, KIND, FLAGS = (
    Predictions.COLUMNS.index(name)
    for name in ("track", "x_um", "qx_um2_s", "brightness", "hits", "missed", "kind", "flags")
)
OF_FLAGS, OF_KIND = (Tracks.COLUMNS.index(name) for name in ("flags", "kind"))


def predictions_of(
    state: FloatArray,
    label: npt.NDArray[np.int64],
    rows: FloatArray,
    clock: int,
    noise: tuple[FloatArray, FloatArray, float],
    flow: tuple[Any, ...],
    fewest: int,
) -> FloatArray:
    """The table of `Predictions`, (columns, N), of the tracks with `fewest` detections or more.

    `state` and `label` are those of `tracking.kalman`, `rows` the table of `Tracks` of the same frame, row for row;
    `clock` is the camera frame as `label` has it. `noise`: variance of the random step per second (3,), um^2/s, of
    the velocity's change per frame (3,), um^2/s^2, and the frame period, s. `flow` is a `Flow` as a plain tuple.
    """
    out = np.empty((COLUMNS, rows.shape[1]))
    count = _copy(state, label, rows, clock, noise, flow, fewest, out)
    return np.ascontiguousarray(out[:, :count])


@njit(cache=True, nogil=True, error_model="numpy")
def _copy(state: Any, label: Any, rows: Any, clock: int, noise: Any, flow: Any, fewest: int, out: Any) -> int:
    """Fill `out` with the tracks of `fewest` detections or more; returns how many there are."""
    flow = Flow(*flow)
    rate, wander, frame_s = noise
    growth_s = frame_s * HORIZON_FRAMES * HORIZON_FRAMES / 3.0
    count = 0
    for i in range(rows.shape[1]):
        if label[HITS, i] < fewest:
            continue
        out[TRACK, count] = label[ID, i]
        for row in range(Q - X):
            out[X + row, count] = state[POSITION + row, i]
        cell = cell_at(flow.box, flow.shape, state[0, i], state[1, i], state[2, i])
        for a in range(3):
            change = wander[a]
            if flow.fits[cell, 0] >= ENOUGH:
                for b in range(3):
                    slope = flow.fits[cell, 7 + 3 * a + b]
                    change += slope * slope * rate[b] * frame_s
            out[Q + a, count] = rate[a] + change * growth_s
        out[BRIGHT, count] = state[BRIGHTNESS, i]
        out[OUT_HITS, count] = label[HITS, i]
        out[MISSED, count] = clock - label[SEEN, i]
        out[KIND, count] = rows[OF_KIND, i]
        out[FLAGS, count] = rows[OF_FLAGS, i]
        count += 1
    return count
