"""The control stage: shows every frame's tracks to a controller and sends its commands to the microscope."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from stream.errors import ConfigurationError, LinkError
from stream.link import Receiver
from stream.messages import (
    MADE_SAFE,
    NO_EFFECT,
    Command,
    CommandKind,
    CommandReply,
    StageState,
    StreamEnd,
    Tracks,
)
from stream.own_code import where_it_failed
from stream.safe_text import in_words, whole_traceback
from tracking.control.command_channel import CommandChannel, CommandClient
from tracking.control.controllers import Controller, ProtocolRun
from tracking.control.followed_flow import FollowedFlow
from tracking.control.limited_reports import LimitedReports
from tracking.control.record import ControlRecord, Record, nothing
from tracking.control.record_conditions import Condition
from tracking.control.signing import aged, signed
from tracking.control.switch import Choice, ControllerSwitch

if TYPE_CHECKING:
    from tracking.physics.live.follower import FlowFollower, LiveFlow

log = logging.getLogger(__name__)

LAST_REPLIES_S = 1.0
"""How long to wait for outstanding replies after the last frame, s. A reply comes within a frame period; one that
comes later (or never, because the acquisition has ended) is missing in the record, nothing else."""
DRAIN_POLL_S = 0.01  # s between two looks for the last replies; it delays the end by as much
REPLY_POLL_S = 0.001
"""How long to wait for the next frame while a reply is outstanding, s: the resolution of `ack_ms` and
`heartbeat_ms`. Shorter costs processor time, longer makes a controller that waits for its replies slower."""
WOKEN_POLL_S = 0.01
"""The same where replies end the wait, s; only those to `stop` and `make_safe` come by another way."""
MOST_A_FRAME = 64
"""Commands that a controller may send for one frame. The built-in ones send at most a few (a pulse for each
particle that enters); more is a fault, such as a list that grows from frame to frame. `limits.commands_per_s` is
mostly stricter, so the value hardly matters."""
FOR_NO_DEVICE = frozenset({CommandKind.STOP, CommandKind.MAKE_SAFE, CommandKind.RECORD})
"""Commands of a controller that are sent also while the hardware was made safe: they move nothing."""
REFUSALS = 200
REFUSALS_S = 10.0
"""So many refused commands within so many seconds are a flood: 20 a second is above what any built-in controller
sends (two a second; pulses apart), and low enough to be noticed within seconds at camera rates."""


class ControlStage:
    """Shows every frame's tracks to a controller and sends its commands to the microscope.

    Age: a controller is shown the age that the result has now (`tracks.info.age_ms`), not that at the tracker.

    Heartbeats: after a frame that the controller has processed, one is sent to the acquisition, at most four a
    second. Without them the acquisition's watchdog makes the hardware safe.

    Failure: a controller that raises, or floods the microscope (`MOST_A_FRAME`, `REFUSALS`), is not called again.
    The stage sends the command for the safe state, gives the error with its traceback to `report` (by default the
    log) and its first line to `failure`, sets the gauge `controller_works` to 0, and continues to receive tracks
    without sending commands.

    Replay: without a microscope each command is refused with a reason that begins with `NO_EFFECT`. The controller
    is told, and that is no flood; it sees the frames of the recording, whatever it commands.

    Safe state: while the acquisition's replies say that the hardware was made safe and stays so, commands are not
    sent, and a controller with a method `released` is not called. Switching a controller on ends this.

    Switch: with a `switch` another controller, or none, can be switched on at any time. Without a controller the
    hardware stays as it is, and heartbeats continue if there were any before.

    `record` receives everything that was measured, decided and answered (`tracking.control.record`).
    """

    name = "control"

    def __init__(
        self,
        receiver: Receiver,
        controller: Controller | None,
        client: CommandClient,
        report: Callable[[str], None] = log.error,
        record: Record = nothing,
        switch: ControllerSwitch | None = None,
        reply_poll_s: float = REPLY_POLL_S,
        conditions: Sequence[Condition] = (),
        *,
        has_effect: bool = True,
        flow: FlowFollower | None = None,
    ) -> None:
        """`reply_poll_s` is how long to wait for a frame while a reply is outstanding: `WOKEN_POLL_S` where a reply
        ends the receiver's wait. `conditions` ask the recorder to keep frames, whatever the controller does.
        `has_effect`: whether there is a microscope; commands are recorded as without effect otherwise.
        `flow` fits the flow in the channel.
        """
        self._receiver = receiver
        self._controller = controller
        self._channel = CommandChannel(client)
        self._report = report
        self._report_often = LimitedReports(report)
        self._record = ControlRecord(controller, record, has_effect=has_effect)
        self._switch = switch
        self._reply_poll_s = reply_poll_s
        self._conditions = conditions
        self._flow = FollowedFlow(flow, report, self._record)
        self._frame = -1
        self._beats = controller is not None
        self._told_of_no_effect = False
        self._held = ""
        self._refusals: deque[float] = deque()
        self._state = StageState.STARTING
        self._drained_s = 0.0
        self._gauges: dict[str, float] = {}
        self._counts = dict.fromkeys(
            ("received", "sent", "dropped", "accepted", "refused", "unsent", "controller_errors"), 0
        )
        if conditions:
            self._counts["events_asked"] = 0
        self.failure = ""

    @property
    def state(self) -> StageState:
        """State of the stage; a failed controller does not end it, see `failure`."""
        return self._state

    def step(self, timeout_s: float) -> bool:
        """Handle one frame's tracks and the replies that have come; False after the end of the stream.

        Raises `LinkError` if the message link carries anything but tracks.
        """
        if self._state in {StageState.DONE, StageState.FAILED}:
            return False
        self._take_replies()
        self._take_requests()
        if self._state is StageState.DRAINING:
            return self._drain()
        self._state = StageState.RUNNING
        wait_s = min(timeout_s, self._reply_poll_s) if self._channel.expects_replies else timeout_s
        delivery = self._receiver.receive(wait_s)
        if delivery is None:
            return True
        message = delivery.message
        if isinstance(message, Tracks):
            self._counts["received"] += 1
            self._judge(message)
            if self._flow.take_in(message):
                self._tell_flow()
            self._control(aged(message, time.perf_counter_ns()))
        elif isinstance(message, StreamEnd):
            if self._flow.take_in(None):
                self._tell_flow()
            self._state = StageState.DRAINING
            self._drained_s = time.monotonic() + LAST_REPLIES_S
        else:
            self._state = StageState.FAILED
            raise LinkError(
                f"the control stage was sent {type(message).__name__} on {self._receiver.address}, not tracks; "
                "connect it to a tracker"
            )
        delivery.done()
        return True

    def _take_requests(self) -> None:
        """Switch to the requested controller, or reply why not."""
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
            except BaseException as error:  # noqa: BLE001 - a request must not end the stage
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
        """Report to the acquisition that a person or a program has switched a controller on."""
        self._held = ""
        try:
            self._channel.release(sender)
        except LinkError as error:
            self._report_often("the acquisition does not know that a controller was switched on", str(error))

    def _chosen(self, command: Command) -> Choice:
        assert self._switch is not None
        choice = self._switch.choose(command)
        if choice.controller is not None and isinstance(self._controller, ProtocolRun) and not self.failure:
            raise ConfigurationError(
                f"{self._controller.name} is measuring its slices; switch it off before you switch another one on"
            )
        self._controller = choice.controller
        self._beats = self._beats or choice.controller is not None
        self.failure = ""
        self._refusals.clear()
        self._tell_flow()
        return choice

    def _judge(self, tracks: Tracks) -> None:
        """Ask for the frames that a condition on the tracks gives reason to keep."""
        for condition in self._conditions:
            for command in condition.update(tracks):
                try:
                    self._channel.ask(command)
                    self._counts["events_asked"] += 1
                except LinkError as error:
                    self._report_often(f"{command.sender} could not ask for an event", str(error))

    def _tell_flow(self) -> None:
        if self._flow.known is not None:
            self._call(
                getattr(self._controller, "flow_fitted", None), "on a fit of the flow", self._flow.known
            )

    def _control(self, tracks: Tracks) -> None:
        controller, self._frame = self._controller, tracks.info.frame
        if self.failure:
            return
        if controller is None or (self._held and hasattr(controller, "released")):
            self._heartbeat(tracks.info.frame, self.name)
            return
        try:
            commands: Sequence[Command] = controller.update(tracks)
            prepared = [signed(command, controller.name, tracks.info.frame) for command in commands or ()]
            if len(prepared) > MOST_A_FRAME:
                raise ValueError(
                    f"{len(prepared)} commands for one frame; at most {MOST_A_FRAME} are allowed"
                )
            for command in prepared:
                self._send(command, tracks)
            for note in self._record.frame(tracks, self._channel.gauges.get("heartbeat_ms", math.nan)):
                self._report(note)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a user's code may raise anything, and leave
            self._give_up(f"failed on frame {tracks.info.frame}: {where_it_failed(error)}", error)
            return
        self._heartbeat(tracks.info.frame, controller.name)

    def _heartbeat(self, frame: int, sender: str) -> None:
        if self._beats:
            self._channel.heartbeat(frame, sender)

    def _send(self, command: Command, tracks: Tracks) -> None:
        if self._held and command.kind not in FOR_NO_DEVICE:
            self._counts["unsent"] += 1
            refusal = CommandReply(
                command.command_id, False, reason=self._held, monotonic_ns=time.perf_counter_ns()
            )
            self._acknowledge(self._controller, refusal)
            return
        try:
            now_ns = self._channel.send(command, self._controller)
        except LinkError as error:
            self._counts["unsent"] += 1
            self._report_often(f"{command.kind} of frame {command.decided_on_frame} was not sent", str(error))
            return
        self._counts["sent"] += 1
        self._gauges["latency_ms"] = (now_ns - tracks.info.monotonic_ns) / 1e6
        self._record.sent(command, tracks, now_ns)

    def _take_replies(self) -> None:
        for answer in self._channel.answers():
            reply, sender = answer.reply, answer.sender
            if answer.is_heartbeat:
                self._hold(reply.reason)
                continue
            self._counts["accepted" if reply.accepted else "refused"] += 1
            self._record.answered(reply)
            if sender is None or sender is not self._controller:
                continue
            if reply.reason.startswith(MADE_SAFE):
                self._hold(reply.reason)
            elif not reply.accepted and not answer.is_for_device:
                self._report_often(f"no event for {sender.name}", reply.reason)
            elif reply.reason.startswith(NO_EFFECT):
                self._tell_of_no_effect(sender.name, reply.reason)
            elif not reply.accepted:
                self._refused(sender.name, reply.reason)
            self._acknowledge(sender, reply)
        for asking, why in self._channel.refusals():
            self._report(f"{asking}: no event: {why}")

    def _tell_of_no_effect(self, name: str, why: str) -> None:
        if not self._told_of_no_effect:
            self._told_of_no_effect = True
            self._report(f"the commands of {name} are {why}; they are kept with the trajectories")

    def _hold(self, reason: str) -> None:
        """Note that the hardware was made safe and stays so (`reason` says why), or that this has ended."""
        before, self._held = self._held, reason if reason.startswith(MADE_SAFE) else ""
        if self._held and not before and self._controller is not None and not self.failure:
            self._report(f"the controller's commands are not sent: {self._held}")
        if before and not self._held:
            self._call(getattr(self._controller, "released", None), "when it was released")

    def _acknowledge(self, controller: Controller | None, reply: CommandReply) -> None:
        if reply.reason.startswith(MADE_SAFE) and hasattr(controller, "released"):
            return  # `released` is called when the safe state ends
        self._call(getattr(controller, "acknowledged", None), "on an acknowledgement", reply)

    def _call(self, method: Callable[..., None] | None, when: str, *facts: CommandReply | LiveFlow) -> None:
        if method is None or self.failure:
            return
        try:
            method(*facts)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - as for update
            self._give_up(f"failed {when}: {where_it_failed(error)}", error)

    def _refused(self, sender: str, reason: str) -> None:
        self._report_often(f"the microscope refused a command of {sender}", reason)
        now_s = time.monotonic()
        self._refusals.append(now_s)
        while now_s - self._refusals[0] > REFUSALS_S:
            self._refusals.popleft()
        if len(self._refusals) >= REFUSALS and not self.failure:
            self._give_up(f"floods the microscope: {REFUSALS} commands refused in {REFUSALS_S:g} s", None)

    def _give_up(self, why: str, error: BaseException | None) -> None:
        self._counts["controller_errors"] += 1
        self.failure = f"controller {getattr(self._controller, 'name', '')} {why}"
        self._beats = False
        trace = "" if error is None else f"\n{whole_traceback(error)}"
        self._report(f"{self.failure}; the run continues without it and the hardware is made safe{trace}")
        self._record.failed(self.failure + trace)
        try:
            self._channel.send(Command(CommandKind.MAKE_SAFE, self.failure, sender="control"))
        except LinkError as unsent:
            self._report(
                f"the command for the safe state was not sent ({unsent}); the watchdog will make the hardware safe"
            )

    def _drain(self) -> bool:
        if self._channel.waiting and time.monotonic() < self._drained_s:
            time.sleep(DRAIN_POLL_S)
            return True
        self._state = StageState.DONE
        return False

    def counts(self) -> dict[str, int]:
        """Frames `received`; commands `sent`, `accepted`, `refused`, `unsent`; `controller_errors`.

        With conditions also how often they have `events_asked`.
        """
        return dict(self._counts)

    def gauges(self) -> dict[str, float]:
        """Times and states by name.

        `latency_ms` is the time from exposure to the last command, `ack_ms` from there to its reply,
        `heartbeat_ms` the round trip of the last heartbeat; `queue` is the number of outstanding replies.
        `controller_on` says whether there is a controller, `controller_works` whether it has not failed;
        `measured_NAME` is what it measured last.
        """
        measured = {} if self.failure else self._record.last
        return (
            self._gauges
            | self._channel.gauges
            | {f"measured_{name}": value for name, value in measured.items()}
            | {
                "queue": float(self._channel.waiting),
                "controller_on": float(self._controller is not None),
                "controller_works": float(not self.failure),
            }
        )

    def close(self) -> None:
        """Close the message link and the command channel, and end the fit. Idempotent."""
        self._flow.close()
        self._receiver.close()
        self._channel.close()
