"""Age of the live results: warns once it grows beyond a second, and names the setting that helps."""

from __future__ import annotations

import math

from liveptv.config import Experiment
from stream.link import Policy

OLD_MS = 1000.0  # ms; older results mislead a person or a controller that steers. Only decides when to warn
FRESH_MS = 500.0  # ms; half of it, so that ages around a second do not alternate between two messages
AGAIN = 2.0  # the warning is repeated each time the age has doubled
LOOK_S = 1.0  # s between two ages that are compared; shorter ones differ by noise alone


class AgeWatch:
    """Watches the age of the newest result; `late` is a short note for the progress line ("" if it is fresh)."""

    def __init__(self, experiment: Experiment) -> None:
        self._is_live = experiment.microscope is not None
        self._watchdog_s = experiment.limits.watchdog_s if experiment.is_controlled else math.inf
        self._blocks = experiment.link.policy is Policy.BLOCK
        self._said_ms = 0.0
        self._before = (-math.inf, math.nan)
        self.late = ""

    def note(self, now_s: float, age_ms: float) -> str:
        """A line to print now, mostly ""; `age_ms` is the time since the newest result's frame was exposed."""
        if not self._is_live or not math.isfinite(age_ms):
            self.late = ""
            return ""
        self.late = f"results {age_ms / 1000:.1f} s old" if age_ms >= OLD_MS else ""
        if age_ms <= FRESH_MS and self._said_ms:
            self._said_ms = 0.0
            return "results are live again"
        if now_s - self._before[0] < LOOK_S:
            return ""
        before_ms, self._before = self._before[1], (now_s, age_ms)
        grows = age_ms > before_ms
        if age_ms < OLD_MS or not grows or age_ms < AGAIN * self._said_ms:
            return ""
        self._said_ms = age_ms
        return f"results are {age_ms / 1000:.1f} s old and getting older: {self._what_helps(age_ms)}"

    def _what_helps(self, age_ms: float) -> str:
        if age_ms > 1000 * self._watchdog_s:
            why = "too old for the watchdog; "
        else:
            why = "the detector is slower than the camera; "
        if self._blocks:
            return f"{why}set link.policy=drop_oldest link.slots=4 link.credits=2 to drop old frames instead"
        return f"{why}set fewer link.slots and link.credits (4 and 2), or a lower frame rate"
