"""What is asked of the recorder: to keep the frames around a moment, and why."""

from __future__ import annotations

import math
from dataclasses import dataclass

from acquisition.safety.limits import CommandRefused
from stream.messages import Command, CommandKind
from stream.safe_text import one_line

WHY_LENGTH = 200
"""Characters kept of a reason: a sentence. It only bounds the frame table and the page's list."""
FARTHEST_AHEAD_S = 60.0
"""How far ahead an event may be asked for, s, as for other commands: bounds what a wrong clock of a client does."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to keep frames. `frame` is the one that led to it, -1: the newest; `after_s` NaN: as set.

    With `at_time_s`, on the clock of `FrameInfo.time_s`, the moment is that time.
    """

    why: str
    sender: str
    frame: int = -1
    after_s: float = math.nan
    at_time_s: float = math.nan

    @property
    def who(self) -> tuple[str, str]:
        """Requests with the same sender and reason prolong one event."""
        return self.sender, self.why

    def in_words(self) -> str:
        """Who asks, and why."""
        return ", ".join(filter(None, (self.sender, self.why))) or "no reason given"


def asked_by(command: Command) -> Asked:
    """The request that a `Command` of kind `record` makes; raises `CommandRefused` if it makes none."""
    if command.kind is not CommandKind.RECORD:
        raise CommandRefused(f"the recorder only keeps frames; send {command.kind} to the acquisition")
    value, after_s, why = command.value, math.nan, command.property
    if isinstance(value, str):
        why = value
    elif value is not None:
        after_s = float(value)
        if not (math.isfinite(after_s) and after_s >= 0):
            raise CommandRefused(f"record: frames can be kept for 0 s or more afterwards, not {after_s:g} s")
    return Asked(
        one_line(why, WHY_LENGTH),
        one_line(command.sender, WHY_LENGTH),
        command.decided_on_frame,
        after_s,
        command.at_time_s,
    )
