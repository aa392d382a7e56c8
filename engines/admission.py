"""When the detector of a live run asks for the next frame, and which frames come too late for it.

The detector asks; the camera's side gives it the newest frame and declares the others dropped. Asked for at
regular times, the frames that are detected are regular too, also with several workers, which would otherwise start
and finish together. The interval is the time that the detector takes for a frame, divided by its workers (Little's
law: frames at work = rate x time for each), so that no worker waits and no frame does.
"""

from __future__ import annotations

import math
import statistics
from collections import deque

REMEMBERED = 30
"""Frames over whose time per frame the mean is taken. With 5 the interval wanders, with 100 more
particles are noticed after seconds only."""
OUTLIER = 2.0
"""Times the median time beyond which a frame does not count: something was compiled meanwhile, or the computer was
busy for a moment. Frames of one run differ by half of their mean at most."""
LEAD_GROWTH = 1.02  # the measured way of a frame is a minimum over about 50 frames: it may get longer again
LONGEST_LEAD_S = 0.02  # s; a frame that was asked for comes later than this only if the camera has none yet
MANY = 3
"""One more frame may wait for each so many workers: waiting for one of 9 workers takes a ninth of a frame's time.
With only one, workers that all take longer than the mean at the same time would cause a gap."""
SLACK = 1.05
"""Interval in units of the time that would keep all workers just busy. Without slack, frames that take longer than
the mean pile up until one has to be left out. In simulations with times that vary by 30 % the longest gap is over
twice the mean in 8 % of the runs at 1.0, 1 % at 1.03, 0.5 % at 1.05; the slack costs as much of the rate."""
STALE = 0.5
"""Part of the age limit beyond which a frame is stale. The newest frame of the camera is at most a frame period
old, a third of the limit, plus its way here: one that is older has waited in a process that was stopped."""


class Admission:
    """Asks for frames one at a time, regularly, as fast as `workers` take them; `age_limit_s` is that of results.

    All times are s on one clock. Call `asked` and `came` when a frame was asked for and when one has come, `worked`
    with the time that one took.
    """

    def __init__(self, workers: int, age_limit_s: float) -> None:
        self._workers = max(1, workers)
        self._age_limit_s = age_limit_s
        self._took_s = 0.0
        self._last_s: deque[float] = deque(maxlen=REMEMBERED)
        self._lead_s = 0.0
        self._asked_s = -math.inf
        self._came_s = -math.inf
        self.is_waiting = False

    @property
    def interval_s(self) -> float:
        """Time between two frames at which the detector is almost busy; 0 before the first was measured."""
        return SLACK * self._took_s / self._workers

    @property
    def took_s(self) -> float:
        """Mean time that the detector takes for a frame."""
        return self._took_s

    def due_in_s(self, now_s: float, at_work: int) -> float:
        """Time until the next frame should be asked for; infinite while one is on its way or one waits already.

        A detector that has nothing to do asks at once, whatever frames took before.
        """
        if self.is_waiting or at_work > self._workers + self._workers // MANY:
            return math.inf
        if at_work == 0:
            return 0.0
        return max(0.0, self._came_s + self.interval_s - self._lead_s - now_s)

    def asked(self, now_s: float) -> None:
        """A frame was asked for."""
        self.is_waiting = True
        self._asked_s = now_s

    def came(self, now_s: float) -> None:
        """A frame has come."""
        if self.is_waiting:
            way_s = now_s - self._asked_s
            longest_s = min(LONGEST_LEAD_S, self.interval_s)
            self._lead_s = min(way_s, longest_s, LEAD_GROWTH * self._lead_s if self._lead_s else way_s)
        self.is_waiting = False
        self._came_s = now_s

    def worked(self, took_s: float) -> None:
        """A frame took so long, s, waiting excluded."""
        if math.isfinite(took_s) and took_s >= 0:
            self._last_s.append(took_s)
            most_s = OUTLIER * statistics.median(self._last_s)
            self._took_s = statistics.fmean(s for s in self._last_s if s <= most_s)

    def is_late(self, age_s: float) -> bool:
        """Whether a frame of this age has grown stale and its result would be older than the limit."""
        return age_s > STALE * self._age_limit_s and age_s + self._took_s > self._age_limit_s
