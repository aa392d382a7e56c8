"""Decides while a run is on how long the fit of a frame may take, so that frames keep up with the camera.

A frame costs the network and the fit. With W frames at a time and a camera that gives one every P, the fit may take

    budget = min(USED W P, AGE_PART limit) - network    (1)

`network` and P are measured. What the frames before have left of theirs may be spent on top of that, up to
`LENT`: from a few frames that take long, such as the first ones, which no prediction helps, no queue grows.
What (1) cannot see (other programs, other stages on the same cores) shows as frames that arrive late or are
missing; then the budget is cut at once, and rises again slowly.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from engines.fit_budget import FrameCost

USED = 0.85
"""Part of the time of the workers that is given away. More leaves no room for frames that cost more than the mean,
and queues grow: at 0.85 a queue with random service is 2 to 3 frames long (M/D/1: 2.4), at 0.95 it is 9."""
AGE_PART = 0.6
"""Part of the age limit that network and fit of one frame may take; the rest is for waiting, tracking and
writing."""
LENT, LENT_AGE = 0.4, 0.15
"""Part of the camera's period, and of the age limit, that frames may spend beyond (1) if those before have left
it. At the start all of it is there, as nothing waits. With 0 the first frames of a camera that takes 32 of 33
ms, until predictions make them cheap, are fitted in part; from 0.6 on a frame may take so long that two more
wait, of which one is dropped."""
REFILL = 0.1
"""Part of what a frame leaves of its budget that is kept for such frames. With 1 as good as all that (1) leaves
to chance is spent: of two workers at their limit 1.1 % of the frames are lost, not 0.7 %. With 0 the first
frames are the only ones that get it (both in the simulations of tests/engines/test_governor.py)."""
COST_FRAMES = 15
"""Frames over which the median time of the network is taken, 0.5 s at 30 frames/s: a frame that took seconds, in a
process that stood still, does not count. Fewer follow single frames, more are slow to give the fit's time away."""
FIRST_FRAMES = 5
"""Frames at the start of which the least time of the network counts, not the median: a run begins while other
stages do things for the first time, on the same cores. One such frame would end the fit for a second."""
PERIOD_FRAMES = 60
"""Frames over which the camera's period is measured, by their numbers and times."""
PAUSE = 3.0
"""Periods without a frame, and without a missing number, after which the camera has paused: that time does not
count. Twice in a row, the camera has become slower."""
LATE_PART = 0.5
"""Part of the age limit at which a frame that has just arrived is late: half of its time is gone."""
BORNE, BURST = 0.015, 2.0
"""Part of the frames that may be late or follow a loss without consequence, and how many such frames in a row
lead to a cut: single losses come from other programs, and no smaller fit avoids them. With no tolerance they end
the fit."""
CUT, CUT_EVERY_S = 0.7, 0.25
"""Factor of the budget when frames are late or missing, and s between two cuts: a cut shows within some frames."""
RISE_PER_S, PROBE_PER_S, FAMILIAR = 0.2, 0.02, 0.8
"""Rise of that factor, 1/s, up to `FAMILIAR` of where it was cut last, and beyond it: as TCP's CUBIC, so that it
stays below what was too much. Where 15 of 33 ms are not seen by (1), 2.8 % of the frames are lost to this, with
0.9 in place of 0.8 it is 4 % (tests/engines/test_governor.py)."""
GROWTH_PER_S = 1.0
"""Largest relative rise of the budget, 1/s; it falls at once."""
LEAST_GROWTH_MS = 1.0
"""ms a second by which it may always rise, so that it leaves zero."""
RISEN = 0.15
"""Part of the ceiling by which that factor must have risen since the last cut for the next to lower the ceiling:
cuts in a row belong to one overload, and what was too much is what there was before the first. At 0, a second of
overload costs half a minute of fits; at 0.3, a load that is not seen is not learnt."""
LONGEST_STEP_S = 0.2
"""s that one frame counts for at most when something rises, so that a standstill earns nothing."""

WINDOW_S = 3.0
"""s over which the state is judged."""
WORSE_S, BETTER_S = 4.0, 10.0
"""s for which a worse or a better state has to hold before it is said, so that short disturbances are not, and
loads that come and go give one line."""
QUIET_S = 10.0
"""Least s between two states that are said."""
FULL, NEARLY_FULL, EMPTY, NOTHING = 0.97, 0.92, 0.03, 0.005
"""Part of the particles fitted (or frames kept) that is called all, that still is where it was all, a few,
and none."""
CHANGE = 0.25
"""Change of the part of particles fitted, or of frames kept, that is worth a line."""
KEEPS_UP = "keeps up"


