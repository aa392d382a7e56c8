"""Detections as a trajectory file keeps them: what the tracker is given, so that they can be tracked again.

A file keeps positions to 0.24 nm in the plane and 2 nm in depth, and other numbers to some bits (`precision`). The
tracker is given the same numbers, rounded before it sees them: what it is given can then be read from its rows, bit
for bit, where `detection` is not -1. What rows alone do not tell is in the columns `Tracks.DETECTED`: which of two
depths the detector had put first, with which error, and the class of a single detection.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from stream.messages import NO_PROPERTIES, DetectionFlag, Detections, Properties, TrackFlag, Tracks
from tracking.kalman import FARTHEST_UM, SMALLEST_SIGMA_UM
from tracking.settings import TrackerSettings
from tracking.trajectories.precision import OF_PROPERTY, rounded

FloatArray = npt.NDArray[np.float64]

ROUNDED = (
    "x_um", "y_um", "z_um", "sigma_x_um", "sigma_y_um", "sigma_z_um", "brightness", "confidence", "z_other_um",
    "p_other", "p_kind", "time_offset_s",
)  # fmt: skip
MOST_KIND = np.iinfo(np.int16).max
X, Y, Z, SIGMA_Z, Z_OTHER, P_OTHER, KIND, P_KIND = (
    Detections.COLUMNS.index(name)
    for name in ("x_um", "y_um", "z_um", "sigma_z_um", "z_other_um", "p_other", "kind", "p_kind")
)
SIGMA = Detections.COLUMNS.index("sigma_x_um")
OFFSET, OUT_OFFSET = Detections.COLUMNS.index("time_offset_s"), Tracks.COLUMNS.index("time_offset_s")
OUT_DETECTION = Tracks.COLUMNS.index("detection")
OUT_Z, OUT_SIGMA_Z, OUT_Z_OTHER, OUT_P_OTHER, OUT_KIND, OUT_P_KIND = (
    Tracks.COLUMNS.index(n) for n in Tracks.DETECTED
)


def as_kept(detections: Detections, settings: TrackerSettings) -> Detections:
    """The detections with the numbers that a trajectory file keeps of them.

    A standard error that is not stated becomes that of the settings. A time that is not stated, in a volume whose
    slices have times, becomes that of the particle's height, between its slices. Rows without a finite x and y,
    which no tracker uses, have nothing else either.
    """
    table = np.array(detections.table)
    for axis, fallback in enumerate(assumed_um(settings)):
        sigma = table[SIGMA + axis]
        stated = np.clip(sigma, SMALLEST_SIGMA_UM, FARTHEST_UM)
        table[SIGMA + axis] = np.where(sigma > 0.0, stated, fallback)
    volume = detections.info.volume
    if volume is not None and volume.time_s:
        by_height = np.interp(table[Z], volume.z_um, volume.time_s)
        table[OFFSET] = np.where(np.isfinite(table[OFFSET]), table[OFFSET], by_height)
    for name in ROUNDED:
        row = Detections.COLUMNS.index(name)
        table[row] = rounded(name, table[row])
    kind = table[KIND]
    is_class = (kind >= 0) & (kind <= MOST_KIND) & (kind == np.floor(kind))
    table[KIND : P_KIND + 1, ~is_class] = np.nan
    lost: npt.NDArray[np.bool_] = np.asarray(~np.isfinite(table[[X, Y]]).all(axis=0))
    table[Z_OTHER : P_KIND + 1, lost] = np.nan
    return replace(detections, table=table, properties=_properties_kept(detections.properties, lost))


def _properties_kept(properties: Properties, lost: npt.NDArray[np.bool_]) -> Properties:
    """Properties in the precision of a file, without those of the `lost` (N,)."""
    if not properties.names:
        return properties
    values = properties.values.astype(np.float32).astype(np.float64)
    errors = np.array([rounded(OF_PROPERTY, error) for error in properties.errors], np.float64)
    values[:, lost] = np.nan
    errors[~(np.isfinite(errors) & (errors > 0)) | np.isnan(values)] = np.nan
    return replace(properties, values=values, errors=errors)


def assumed_um(settings: TrackerSettings) -> tuple[float, float, float]:
    """The standard errors of x, y and z where a detection states none, as a file keeps them."""
    given = np.array([settings.sigma_xy_um, settings.sigma_xy_um, settings.sigma_z_um])
    x, y, z = rounded("sigma_x_um", given).tolist()
    return x, y, z


def without_assumed(detections: Detections, assumed: tuple[float, float, float]) -> Detections:
    """The detections without the standard errors that equal the assumed ones: those were not stated.

    One that was stated may be equal as well, to the 6 bits that are kept, and is then taken for assumed.
    """
    table = np.array(detections.table)
    sigmas = table[SIGMA : SIGMA + 3]
    sigmas[sigmas == np.array(assumed)[:, None]] = np.nan
    return replace(detections, table=table)


def note_detected(rows: FloatArray, detections: FloatArray) -> None:
    """Write `Tracks.DETECTED`, and the detections' own times, into the rows of `Tracks` (columns, N).

    `detections` is the table of `Detections`.
    """
    has_time = np.isfinite(detections[OFFSET])
    if has_time.any():
        there = np.flatnonzero(rows[OUT_DETECTION] >= 0)
        at = rows[OUT_DETECTION, there].astype(np.int64)
        rows[OUT_OFFSET, there] = np.where(has_time[at], detections[OFFSET, at], rows[OUT_OFFSET, there])
    has_two = np.isfinite(detections[Z_OTHER])
    has_class = np.isfinite(detections[KIND])
    if not (has_two.any() or has_class.any()):
        return
    there = np.flatnonzero(rows[OUT_DETECTION] >= 0)
    at = rows[OUT_DETECTION, there].astype(np.int64)
    for out, column, known in (
        (OUT_Z, Z, has_two), (OUT_SIGMA_Z, SIGMA_Z, has_two),
        (OUT_Z_OTHER, Z_OTHER, has_two), (OUT_P_OTHER, P_OTHER, has_two),
        (OUT_KIND, KIND, has_class), (OUT_P_KIND, P_KIND, has_class),
    ):  # fmt: skip
        rows[out, there] = np.where(known[at], detections[column, at], np.nan)


def detections_in(tracks: Tracks) -> Detections:
    """The detections that the tracker was given, from the tracks of their frame as a file keeps them.

    They have their places among those of the frame; what was at other places, and was not tracked, is NaN.
    """
    table = tracks.table[:, tracks.detection >= 0]
    at = table[OUT_DETECTION].astype(np.int64)
    found = np.full((len(Detections.COLUMNS), int(at.max(initial=-1)) + 1), np.nan)
    for name in ROUNDED[:8]:
        found[Detections.COLUMNS.index(name), at] = table[Tracks.COLUMNS.index(name)]
    two = np.isfinite(table[OUT_Z_OTHER])
    found[Z, at[two]], found[SIGMA_Z, at[two]] = table[OUT_Z, two], table[OUT_SIGMA_Z, two]
    for out, column in (
        (OUT_Z_OTHER, Z_OTHER),
        (OUT_P_OTHER, P_OTHER),
        (OUT_KIND, KIND),
        (OUT_P_KIND, P_KIND),
        (OUT_OFFSET, OFFSET),
    ):
        found[column, at] = table[out]
    found[-1] = 0.0
    is_reduced = table[-1].astype(np.int64) & TrackFlag.REDUCED != 0
    found[-1, at[is_reduced]] = DetectionFlag.REDUCED
    return Detections(tracks.info, found, _properties_in(tracks, found.shape[1], at))


def _properties_in(tracks: Tracks, count: int, at: npt.NDArray[np.int64]) -> Properties:
    """What `count` detections said of their particles; those of the tracks with one are at the places `at`."""
    if not tracks.detected.names:
        return NO_PROPERTIES
    said = tracks.detected.of(tracks.detection >= 0)
    found = Properties.unknown(said.names, count)
    found.values[:, at], found.errors[:, at] = said.values, said.errors
    return found
