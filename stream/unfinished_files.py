"""Files that get their name when they are whole: until then they have a name that says that they are not.

What is written to `found.csv` lies in `found.partial.csv` first. Where the work fails or is stopped, either that
file is removed, or, where it took long to make and can be used, it is kept and the error says so. A program that
is killed leaves nothing under the final name.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stream.errors import LivePTVError, OutputError

MOST_TRIES = 1000


class UnfinishedFile:
    """A file beside `target` that is not finished; `path` is where it lies."""

    def __init__(self, target: Path, *, overwrite: bool = False) -> None:
        """Take a free name. Raises `OutputError` if the target exists already or its folder takes no file."""
        self.target = Path(target)
        self._overwrite = overwrite
        self._check_target()
        self.path = self._free_name()

    def _check_target(self) -> None:
        folder = self.target.parent
        if not folder.is_dir():
            raise OutputError(f"cannot write {self.target}: there is no folder {folder}; create it first")
        if self.target.is_dir():
            raise OutputError(f"cannot write {self.target}: it is a folder; choose another name")
        if self.target.exists() and not self._overwrite:
            raise OutputError(f"{self.target} exists; choose another name or pass --overwrite")

    def _free_name(self) -> Path:
        stem, suffix = self.target.stem, self.target.suffix
        for number in range(1, MOST_TRIES):
            mark = "partial" if number == 1 else f"partial-{number}"
            path = self.target.with_name(f"{stem}.{mark}{suffix}")
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            except FileExistsError:
                continue
            except OSError as error:
                raise OutputError(f"cannot write {self.target}: {error.strerror or error}") from error
            return path
        raise OutputError(
            f"cannot write {self.target}: there are {MOST_TRIES} unfinished files beside it; remove some"
        )

    def finish(self) -> None:
        """Give the file its name. Raises `OutputError`, saying where it is, if it cannot have it."""
        try:
            self._check_target()
            self.path.replace(self.target)
        except OSError as error:
            why = str(error) if isinstance(error, LivePTVError) else f"{error.strerror or error}"
            raise OutputError(f"{why}; what was to be {self.target} is complete in {self.path}") from error

    def discard(self) -> None:
        """Remove the file. Idempotent."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def kept(self, what: str) -> str:
        """One line that says that this file stays, and what is in it."""
        return f"{what} kept in {self.path}; there is no {self.target.name} of this run"


@contextmanager
def written_beside(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give the name of a file to write, which becomes `target` if the block ends well, and is removed if not.

    Raises `OutputError` if it cannot be written or the target exists.
    """
    unfinished = UnfinishedFile(target, overwrite=overwrite)
    try:
        yield unfinished.path
    except OSError as error:
        unfinished.discard()
        if isinstance(error, LivePTVError):
            raise
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
    except BaseException as error:
        unfinished.discard()
        if isinstance(error, KeyboardInterrupt):
            error.add_note(f"nothing was written to {target}")
        raise
    unfinished.finish()
