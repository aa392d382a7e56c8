"""Sends commands, heartbeats and releases to the acquisition, and matches its replies to them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from stream.errors import LinkError
from stream.messages import Command, CommandKind, CommandReply
from tracking.control.controllers import Controller

HEARTBEAT_S = 0.25
"""Shortest time between two heartbeats, s. The watchdog waits 5 s by default, so that twenty of them must fail
before it acts; one for every frame would only be more traffic."""


class CommandClient(Protocol):
    """What the control stage needs of `stream.commands.CommandClient`."""

    def send(self, command: Command) -> None:
        """Send without waiting for the reply."""
        ...

    def replies(self) -> list[CommandReply]:
        """Return the replies that have come."""
        ...

    def close(self) -> None:
        """Release the socket."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply to a heartbeat, or to a command of `sender`; None: of the stage itself, or not known.

    `is_for_device`: the command was one for the microscope, not a request for a recording.
    """

    reply: CommandReply
    is_heartbeat: bool
    sender: Controller | None
    is_for_device: bool = True


class CommandChannel:
    """Remembers what was sent until the reply comes; `gauges` are the last times to a reply.

    `ack_ms` is that of a command, `heartbeat_ms` that of a heartbeat. `waiting` commands have no reply yet.
    """

    def __init__(self, client: CommandClient) -> None:
        self._client = client
        self._commands: dict[str, tuple[int, Controller | None]] = {}
        self._requests: set[str] = set()
        self._heartbeats: dict[str, int] = {}
        self._releases: set[str] = set()
        self._asked: dict[str, str] = {}
        self._heartbeat_due_s = 0.0
        self._refusals: list[tuple[str, str]] = []
        self._refused: set[str] = set()
        self.gauges: dict[str, float] = {}

    @property
    def waiting(self) -> int:
        """Commands whose reply has not come."""
        return len(self._commands)

    @property
    def expects_replies(self) -> bool:
        """Whether a reply to a command or a heartbeat is still to come."""
        return bool(self._commands or self._heartbeats)

    def send(self, command: Command, sender: Controller | None = None) -> int:
        """Send a command; returns when (`time.perf_counter_ns`). Raises `LinkError` if nobody is connected."""
        now_ns = time.perf_counter_ns()
        self._client.send(command)
        self._commands[command.command_id] = now_ns, sender
        if command.kind is CommandKind.RECORD:
            self._requests.add(command.command_id)
        return now_ns

    def heartbeat(self, frame: int, sender: str) -> None:
        """Report that results up to `frame` are live, at most every `HEARTBEAT_S`."""
        now_s = time.monotonic()
        if now_s < self._heartbeat_due_s:
            return
        self._heartbeat_due_s = now_s + HEARTBEAT_S
        sent_ns = time.perf_counter_ns()
        command = Command(CommandKind.HEARTBEAT, decided_on_frame=frame, sender=sender)
        try:
            self._client.send(command)
        except LinkError:
            return  # nobody is connected: the watchdog there makes the hardware safe
        self._heartbeats[command.command_id] = sent_ns

    def release(self, sender: str) -> None:
        """Report that `sender` has switched a controller on, which ends a safe state. Raises `LinkError`."""
        command = Command(CommandKind.CONTROL, sender=sender)
        self._client.send(command)
        self._releases.add(command.command_id)

    def ask(self, command: Command) -> None:
        """Send a request of a condition to the recorder, which does not count as a command. Raises `LinkError`."""
        self._client.send(command)
        self._asked[command.command_id] = command.sender

    def refusals(self) -> list[tuple[str, str]]:
        """Which conditions had a request refused for the first time since one was accepted: sender, and why."""
        refusals, self._refusals = self._refusals, []
        return refusals

    def answers(self) -> Iterator[Answer]:
        """The replies that have come to commands and heartbeats."""
        for reply in self._client.replies():
            now_ns = time.perf_counter_ns()
            beat_ns = self._heartbeats.pop(reply.command_id, None)
            if beat_ns is not None:
                self.gauges["heartbeat_ms"] = (now_ns - beat_ns) / 1e6
                yield Answer(reply, True, None)
                continue
            if (asking := self._asked.pop(reply.command_id, None)) is not None:
                if not reply.accepted and asking not in self._refused:
                    self._refusals.append((asking, reply.reason))
                (self._refused.discard if reply.accepted else self._refused.add)(asking)
                continue
            if reply.command_id in self._releases:
                self._releases.discard(reply.command_id)
                continue
            sent_ns, sender = self._commands.pop(reply.command_id, (None, None))
            if sent_ns is not None:
                self.gauges["ack_ms"] = (now_ns - sent_ns) / 1e6
            is_request = reply.command_id in self._requests
            self._requests.discard(reply.command_id)
            yield Answer(reply, False, sender, not is_request)

    def close(self) -> None:
        """Release the socket. Idempotent."""
        self._client.close()
