"""The control record of a run: what was measured, which commands were sent, and the replies to them.

An entry is a kind, a line of text and facts. Kinds: `command` (with the controller's measured values and the
frame they came from), `answer` (with the first frame that shows the command, and how long it took), `measured`
(a few times a second, with or without commands), `slice` (of a protocol), `controller` (it failed, or was switched
on or off), `flow` (a fit of the flow in the channel, about one a second: `tracking.physics.live.findings`), `event`
(the recorder began or ended one; from the event log). In a replay a `command` has the fact `has_effect`, false.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stream.messages import Command, CommandReply, Tracks
from tracking.control.controllers.controller_interface import Controller, Happening
from tracking.control.switch import Choice

if TYPE_CHECKING:
    from tracking.physics.live.findings import FlowFindings

PERIOD_S = 0.2
"""Shortest time between two `measured` entries, s. Controllers act every 0.5 s by default, so that each action has
two or three of them; an hour has 18,000. It changes nothing but the length of the record."""
KINDS = ("command", "answer", "measured", "slice", "controller", "flow", "event")

FLOW = "flow"

Record = Callable[[str, str, dict[str, Any]], None]


def nothing(_kind: str, _text: str, _facts: dict[str, Any]) -> None:
    """Keep no record."""


class ControlRecord:
    """Turns what the control stage does into entries, for `keep`."""

    def __init__(self, controller: Controller | None, keep: Record, *, has_effect: bool = True) -> None:
        self._controller = controller
        self._has_effect = has_effect
        self._keep = keep
        self._sent: dict[str, tuple[Command, int]] = {}
        self._measured_s = -math.inf
        self.last: dict[str, float] = {}

    def frame(self, tracks: Tracks, heartbeat_ms: float = math.nan) -> list[str]:
        """Record what was measured in a frame (at most every `PERIOD_S`) and what else the controller reports.

        `heartbeat_ms` is the round trip of the last heartbeat. Returns what the controller reports of itself.
        """
        now_s = tracks.info.time_s
        if now_s - self._measured_s >= PERIOD_S:
            self.last = values = self.values()
            if values:
                self._measured_s = now_s
                beat = {"heartbeat_ms": round(heartbeat_ms, 3)} if math.isfinite(heartbeat_ms) else {}
                self._keep("measured", "", {**_place(tracks), **beat, "measured": values})
        happenings: Callable[[], list[Happening]] | None = getattr(self._controller, "happenings", None)
        found = happenings() if happenings is not None else []
        for happening in found:
            self._keep(happening.kind, happening.text, {**happening.facts, "time_s": now_s})
        return [happening.text for happening in found if happening.kind == "controller"]

    def values(self) -> dict[str, float]:
        """The controller's measured values; those that are not finite are left out."""
        ask: Callable[[], dict[str, float]] | None = getattr(self._controller, "measured", None)
        found = ask() if ask is not None else {}
        return {name: round(float(value), 9) for name, value in found.items() if math.isfinite(value)}

    def sent(self, command: Command, tracks: Tracks, now_ns: int) -> None:
        """Record a command that was sent at `now_ns` (`time.perf_counter_ns`)."""
        self._sent[command.command_id] = (command, now_ns)
        facts: dict[str, Any] = {
            "command_id": command.command_id,
            "command": str(command.kind),
            "value": command.value,
            "sender": command.sender,
            "decided_on_frame": command.decided_on_frame,
            "sent_ms": round((now_ns - tracks.info.monotonic_ns) / 1e6, 3),
            **_place(tracks),
            "measured": self.values(),
        }
        if not self._has_effect:
            facts["has_effect"] = False
        if command.device:
            facts["property"] = f"{command.device}.{command.property}"
        if math.isfinite(command.at_time_s):
            facts["at_time_s"] = command.at_time_s
        self._keep("command", "", facts)

    def answered(self, ack: CommandReply) -> None:
        """Record the reply to a command."""
        command, sent_ns = self._sent.pop(ack.command_id, (None, 0))
        facts: dict[str, Any] = {
            "command_id": ack.command_id,
            "accepted": ack.accepted,
            "first_frame": ack.first_frame,
        }
        if command is not None:
            facts |= {
                "command": str(command.kind),
                "decided_on_frame": command.decided_on_frame,
                "answered_ms": round((time.perf_counter_ns() - sent_ns) / 1e6, 3),
            }
            if ack.executed_ns:
                facts["executed_ms"] = round((ack.executed_ns - sent_ns) / 1e6, 3)
        self._keep("answer", ack.reason, facts)

    def flow(self, findings: FlowFindings) -> None:
        """Record a fit of the flow."""
        self._keep(FLOW, "", findings.facts())

    def flow_failed(self, text: str) -> None:
        """Record that the flow is no longer fitted."""
        self._keep("note", text, {})

    def failed(self, text: str) -> None:
        """Record that the controller failed or was stopped."""
        self._keep("controller", text, {})

    def switched(self, choice: Choice, sender: str, frame: int) -> None:
        """Record that `sender` has switched to another controller or to none, from `frame` on."""
        self._controller = choice.controller
        self._measured_s, self.last = -math.inf, {}
        facts = {
            "on": choice.controller is not None,
            "controller": choice.kind,
            "settings": choice.settings or {},
            "sender": sender,
            "first_frame": frame,
        }
        self._keep("controller", f"{sender or 'a viewer'} switched to {choice} from frame {frame} on", facts)


def _place(tracks: Tracks) -> dict[str, Any]:
    info = tracks.info
    place = {
        "frame": info.frame,
        "time_s": info.time_s,
        "focus_um": info.focus_um,
        "flow_ul_s": info.flow_ul_s,
    }
    return {name: value for name, value in place.items() if math.isfinite(value)}
