"""The terminal: normal output, errors, and the progress line of a run."""

from __future__ import annotations

import math
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from stream.safe_text import printable

if TYPE_CHECKING:
    from liveptv.session.run_status import Progress


class PlainConsole(Console):
    """A console that replaces escape sequences, so that no message or file name can act on the terminal."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Render a text that may come from anywhere."""
        return super().render_str(printable(text), **options)


console = PlainConsole(highlight=False)
errors = PlainConsole(stderr=True, highlight=False)

PLAIN_PERIOD_S = 5.0
REFRESH_HZ = 8.0


class LiveLine:
    """Shows a run's progress: one moving line on a terminal.

    Elsewhere it is a line whenever the start does something else, and one every few seconds while the run is on.
    """

    def __init__(self) -> None:
        self._live = Live(Text(""), console=console, refresh_per_second=REFRESH_HZ, transient=True)
        self._moving = console.is_terminal and not console.is_dumb_terminal
        self._due_s = 0.0
        self._stage = ""

    def show(self, progress: Progress) -> None:
        """Show the progress of the run."""
        text = describe(progress)
        if self._moving:
            self._live.update(Text(printable(text), overflow="ellipsis", no_wrap=True))
            return
        now_s = time.monotonic()
        starting = progress.running_s == 0.0
        stage = progress.stopping or progress.stage.split(" ", maxsplit=1)[0]
        if stage != self._stage or (now_s >= self._due_s and not starting):
            self._due_s, self._stage = now_s + PLAIN_PERIOD_S, stage
            console.print(escape(text), soft_wrap=True)

    def note(self, text: str) -> None:
        """Print a warning above the line."""
        warn(text)

    def __enter__(self) -> Self:
        if self._moving:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._moving:
            self._live.stop()


def warn(text: str) -> None:
    """Print a warning."""
    console.print(f"[yellow]{escape(text)}[/]", soft_wrap=True)


def describe(progress: Progress) -> str:
    """A run's progress in one line; what is out of the ordinary comes first, as a narrow terminal cuts the end."""
    if progress.running_s == 0.0:
        return progress.stage
    of = f"/{progress.frames_expected}" if progress.frames_expected else ""
    stopping = f"stopping: {progress.stopping}" if progress.stopping else ""
    paused = "paused" if progress.paused and not stopping else ""
    parts = [
        f"{progress.running_s:5.1f} s",
        *(note for note in (stopping, paused, progress.late) if note),
        f"{progress.unit} {progress.frames}{of}",
        f"{_number(progress.frames_per_s, '.1f')} {progress.unit}s/s",
        f"queue {_number(progress.queue, '.0f')}",
        f"lost {progress.lost}",
        f"particles {_number(progress.particles, '.0f')}",
        f"tracks {_number(progress.tracks, '.0f')}",
        f"latency {_number(progress.latency_ms, '.0f')} ms",
    ]
    return "  ".join(parts)


def _number(value: float, how: str) -> str:
    return format(value, how) if math.isfinite(value) else "-"
