"""Carries out commands between frames, within limits, and finds the first frame that shows each of them."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from acquisition.commands.device_commands import DeviceCommands, SteeredFocus
from acquisition.microscope.microscope import Microscope
from acquisition.safety.hardware_state import DeviceSafety
from acquisition.safety.limits import (
    CommandRefused,
    RateLimit,
)
from acquisition.safety.safe_state import SafeState
from acquisition.safety.watchdog import Watchdog
from acquisition.settings import LimitsSettings
from stream.errors import ConfigurationError, SourceError
from stream.messages import MADE_SAFE, Command, CommandKind, CommandReply, Frame

FOCUS_TIMEOUT_S = (
    30.0  # longest move of the focus: slow drives cross their range in 20 s; a blocked one is reported late
)
FARTHEST_AHEAD_S = (
    60.0  # longest wait of a scheduled command; bounds what a wrong clock of a client can leave behind
)
OVERLOOKED_S = (
    0.3  # the loop checks the watchdog every few ms; if it is this late, s, the loop is stuck in a device
)
SAFE_ANSWERS = 16  # requests for the safe state that wait for a frame; further ones are answered at once

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Pending:
    """A command that was carried out and waits for the first frame that shows it."""

    command: Command
    begun_s: float
    effective_ns: int | None


class Timeline(Protocol):
    """The part of a stream of frames that the executor uses; see `acquisition.microscope.live.MicroscopeStream`."""

    exposed_ns: int
    ours_changes: bool  # changes of devices now are our own, not from outside

    def devices_changed(self) -> int:
        """Note that settings of devices have changed; returns now (`perf_counter_ns`)."""
        ...

    def now_s(self) -> float:
        """Now on the clock of the frames' `time_s`, s."""
        ...


