"""Where the particles of known tracks should be seen in a frame: the tracker's states, carried on to its time."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from engines.refine.arguments import FloatArray
from engines.refine.fitting import within
from engines.refine.psf import FitModel
from engines.refine.sample import seen_at
from stream.messages import FrameInfo, Predictions, TrackFlag

LONGEST_S = 5.0
"""s over which a prediction is carried on at most: far beyond what a tracker keeps a track for. It only keeps
clocks that jump from making places out of nothing."""


class Expected(NamedTuple):
    """Particles (N) that should be in a frame, in order of their tracks.

    `place` (N, 3): x px, y px, local z um; `sigma` (N, 3) their standard deviations, same units; `brightness` (N,)
    in grey values; `missed` (N,) camera frames for which they had not been seen when they were predicted.
    """

    place: FloatArray
    sigma: FloatArray
    brightness: FloatArray
    missed: FloatArray


def expected_in(
    predicted: Predictions, info: FrameInfo, shape: tuple[int, ...], model: FitModel, pixel_size_um: float
) -> Expected | None:
    """Those of the `predicted` tracks that should be in the image of `shape` (H, W) and in the depth range.

    With the state (p, v) of an axis, its covariance (pp, pv, vv) and the variance q per second of its random steps,

        p + v t,  pp + 2 t pv + t^2 vv + q t

    are place and variance a time t later. Second detections of one particle are left out. None where the times of
    the two frames do not fit each other.
    """
    later_s = info.time_s - predicted.info.time_s
    if not 0.0 <= later_s <= LONGEST_S:
        return None
    focus_um = info.focus_um if math.isfinite(info.focus_um) else predicted.info.focus_um
    place_um = np.column_stack(
        [
            predicted.x_um + later_s * predicted.vx_um_s,
            predicted.y_um + later_s * predicted.vy_um_s,
            predicted.height_um + later_s * predicted.vz_um_s - focus_um,
        ]
    )
    variance = np.column_stack([_variance(predicted, axis, later_s) for axis in "xyz"])
    pixel = np.array([pixel_size_um, pixel_size_um, 1.0])
    with np.errstate(invalid="ignore"):
        sigma = np.sqrt(variance) / pixel
    place, sigma = seen_at(place_um / pixel, sigma, model, shape)
    height, width = shape[:2]
    there = np.isfinite(place).all(axis=1) & (variance > 0.0).all(axis=1) & (predicted.brightness > 0.0)
    there &= (place[:, 2] > model.z_min_um) & (place[:, 2] < model.z_max_um)
    there &= (predicted.flags.astype(np.int64) & TrackFlag.SECOND_DETECTION) == 0
    there &= within(place, height, width)
    rows = np.flatnonzero(there)
    rows = rows[np.lexsort((place[rows, 1], place[rows, 0], predicted.track[rows]))]
    return Expected(place[rows], sigma[rows], predicted.brightness[rows], predicted.missed[rows])


def _variance(predicted: Predictions, axis: str, later_s: float) -> FloatArray:
    pp, pv, vv = (getattr(predicted, f"{name}_{axis}") for name in ("pp", "pv", "vv"))
    steps = getattr(predicted, f"q{axis}_um2_s")
    found: FloatArray = pp + 2.0 * later_s * pv + later_s**2 * vv + steps * later_s
    return found
