"""What the session itself sees begins events: lost frames, alarms of the self-check, and a device's property."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping

from acquisition.recorder.conditions import ConditionSettings
from liveptv.session.plan import HARDWARE, Recorded
from liveptv.session.run_status import lost_frames
from stream.messages import Command, CommandKind

WITHIN_S = 1.0
"""Time within which `record.on.losses` frames must be lost, s: stages report five times in it. Losses spread out
over more are those of a run that is always a little too slow."""
ALARMS = ("check_alarms", "check_alarms_of_tracks")
"""Gauges of the detector and the tracker: how often the self-check has told something."""


class RecordTriggers:
    """Follows the reports of the stages, and asks the recorder (`ask`) where a condition of `[record.on]` holds."""

    def __init__(self, on: ConditionSettings, ask: Callable[[Command], None]) -> None:
        self._on, self._ask = on, ask
        self._lost: deque[tuple[float, int]] = deque()
        self._alarms = 0.0

    def look(
        self, now_s: float, counts: Mapping[str, Mapping[str, int]], gauges: Iterable[Mapping[str, float]]
    ) -> None:
        """Judge what the stages have reported last: their counts by stage, and their gauges."""
        if self._on.losses is not None:
            self._count_losses(now_s, sum(lost_frames(counts).values()), self._on.losses)
        if self._on.self_check:
            alarms = sum(some.get(name, 0.0) for some in gauges for name in ALARMS)
            if alarms > self._alarms:
                self._request("self_check", "the self-check has told a change", -1)
            self._alarms = max(self._alarms, alarms)

    def _count_losses(self, now_s: float, lost: int, enough: int) -> None:
        """Ask where so many frames were lost within `WITHIN_S`; those that have led to a request count once."""
        self._lost.append((now_s, lost))
        while len(self._lost) > 1 and self._lost[1][0] <= now_s - WITHIN_S:
            self._lost.popleft()
        if lost - self._lost[0][1] >= enough:
            self._lost.clear()
            self._lost.append((now_s, lost))
            self._request("losses", f"{enough} frames or more were lost within {WITHIN_S:g} s", -1)

    def recorded(self, entry: Recorded) -> None:
        """Take a record of a stage: one that a watched property has changed is a reason to ask."""
        if entry.kind == HARDWARE:
            name = self._on.hardware or "a property"
            self._request("hardware", f"{name} became other than 0", int(entry.facts.get("frame", -1)))

    def _request(self, condition: str, why: str, frame: int) -> None:
        sender = f"record.on.{condition}"
        self._ask(Command(CommandKind.RECORD, why, decided_on_frame=frame, sender=sender))