class Seen(NamedTuple):
    """What happened in the window: part of the particles `fitted` and part of the frames `kept`, 0 to 1."""

    fitted: float
    kept: float

    def is_far_from(self, other: Seen) -> bool:
        """Whether the difference is worth a line."""
        return any(
            abs(a - b) > CHANGE or (a >= FULL if b < FULL else a < NEARLY_FULL)
            for a, b in ((self.fitted, other.fitted), (self.kept, other.kept))
        )

    def is_worse_than(self, other: Seen) -> bool:
        """Whether less is fitted or kept."""
        return (
            self.kept < other.kept - CHANGE
            or self.fitted < other.fitted - CHANGE
            or (min(self.kept, self.fitted) < NEARLY_FULL and min(other.kept, other.fitted) >= FULL)
        )

    def in_words(self) -> str:
        """Such as "fit on 60 % of particles, every second frame"."""
        parts = []
        if self.fitted < NOTHING:
            parts.append("no fit")
        elif self.fitted <= EMPTY:
            parts.append(f"fit on {100 * self.fitted:.0f} % of particles")
        elif self.fitted < FULL:
            parts.append(f"fit on {10 * min(max(round(10 * self.fitted), 1), 9)} % of particles")
        if self.kept < FULL:
            parts.append(_frames_in_words(self.kept))
        return ", ".join(parts) or KEEPS_UP


ALL_WELL = Seen(1.0, 1.0)
ORDINALS = {2: "second", 3: "third", 4: "fourth", 5: "fifth"}


def _frames_in_words(kept: float) -> str:
    every = round(1.0 / max(kept, 1e-3))
    if every < 2:
        return f"{min(max(round(10 * kept), 6), 9)} of 10 frames"
    return f"every {ORDINALS.get(every, f'{every}th')} frame"


@dataclass(frozen=True, slots=True)
class Change:
    """A change of state: a line that gives the reason, and its facts."""

    text: str
    facts: dict[str, float]


