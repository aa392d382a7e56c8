"""Names of the files of a run, checks that nothing is overwritten, and the lock of an output."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from liveptv.session.run_log import left_by_a_run_that_did_not_start
from stream.errors import ConfigurationError, OutputError
from stream.writer_lock import RUN, WRITER, Claim, holder_of

FINISHING_S = 2.0  # s a writer may take to release its finished file; longer only delays an error message
FIGURES = ("frame", "trajectories", "profile", "flow", "field", "errors", "neighbours", "diffusion")


def refuse_to_replace(output: Path, *inputs: Path | None) -> None:
    """Raise `ConfigurationError` if writing `output` would destroy one of the files that are read."""
    for path in inputs:
        if path is None:
            continue
        file = Path(str(path).partition("::")[0])
        if output.exists() and file.exists() and output.samefile(file):
            raise ConfigurationError(f"the output would replace the input {file}; choose another name")


def writable(path: Path | None, overwrite: bool) -> None:
    """Raise `OutputError` unless a file can be written there; None means no file."""
    if path is None:
        return
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {path.parent}; create it first")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; choose another name or pass --overwrite")


@contextmanager
def claimed(output: Path, what: str) -> Iterator[None]:
    """Hold the lock of an output. Raises `OutputError` if it, or the file itself, is being written."""
    if output.suffix == RUN:
        raise OutputError(f"{output} is the name of a lock file; choose another name")
    with Claim(output, what):
        until_s = time.monotonic() + FINISHING_S
        while (writer := holder_of(output, WRITER)) is not None and time.monotonic() < until_s:
            time.sleep(FINISHING_S / 20)
        if writer is not None:
            raise OutputError(f"{output} is still being written by {writer}; wait until it has finished")
        yield


@dataclass(frozen=True, slots=True)
class RunFiles:
    """Where a run writes: `tracks` is the trajectory file, the others are beside it."""

    tracks: Path
    prefix: str
    log: Path | None = None

    @classmethod
    def beside(cls, tracks: Path) -> RunFiles:
        """`NAME.h5` gets `NAME.events.jsonl`, `NAME.report.html`, `NAME.frame.png` ... beside it."""
        return cls(tracks, f"{tracks.stem}.")

    @classmethod
    def within(cls, folder: Path) -> RunFiles:
        """All files in one folder: `tracks.h5`, `events.jsonl`, `report.html`, `frame.png` ..."""
        return cls(folder / "tracks.h5", "")

    def _beside(self, name: str) -> Path:
        return self.tracks.with_name(self.prefix + name)

    @property
    def events(self) -> Path:
        """The event log, one JSON object per line; `log` if it had to be moved."""
        return self.log or self._beside("events.jsonl")

    @property
    def report(self) -> Path:
        """The page with figures and numbers."""
        return self._beside("report.html")

    def figure(self, name: str) -> Path:
        """One of the report's figures."""
        return self._beside(f"{name}.png")

    def check_folder(self) -> None:
        """Raise `OutputError` if the folder of the run does not exist or cannot be read."""
        folder = self.tracks.parent
        try:
            if not folder.is_dir():
                raise OutputError(f"cannot write {self.tracks}: there is no folder {folder}; create it first")
            self.tracks.exists()
        except PermissionError as error:
            raise OutputError(f"cannot write {self.tracks}: no permission to read {folder}") from error

    def check(self, overwrite: bool) -> None:
        """Raise `OutputError` if a file of the run exists, or its folder does not."""
        self.check_folder()
        if self.tracks.is_dir():
            raise OutputError(f"cannot write {self.tracks}: it is a folder; give the name of a file")
        if overwrite:
            return
        for path in (self.tracks, self.events, self.report, *map(self.figure, FIGURES)):
            if path.exists() and not (path == self.events and left_by_a_run_that_did_not_start(path)):
                raise OutputError(f"{path} exists; choose another name or pass --overwrite")

    def clear_report(self) -> None:
        """Remove the report of an earlier run and its figures."""
        for path in (self.report, *map(self.figure, FIGURES)):
            path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove the files of an earlier run next to the trajectory file."""
        self.events.unlink(missing_ok=True)
        self.clear_report()
