"""The control stage: tracks from one link, a controller's commands to the microscope."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from stream.errors import ConfigurationError, LinkError
from stream.link import Receiver
from stream.messages import MADE_SAFE, Command, CommandKind, CommandReply, StageState, StreamEnd, Tracks
from stream.safe_text import in_words, whole_traceback
from tracking.control.controllers import Controller, ProtocolRun, where_it_failed
from tracking.control.record import ControlRecord, Record, nothing
from tracking.control.switch import Choice, ControllerSwitch

log = logging.getLogger(__name__)

LAST_ACKS_S = 1.0
POLL_S = 0.01
ANSWER_S = 0.001
HEARTBEAT_S = 0.25
MOST_A_FRAME = 64
REFUSALS = 200
REFUSALS_S = 10.0
SAY_S = 1.0


class CommandLink(Protocol):
    """What the stage needs of `stream.commands.CommandClient`."""

    def send(self, command: Command) -> None:
        """Send without waiting for the answer."""
        ...

    def replies(self) -> list[CommandReply]:
        """Return the answers that have come."""
        ...

    def close(self) -> None:
        """Release the socket."""
        ...


class ControlStage:
    """Hands every frame's tracks to a controller and its commands to the microscope.

    After a frame that the controller has looked at, a heartbeat tells the acquisition so, at most four times a
    second; without them its watchdog makes the hardware safe. A controller that raises, or floods the microscope
    (more than 64 commands a frame, or 200 refused within 10 s), is not asked again: the safe state is asked for,
    the error with its traceback goes to `report` (by default the log) and its first line to `failure`, the gauge
    `controller_works` falls to 0, and the stage goes on consuming tracks without sending commands. `record` is
    given everything that was measured, decided and answered (`tracking.control.record`).

    Where the hardware was made safe and stays so (the acquisition says so in its answers), commands for it are not
    sent; a controller with a method `released` is not asked meanwhile. A controller that is switched on ends that.

    With a `switch` another controller, or none, can be asked for at any time; without one the hardware stays as
    it is, and heartbeats go on where there have been some.
    """

    name = "control"

    def __init__(
        self,
        receiver: Receiver,
        controller: Controller | None,
        client: CommandLink,
        report: Callable[[str], None] = log.error,
        record: Record = nothing,
        switch: ControllerSwitch | None = None,
    ) -> None:
        self._receiver = receiver
        self._controller = controller
        self._client = client
        self._report = report
        self._record = ControlRecord(controller, record)
        self._switch = switch
        self._frame = -1
        self._beats = controller is not None
        self._held = ""
        self._heartbeats: dict[str, int] = {}
        self._releases: set[str] = set()
        self._heartbeat_due_s = 0.0
        self._refusals: deque[float] = deque()
        self._said: dict[str, tuple[float, int]] = {}
        self._state = StageState.STARTING
        self._waiting: dict[str, tuple[int, Controller | None]] = {}
        self._drained_s = 0.0
        self._gauges: dict[str, float] = {}
        self._counts = dict.fromkeys(
            ("received", "sent", "dropped", "accepted", "refused", "unsent", "controller_errors"), 0
        )
        self.failure = ""

    @property
    def state(self) -> StageState:
        """Where the stage is in its life; a failed controller does not end it, see `failure`."""
        return self._state

    def step(self, timeout_s: float) -> bool:
        """Handle one frame's tracks and the answers that have come; False after the end of the stream.

        Raises `LinkError` if the link carries something else than tracks.
        """
        if self._state in {StageState.DONE, StageState.FAILED}:
            return False
        self._take_acks()
        self._take_requests()
        if self._state is StageState.DRAINING:
            return self._drain()
        self._state = StageState.RUNNING
        waits_for_answers = self._waiting or self._heartbeats
        delivery = self._receiver.receive(min(timeout_s, ANSWER_S) if waits_for_answers else timeout_s)
        if delivery is None:
            return True
        message = delivery.message
        if isinstance(message, Tracks):
            self._counts["received"] += 1
            self._control(message)
        elif isinstance(message, StreamEnd):
            self._state = StageState.DRAINING
            self._drained_s = time.monotonic() + LAST_ACKS_S
        else:
            self._state = StageState.FAILED
            raise LinkError(
                f"the controller was sent {type(message).__name__} on {self._receiver.address}, not tracks; "
                "connect it to a tracker"
            )
        delivery.done()
        return True

    def _take_requests(self) -> None:
        """Switch to the controller that was asked for, or say why not."""
        for request in self._switch.poll() if self._switch is not None else ():
            command = request.command
            try:
                if self._state is StageState.DRAINING:
                    raise ConfigurationError("the run is over")
                choice = self._chosen(command)
            except ConfigurationError as error:
                request.reply(CommandReply(command.command_id, False, -1, str(error), time.perf_counter_ns()))
                continue
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001 - what a viewer asks for must not end the stage
                why = f"the controller cannot be switched on: {in_words(error)}"
                self._report(why)
                request.reply(CommandReply(command.command_id, False, -1, why, time.perf_counter_ns()))
                continue
            if choice.controller is not None:
                self._release(command.sender)
            first_frame = self._frame + 1
            self._record.switched(choice, command.sender, first_frame)
            request.reply(
                CommandReply(command.command_id, True, first_frame, monotonic_ns=time.perf_counter_ns())
            )

    def _release(self, sender: str) -> None:
        """Tell the acquisition that a controller was switched on, by a person or a program."""
        self._held = ""
        command = Command(CommandKind.CONTROL, sender=sender)
        try:
            self._client.send(command)
        except LinkError as error:
            self._say("the acquisition was not told of the new controller", str(error))
            return
        self._releases.add(command.command_id)

    def _chosen(self, command: Command) -> Choice:
        assert self._switch is not None
        choice = self._switch.choose(command)
        if choice.controller is not None and isinstance(self._controller, ProtocolRun) and not self.failure:
            raise ConfigurationError(
                f"{self._controller.name} goes through its slices; switch it off before anything else is on"
            )
        self._controller = choice.controller
        self._beats = self._beats or choice.controller is not None
        self.failure = ""
        self._refusals.clear()
        return choice

    def _control(self, tracks: Tracks) -> None:
        controller, self._frame = self._controller, tracks.info.frame
        if self.failure:
            return
        if controller is None or (self._held and hasattr(controller, "released")):
            self._beat(tracks.info.frame, self.name)
            return
        try:
            commands: Sequence[Command] = controller.update(tracks)
            prepared = [signed(command, controller.name, tracks.info.frame) for command in commands or ()]
            if len(prepared) > MOST_A_FRAME:
                raise ValueError(f"{len(prepared)} commands for one frame, at most {MOST_A_FRAME} are sent")
            for command in prepared:
                self._send(command, tracks)
            self._record.frame(tracks, self._gauges.get("heartbeat_ms", math.nan))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a user's code may raise anything, and leave
            self._give_up(f"failed on frame {tracks.info.frame}: {where_it_failed(error)}", error)
            return
        self._beat(tracks.info.frame, controller.name)

    def _beat(self, frame: int, sender: str) -> None:
        now_s = time.monotonic()
        if not self._beats or now_s < self._heartbeat_due_s:
            return
        self._heartbeat_due_s = now_s + HEARTBEAT_S
        sent_ns = time.perf_counter_ns()
        command = Command(CommandKind.HEARTBEAT, decided_on_frame=frame, sender=sender)
        try:
            self._client.send(command)
        except LinkError:
            return  # nobody listens: the watchdog there does what is needed
        self._heartbeats[command.command_id] = sent_ns

    def _send(self, command: Command, tracks: Tracks) -> None:
        now_ns = time.perf_counter_ns()
        if self._held and command.kind not in {CommandKind.STOP, CommandKind.MAKE_SAFE}:
            self._counts["unsent"] += 1
            refusal = CommandReply(command.command_id, False, reason=self._held, monotonic_ns=now_ns)
            self._tell_controller(self._controller, refusal)
            return
        try:
            self._client.send(command)
        except LinkError as error:
            self._counts["unsent"] += 1
            self._say(f"{command.kind} of frame {command.decided_on_frame} was not sent", str(error))
            return
        self._counts["sent"] += 1
        self._waiting[command.command_id] = now_ns, self._controller
        self._gauges["latency_ms"] = (now_ns - tracks.info.monotonic_ns) / 1e6
        self._record.sent(command, tracks, now_ns)

    def _take_acks(self) -> None:
        for ack in self._client.replies():
            now_ns = time.perf_counter_ns()
            beat_ns = self._heartbeats.pop(ack.command_id, None)
            if beat_ns is not None:
                self._gauges["heartbeat_ms"] = (now_ns - beat_ns) / 1e6
                self._take_hold(ack.reason)
                continue
            if ack.command_id in self._releases:
                self._releases.discard(ack.command_id)
                continue
            sent_ns, sender = self._waiting.pop(ack.command_id, (None, None))
            if sent_ns is not None:
                self._gauges["ack_ms"] = (now_ns - sent_ns) / 1e6
            self._counts["accepted" if ack.accepted else "refused"] += 1
            self._record.answered(ack)
            if sender is None or sender is not self._controller:
                continue
            if ack.reason.startswith(MADE_SAFE):
                self._take_hold(ack.reason)
            elif not ack.accepted:
                self._refused(sender.name, ack.reason)
            self._tell_controller(sender, ack)

    def _take_hold(self, reason: str) -> None:
        """The acquisition says that the hardware was made safe and stays so, or ("") that this is over."""
        before, self._held = self._held, reason if reason.startswith(MADE_SAFE) else ""
        if self._held and not before and self._controller is not None and not self.failure:
            self._report(f"nothing is asked of the microscope: {self._held}")
        if before and not self._held:
            self._call(getattr(self._controller, "released", None), "when it was released")

    def _tell_controller(self, controller: Controller | None, ack: CommandReply) -> None:
        if ack.reason.startswith(MADE_SAFE) and hasattr(controller, "released"):
            return  # it begins again when that is over
        self._call(getattr(controller, "acknowledged", None), "on an acknowledgement", ack)

    def _call(self, method: Callable[..., None] | None, when: str, *facts: CommandReply) -> None:
        if method is None or self.failure:
            return
        try:
            method(*facts)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - as for update
            self._give_up(f"failed {when}: {where_it_failed(error)}", error)

    def _refused(self, sender: str, reason: str) -> None:
        self._say(f"the microscope refused a command of {sender}", reason)
        now_s = time.monotonic()
        self._refusals.append(now_s)
        while now_s - self._refusals[0] > REFUSALS_S:
            self._refusals.popleft()
        if len(self._refusals) >= REFUSALS and not self.failure:
            self._give_up(f"floods the microscope: {REFUSALS} commands refused in {REFUSALS_S:g} s", None)

    def _say(self, what: str, why: str) -> None:
        """Report, but the same thing at most once a second, with how often it was not said."""
        now_s = time.monotonic()
        said_s, unsaid = self._said.get(what, (0.0, 0))
        if now_s - said_s < SAY_S:
            self._said[what] = (said_s, unsaid + 1)
            return
        self._said[what] = (now_s, 0)
        self._report(f"{what}: {why}" + (f" (and {unsaid} more before)" if unsaid else ""))

    def _give_up(self, why: str, error: BaseException | None) -> None:
        self._counts["controller_errors"] += 1
        self.failure = f"controller {getattr(self._controller, 'name', '')} {why}"
        self._beats = False
        trace = "" if error is None else f"\n{whole_traceback(error)}"
        self._report(f"{self.failure}; the run goes on without it, the hardware is made safe{trace}")
        self._record.failed(self.failure + trace)
        command = Command(CommandKind.MAKE_SAFE, self.failure, sender="control")
        try:
            self._client.send(command)
        except LinkError as unsent:
            self._report(f"the safe state could not be asked for ({unsent}); the watchdog brings it about")
            return
        self._waiting[command.command_id] = time.perf_counter_ns(), None

    def _drain(self) -> bool:
        if self._waiting and time.monotonic() < self._drained_s:
            time.sleep(POLL_S)
            return True
        self._state = StageState.DONE
        return False

    def counts(self) -> dict[str, int]:
        """Frames `received`; commands `sent`, `accepted`, `refused`, `unsent`; `controller_errors`."""
        return dict(self._counts)

    def gauges(self) -> dict[str, float]:
        """`latency_ms` from exposure to the last command, `ack_ms` to its answer, answers waited for in `queue`.

        `heartbeat_ms` is how long the last heartbeat took there and back. `controller_on` says whether there is
        a controller, `controller_works` whether it has not failed; `measured_NAME` is what it measured last.
        """
        measured = {} if self.failure else self._record.last
        return (
            self._gauges
            | {f"measured_{name}": value for name, value in measured.items()}
            | {
                "queue": float(len(self._waiting)),
                "controller_on": float(self._controller is not None),
                "controller_works": float(not self.failure),
            }
        )

    def close(self) -> None:
        """Close the link and the command channel. Idempotent."""
        self._receiver.close()
        self._client.close()


def signed(command: Command, sender: str, frame: int) -> Command:
    """A controller's command with its sender and the frame that it was decided on, where it has none itself."""
    if not isinstance(command, Command):
        raise TypeError(f"update must return a list of Command, not {type(command).__name__} in it")
    decided = command.decided_on_frame if command.decided_on_frame >= 0 else frame
    return replace(command, sender=command.sender or sender, decided_on_frame=decided)
