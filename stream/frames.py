"""A frame and everything that is known about it: the message that every other one about a frame repeats."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from stream.volume_info import VolumeInfo

ImageArray = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
NAN = float("nan")
LONGEST_AGE_MS = 3.6e6  # an hour; a frame that seems older, or younger than 0, has another computer's clock


class FitDecision(IntEnum):
    """How much of the fit was done in a frame: all without a limit, as much as there was time for, none for want
    of time, none because the fit was still being compiled or, in volumes, the size of a spot was not known yet."""

    WHOLE = 0
    LIMITED = 1
    NO_TIME = 2
    NOT_COMPILED = 3


@dataclass(frozen=True, slots=True)
class Decisions:
    """What the detector of a run decided about a frame by the clock, so that a replay can do the same.

    `opened` changes whenever the detector was opened anew (started again, another pixel size), and `replaced` says
    that ONNX Runtime had taken over from a back end that failed. `predicted_from` is the frame whose predictions
    the detector began from. Of the fit: `fit` says how much of it, `credit` is the cost (in lone particles) up to
    which groups of particles were fitted (infinite: all of them), `turns_from` the frame that says how long each
    particle has waited for its fit, `learnt_from` the last frame from whose fits errors and brightness were known.
    -1 stands for no frame.
    """

    opened: int = 0
    replaced: bool = False
    predicted_from: int = -1
    fit: FitDecision = FitDecision.WHOLE
    credit: float = math.inf
    turns_from: int = -1
    learnt_from: int = -1


@dataclass(frozen=True, slots=True)
class FrameInfo:
    """Everything known about a frame except its pixels.

    `frame` is our own sequence number, counted from 0 at the source before anything can be dropped.
    `camera_frame` is the camera's image number; a gap in it is a frame lost in the camera or its driver.
    `time_s` is the exposure time in seconds since the run began, from the camera's clock where there is one,
    else from the host's. `monotonic_ns` is `time.perf_counter_ns()` of the host that took the frame.
    Focus and flow are NaN where the microscope has none. `flow_ul_s` is the pump's set-point. `detector_ms` is the
    time that the detector spent on the frame, waiting excluded; NaN before detection. `age_ms` is how old the
    result was when the tracker had it, since `monotonic_ns`; NaN before, and where frames
    have no clock's pace. `decisions` are the detector's: of a result, what it has done; of a frame, what it is to
    do, as in an earlier run. `volume` describes the slices of a volume, None for an image; `focus_um` is then the
    focus of the first slice, and `time_s` the time to which those of the slices refer.
    """

    run_id: str
    frame: int
    camera_frame: int
    time_s: float
    monotonic_ns: int
    wall_s: float
    camera_time_s: float = NAN
    focus_um: float = NAN
    focus_commanded_um: float = NAN
    flow_ul_s: float = NAN
    exposure_ms: float = NAN
    pixel_size_um: float = 1.0
    detector_ms: float = NAN
    age_ms: float = NAN
    decisions: Decisions | None = None
    volume: VolumeInfo | None = None

    def age_ms_at(self, now_ns: int) -> float:
        """Age of the frame, ms, at `now_ns` (`time.perf_counter_ns`); NaN on another computer than its camera's."""
        age_ms = (now_ns - self.monotonic_ns) / 1e6
        return age_ms if 0 <= age_ms < LONGEST_AGE_MS else NAN


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One camera image, (H, W), or one volume, (Z, H, W), uint8 or uint16; a volume has an `info.volume`."""

    info: FrameInfo
    image: ImageArray
