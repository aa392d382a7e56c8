"""The delays of a control loop: age of the results, time until a command shows, time between results."""

from __future__ import annotations

import math
from collections import deque
from statistics import median

from stream.messages import CommandReply, FrameInfo

MEMORY_S = 5.0
"""Time over which intervals are averaged, and in which an old age is forgotten, s. Longer than the time between two
late results of an overloaded run, so that a controller is not fast between them; a run that has recovered is
controlled slowly for as long."""
PAUSE_S = 2.0
"""A longer time between two results is a pause (a slice is changed, the hardware was made safe), not an interval of
the loop, s: nothing is controlled with a result every two seconds."""
REPLIES = 5
"""Replies whose median is the time until a command shows: one slow command (a long move, a stall) is left out."""
MOST_WAITING = (
    64  # commands whose reply may be outstanding; older ones are forgotten, which only bounds memory
)


class LoopDelay:
    """Follows the delays on the frames' own clock (`FrameInfo.time_s`), so that nothing else has to be measured.

    A command decided on a frame shows in the reply's `first_frame`. The exposures of the two are apart by the dead
    time of the loop: the age of the result when the command was sent, and the time until it shows (sending,
    executing, and waiting for the next exposure). An age that is not known counts as 0; then the whole dead time
    is in `shows_s`.
    """

    def __init__(self) -> None:
        self.age_s = self.oldest_s = self.shows_s = 0.0
        self.interval_s = self.frame_s = 0.0
        self._last: FrameInfo | None = None
        self._sent: dict[str, tuple[int, float]] = {}
        self._shown_s: deque[float] = deque(maxlen=REPLIES)

    @property
    def dead_s(self) -> float:
        """From the exposure of this result's frame to that of the first one that can show a command, s."""
        return self.age_s + self.shows_s

    @property
    def longest_dead_s(self) -> float:
        """The same for the oldest result of the last seconds, s."""
        return self.oldest_s + self.shows_s

    def see(self, info: FrameInfo) -> None:
        """Note a result.

        Then `age_s` is its age, `oldest_s` the largest of the last seconds, `interval_s` the time between results
        (averaged over time, so that long gaps count most) and `frame_s` that between successive frames.
        """
        self.age_s = max(info.age_ms / 1000.0, 0.0) if math.isfinite(info.age_ms) else 0.0
        last, self._last = self._last, info
        time_s, frames = (0.0, 0) if last is None else (info.time_s - last.time_s, info.frame - last.frame)
        if time_s > PAUSE_S:
            self.oldest_s = self.age_s
            return
        if not time_s > 0 or frames <= 0:
            self.oldest_s = max(self.oldest_s, self.age_s)
            return
        share = time_s / (time_s + MEMORY_S)
        self.oldest_s = max(self.age_s, self.oldest_s + share * (self.age_s - self.oldest_s))
        first = self.frame_s == 0.0
        self.interval_s = time_s if first else self.interval_s + share * (time_s - self.interval_s)
        self.frame_s = time_s / frames if first else self.frame_s + share * (time_s / frames - self.frame_s)

    def sent(self, command_id: str) -> None:
        """Note that a command was decided on the last result."""
        if self._last is None:
            return
        while len(self._sent) >= MOST_WAITING:
            del self._sent[next(iter(self._sent))]
        self._sent[command_id] = self._last.frame, self.age_s

    def acknowledged(self, ack: CommandReply) -> None:
        """Note the first frame that shows a command; replies to others' commands and refusals do not count."""
        decided = self._sent.pop(ack.command_id, None)
        if decided is None or not ack.accepted or ack.first_frame <= decided[0]:
            return
        frame, age_s = decided
        self._shown_s.append(max((ack.first_frame - frame) * self.frame_s - age_s, 0.0))
        self.shows_s = median(self._shown_s)
