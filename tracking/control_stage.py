"""The control stage: tracks from one link, a controller's commands to the microscope."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from stream.errors import LinkError
from stream.link import Receiver
from stream.messages import Ack, Command, StageState, StreamEnd, Tracks
from tracking.controllers import Controller, where_it_failed

log = logging.getLogger(__name__)

LAST_ACKS_S = 1.0
POLL_S = 0.01


class CommandLink(Protocol):
    """What the stage needs of `stream.commands.CommandClient`."""

    def send(self, command: Command) -> None:
        """Send without waiting for the answer."""
        ...

    def acks(self) -> list[Ack]:
        """Return the answers that have come."""
        ...

    def close(self) -> None:
        """Release the socket."""
        ...


class ControlStage:
    """Hands every frame's tracks to a controller and its commands to the microscope.

    A controller that raises is not asked again: the error, with its place in the user's file, goes to
    `report` (by default the log) and to `failure`, the gauge `controller_works` falls to 0, and the stage
    goes on consuming tracks without sending commands. Limits and watchdog are the acquisition's.
    """

    name = "control"

    def __init__(
        self,
        receiver: Receiver,
        controller: Controller,
        client: CommandLink,
        report: Callable[[str], None] = log.error,
    ) -> None:
        self._receiver = receiver
        self._controller = controller
        self._client = client
        self._report = report
        self._state = StageState.STARTING
        self._waiting: dict[str, int] = {}
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
        if self._state is StageState.DRAINING:
            return self._drain()
        self._state = StageState.RUNNING
        delivery = self._receiver.receive(timeout_s)
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

    def _control(self, tracks: Tracks) -> None:
        if self.failure:
            return
        try:
            commands: Sequence[Command] = self._controller.update(tracks)
            prepared = [self._signed(command, tracks.info.frame) for command in commands or ()]
        except Exception as error:  # noqa: BLE001 - a user's code may raise anything, and must not end the run
            self._give_up(error, f"on frame {tracks.info.frame}")
            return
        for command in prepared:
            self._send(command, tracks.info.monotonic_ns)

    def _signed(self, command: Command, frame: int) -> Command:
        if not isinstance(command, Command):
            raise TypeError(f"update must return a list of Command, not {type(command).__name__} in it")
        decided = command.decided_on_frame if command.decided_on_frame >= 0 else frame
        return replace(command, sender=command.sender or self._controller.name, decided_on_frame=decided)

    def _send(self, command: Command, taken_ns: int) -> None:
        try:
            self._client.send(command)
        except LinkError as error:
            self._counts["unsent"] += 1
            self._report(f"{command.kind} of frame {command.decided_on_frame} was not sent: {error}")
            return
        self._counts["sent"] += 1
        now_ns = time.perf_counter_ns()
        self._waiting[command.command_id] = now_ns
        self._gauges["latency_ms"] = (now_ns - taken_ns) / 1e6

    def _take_acks(self) -> None:
        for ack in self._client.acks():
            sent_ns = self._waiting.pop(ack.command_id, None)
            if sent_ns is not None:
                self._gauges["ack_ms"] = (time.perf_counter_ns() - sent_ns) / 1e6
            self._counts["accepted" if ack.accepted else "refused"] += 1
            if not ack.accepted:
                self._report(f"the microscope refused a command of {self._controller.name}: {ack.reason}")
            acknowledged = getattr(self._controller, "acknowledged", None)
            if acknowledged is None or self.failure:
                continue
            try:
                acknowledged(ack)
            except Exception as error:  # noqa: BLE001 - as for update
                self._give_up(error, "on an acknowledgement")

    def _give_up(self, error: Exception, when: str) -> None:
        self._counts["controller_errors"] += 1
        self.failure = f"controller {self._controller.name} failed {when}: {where_it_failed(error)}"
        self._report(f"{self.failure}; the run goes on without it")

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
        """`latency_ms` from exposure to the last command, `ack_ms` to its answer, answers waited for."""
        return self._gauges | {
            "queue": float(len(self._waiting)),
            "controller_works": float(not self.failure),
        }

    def close(self) -> None:
        """Close the link and the command channel. Idempotent."""
        self._receiver.close()
        self._client.close()
