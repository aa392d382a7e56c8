"""Frame times of a stack: from the user's frame rate, its time stamps, its stated rate, or 1 Hz."""

from __future__ import annotations

import math
from dataclasses import dataclass

from acquisition.stacks.stack import StackInfo
from acquisition.stacks.stamp_order import FloatArray
from acquisition.stacks.times import FrameTimes, frame_times

ASSUMED_HZ = 1.0  # makes velocities um per frame


@dataclass(frozen=True, slots=True, eq=False)
class Timing:
    """`time_s` (frames,), from 0 and strictly increasing, if the file has time stamps; else frames are
    1 / `rate_hz` apart. `is_known` is False if the rate is assumed; `remarks` are lines for the user."""

    time_s: FloatArray | None
    rate_hz: float
    is_known: bool = True
    remarks: tuple[str, ...] = ()


def timing_of(info: StackInfo, given_hz: float | None) -> Timing:
    """Times of all planes, each a frame; `given_hz`, frames/s, takes precedence over the file."""
    if given_hz is not None:
        return Timing(None, given_hz)
    stated_hz = info.frame_rate_hz * info.volume  # of planes: a volume takes one step in time
    stamps = FrameTimes() if info.stamps_s is None else frame_times(info.stamps_s, stated_hz)
    remarks = (*info.time_remarks, *stamps.remarks)
    if stamps.time_s is not None:
        return Timing(stamps.time_s, stamps.rate_hz, remarks=remarks)
    if math.isfinite(stated_hz) and stated_hz > 0:
        if info.volume > 1:
            remarks += (
                f"the {info.volume} planes of each time are spread evenly over the interval to the next",
            )
        return Timing(None, stated_hz, remarks=remarks)
    return Timing(None, ASSUMED_HZ, False, (*remarks, f"{ASSUMED_HZ:g} frame/s assumed (--frame-rate)"))
