"""The apparent focus of each plane: where the images of all particles together show it to be."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

from calibration.alignment.aligned import Aligned
from calibration.alignment.start import vertex

FloatArray = npt.NDArray[np.float64]

AROUND = 6
"""Planes on each side with which a plane's residuals are compared."""


def apparent_focus(
    aligned: Aligned, focus_um: FloatArray, *, reach_um: float
) -> tuple[FloatArray, FloatArray]:
    """Focus (K,) at which each plane's images match the aligned traces best, within `reach_um` of the stated one.

    The second array is a ratio of squared residuals: those at the stated focus over those at the apparent one,
    or over those of the planes around, whichever ratio is smaller. NaN for planes in which no particle is
    visible.
    """
    step_um = aligned.node_um / 2
    offsets = np.arange(-np.ceil(reach_um / step_um), np.ceil(reach_um / step_um) + 1) * step_um
    z_um, a = aligned.positions.z_um, aligned.positions.brightness
    nodes = len(aligned.coefficients)
    out, worse = np.full(len(focus_um), np.nan), np.ones(len(focus_um))
    left = np.full(len(focus_um), np.nan)
    power = (aligned.node_values() ** 2).sum(axis=1)
    visible = power > 0.05 * power.max()
    for plane, stated_um in enumerate(focus_um):
        depth_um = z_um[:, None] - stated_um - offsets
        node = (depth_um[:, len(offsets) // 2] - aligned.z_first_um) / aligned.node_um
        at = np.clip(np.round(node).astype(int), 0, nodes - 1)
        seen = visible[at]
        if seen.sum() < 3:
            continue
        model = aligned.at(depth_um[seen].ravel())
        model = model.reshape(int(seen.sum()), len(offsets), -1) * a[seen, None, None]
        difference = ((aligned.values[seen, plane][:, None, :] - model) ** 2).sum(axis=2)
        # a median, so that a particle with a neighbour does not mislead it
        score = -np.median(difference / np.median(difference, axis=1, keepdims=True), axis=0)
        best = int(np.argmax(score))
        out[plane] = stated_um + offsets[best] + vertex(score, best) * step_um
        stated = difference[:, len(offsets) // 2]
        worse[plane] = np.median(stated / np.maximum(difference[:, best], 1e-30))
        left[plane] = np.median(stated / a[seen] ** 2)
    return out, np.minimum(worse, left / _local_median(left))


def _local_median(values: FloatArray) -> FloatArray:
    padded = np.pad(values, AROUND, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * AROUND + 1)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # all of a window may be unknown
        median: FloatArray = np.nanmedian(windows, axis=1)
    return median