@dataclass(slots=True)
class Governor:
    """The budget of the fit and the state in words; time comes from `clock` (s), which may be any that only rises.

    `workers` frames are processed at a time; `age_limit_ms` is that of results; `period_ms` is the camera's as far
    as it is known beforehand (0: unknown).
    """

    workers: int
    age_limit_ms: float
    clock: Callable[[], float]
    period_ms: float = 0.0
    budget_ms: float = field(default=0.0, init=False)
    state: str = field(default=KEEPS_UP, init=False)
    _left_ms: float = field(default=0.0, init=False)
    _trust: float = field(default=1.0, init=False)
    _ceiling: float = field(default=1.0, init=False)
    _floor: float = field(default=0.0, init=False)
    _pressure: float = field(default=0.0, init=False)
    _cut_s: float = field(default=-math.inf, init=False)
    _costs: deque[FrameCost] = field(default_factory=lambda: deque(maxlen=COST_FRAMES), init=False)
    _network_ms: float = field(default=math.nan, init=False)
    _fit_ms: float = field(default=math.nan, init=False)
    _paused: bool = field(default=False, init=False)
    _now_s: float = field(default=math.nan, init=False)
    _times: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=PERIOD_FRAMES), init=False)
    _arrived: deque[tuple[float, int]] = field(default_factory=deque, init=False)
    _done: deque[tuple[float, int, int]] = field(default_factory=deque, init=False)
    _said: Seen = field(default=ALL_WELL, init=False)
    _said_s: float = field(default=-math.inf, init=False)
    _differs_s: float = field(default=math.nan, init=False)

    def __post_init__(self) -> None:
        self.budget_ms = max(self._allowed_ms(), 0.0)
        self._left_ms = self._most_left_ms()

    def arrived(self, frame: int, time_s: float, age_ms: float) -> float:
        """Take a frame's number, exposure time and age as it arrives; returns what its fit may take, ms.

        That is the budget, `budget_ms`, and what the frames before have left.
        """
        now_s = self.clock()
        step_s = min(max(now_s - self._now_s, 0.0), LONGEST_STEP_S) if math.isfinite(self._now_s) else 0.0
        self._now_s = now_s
        last = self._arrived[-1][1] if self._arrived else frame - 1
        missing = frame > last + 1
        if frame <= last:  # the numbers begin anew
            self._arrived.clear()
            self._times.clear()
        self._arrived.append((now_s, frame))
        self._measure_period(frame, time_s)
        pressed = missing or age_ms > LATE_PART * self.age_limit_ms
        self._pressure = max(self._pressure + pressed - BORNE, 0.0)
        if self._pressure >= BURST - BORNE:
            self._cut(now_s)
        elif not pressed:
            slope = RISE_PER_S if self._trust < FAMILIAR * self._ceiling else PROBE_PER_S
            self._trust = min(self._trust + slope * step_s, 1.0)
        allowed = max(self._allowed_ms() * self._trust, 0.0)
        most = self.budget_ms * (1.0 + GROWTH_PER_S * step_s) + LEAST_GROWTH_MS * step_s
        self.budget_ms = min(allowed, most)
        return self.budget_ms + self._left_ms if self.budget_ms > 0.0 else 0.0

    def finished(self, costs: Iterable[FrameCost]) -> Change | None:
        """Take what finished frames cost; returns a change of the state that is to be said, if there is one."""
        now_s = self.clock()
        for cost in costs:
            self._costs.append(cost)
            self._done.append((now_s, cost.particles, cost.reduced))
            spare_ms = self.budget_ms - cost.fit_ms
            left_ms = self._left_ms + (REFILL if spare_ms > 0.0 else 1.0) * spare_ms
            self._left_ms = min(max(left_ms, 0.0), self._most_left_ms())
        if self._costs:
            took_ms = [cost.network_ms for cost in self._costs]
            self._network_ms = min(took_ms) if len(took_ms) < FIRST_FRAMES else statistics.median(took_ms)
            self._fit_ms = statistics.median(cost.fit_ms for cost in self._costs)
        return self._judge(now_s)

    def _measure_period(self, frame: int, time_s: float) -> None:
        if not math.isfinite(time_s):
            return
        if self._times and self.period_ms > 0.0:
            number, before_s = self._times[-1]
            mean_ms = 1e3 * (time_s - before_s) / max(frame - number, 1)
            was_paused, self._paused = self._paused, mean_ms > PAUSE * self.period_ms
            if self._paused and not was_paused:
                self._times.clear()
        self._times.append((frame, time_s))
        if len(self._times) > 1:
            (first, began_s), (last, ended_s) = self._times[0], self._times[-1]
            if ended_s > began_s and last > first:
                self.period_ms = 1e3 * (ended_s - began_s) / (last - first)

    def _allowed_ms(self) -> float:
        """The budget by (1), without what it cannot see; below 0 where not even the network keeps up."""
        most_ms = AGE_PART * self.age_limit_ms
        if self.period_ms > 0.0:
            most_ms = min(most_ms, USED * self.workers * self.period_ms)
        return most_ms - (self._network_ms if math.isfinite(self._network_ms) else 0.0)

    def _most_left_ms(self) -> float:
        return min(LENT * self.period_ms, LENT_AGE * self.age_limit_ms)

    def _cut(self, now_s: float) -> None:
        if now_s - self._cut_s < CUT_EVERY_S:
            return
        if self._trust - self._floor > RISEN * self._ceiling:
            self._ceiling = self._trust
        self._cut_s = now_s
        self._pressure = self._left_ms = 0.0
        self._trust *= CUT
        self._floor = self._trust

    def _judge(self, now_s: float) -> Change | None:
        while self._arrived and len(self._arrived) > 2 and now_s - self._arrived[0][0] > WINDOW_S:
            self._arrived.popleft()
        while self._done and now_s - self._done[0][0] > WINDOW_S:
            self._done.popleft()
        seen = self._seen()
        if not seen.is_far_from(self._said):
            self._differs_s = math.nan
            return None
        if not math.isfinite(self._differs_s):
            self._differs_s = now_s
        steady_s = WORSE_S if seen.is_worse_than(self._said) else BETTER_S
        if now_s - self._differs_s < steady_s or now_s - self._said_s < QUIET_S:
            return None
        self._said, self._said_s, self._differs_s = seen, now_s, math.nan
        self.state = seen.in_words()
        return Change(f"{self.state}: {self._reason()}", self._facts(seen))

    def _seen(self) -> Seen:
        particles = sum(n for _, n, _ in self._done)
        reduced = sum(n for _, _, n in self._done)
        kept = 1.0
        if len(self._arrived) > 2:
            kept = (len(self._arrived) - 1) / max(self._arrived[-1][1] - self._arrived[0][1], 1)
        return Seen(1.0 - reduced / particles if particles else 1.0, kept)

    def _reason(self) -> str:
        camera = f"the camera gives a frame every {self.period_ms:.0f} ms"
        at_once = f", {self.workers} at a time" if self.workers > 1 else ""
        takes = f"a frame takes {self._network_ms:.0f} ms without the fit{at_once}"
        if self.state == KEEPS_UP:
            return f"{takes} and {self._fit_ms:.0f} ms with it, {camera}"
        return f"{takes}, the fit may take {self.budget_ms:.0f} ms, {camera}"

    def _facts(self, seen: Seen) -> dict[str, float]:
        return {
            "fitted": round(seen.fitted, 3),
            "frames": round(seen.kept, 3),
            "network_ms": round(self._network_ms, 1),
            "fit_ms": round(self._fit_ms, 1),
            "budget_ms": round(self.budget_ms, 1),
            "period_ms": round(self.period_ms, 2),
        }
