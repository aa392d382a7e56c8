"""Sends commands where they are carried out: the kind record to the recorder, others to the acquisition."""

from __future__ import annotations

from stream.messages import Command, CommandKind, CommandReply
from tracking.control.command_channel import CommandClient


class RoutedCommands:
    """Two clients as one. Without a recorder the acquisition gets all, and says that nothing is recorded."""

    def __init__(self, acquisition: CommandClient, recorder: CommandClient | None) -> None:
        self._acquisition = acquisition
        self._recorder = recorder or acquisition

    def send(self, command: Command) -> None:
        """Send without waiting for the reply."""
        to = self._recorder if command.kind is CommandKind.RECORD else self._acquisition
        to.send(command)

    def replies(self) -> list[CommandReply]:
        """Return the replies that have come, of both."""
        replies = self._acquisition.replies()
        if self._recorder is not self._acquisition:
            replies += self._recorder.replies()
        return replies

    def close(self) -> None:
        """Release the sockets."""
        self._acquisition.close()
        self._recorder.close()
