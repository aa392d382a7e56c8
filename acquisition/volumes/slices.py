"""From the slices of an assembled volume to its frame: times, heights and what is missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from acquisition.volumes.assembler import Volume
from stream.messages import Frame, FrameInfo
from stream.volume_info import VolumeInfo

NAN = math.nan


@dataclass(frozen=True, slots=True)
class SliceStamp:
    """What is known of one slice. `exposed_ns` is a lower bound of the start of its exposure; `position_um` where
    the drive was, as read back, NaN where it scanned.
    """

    info: FrameInfo
    exposed_ns: int
    position_um: float = NAN


def volume_frame(volume: Volume[SliceStamp], frame: int) -> tuple[Frame, int]:
    """The frame of a volume, number `frame`, and a lower bound of the start of its first exposure, ns.

    `info.time_s` is the time of the slice taken first, `info.focus_um` the focus of the lowest slice, the lag of
    the drive taken off; times of missing slices are interpolated. `camera_frame` counts volumes.
    """
    first, last = _first_and_last(volume)
    times_s = slice_times_s([None if s is None else s.info.time_s for s in volume.stamps])
    heights_um, lowest_um = _heights(volume)
    began_s = min(times_s) if times_s else first.info.time_s
    earlier_s = first.info.time_s - began_s
    about = VolumeInfo(
        z_um=heights_um,
        time_s=tuple(time_s - began_s for time_s in times_s),
        missing=volume.missing,
        upwards=volume.upwards,
    )
    info = replace(
        first.info,
        frame=frame,
        camera_frame=volume.number,
        time_s=began_s,
        monotonic_ns=last.info.monotonic_ns,
        wall_s=last.info.wall_s,
        camera_time_s=first.info.camera_time_s - earlier_s,
        focus_um=lowest_um,
        focus_commanded_um=volume.plan.lowest_um,
        volume=about,
    )
    return Frame(info, volume.image), first.exposed_ns - round(1e9 * earlier_s)


def slice_times_s(known: Sequence[float | None]) -> tuple[float, ...]:
    """The time of each slice, those of missing ones (None) on a line through their neighbours; () if unknown.

    Unknown are the times where there is only one slice, or where they do not go one way.
    """
    places = [k for k, time_s in enumerate(known) if time_s is not None]
    times = [time_s for time_s in known if time_s is not None]
    if len(places) < 2:
        return ()
    steps = np.diff(times)
    if not (np.all(steps > 0) or np.all(steps < 0)):
        return ()
    filled = np.interp(np.arange(len(known)), places, times)
    pace = (times[-1] - times[0]) / (places[-1] - places[0])
    for k in range(places[0]):
        filled[k] = times[0] - pace * (places[0] - k)
    for k in range(places[-1] + 1, len(known)):
        filled[k] = times[-1] + pace * (k - places[-1])
    return tuple(float(time_s) for time_s in filled)


def _first_and_last(volume: Volume[SliceStamp]) -> tuple[SliceStamp, SliceStamp]:
    there = [stamp for stamp in volume.stamps if stamp is not None]
    return (there[0], there[-1]) if volume.upwards else (there[-1], there[0])


def _heights(volume: Volume[SliceStamp]) -> tuple[tuple[float, ...], float]:
    """Height of each slice above the lowest one, and the focus of that one, um: read back where the drive stood."""
    plan = volume.plan
    planned = np.asarray(plan.heights_um)
    read = np.array([NAN if stamp is None else stamp.position_um for stamp in volume.stamps])
    off = read - (plan.lowest_um + planned)
    if not np.isfinite(off).any():
        return plan.heights_um, plan.focus_um(volume.place)
    positions = plan.lowest_um + planned + np.where(np.isfinite(off), off, np.nanmedian(off))
    heights = positions - positions[0]
    if np.all(np.diff(heights) > 0):
        return tuple(float(height) for height in heights), float(positions[0])
    return plan.heights_um, plan.focus_um(volume.place)
