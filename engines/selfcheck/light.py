"""Whether the light or the particles' brightness has changed since the run began."""

from __future__ import annotations

import math

import numpy as np

from engines.refine.arguments import FloatArray
from engines.selfcheck.images import Found
from stream.evidence import is_sure

FIRST_LOOKS = 25
"""Looks that make the reference, the first five seconds."""
LATEST_LOOKS = 25
TOLERATED = math.log(1.1)
"""Log of the change that is tolerated. Lamps are stable to a few percent in an hour."""
FEWEST = 5


class LightCheck:
    """Compares each look's background and brightness, over what depth explains, with those of the first looks."""

    def __init__(self) -> None:
        self._first: list[tuple[float, float, float]] = []
        self._latest: list[tuple[float, float, float]] = []
        self._looks = 0
        self._exposure_ms = math.nan

    def add(self, background: float, brightness: FloatArray, exposure_ms: float) -> None:
        """Take a look: grey value of the background; brightness (N,) of fitted particles over the model's peak."""
        if exposure_ms != self._exposure_ms and math.isfinite(exposure_ms):
            if math.isfinite(self._exposure_ms):
                self._first, self._latest = [], []  # another exposure is no drift of the light
            self._exposure_ms = exposure_ms
        good = brightness[np.isfinite(brightness) & (brightness > 0)]
        if good.size < FEWEST or background <= 0:
            return
        logs = np.log(good)
        spread = 1.4826 * float(np.median(np.abs(logs - np.median(logs))))
        # as few as there are in one image: in the next ones they are mostly the same particles
        look = math.log(background), float(np.median(logs)), 1.2533 * spread / math.sqrt(good.size)
        if len(self._first) < FIRST_LOOKS:
            self._first.append(look)
        else:
            self._latest = [*self._latest[1 - LATEST_LOOKS :], look]

    @property
    def changes(self) -> tuple[float, float, float]:
        """Logs of background and brightness over those of the beginning, and the error of the second."""
        if len(self._latest) < LATEST_LOOKS // 2:
            return 0.0, 0.0, math.inf
        first, latest = (np.median(np.array(part), axis=0) for part in (self._first, self._latest))
        return (
            float(latest[0] - first[0]),
            float(latest[1] - first[1]),
            math.hypot(float(first[2]), float(latest[2])),
        )

    def judge(self) -> list[Found]:
        """What is sure now."""
        background, brightness, error = self.changes
        if not math.isfinite(error):
            return []
        self._looks += 1
        if not is_sure(brightness, error, TOLERATED, self._looks, 1):
            return []
        way = "down" if brightness < 0 else "up"
        part = 100 * abs(math.expm1(brightness))
        if abs(background - brightness) < abs(background) / 2:
            text = (
                f"the light is {way} by {100 * abs(math.expm1(background)):.0f} % since the run began: the lamp "
                "drifts, or something is in the way; noise and standard errors change with it"
            )
            return [Found("light", text)]
        text = (
            f"particles are {'fainter' if brightness < 0 else 'brighter'} by {part:.0f} % than when the run began, "
            f"the background by {100 * math.expm1(background):+.0f} %: they bleach, others have come, or the light "
            "has changed; check it"
        )
        return [Found("brightness", text)]

    def facts(self) -> dict[str, object]:
        """JSON-able: background and brightness over those of the beginning."""
        background, brightness, error = self.changes
        if not math.isfinite(error):
            return {}
        return {
            "light": round(math.exp(background), 3),
            "brightness": [round(math.exp(brightness), 3), round(error, 3)],
        }