class CommandExecutor:
    """Executes commands between frames and keeps the hardware within the limits.

    A command is answered with the first frame whose exposure began after the device had taken it (the focus drive:
    had arrived), not with one that waited in the camera's buffer meanwhile. A command with `at_time_s` waits for
    its time and is checked then. After the first live result (a heartbeat, or a command decided on a frame), the
    safe state is entered as soon as the newest frame of a live result was exposed more than `limits.watchdog_s`
    ago; a command decided on an older frame is refused. What the executor does by itself goes to `report`.

    `make_safe` is not subject to the rate limit, and scheduled commands are refused. It holds: commands that were
    decided on a frame or are scheduled are refused until `release`, until a person sends a command (decided on no
    frame, not scheduled), or until a controller is switched on (`control`). The safe state of the watchdog does not
    hold. `secure` and `overlooked` may be called from another thread, also while this one is stuck in a device.
    """

    def __init__(
        self,
        microscope: Microscope,
        stream: Timeline,
        limits: LimitsSettings,
        clock: Callable[[], float] = time.monotonic,
        report: Callable[[str], None] = log.warning,
        focus: SteeredFocus | None = None,
    ) -> None:
        """`focus` is moved by commands in place of the microscope's drive, but not by the safe state.

        Raises `ConfigurationError` if the limits name a safe state that this microscope cannot enter.
        """
        self._focus: SteeredFocus = microscope if focus is None else focus
        self._stream = stream
        self._limits = limits
        self._clock = clock
        self._report = report
        self._safe = SafeState(microscope, limits)
        self._watchdog = Watchdog(limits.watchdog_s, clock)
        self._ending = ""
        self._held = ""
        self._secured_outside = False
        self._rate = RateLimit(limits.commands_per_s, clock)
        self._pending: list[_Pending] = []
        self._later: list[Command] = []
        self._dropped: list[CommandReply] = []
        self._newest_frame = -1
        self._actions: dict[CommandKind, Callable[[Command], None]] = {
            **DeviceCommands(microscope, limits, focus).actions,
            CommandKind.MAKE_SAFE: self._make_safe,
        }
        self._counts = {"commands": 0, "commands_refused": 0, "watchdog": 0}

    def execute(self, command: Command) -> CommandReply | None:
        """Carry out a command; returns the refusal, or None if the answer follows with a frame."""
        if command.kind is CommandKind.HEARTBEAT:
            self._hear(command)
            return CommandReply(command.command_id, True, self._newest_frame, self._held, _now(), _now())
        if command.kind is CommandKind.CONTROL and not self._ending:
            self.release()
            return CommandReply(command.command_id, True, self._newest_frame, "", _now(), _now())
        self._counts["commands"] += 1
        if command.kind is CommandKind.MAKE_SAFE:
            return self._carry_out(command)
        try:
            if self._ending:
                raise CommandRefused(f"the run is ending: {self._ending}")
            self._rate.check(command.kind)
            self._refuse_stale(command)
            if self._held and not _is_from_a_person(command):
                raise CommandRefused(self._held)
            if math.isfinite(command.at_time_s) and self._is_for_later(command):
                self._later.append(command)
                return None
        except CommandRefused as error:
            return self._refusal(command, str(error))
        return self._carry_out(command)

    def _refuse_stale(self, command: Command) -> None:
        if self._watchdog.is_stale(command.decided_on_frame):
            raise CommandRefused(
                f"{command.kind} was decided on frame {command.decided_on_frame}, which was exposed more than "
                f"{self._limits.watchdog_s:g} s ago (limits.watchdog_s)"
            )

    def _is_for_later(self, command: Command) -> bool:
        ahead_s = command.at_time_s - self._stream.now_s()
        if ahead_s > FARTHEST_AHEAD_S:
            raise CommandRefused(
                f"{command.kind} is scheduled {ahead_s:.0f} s ahead; at most {FARTHEST_AHEAD_S:g} s are allowed"
            )
        return ahead_s > 0

    def _carry_out(self, command: Command) -> CommandReply | None:
        try:
            action = self._actions.get(command.kind)
            if action is None:
                raise CommandRefused(f"{command.kind} is not a command for the microscope")
            action(command)
        except (CommandRefused, SourceError, ConfigurationError) as error:
            return self._refusal(command, str(error))
        is_safe = command.kind is CommandKind.MAKE_SAFE
        if command.decided_on_frame >= 0 and not is_safe:
            self._hear(command)
        if _is_from_a_person(command) and not is_safe:
            self.release()
        if is_safe and sum(p.command.kind is command.kind for p in self._pending) >= SAFE_ANSWERS:
            return CommandReply(command.command_id, True, -1, monotonic_ns=_now(), executed_ns=_now())
        changed_ns = self._stream.devices_changed()
        moves = command.kind in {CommandKind.MOVE_FOCUS, CommandKind.NEXT_SLICE}
        self._pending.append(_Pending(command, self._clock(), None if moves else changed_ns))
        return None

    def _refusal(self, command: Command, why: str) -> CommandReply:
        self._counts["commands_refused"] += 1
        return _reply(command, why)

    def _hear(self, command: Command) -> None:
        if self._watchdog.heard(command.decided_on_frame) and not self._held:
            self._report("live results are back; commands are carried out again")

    def _make_safe(self, command: Command) -> None:
        why = str(command.value or "on request")
        self._hold(f"by {command.sender or 'a command'} ({why})")
        self._drop_scheduled("the safe state was requested")
        self._safe.enter()
        self._report(f"safe state ({self._safe}): {why}")

    def _hold(self, by: str) -> None:
        self._watchdog.disarm()
        self._held = f"{MADE_SAFE} {by}; resume, or send a command manually"

    def release(self) -> None:
        """Accept commands decided on frames and scheduled commands again."""
        self._held = ""

    def _drop_scheduled(self, why: str) -> None:
        dropped, self._later = self._later, []
        self._dropped += [self._refusal(command, why) for command in dropped]

    def poll(self) -> list[CommandReply]:
        """Check moves in progress, commands that are due, and the watchdog; returns the resulting answers."""
        if self._secured_outside:
            self._secured_outside = False
            self._drop_scheduled("the safe state was requested")
            self._stream.devices_changed()
            self._stream.ours_changes = False
        answers, self._dropped = self._dropped, []
        for pending in [p for p in self._pending if p.effective_ns is None]:
            try:
                if not self._focus.focus_moves():
                    now_ns = self._stream.devices_changed()
                    pending.effective_ns = self._focus.rested_ns or now_ns
                    continue
                late = self._clock() - pending.begun_s > FOCUS_TIMEOUT_S
                why = (
                    f"the focus still moves after {FOCUS_TIMEOUT_S:g} s; check whether it is blocked"
                    if late
                    else ""
                )
            except SourceError as error:
                why = str(error)
            if why:
                self._pending.remove(pending)
                answers.append(_reply(pending.command, why))
        for command in self._due():
            refusal = self._refusal(command, self._held) if self._held else self._carry_out(command)
            answers += [] if refusal is None else [refusal]
        if self._watchdog.expired():
            answers += self._watchdog_acts()
        return answers

    @property
    def is_busy(self) -> bool:
        """Whether a move of the focus or a scheduled command must be looked after within ms."""
        return bool(self._later) or any(pending.effective_ns is None for pending in self._pending)

    def _due(self) -> list[Command]:
        if not self._later:
            return []
        now_s = self._stream.now_s()
        due = [command for command in self._later if command.at_time_s <= now_s]
        self._later = [command for command in self._later if command.at_time_s > now_s]
        return due

    def _watchdog_acts(self) -> list[CommandReply]:
        self._counts["watchdog"] += 1
        self._drop_scheduled("the watchdog entered the safe state")
        self._safe.enter()
        late = self._watchdog.late_results()
        self._report(f"no live result for {self._watchdog.limit_s:g} s: safe state ({self._safe}){late}")
        self._stream.devices_changed()
        answers, self._dropped = self._dropped, []
        return answers

    def frame_taken(self, frame: Frame) -> list[CommandReply]:
        """Answers to the commands that this frame is the first to show."""
        self._newest_frame = frame.info.frame
        self._watchdog.taken(frame.info.frame, 1e-9 * (_now() - self._stream.exposed_ns))
        shown = [
            p
            for p in self._pending
            if p.effective_ns is not None and self._stream.exposed_ns >= p.effective_ns
        ]
        self._pending = [p for p in self._pending if p not in shown]
        return [_reply(p.command, "", frame.info.frame, p.effective_ns) for p in shown]

    def abandon(self) -> list[CommandReply]:
        """Answers to the commands that no frame will show."""
        left, self._pending = self._pending, []
        why = "no frame was taken after it"
        carried_out = [
            CommandReply(p.command.command_id, True, -1, why, _now(), p.effective_ns or 0) for p in left
        ]
        self._drop_scheduled("the run ended before its time")
        refused, self._dropped = self._dropped, []
        return carried_out + refused

    def safe_state(self) -> None:
        """Bring every device into its safe state; raises `SourceError` if one fails."""
        self._safe.enter()

    def secure(self, reason: str, *, ends: bool, holds: bool = True) -> tuple[DeviceSafety, ...]:
        """Make the hardware safe and read it back; with `ends`, no command changes it any more. Never raises.

        Without `holds`, for the watchdog, commands are carried out again once results are live. Each device has its
        own deadline, so this returns even if one hangs.
        """
        if ends:
            self._ending = self._ending or reason
        if holds:
            self._hold(f"by the session ({reason})")
        self._stream.ours_changes = True
        try:
            return self._safe.enter_and_confirm()
        finally:
            self._secured_outside = True  # the loop's thread owns the stream and handles the rest

    def overlooked(self) -> bool:
        """Whether the watchdog should have acted and did not, because the loop is stuck."""
        return self._watchdog.overdue(OVERLOOKED_S)

    def counts(self) -> dict[str, int]:
        """Totals of `commands`, `commands_refused`, and actions of the `watchdog`."""
        return dict(self._counts)


def _is_from_a_person(command: Command) -> bool:
    return command.decided_on_frame < 0 and not math.isfinite(command.at_time_s)


def _reply(
    command: Command, why_not: str, first_frame: int = -1, executed_ns: int | None = None
) -> CommandReply:
    return CommandReply(command.command_id, not why_not, first_frame, why_not, _now(), executed_ns or 0)


def _now() -> int:
    return time.perf_counter_ns()
