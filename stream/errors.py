"""Every error this project raises on purpose is a `LivePTVError`: what happened, to what, and what to do."""

from __future__ import annotations


class LivePTVError(Exception):
    """Base of all deliberate errors; its text is one line that can be shown to a user."""


class ConfigurationError(LivePTVError, ValueError):
    """A setting is unknown, out of range, or contradicts another."""


class SourceError(LivePTVError, OSError):
    """A microscope or a recording cannot deliver frames."""


class OutputError(LivePTVError, OSError):
    """A result cannot be written: the file exists, no space, no permission."""


class WireError(LivePTVError, ValueError):
    """A message from a socket is invalid; it is counted and dropped."""


class LinkError(LivePTVError, ConnectionError):
    """A message link cannot be opened or has ended unexpectedly."""


class NoRoomError(LinkError):
    """A full ring had no room in time; nothing was sent, the message can be offered again."""


class PeerLostError(LinkError):
    """The other end of a message link died, hung, or was restarted and has lost its memory."""
