"""The commands that wait for an answer; each is answered once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Protocol

from stream.commands import Request
from stream.messages import Command, CommandReply, Frame


class Requests(Protocol):
    """Delivers commands; see `stream.commands.CommandServer`."""

    def poll(self) -> list[Request]:
        """Return the commands that have arrived, without waiting."""
        ...


class Executor(Protocol):
    """Carries out commands; see `acquisition.commands.execution.CommandExecutor`."""

    def execute(self, command: Command) -> CommandReply | None:
        """Carry out a command; None if the answer follows with a frame."""
        ...

    def poll(self) -> list[CommandReply]:
        """Answers that do not depend on a frame."""
        ...

    @property
    def is_busy(self) -> bool:
        """Whether `poll` must be called within ms."""
        ...

    def frame_taken(self, frame: Frame) -> list[CommandReply]:
        """Answers to the commands that this frame is the first to show."""
        ...

    def abandon(self) -> list[CommandReply]:
        """Answers to the commands that no frame will show."""
        ...

    def release(self) -> None:
        """Accept commands decided on frames again after the hardware was made safe."""
        ...

    def safe_state(self) -> None:
        """Leave the hardware safe."""
        ...

    def counts(self) -> dict[str, int]:
        """Totals."""
        ...


class OpenRequests:
    """Takes commands from `commands` and answers them; `refused` counts those refused here."""

    def __init__(self, commands: Requests | None) -> None:
        self._commands = commands
        self._open: dict[str, Request] = {}
        self.refused = 0

    def poll(self) -> Iterator[Command]:
        """The commands that have arrived since the last call, without waiting."""
        for request in self._commands.poll() if self._commands is not None else ():
            self._open[request.command.command_id] = request
            yield request.command

    @property
    def waiting(self) -> bool:
        """Whether commands are unanswered."""
        return bool(self._open)

    def accept(self, command: Command, first_frame: int = -1) -> None:
        """Answer that a command was carried out, and the first frame after it."""
        now_ns = time.perf_counter_ns()
        self.answer([CommandReply(command.command_id, True, first_frame, monotonic_ns=now_ns)])

    def refuse(self, command: Command, why_not: str) -> None:
        """Answer that a command is not carried out, and why."""
        self.refused += 1
        now_ns = time.perf_counter_ns()
        self.answer([CommandReply(command.command_id, False, reason=why_not, monotonic_ns=now_ns)])

    def answer(self, replies: list[CommandReply]) -> None:
        """Send replies to the waiting clients."""
        for reply in replies:
            request = self._open.pop(reply.command_id, None)
            if request is not None:
                request.reply(reply)

    def refuse_rest(self, why: str) -> None:
        """Refuse every command that is still unanswered."""
        for request in tuple(self._open.values()):
            self.refuse(request.command, why)
