"""Turns exceptions and log messages of file libraries into errors of one line."""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy.typing as npt

from acquisition.stacks.stack import ImageStack, Plane, StackInfo, VolumeStack, camera_frame_of
from stream.errors import LivePTVError, SourceError

LOGGERS = ("tifffile", "PIL", "zarr", "h5py", "numcodecs", "imagecodecs")
LONGEST_TEXT = 300
"""Characters shown of the text of a library: some quote half a file."""

_OBJECT = re.compile(r"<(?:[A-Za-z_]\w*\.|HDF5 |Array |Group |class )(?:\"[^\"]*\"|[^<>\"])*>")
"""How libraries print their objects, for example `<tifffile.TiffPages @8>`."""


class GuardedStack:
    """An open stack whose errors are all a `SourceError` of one line, whatever library raised them."""

    def __init__(self, path: Path, open_it: Callable[[], ImageStack]) -> None:
        """Call `open_it` with the libraries' logging off. Raises `SourceError`."""
        self._path = path
        _FILTER.listen()
        with kept_quiet(), warnings.catch_warnings(), told_in_a_line(f"cannot read {path}"):
            warnings.simplefilter("ignore")
            self._stack = open_it()

    @property
    def info(self) -> StackInfo:
        """What the stack holds."""
        return self._stack.info

    @property
    def damage(self) -> str:
        """Why there should be more images than in `info`; else empty."""
        return self._stack.damage

    def read(self, index: int) -> Plane:
        """Plane `index`. Raises `SourceError` with its number if it cannot be read."""
        with kept_quiet(), told_in_a_line(f"frame {index} of {self._path} cannot be read", "copy it again"):
            return self._stack.read(index)

    def read_planes(self, first: int, count: int) -> tuple[npt.NDArray[Any], tuple[Plane, ...]] | None:
        """`count` planes from `first` on together; None where the stack reads them only one by one."""
        if not isinstance(self._stack, VolumeStack):
            return None
        with kept_quiet(), told_in_a_line(f"frame {first} of {self._path} cannot be read", "copy it again"):
            return self._stack.read_planes(first, count)

    def camera_frame(self, index: int) -> int | None:
        """The camera's number of plane `index`; its pixels are read only where there is no other way."""
        with kept_quiet(), told_in_a_line(f"frame {index} of {self._path} cannot be read", "copy it again"):
            return camera_frame_of(self._stack, index)

    def close(self) -> None:
        """Close the file. Idempotent."""
        with kept_quiet(), told_in_a_line(f"{self._path} cannot be closed"):
            self._stack.close()


@contextmanager
def told_in_a_line(what: str, todo: str = "") -> Iterator[None]:
    """Turn any exception except ours into a `SourceError`: `what`, the reason, and what to do (`todo`)."""
    try:
        yield
    except LivePTVError:
        raise
    except RecursionError as error:
        raise SourceError(f"{what}: it refers to itself endlessly") from error
    except MemoryError as error:
        raise SourceError(f"{what}: it claims more than fits into memory ({plain(error)})") from error
    except Exception as error:
        raise SourceError(f"{what}: {plain(error)}" + (f"; {todo}" if todo else "")) from error


@contextmanager
def kept_quiet(heard: list[str] | None = None) -> Iterator[None]:
    """Suppress logging of the libraries in this thread; their warnings and errors are added to `heard`.

    May be nested; then both lists get them. Costs less than a microsecond: each plane is read in it.
    """
    lists: list[list[str]] = _FILTER.lists_of_this_thread()
    lists.append([] if heard is None else heard)
    try:
        yield
    finally:
        lists.pop()


class _Filter(logging.Filter):
    """Permanent filter on the loggers of the libraries; suppresses messages from threads in `kept_quiet`."""

    def __init__(self) -> None:
        super().__init__()
        self._threads = threading.local()

    def lists_of_this_thread(self) -> list[list[str]]:
        if not hasattr(self._threads, "lists"):
            self._threads.lists = []
        found: list[list[str]] = self._threads.lists
        return found

    def filter(self, record: logging.LogRecord) -> bool:
        lists = self.lists_of_this_thread()
        if record.levelno >= logging.WARNING:
            text = _without_objects(record.getMessage())
            for heard in lists:
                heard.append(text)
        return not lists

    def listen(self) -> None:
        """Add the filter to all loggers that the libraries have created so far."""
        known = [
            *LOGGERS,
            *(name for name in logging.root.manager.loggerDict if name.split(".")[0] in LOGGERS),
        ]
        for name in known:
            logging.getLogger(name).addFilter(self)


_FILTER = _Filter()
_FILTER.listen()


def plain(error: BaseException) -> str:
    """The text of an exception in one line; the name of its type if it has none."""
    text = _without_objects(str(error)) or type(error).__name__
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + " ..."


def _without_objects(text: str) -> str:
    """A text in one line, without the representations of Python objects."""
    return " ".join(_OBJECT.sub(" ", text).split()).lstrip(":, ")
