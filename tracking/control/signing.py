"""What is filled in where tracks go to a controller, and where its commands come back."""

from __future__ import annotations

from dataclasses import replace

from stream.messages import Command, Tracks


def aged(tracks: Tracks, now_ns: int) -> Tracks:
    """The tracks with the age that they have at `now_ns` (`perf_counter_ns`); unchanged if it was not known."""
    info, age_ms = tracks.info, 1e-6 * (now_ns - tracks.info.monotonic_ns)
    return replace(tracks, info=replace(info, age_ms=age_ms)) if age_ms > info.age_ms else tracks


def signed(command: Command, sender: str, frame: int) -> Command:
    """A controller's command, with sender and frame filled in where it names none."""
    if not isinstance(command, Command):
        raise TypeError(f"update must return a list of Command, not {type(command).__name__} in it")
    decided = command.decided_on_frame if command.decided_on_frame >= 0 else frame
    return replace(command, sender=command.sender or sender, decided_on_frame=decided)
