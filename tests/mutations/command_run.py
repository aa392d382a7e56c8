"""Runs a command in this process as a user would, and keeps what it left on the screen."""

import contextlib
import io
import logging
import re
import tracemalloc
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest import mock

import typer

from liveptv.cli import main as command_line

try:
    import resource
except ImportError:  # Windows
    resource = None

MOST_LINES = 3
"""More warnings than this are no longer read."""
MOST_BYTES = 80 << 20
"""Beyond this a reader believes what a file of 200 kB claims of its sizes; the largest table here has 10 MB."""
MOST_ASKED = 1 << 30
"""Address space that one command may ask for on top of what the process has."""
PROGRAMMERS_WORDS = r"NoneType|IndexError|KeyError|ValueError|has no attribute|out of range|not subscriptable"
"""No user can do anything with these."""


class UnacceptableError(Exception):
    """Why a reading is not acceptable."""


@dataclass
class Said:
    """What one command left: its exit status, what it printed, and how many lines were warnings."""

    status: int
    out: str
    err: str
    warned: list[str]
    peak_bytes: int = 0

    @property
    def error(self) -> str:
        """The lines of error."""
        return "\n".join(line for line in self.err.splitlines() if line.startswith("error:"))


@cache
def _built():
    """The tree of commands, which takes longer to build than most commands run."""
    app = command_line.app  # built already where tests of `tests/liveptv` ran before in this process
    return typer.main.get_command(app) if isinstance(app, typer.Typer) else app


@contextlib.contextmanager
def no_more_memory():
    """A reader that asks for more than `MOST_ASKED` fails at once instead of taking the machine with it."""
    if resource is None or not Path("/proc/self/statm").exists():
        yield
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + MOST_ASKED
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def command(*arguments: object, bound: bool = False, measure: bool = False) -> Said:
    """Run one command in this process; `bound` limits the memory it may ask for, `measure` counts it."""
    out, err = io.StringIO(), io.StringIO()
    log = _Log()
    root = logging.getLogger()
    root.addHandler(log)
    if measure:
        tracemalloc.start(1)
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch.object(command_line, "app", _built()),
            no_more_memory() if bound else contextlib.nullcontext(),
            warnings.catch_warnings(record=True) as raised,
        ):
            warnings.simplefilter("always")
            warnings.simplefilter("ignore", ResourceWarning)
            try:
                status = command_line.run_command_line([str(argument) for argument in arguments])
            except BaseException as error:
                raise UnacceptableError(
                    f"{arguments[0]}: traceback, {type(error).__name__}: {' '.join(str(error).split())[:200]}"
                ) from error
        peak = tracemalloc.get_traced_memory()[1] if measure else 0
    finally:
        if measure:
            tracemalloc.stop()
        root.removeHandler(log)
    return Said(status, out.getvalue(), err.getvalue(), [*log.lines, *(str(w.message) for w in raised)], peak)


class _Log(logging.Handler):
    """Log records are lines on the user's screen."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def check_no_traceback(said: Said) -> None:
    """No traceback, no flood of lines; after a failure one line of error and the status that goes with it."""
    text = said.out + said.err
    if "Traceback (most recent call last)" in text:
        raise UnacceptableError(f"a traceback on the screen: {text[-300:]}")
    if len(said.warned) > MOST_LINES:
        raise UnacceptableError(f"{len(said.warned)} warnings, as: {said.warned[0][:150]}")
    if said.status == 0:
        if len(said.err.splitlines()) > MOST_LINES:
            raise UnacceptableError(
                f"{len(said.err.splitlines())} lines on the error stream: {said.err[:300]}"
            )
        return
    if said.status not in {1, 2}:
        raise UnacceptableError(f"exit status {said.status}")
    errors = [line for line in said.err.splitlines() if line.startswith("error:")]
    if len(errors) != 1:
        raise UnacceptableError(f"{len(errors)} lines of error: {text[-400:]}")


def check_screen(said: Said, path: Path) -> None:
    """No traceback; after a failure a line of error that names the file in a user's words."""
    check_no_traceback(said)
    if said.status == 0:
        return
    errors = said.error.splitlines()
    names = {part for part in (path.name.partition("::")[0], path.parent.name, path.name) if part}
    if not any(name in errors[0] for name in names):
        raise UnacceptableError(f"the error does not name the file: {errors[0]}")
    if re.search(PROGRAMMERS_WORDS, errors[0]):
        raise UnacceptableError(f"the error is a programmer's: {errors[0]}")


def check_memory(said: Said) -> None:
    """No more memory than a file of this size can need."""
    if said.peak_bytes > MOST_BYTES:
        raise UnacceptableError(f"{said.peak_bytes >> 20} MB of memory asked for")
