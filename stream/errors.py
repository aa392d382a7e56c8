"""Every error this project raises on purpose is a `LivePTVError`: what happened, to what, and what to do."""

from __future__ import annotations


class LivePTVError(Exception):
    """Base of all deliberate errors; its text is one line fit to show a user."""


class ConfigurationError(LivePTVError, ValueError):
    """A setting is unknown, out of range, or contradicts another."""


class SourceError(LivePTVError, OSError):
    """A microscope or a recording cannot deliver the frames asked for."""


class OutputError(LivePTVError, OSError):
    """A result cannot be written: file exists, no space, no permission."""


class WireError(LivePTVError, ValueError):
    """A message from a socket is not one of ours; it is counted and dropped, never trusted."""


class LinkError(LivePTVError, ConnectionError):
    """A link between two stages cannot be opened or has ended against the rules."""


class NoRoomError(LinkError):
    """A full ring did not get room in time; nothing was offered, the message can be offered again."""


class PeerLostError(LinkError):
    """The other end of a lossless link died, hung, or restarted without its memory."""
