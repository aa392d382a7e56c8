"""Agreement of detections with the PSF model: depths covered, fits accepted, standard errors, rejections."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from liveptv.monitor.depth_cover import MEMORY_S, DepthCover
from stream.messages import Detections, Status

LEFT_OUT = "left_out_"
FITS = (
    "refined",
    "not_refined",
    "reduced",
    "not_compiled",
)  # counts of particles by what became of their fit


class DetectionQuality:
    """Takes the detections and the statuses of the detecting stage; `facts` is JSON-able."""

    def __init__(self) -> None:
        self._cover: DepthCover | None = None
        self._fits: deque[tuple[float, *tuple[int, ...]]] = deque()
        self._status: Status | None = None

    def found(self, detections: Detections) -> None:
        """Count the depths of one frame."""
        if self._cover is not None:
            self._cover.add(detections.z_um, detections.info.time_s)

    def heard(self, status: Status, now_s: float) -> None:
        """Take a status of the detecting stage that arrived at `now_s`."""
        self._status = status
        low, high = (status.gauges.get(f"depth_{end}_um", math.nan) for end in ("min", "max"))
        if low < high and (self._cover is None or self._cover.edges_um[[0, -1]].tolist() != [low, high]):
            self._cover = DepthCover(low, high)
        if "refined" in status.counts:
            counts = status.counts
            self._remember(now_s, *(counts.get(name, 0) for name in FITS))

    def _remember(self, now_s: float, *fitted: int) -> None:
        fits = self._fits
        if fits and any(now < before for now, before in zip(fitted, fits[-1][1:], strict=True)):
            fits.clear()  # the detector was started again
        fits.append((now_s, *fitted))
        while now_s - fits[0][0] > MEMORY_S and len(fits) > 2:
            fits.popleft()

    def _accepted(self) -> float | None:
        """Fraction of the detections of the last ten seconds whose fit was accepted; None without a fit."""
        if len(self._fits) < 2:
            return None
        accepted, refused = (self._fits[-1][i] - self._fits[0][i] for i in (1, 2))
        return round(accepted / (accepted + refused), 4) if accepted + refused else None

    def _fitted(self) -> float | None:
        """Fraction of the detections of the last ten seconds that there was time to fit; None without a fit."""
        if len(self._fits) < 2:
            return None
        accepted, refused, reduced = (self._fits[-1][i] - self._fits[0][i] for i in (1, 2, 3))
        total = accepted + refused + reduced
        return round(1 - reduced / total, 4) if total else None

    def _compiling(self) -> bool:
        """Whether particles of the last ten seconds were not fitted because the fit was still being compiled."""
        return len(self._fits) > 1 and self._fits[-1][4] > self._fits[0][4]

    def facts(self) -> dict[str, Any]:
        """What is known; `depth` is None in 2D, `accepted` and `fitted` None where the model has no fit.

        `compiling`: whether the fit was still being compiled in the last ten seconds.
        """
        counts = {} if self._status is None else self._status.counts
        gauges = {} if self._status is None else self._status.gauges
        errors = {axis: gauges.get(f"sigma_{axis}_um", math.nan) for axis in "xyz"}
        return {
            "depth": None if self._cover is None else self._cover.facts(),
            "accepted": self._accepted(),
            "fitted": self._fitted(),
            "compiling": self._compiling(),
            "errors_um": {axis: round(um, 5) for axis, um in errors.items() if math.isfinite(um)},
            "left_out": {
                name.removeprefix(LEFT_OUT).replace("_", " "): count
                for name, count in counts.items()
                if name.startswith(LEFT_OUT) and count
            },
            "particles": counts.get("particles", 0),
        }
