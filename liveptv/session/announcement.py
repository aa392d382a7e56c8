"""The run's front to people: where viewers find it, what they are told, and the wishes they send.

A card, a small file that only the user can read, names the addresses of a run while it is on, and its secrets.
Statuses of all stages are published there, lossy. Wishes are `Command`s: a mark goes into the event log, a stop
ends the run as Ctrl-C does, another controller is the control stage's to give, everything else goes to the
acquisition with its limits. Each wish and its answer is in the event log.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import platformdirs

from liveptv.config import Experiment
from liveptv.session.events import EventLog
from liveptv.session.plan import Picture
from stream.commands import CommandClient, CommandServer, Request
from stream.errors import LinkError, SourceError, WireError
from stream.messages import Command, CommandKind, CommandReply, Status
from stream.monitor import MonitorPublisher
from stream.run_keys import Pass, RunKeys
from stream.safe_text import json_bytes, one_line

LOOPBACK = "tcp://127.0.0.1:0"
NOTE_LENGTH = 500
LARGEST_CARD = 1 << 24


class RunCard(msgspec.Struct, frozen=True):
    """What a viewer must know of a run, secrets included. Addresses that are not bound yet are empty.

    `steering` opens `wishes`, `listening` opens `session` and `track`, `watching` opens `detect`.
    """

    run_id: str
    pid: int
    began_s: float
    output: str
    events: str
    session: str
    wishes: str
    detect: str = ""
    track: str = ""
    configuration: dict[str, Any] = {}
    image_shape: tuple[int, int] | None = None
    pixel_size_um: float = 1.0
    frame_rate_hz: float | None = None
    steering: Pass = Pass()
    listening: Pass = Pass()
    watching: Pass = Pass()

    @property
    def complete(self) -> bool:
        """Whether everything is on it: what can be subscribed to, and what the images look like."""
        return bool(self.detect and self.track and self.image_shape)


def cards_folder() -> Path:
    """Where the cards of the runs on this computer lie."""
    return Path(os.environ.get("LIVEPTV_RUNS") or platformdirs.user_state_path("liveptv") / "runs")


def read_card(path: Path) -> RunCard:
    """Read a card; raises `SourceError` if there is none, it is not one, or another user has put it there."""
    try:
        with path.open("rb") as file:
            owner = os.fstat(file.fileno()).st_uid
            card = msgspec.json.decode(file.read(LARGEST_CARD + 1), type=RunCard)
    except OSError as error:
        raise SourceError(f"no run is announced at {path}; is it over?") from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise SourceError(f"{path} does not announce a run: {error}") from error
    if hasattr(os, "geteuid") and os.geteuid() not in (owner, 0):
        raise SourceError(f"{path} belongs to another user; only your own runs are watched")
    return card


def write_card(path: Path, card: RunCard) -> None:
    """Write a card that nobody but its owner can read, at any moment; raises `OSError`.

    On Windows the user's profile is closed to others by itself.
    """
    folder = path.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if "LIVEPTV_RUNS" not in os.environ:
        folder.chmod(0o700)
    part = path.with_name(f"{path.stem}.{secrets.token_hex(8)}.part")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
            file.write(json_bytes(card))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


class Front:
    """Publishes statuses, takes wishes, keeps the card. All methods belong to the session's thread."""

    def __init__(
        self,
        run_id: str,
        experiment: Experiment,
        events: EventLog,
        on_stop: Callable[[str], None],
        keys: RunKeys,
        on_make_safe: Callable[[str], None] = lambda _why: None,
    ) -> None:
        """`on_make_safe` is told at once, besides the command that goes its way and is answered."""
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
        self._waiting: dict[str, Request] = {}
        self._path = cards_folder() / f"{run_id}.json"
        self.card = RunCard(
            run_id=run_id,
            pid=os.getpid(),
            began_s=time.time(),
            output=str(experiment.run.output.absolute()),
            events=str(events.path.absolute()),
            session=self._publisher.address,
            wishes=self._server.address,
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

    def introduce(self, bound: dict[str, str], picture: Picture | None) -> None:
        """Put on the card what has been bound meanwhile, by `stage.name`."""
        if self._client is None and "acquire.commands" in bound:
            self._client = CommandClient(bound["acquire.commands"], self._keys.curve)
        if self._control is None and "control.requests" in bound:
            self._control = CommandClient(bound["control.requests"], self._keys.curve)
        known: dict[str, Any] = {
            "detect": bound.get("detect.monitor", ""),
            "track": bound.get("track.monitor", ""),
        }
        if picture is not None:
            known |= {
                "image_shape": (picture.height, picture.width),
                "pixel_size_um": picture.pixel_size_um,
                "frame_rate_hz": picture.frame_rate_hz,
            }
        card = msgspec.structs.replace(self.card, **known)
        if card != self.card:
            self.card = card
            self._keep()

    def _keep(self) -> None:
        """Write the card; a run that cannot be announced goes on, and says so in its event log."""
        try:
            write_card(self._path, self.card)
        except (OSError, ValueError) as error:
            self._events.write("note", f"the run is not announced to viewers: {error}")

    def publish(self, status: Status) -> None:
        """Pass a stage's status on to viewers."""
        self._publisher.publish(status)

    def poll(self) -> None:
        """Look after the wishes that have come and the answers to earlier ones."""
        for request in self._server.poll():
            try:
                self._take(request)
            except Exception as error:  # noqa: BLE001 - whatever a viewer asks for, the run goes on and it is told
                self._refuse(request, f"this could not be done: {one_line(str(error), NOTE_LENGTH)}")
        for client in (self._client, self._control):
            for ack in client.replies() if client is not None else ():
                answered = self._waiting.pop(ack.command_id, None)
                if answered is not None:
                    self._answer(answered, ack)

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
                self._on_make_safe(_note(command) or f"asked for by {one_line(command.sender) or 'a viewer'}")
            self._pass_on(request, self._control if command.kind is CommandKind.CONTROL else self._client)

    def _pass_on(self, request: Request, client: CommandClient | None) -> None:
        command = request.command
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
            outcome = f"shows from frame {ack.first_frame} on"
        text = f"{one_line(command.sender) or 'a viewer'}: {_in_words(command)}: {outcome}"
        self._events.write("wish", text, command=str(command.kind), accepted=ack.accepted)
        request.reply(ack)

    def close(self) -> None:
        """Withdraw the card and close the sockets. Idempotent."""
        with contextlib.suppress(OSError):  # a card that stays is seen to be stale by its process
            self._path.unlink(missing_ok=True)
        for request in self._waiting.values():
            request.reply(_ack(request.command, "the run is over"))
        self._waiting.clear()
        self._publisher.close()
        self._server.close()
        for client in (self._client, self._control):
            if client is not None:
                client.close()


def _ack(command: Command, why_not: str = "") -> CommandReply:
    return CommandReply(command.command_id, not why_not, reason=why_not, monotonic_ns=time.perf_counter_ns())


def _in_words(command: Command) -> str:
    if command.kind is not CommandKind.CONTROL:
        return f"{command.kind}" + ("" if command.value is None else f" {_note(command)}")
    try:
        wanted = msgspec.json.decode(str(command.value or "{}"), type=dict[str, Any])
    except msgspec.MsgspecError:
        return str(command.kind)
    return f"controller {one_line(', '.join(wanted), NOTE_LENGTH)} on" if wanted else "controller off"


def _note(command: Command) -> str:
    """The words of a command in one line, as long as a note may be."""
    return one_line("" if command.value is None else str(command.value), NOTE_LENGTH)
