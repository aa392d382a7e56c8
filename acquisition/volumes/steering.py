"""Commands to the focus while volumes are taken: the whole plan moves, between two volumes."""

from __future__ import annotations

from acquisition.safety.limits import CommandRefused
from acquisition.settings import LimitsSettings
from acquisition.volumes.plan import VolumePlan, outside


class VolumeFocus:
    """Stands in for the focus drive where commands are executed.

    A focus position is that of the lowest slice, as in the frames. `focus_commanded_um` is the last one asked for,
    `wanted_um` one that the scan has not taken up yet; `rested_ns` is when it had taken up the last
    one (`perf_counter_ns`). `sleeps`: the scan is paused.
    """

    def __init__(self, plan: VolumePlan, limits: LimitsSettings) -> None:
        self._plan, self._limits = plan, limits
        self.focus_commanded_um = plan.lowest_um
        self.wanted_um: float | None = None
        self.rested_ns = 0
        self.sleeps = False

    def move_focus(self, position_um: float) -> None:
        """Have the plan moved so that its lowest slice lies there. Raises `CommandRefused` outside the limits."""
        problem = outside(self._plan.moved_to(position_um), self._limits)
        if problem:
            raise CommandRefused(problem)
        self.focus_commanded_um = self.wanted_um = position_um

    def focus_moves(self) -> bool:
        """Whether the scan still has to take up the last position asked for; one that sleeps does so on waking."""
        return self.wanted_um is not None and not self.sleeps

    def moved(self, position_um: float, since_ns: int) -> None:
        """The scan has begun with its lowest slice there; what was exposed after `since_ns` shows it."""
        self._plan = self._plan.moved_to(position_um)
        if self.wanted_um is not None:
            self.wanted_um, self.rested_ns = None, since_ns
