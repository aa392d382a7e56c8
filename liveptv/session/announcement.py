"""Announces a run to viewers and takes their commands.

Viewers find the run by its card (`liveptv.session.run_card`) and get the statuses of all stages. Each `Command` of
a viewer goes where it belongs: a mark into the event log, a stop to the session (as Ctrl-C), another controller to
the control stage, a request to keep frames to the record stage, everything else to the acquisition, which keeps it
within the limits. Each command and its answer is in the event log (kind `wish`).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from liveptv.config import Experiment
from liveptv.session.events import EventLog
from liveptv.session.plan import RECORD_REQUESTS, ImageFormat
from liveptv.session.run_card import RunCard, cards_folder, write_card
from stream.commands import CommandClient, CommandServer, Request
from stream.errors import LinkError, WireError
from stream.messages import Command, CommandKind, CommandReply, Status
from stream.monitor import MonitorPublisher
from stream.run_keys import RunKeys
from stream.safe_text import one_line

LOOPBACK = "tcp://127.0.0.1:0"
NOT_RECORDED = "this run records no images; set record.mode to events or all"
RECORDER_GONE = "the recorder of this run was lost; images are not kept any more"
NOTE_LENGTH = 500  # characters kept of a text that a viewer sent; a note is a sentence or two


class Announcement:
    """Publishes statuses, takes commands, keeps the card. All methods are called in the session's thread."""

    def __init__(
        self,
        run_id: str,
        experiment: Experiment,
        events: EventLog,
        on_stop: Callable[[str], None],
        keys: RunKeys,
        on_make_safe: Callable[[str], None] = lambda _why: None,
    ) -> None:
        """`on_make_safe` is called at once; the command is passed on and answered as well."""
        self._keys = keys
        self._events = events
        self._on_stop = on_stop
        self._on_make_safe = on_make_safe
        self._controllable = experiment.can_be_controlled
        self._publisher = MonitorPublisher(
            LOOPBACK, run_id=run_id, source="liveptv/session", security=keys.password
        )
        self._server = CommandServer(LOOPBACK, keys.curve)
        self._client: CommandClient | None = None
        self._control: CommandClient | None = None
        self._recorder: CommandClient | None = None
        self._records = experiment.record.mode != "off"
        self._waiting: dict[str, Request] = {}
        self._asked: dict[str, Command] = {}
        self._refused: set[str] = set()
        self._record_lost = False
        self._path = cards_folder() / f"{run_id}.json"
        self.card = RunCard(
            run_id=run_id,
            pid=os.getpid(),
            began_s=time.time(),
            output=str(experiment.run.output.absolute()),
            events=str(events.path.absolute()),
            session=self._publisher.address,
            commands=self._server.address,
            configuration=experiment.resolved(),
            steering=keys.commander,
            listening=keys.viewer_of_bulk,
            watching=keys.viewer_of_monitor(experiment.session.monitor),
        )
        self._keep()

    @property
    def path(self) -> Path:
        """The card's file."""
        return self._path

    def introduce(self, bound: dict[str, str], image_format: ImageFormat | None) -> None:
        """Add to the card the addresses that have been bound meanwhile, by `stage.name`."""
        if self._client is None and "acquire.commands" in bound:
            self._client = CommandClient(bound["acquire.commands"], self._keys.curve)
        if self._control is None and "control.requests" in bound:
            self._control = CommandClient(bound["control.requests"], self._keys.curve)
        if self._recorder is None and RECORD_REQUESTS in bound:
            self._recorder = CommandClient(bound[RECORD_REQUESTS], self._keys.curve)
        known: dict[str, Any] = {
            "detect": bound.get("detect.monitor", ""),
            "track": bound.get("track.monitor", ""),
        }
        if image_format is not None:
            known |= {
                "image_shape": (image_format.height, image_format.width),
                "pixel_size_um": image_format.pixel_size_um,
                "frame_rate_hz": image_format.frame_rate_hz,
            }
        card = msgspec.structs.replace(self.card, **known)
        if card != self.card:
            self.card = card
            self._keep()

    def _keep(self) -> None:
        """Write the card. A run that cannot be announced continues, with a note in its event log."""
        try:
            write_card(self._path, self.card)
        except (OSError, ValueError) as error:
            self._events.write("note", f"the run is not announced to viewers: {error}")

    def publish(self, status: Status) -> None:
        """Pass a stage's status on to viewers."""
        self._publisher.publish(status)

    def poll(self) -> None:
        """Handle the commands that have arrived and the answers to earlier ones."""
        for request in self._server.poll():
            try:
                self._take(request)
            except Exception as error:  # noqa: BLE001 - no command of a viewer may end the run
                self._refuse(request, f"the command failed: {one_line(str(error), NOTE_LENGTH)}")
        for client in self._clients:
            for ack in client.replies() if client is not None else ():
                answered = self._waiting.pop(ack.command_id, None)
                asked = self._asked.pop(ack.command_id, None)
                if answered is not None:
                    self._answer(answered, ack)
                elif asked is not None:
                    self._note_refusal(asked, ack)

    def _take(self, request: Request) -> None:
        command = request.command
        if command.kind is CommandKind.MARK:
            text = _note(command) or "mark"
            self._events.write("mark", text, sender=command.sender)
            request.reply(_ack(command))
        elif command.kind is CommandKind.STOP:
            self._answer(request, _ack(command))
            self._on_stop(_note(command) or f"stopped by {one_line(command.sender) or 'a viewer'}")
        else:
            if command.kind is CommandKind.MAKE_SAFE:
                self._on_make_safe(_note(command) or f"requested by {one_line(command.sender) or 'a viewer'}")
            self._pass_on(request, self._carried_out_by(command.kind))

    @property
    def _clients(self) -> tuple[CommandClient | None, ...]:
        return self._client, self._control, self._recorder

    def _carried_out_by(self, kind: CommandKind) -> CommandClient | None:
        if kind is CommandKind.CONTROL:
            return self._control if self._controllable else None
        return self._recorder if kind is CommandKind.RECORD else self._client

    def ask_recorder(self, command: Command) -> None:
        """Send a request of the session itself; its answer is in the event log if it is a refusal."""
        if self._recorder is None or self._record_lost:
            return
        try:
            self._recorder.send(command)
        except (LinkError, WireError) as error:
            self._events.write("note", f"{command.sender} could not ask for an event: {error}")
        else:
            self._asked[command.command_id] = command

    def _note_refusal(self, asked: Command, ack: CommandReply) -> None:
        """Note that a request of the session was refused: the first one since one was accepted."""
        if not ack.accepted and asked.sender not in self._refused:
            self._events.write("note", f"{asked.sender}: no event: {ack.reason}")
        (self._refused.discard if ack.accepted else self._refused.add)(asked.sender)

    def record_lost(self) -> None:
        """The record stage is gone: nobody answers requests any more."""
        self._record_lost = True
        for request in [r for r in self._waiting.values() if r.command.kind is CommandKind.RECORD]:
            del self._waiting[request.command.command_id]
            self._answer(request, _ack(request.command, RECORDER_GONE))

    def _pass_on(self, request: Request, client: CommandClient | None) -> None:
        command = request.command
        if command.kind is CommandKind.RECORD and (not self._records or self._record_lost):
            self._answer(request, _ack(command, RECORDER_GONE if self._records else NOT_RECORDED))
            return
        if client is None:
            why = "the microscope is not ready yet; try again in a moment"
            if command.kind is CommandKind.CONTROL and not self._controllable:
                why = "a recording cannot be steered"
            self._answer(request, _ack(command, why))
            return
        try:
            client.send(command)
        except (LinkError, WireError) as error:
            self._answer(request, _ack(command, str(error)))
        else:
            self._waiting[command.command_id] = request

    def _refuse(self, request: Request, why: str) -> None:
        self._events.write("note", f"a command of a viewer failed: {why}")
        with contextlib.suppress(LinkError):  # it may have been answered before it failed
            request.reply(_ack(request.command, why))

    def _answer(self, request: Request, ack: CommandReply) -> None:
        command = request.command
        outcome = f"refused: {ack.reason}" if not ack.accepted else "done"
        if ack.accepted and ack.first_frame >= 0:
            is_record = command.kind is CommandKind.RECORD
            outcome = f"{'kept' if is_record else 'shows'} from frame {ack.first_frame} on"
        text = f"{one_line(command.sender) or 'a viewer'}: {_in_words(command)}: {outcome}"
        self._events.write("wish", text, command=str(command.kind), accepted=ack.accepted)
        request.reply(ack)

    def close(self) -> None:
        """Remove the card and close the sockets. Idempotent."""
        with contextlib.suppress(OSError):  # viewers see that a card is stale: its process has ended
            self._path.unlink(missing_ok=True)
        for request in self._waiting.values():
            request.reply(_ack(request.command, "the run is over"))
        self._waiting.clear()
        self._publisher.close()
        self._server.close()
        for client in self._clients:
            if client is not None:
                client.close()


def _ack(command: Command, why_not: str = "") -> CommandReply:
    return CommandReply(command.command_id, not why_not, reason=why_not, monotonic_ns=time.perf_counter_ns())


def _in_words(command: Command) -> str:
    if command.kind is CommandKind.RECORD:
        why = _note(command) if isinstance(command.value, str) else one_line(command.property, NOTE_LENGTH)
        after = "" if isinstance(command.value, str | None) else f" and {command.value:g} s after it"
        return f"record{after}" + (f" ({why})" if why else "")
    if command.kind is not CommandKind.CONTROL:
        return f"{command.kind}" + ("" if command.value is None else f" {_note(command)}")
    try:
        wanted = msgspec.json.decode(str(command.value or "{}"), type=dict[str, Any])
    except msgspec.MsgspecError:
        return str(command.kind)
    return f"controller {one_line(', '.join(wanted), NOTE_LENGTH)} on" if wanted else "controller off"


def _note(command: Command) -> str:
    """The text of a command in one line, at most `NOTE_LENGTH` characters."""
    return one_line("" if command.value is None else str(command.value), NOTE_LENGTH)
