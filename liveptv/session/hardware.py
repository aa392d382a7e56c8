"""Safety of the hardware as the session sees it: what the acquisition reports, and the rescue if it was killed."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from acquisition.safety.hardware_state import DeviceSafety, has_safe_state
from acquisition.safety.rescue import rescue
from liveptv.config import Experiment
from liveptv.session.plan import MakeSafe, Opening, Secured
from liveptv.session.processes import start_ignoring_signals

ANSWER_S = (
    3.0  # s; a device has 2 s to answer, a travelling focus drive is not waited for. Longer delays a kill
)
RESCUE_S = (
    30.0  # s; a process starts, tries to open the devices for 8 s and reads them back. Only delays the end
)
LOOK_S = 0.02  # s between two looks; short against the 3 s above

Note = Callable[[str, str, dict[str, Any]], None]


class Hardware:
    """Has the acquisition make the hardware safe, takes its reports, and starts the rescue if it was killed.

    `known` is the last known state of each device: None until it is reported, empty if there is nothing to make
    safe. Devices that are not safe when the acquisition is over are opened again by a new process; the others are
    left alone.
    """

    def __init__(self, experiment: Experiment, note: Note) -> None:
        """`note` gets an event: its kind, a line, and facts."""
        self._microscope = experiment.microscope
        self._limits = experiment.limits
        self._note = note
        self._lane: Connection | None = None
        self._touched = False
        self._rescuer: SpawnProcess | None = None
        self._answer: Connection | None = None
        self._is_rescuing = False
        self._has_rescued = False
        self._until_s = 0.0
        self.has_safe_state = self._microscope is not None and has_safe_state(
            self._limits, self._microscope.shutter
        )
        self.known: tuple[DeviceSafety, ...] | None = None

    def connect(self, lane: Connection | None) -> None:
        """Use the lane of an acquisition that has been started."""
        self._lane = lane

    def make_safe(self, reason: str, *, ends: bool) -> None:
        """Tell the acquisition to make the hardware safe now; with `ends`, also to end the run."""
        if self._lane is not None:
            with contextlib.suppress(OSError, ValueError):
                self._lane.send(MakeSafe(reason, ends))

    def poll(self) -> None:
        """Take the reports that have arrived, without waiting."""
        self._read_lane()
        if self._is_rescuing:
            self._read_rescue()

    def wait(self, meanwhile: Callable[[], None], timeout_s: float = ANSWER_S) -> None:
        """Wait for the report of an acquisition that is about to be killed; `meanwhile` is called repeatedly."""
        until_s = time.monotonic() + timeout_s
        while self._touched and self.known is None and self._lane is not None and time.monotonic() < until_s:
            self._read_lane()
            meanwhile()
            time.sleep(LOOK_S)

    @property
    def is_settled(self) -> bool:
        """Whether no further report is expected."""
        return not self._is_rescuing

    def stand_by(self, is_silent: bool) -> None:
        """While the acquisition is silent, keep a process ready that can open its devices at once."""
        if is_silent and self._rescuer is None and not self._is_known_safe and self._can_be_rescued:
            self._start_rescuer()
        elif not is_silent and not self._is_rescuing:
            self.close()

    @property
    def _can_be_rescued(self) -> bool:
        return self.has_safe_state and self._touched and not self._has_rescued

    @property
    def _is_known_safe(self) -> bool:
        return self.known is not None and all(device.safe for device in self.known)

    def acquisition_is_gone(self, *, was_a_process: bool) -> None:
        """Called when the acquisition is over: devices that it has not reported as safe are opened again."""
        self._read_lane()
        self._lane = None
        if self._is_known_safe or self._is_rescuing:
            self.stand_by(is_silent=False)
            return
        if not self._can_be_rescued:
            self.known = self.known or ()
            return
        if not was_a_process:
            if self.known is None:
                self._conclude("the acquisition is a thread, which cannot be killed, and it has not answered")
            return
        left = self._unsafe_devices()
        what = "the acquisition has not made the hardware safe: opening its devices again"
        self._note("safety", f"not safe yet, opening again: {', '.join(left)}" if left else what, {})
        if self._rescuer is None:
            self._start_rescuer()
        self._is_rescuing = self._has_rescued = True
        self._until_s = time.monotonic() + RESCUE_S
        assert self._answer is not None
        with contextlib.suppress(OSError):  # if it has ended, that shows when it should answer
            self._answer.send(frozenset(device.split()[0] for device in left))

    def _unsafe_devices(self) -> list[str]:
        """The devices that were reported as not safe."""
        return [device.device for device in self.known or () if not device.safe]

    def _start_rescuer(self) -> None:
        assert self._microscope is not None
        context = multiprocessing.get_context("spawn")
        self._answer, theirs = context.Pipe()
        self._rescuer = context.Process(
            target=rescue, args=(self._microscope, self._limits, theirs), name="liveptv-rescue", daemon=True
        )
        start_ignoring_signals(self._rescuer)
        theirs.close()

    def settle(self) -> None:
        """Wait until no further report is expected."""
        while not self.is_settled:
            self.poll()
            time.sleep(LOOK_S)

    def _read_lane(self) -> None:
        try:
            while self._lane is not None and self._lane.poll():
                message = self._lane.recv()
                self._touched = self._touched or isinstance(message, Opening)
                if isinstance(message, Secured):
                    self._take(message)
        except (EOFError, OSError):
            self._lane = None

    def _take(self, message: Secured) -> None:
        facts = {"devices": [_facts(device) for device in message.devices]}
        if message.devices:
            unsafe = "; ".join(str(device) for device in message.devices if not device.safe)
            states = _states(message.devices)
            if unsafe:
                text = f"not safe: {unsafe}: {message.reason}"
            elif message.ends and message.reason == "done":
                text = f"safe state at the end of the run: {states}"
            else:
                text = f"safe state ({states}): {message.reason}"
            self._note("safety", text, facts)
        if message.ends:
            self.known = message.devices

    def _read_rescue(self) -> None:
        assert self._rescuer is not None
        assert self._answer is not None
        found: object = None
        try:
            if self._answer.poll():
                found = self._answer.recv()
        except (EOFError, OSError):
            found = f"the process that opens them again ended ({self._rescuer.exitcode})"
        if found is None and time.monotonic() > self._until_s:
            found = f"its devices could not be opened again within {RESCUE_S:g} s"
        if found is None:
            return
        self.close()
        if isinstance(found, tuple):
            self.known = (*(device for device in self.known or () if device.safe), *found)
            unsafe = "; ".join(str(device) for device in found if not device.safe)
            text = f"not safe: {unsafe}" if unsafe else f"opened again, safe state ({_states(found)})"
            self._note("safety", text, {"devices": [_facts(device) for device in found]})
        else:
            self._conclude(str(found))

    def _conclude(self, why: str) -> None:
        """Report each device that has a safe state, and whose state is unknown, as not safe."""
        limits, scope = self._limits, self._microscope
        assert scope is not None
        devices = [
            DeviceSafety(name, state, False, why, warning)
            for name, state, warning, wanted in (
                (
                    "pump",
                    "the pump at its safe flow",
                    "the pump may still run",
                    limits.safe_flow_ul_s is not None,
                ),
                ("shutter", "the shutter closed", "the shutter may still be open", bool(scope.shutter)),
                (
                    "focus",
                    "the focus at its safe position",
                    "the focus may not be at its safe position",
                    limits.safe_focus_um is not None,
                ),
            )
            if wanted
        ]
        reported = tuple(device for device in self.known or () if device.safe)
        safe = {device.device.split()[0] for device in reported}
        devices = [device for device in devices if device.device not in safe]
        self.known = (*reported, *devices)
        facts = {"devices": [_facts(device) for device in devices]}
        self._note("safety", "; ".join(str(device) for device in devices), facts)

    def close(self) -> None:
        """End the rescue process, if there is one. Idempotent."""
        self._is_rescuing = False
        if self._rescuer is not None:
            self._rescuer.kill()
            self._rescuer.join()
        if self._answer is not None:
            self._answer.close()
        self._rescuer = self._answer = None


def unsafe(known: tuple[DeviceSafety, ...]) -> str:
    """One line about the devices that are not known to be safe; "" if all are."""
    warnings = [device.warning for device in known if not device.safe]
    reasons = dict.fromkeys(device.problem for device in known if not device.safe)
    return f"{' and '.join(warnings)}: {'; '.join(reasons)}" if warnings else ""


def _states(devices: tuple[DeviceSafety, ...]) -> str:
    return ", ".join(device.state for device in devices)


def _facts(device: DeviceSafety) -> dict[str, Any]:
    return {"device": device.device, "state": device.state, "safe": device.safe, "problem": device.problem}
