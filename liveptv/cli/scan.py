"""The command `scan`: records a focus scan, with a progress bar and questions at the terminal."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Self

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from liveptv.cli.console import PLAIN_PERIOD_S, console
from liveptv.cli.exiting import exiting
from liveptv.cli.options import Overwrite, Settings

if TYPE_CHECKING:
    from acquisition.scan.zscan import ScanProgress


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(rich_help_panel="Calibration")(exiting(scan))


def scan(
    experiment: Annotated[Path, typer.Argument(help=r"experiment file (.toml) with a \[scan] section")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="file for the scan: NAME.ome.tif or NAME.ome.zarr")
    ],
    bright: Annotated[bool, typer.Option("--bright", help="take the bright reference")] = False,
    dark: Annotated[bool, typer.Option("--dark", help="take the dark reference")] = False,
    no_references: Annotated[bool, typer.Option("--no-references", help="take no references")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="continue an unfinished scan")] = False,
    settings: Settings = None,
    overwrite: Overwrite = False,
) -> int:
    """Record a focus scan for a calibration."""
    from acquisition.scan.paths import ScanPaths
    from liveptv.config import load_experiment
    from liveptv.workflows.scan import run_scan
    from stream.errors import ConfigurationError

    chosen = [kind for kind, wanted in (("bright", bright), ("dark", dark)) if wanted]
    if chosen and no_references:
        raise ConfigurationError("--no-references contradicts --bright and --dark; leave one out")
    loaded = load_experiment(experiment, settings or [])
    with _ScanLine() as line:
        outcome = run_scan(
            loaded,
            ScanPaths(output),
            references=[] if no_references else chosen or None,
            resume=resume,
            overwrite=overwrite,
            ask=line.ask if sys.stdin is not None and sys.stdin.isatty() else None,
            on_progress=line.show,
            on_note=line.note,
        )
    rows = [("scan", str(outcome.paths.whole)), *(("reference", str(path)) for path in outcome.references)]
    if outcome.planes:
        retaken = f", {outcome.retaken} retaken" if outcome.retaken else ""
        rows.insert(0, ("planes", f"{outcome.planes} in {outcome.seconds:.1f} s{retaken}"))
    for name, value in rows:
        console.print(f"[dim]{name:>9}[/]  {escape(value)}", soft_wrap=True)
    return 0


class _ScanLine:
    """A progress bar with the time left on a terminal, a plain line every few seconds elsewhere."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("scanning", total=None)
        self._due_s = time.monotonic() + PLAIN_PERIOD_S

    def show(self, progress: ScanProgress) -> None:
        """Show the progress of the scan."""
        retaken = f", {progress.retaken} retaken" if progress.retaken else ""
        text = f"{progress.focus_um:.2f} um{retaken}"
        self._bar.update(self._task, completed=progress.planes, total=progress.of, description=text)
        if console.is_terminal or time.monotonic() < self._due_s:
            return
        self._due_s = time.monotonic() + PLAIN_PERIOD_S
        left_s = self._bar.tasks[0].time_remaining
        left = "" if left_s is None else f", {left_s:.0f} s left"
        console.print(f"plane {progress.planes}/{progress.of}, {text}{left}", soft_wrap=True)

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        console.print(escape(text), soft_wrap=True)

    def ask(self, question: str) -> bool:
        """Ask; only Enter agrees. Ctrl-C ends a question at once (a scan would only take note of it)."""
        from acquisition.scan.plane import ScanStoppedError

        self._bar.stop()
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            answer = console.input(
                f"{escape(question)}\nPress Enter when ready, or type s and Enter to skip: "
            )
        except EOFError:
            return False
        except KeyboardInterrupt:
            raise ScanStoppedError("stopped by the user") from None
        finally:
            signal.signal(signal.SIGINT, before)
        return not answer.strip()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
