"""Writes detection tables frame by frame, as .csv, .parquet or .h5."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from liveptv.tables.reader import ALWAYS, WRITTEN, known, measured
from liveptv.tables.sinks import SINKS, Columns
from stream.errors import ConfigurationError, LivePTVError, OutputError
from stream.messages import NAN, Detections
from stream.unfinished_files import UnfinishedFile

BLOCK_ROWS = 20_000  # rows kept in memory (1.4 MB) before they are written; smaller blocks cost time


def _column(block: Columns, name: str) -> npt.NDArray[Any]:
    """A column of a block; NaN of a property that its particles do not have."""
    return block[name] if name in block else np.full(len(block["frame"]), NAN)


class DetectionTableWriter:
    """A detection table open for writing; rows are written in blocks, the rest at `close`.

    Until then the file has a temporary name (`found.partial.csv`). As a context manager it keeps that file if the
    work fails or is stopped after the first frame, and adds a note to the error. `frames_expected` is for that
    note.
    """

    def __init__(self, path: Path, overwrite: bool = False) -> None:
        """Create the file.

        Raises `ConfigurationError` for a suffix that is none of the three, `OutputError` if the file exists
        and is not to be overwritten, or cannot be created.
        """
        self.path = Path(path)
        make = SINKS.get(self.path.suffix.lower())
        if make is None:
            raise ConfigurationError(f"cannot write {self.path}; detection tables end in {', '.join(SINKS)}")
        self._unfinished = UnfinishedFile(self.path, overwrite=overwrite)
        self._names = ALWAYS
        self._blocks: list[Columns] = []
        self._buffered = 0
        self._closed = False
        self.rows = 0
        self.frames = 0
        self.frames_expected: int | None = None
        try:
            self._sink = make(self._unfinished.path)
        except BaseException as error:
            self._unfinished.discard()
            if isinstance(error, OSError) and not isinstance(error, LivePTVError):
                raise self._failure(error) from error
            raise

    def append(self, detections: Detections) -> None:
        """Add a frame's detections, in order of frames.

        Raises `OutputError` if the disk takes no more or the table is closed.
        """
        if self._closed:
            raise OutputError(f"{self.path} is closed; nothing can be added to it")
        self.frames += 1
        if len(detections) == 0:
            return
        frame = np.full(len(detections), detections.info.frame, np.int64)
        self._blocks.append({"frame": frame, **measured(detections)})
        self._buffered += len(frame)
        self.rows += len(frame)
        if self._buffered >= BLOCK_ROWS:
            self._write()

    def _write(self) -> None:
        blocks, self._blocks, self._buffered = self._blocks, [], 0
        if not blocks:
            return
        try:
            names = dict.fromkeys((*WRITTEN, *self._names, *(name for block in blocks for name in block)))
            columns = {name: np.concatenate([_column(block, name) for block in blocks]) for name in names}
            wanted = {*self._names, *known(columns)}
            if len(wanted) > len(self._names):
                self._names = tuple(name for name in names if name in wanted)
                self._sink.widen(self._names)
            self._sink.write({name: columns[name] for name in self._names})
        except (OSError, RuntimeError) as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Write the remaining rows, close the file and give it its final name. Idempotent."""
        if self._closed:
            return
        try:
            self._end()
        except BaseException:
            self._unfinished.discard()
            raise
        self._unfinished.finish()

    def keep(self) -> str:
        """Close the incomplete file under its temporary name; returns a line about it."""
        if not self._closed:
            self._end()
        of = "" if self.frames_expected is None else f" of {self.frames_expected}"
        return self._unfinished.kept(f"{self.frames}{of} frames with {self.rows} particles are")

    def discard(self) -> None:
        """Close the file and remove it."""
        self._blocks = []
        try:
            if not self._closed:
                self._end()
        finally:
            self._unfinished.discard()

    def _end(self) -> None:
        self._closed = True
        try:
            self._write()
        finally:
            try:
                self._sink.close()
            except (OSError, RuntimeError) as error:
                raise self._failure(error) from error

    def _failure(self, error: BaseException) -> OutputError:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return OutputError(f"cannot write {self.path}: {reason}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        elif self.frames == 0:
            self.discard()
        else:
            try:
                error.add_note(self.keep())
            except LivePTVError as failure:
                error.add_note(str(failure))
