"""Age of the live results: in numbers after the run, and warnings while it is on, with the setting that helps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from liveptv.config import Experiment
from liveptv.session.link_rules import FrameRules, default_age_limit_ms, frame_rules
from liveptv.session.plan import ImageFormat
from stream.errors import ConfigurationError
from stream.link import Policy
from tracking.trajectories.schema import RecordArray

OLD_MS = 1000.0  # ms; older results mislead a person or a controller that steers. Only decides when to warn
FRESH_MS = 500.0  # ms; half of it, so that ages around a second do not alternate between two messages
AGAIN = 2.0  # the warning is repeated each time the age has doubled
LOOK_S = 1.0  # s between two ages that are compared; shorter ones differ by noise alone
LONG_LIMITS = (
    3.0  # age limits that results may be old in a live run before it is called late: a moment is not
)


@dataclass(frozen=True, slots=True)
class ResultAge:
    """How old the results of a run were when the tracker had them, ms: median and 99 % quantile."""

    median_ms: float
    p99_ms: float

    @classmethod
    def of(cls, frames: RecordArray) -> ResultAge | None:
        """From the committed entries of `/frames` (FRAME); None if none of them has an age."""
        ages_ms = frames["age_ms"][np.isfinite(frames["age_ms"])]
        if not ages_ms.size:
            return None
        median_ms, p99_ms = (float(value) for value in np.percentile(ages_ms, (50, 99)))
        return cls(median_ms, p99_ms)

    @classmethod
    def stored(cls, attributes: Mapping[str, Any], frames: RecordArray) -> ResultAge | None:
        """From a file's attribute `result_age`, else from its frames."""
        found = attributes.get("result_age")
        if isinstance(found, dict) and {"median_ms", "p99_ms"} <= found.keys():
            return cls(float(found["median_ms"]), float(found["p99_ms"]))
        return cls.of(frames)

    def in_words(self) -> str:
        """For a user."""
        return f"{self.median_ms:.0f} ms old (median), {self.p99_ms:.0f} ms (99 %)"

    def to_dict(self) -> dict[str, float]:
        """As it is stored in the file's attribute `result_age`."""
        return {"median_ms": round(self.median_ms, 3), "p99_ms": round(self.p99_ms, 3)}


class AgeWatch:
    """Watches the age of the newest result; `late` is a short note for the progress line ("" if it is fresh)."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._is_live = experiment.is_live
        self._watchdog_s = experiment.limits.watchdog_s if experiment.is_controlled else math.inf
        self._rules = FrameRules(experiment.link.policy or Policy.BLOCK)
        self._frame_rate_hz = math.nan
        self._said_ms = 0.0
        self._before = (-math.inf, math.nan)
        self._resumed_s = -math.inf
        self.late = ""

    def know(self, source: ImageFormat) -> None:
        """The source is open: its frame rate decides how old a result may be."""
        try:
            self._rules = frame_rules(self._experiment, source)
        except ConfigurationError:  # the acquisition reports it
            return
        self._frame_rate_hz = source.frame_rate_hz
        self._is_live = self._experiment.is_live or self._rules.is_live

    @property
    def _old_ms(self) -> float:
        """Age from which results are called old, ms; in a live run a few age limits, at least a second."""
        return max(OLD_MS, LONG_LIMITS * self._rules.age_limit_ms) if self._rules.is_live else OLD_MS

    def note(self, now_s: float, age_ms: float, *, paused: bool = False) -> str:
        """A line to print now, mostly ""; `age_ms` is the time since the newest result's frame was exposed.

        While the run is `paused` there is nothing to wait for; after that, the pause does not count.
        """
        if paused:
            self._resumed_s, self._before = now_s, (-math.inf, math.nan)
        age_ms = min(age_ms, 1000 * (now_s - self._resumed_s))
        if paused or not self._is_live or not math.isfinite(age_ms):
            self.late = ""
            return ""
        old_ms = self._old_ms
        self.late = f"results {age_ms / 1000:.1f} s old" if age_ms >= old_ms else ""
        if age_ms <= old_ms * FRESH_MS / OLD_MS and self._said_ms:
            self._said_ms = 0.0
            return "results are live again"
        if now_s - self._before[0] < LOOK_S:
            return ""
        before_ms, self._before = self._before[1], (now_s, age_ms)
        grows = age_ms > before_ms
        if age_ms < old_ms or not grows or age_ms < AGAIN * self._said_ms:
            return ""
        self._said_ms = age_ms
        return f"results are {age_ms / 1000:.1f} s old and getting older: {self._what_helps(age_ms)}"

    def _what_helps(self, age_ms: float) -> str:
        too_old = "too old for the watchdog; " if age_ms > 1000 * self._watchdog_s else ""
        if self._rules.is_live:
            given_ms, default_ms = (
                self._experiment.link.age_limit_ms,
                default_age_limit_ms(self._frame_rate_hz),
            )
            if given_ms is not None and given_ms < default_ms:
                return (
                    f"{too_old}link.age_limit_ms ({given_ms:g} ms) may be less than the detector needs for a "
                    "frame; leave it out"
                )
            return (
                f"{too_old}a stage does not go on, or the detector takes longer than that for one frame; crop the "
                "image, raise detector.workers, or close other programs"
            )
        if self._experiment.link.policy is None:  # the default of a camera in simulated time
            return f"{too_old}in simulated time (RealTime 0) frames wait for the detector, and none is lost"
        why = too_old or "the detector is slower than the camera; "
        return f"{why}leave link.policy out, so that frames are dropped instead of getting old"
