"""A controller that measures an optical trap, switches it off once its stiffness is known, and keeps the escape.

[controller]
file = "trapped_particle_controller.py"
options = { percent = 10, region_um = 1.0 }

[limits]
properties = ["Camera.Trap_per_s"]
"""

from __future__ import annotations

import numpy as np

from stream.messages import Command, CommandKind, TrackFlag, Tracks

THERMAL_J = 1.380649e-23 * 298.15
NOT_SEEN = int(TrackFlag.PREDICTED | TrackFlag.SECOND_DETECTION)
FEWEST = 50
"""Positions before which no standard error is believed."""


class LetGo:
    """Holds one particle until the stiffness of its trap has a standard error of `percent`, then lets it go.

    Once it is `region_um` from the middle of the trap, the images around that moment are kept; `after_frames`
    later the run ends.
    """

    def __init__(self, percent: float = 10.0, region_um: float = 1.0, after_frames: int = 40) -> None:
        self.percent, self.region_um, self.after_frames = percent, region_um, after_frames
        self.places: list[tuple[float, float]] = []
        self.variances: list[float] = []
        self.middle: np.ndarray | None = None
        self.left = 0
        self.found = {"stiffness_pn_um": np.nan, "percent": np.inf}

    def update(self, tracks: Tracks) -> list[Command]:
        """Called with the tracks of every frame."""
        if self.left:
            self.left += 1
            return [Command(CommandKind.STOP)] if self.left > self.after_frames else []
        seen = np.flatnonzero((tracks.flags.astype(int) & NOT_SEEN) == 0)
        if not seen.size:
            return []
        row = seen[np.argmax(tracks.age_frames[seen])]  # a false detection has no history
        place = np.array([tracks.x_um[row], tracks.y_um[row]])
        if self.middle is not None:
            if np.hypot(*(place - self.middle)) < self.region_um:
                return []
            self.left = 1
            return [Command(CommandKind.RECORD, "the particle has left the trap")]
        self.places.append((place[0], place[1]))
        self.variances.append((tracks.sigma_x_um[row] ** 2 + tracks.sigma_y_um[row] ** 2) / 2)
        if len(self.places) < FEWEST:
            return []
        self._measure()
        if self.found["percent"] > self.percent:
            return []
        self.middle = np.mean(self.places, axis=0)
        return [Command(CommandKind.SET_PROPERTY, 0, device="Camera", property="Trap_per_s")]

    def _measure(self) -> None:
        """Equipartition: k = k_B T / variance, without what the localisation error adds to the variance."""
        around = np.array(self.places) - np.mean(self.places, axis=0)
        seen = (around**2).mean()
        own = seen - np.mean(self.variances)
        if own <= 0:
            return
        # successive places of the particle correlate as r, r^2, r^3 ...; localisation errors do not
        r = np.clip((around[1:] * around[:-1]).mean() / own, 0.0, 0.99)
        relative = np.sqrt(((seen / own) ** 2 + 2 * r**2 / (1 - r**2)) / len(self.places))  # of 2 axes
        self.found = {"stiffness_pn_um": 1e18 * THERMAL_J / own, "percent": 100 * float(relative)}

    def measured(self) -> dict[str, float]:
        """What the control record says beside each command."""
        return {**self.found, "positions": len(self.places)}
