"""Where a reader meets the libraries that open files for it: nothing they raise or log gets through raw."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from acquisition.stacks.stack import ImageStack, Plane, StackInfo
from stream.errors import LivePTVError, SourceError

LOGGERS = ("tifffile", "PIL", "zarr", "h5py", "numcodecs", "imagecodecs")
LONGEST_TEXT = 300
"""Characters of a library's text that are shown: some quote half a file."""


class GuardedStack:
    """An open stack of which every error is a `SourceError` of one line, whatever library it came from."""

    def __init__(self, path: Path, open_it: Callable[[], ImageStack]) -> None:
        """Call `open_it` with the libraries kept quiet. Raises `SourceError`."""
        self._path = path
        with kept_quiet(), warnings.catch_warnings(), told_in_a_line(f"cannot read {path}"):
            warnings.simplefilter("ignore")
            self._stack = open_it()

    @property
    def info(self) -> StackInfo:
        """What the stack holds."""
        return self._stack.info

    @property
    def damage(self) -> str:
        """Why there should be more images than `info` tells; else empty."""
        return self._stack.damage

    def read(self, index: int) -> Plane:
        """Plane `index`. Raises `SourceError` with its number if it cannot be read."""
        with kept_quiet(), told_in_a_line(f"frame {index} of {self._path} cannot be read", "copy it again"):
            return self._stack.read(index)

    def close(self) -> None:
        """Close the file. Idempotent."""
        with kept_quiet(), told_in_a_line(f"{self._path} cannot be closed"):
            self._stack.close()


@contextmanager
def told_in_a_line(what: str, todo: str = "") -> Iterator[None]:
    """Turn any exception but our own into a `SourceError`: `what`, the library's reason, and what `todo`."""
    try:
        yield
    except LivePTVError:
        raise
    except RecursionError as error:
        raise SourceError(f"{what}: it refers to itself without end") from error
    except MemoryError as error:
        raise SourceError(f"{what}: it claims more than fits into memory ({plain(error)})") from error
    except Exception as error:
        raise SourceError(f"{what}: {plain(error)}" + (f"; {todo}" if todo else "")) from error


@contextmanager
def kept_quiet(heard: list[str] | None = None) -> Iterator[None]:
    """Let no library write to the log; its warnings and errors are added to `heard`."""
    listener = _Listener(heard)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.addHandler(listener)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, propagate in zip(loggers, before, strict=True):
            logger.removeHandler(listener)
            logger.propagate = propagate


def plain(error: BaseException) -> str:
    """The text of an exception in one line; the name of its kind where it has none."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + " ..."


class _Listener(logging.Handler):
    def __init__(self, lines: list[str] | None) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        if self._lines is not None:
            self._lines.append(" ".join(record.getMessage().split()))
