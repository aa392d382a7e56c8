"""Files that get their final name when they are complete, and are called `partial` until then.

`found.csv` is written as `found.partial.csv` first. If the work fails or is stopped, that file is removed, or, if
it took long and is usable, kept, and the error says so. A program that is killed leaves nothing under the final
name.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stream.errors import LivePTVError, OutputError

MOST_TRIES = 1000  # names tried beside the target


def check_folder_of(target: Path) -> None:
    """Raise `OutputError` if the folder of a file to be written does not exist."""
    if not target.parent.is_dir():
        raise OutputError(f"cannot write {target}: there is no folder {target.parent}; create it first")


class UnfinishedFile:
    """An unfinished file at `path`, beside its `target`."""

    def __init__(self, target: Path, *, overwrite: bool = False) -> None:
        """Create the file under a free name. Raises `OutputError` if the target exists or cannot be written."""
        self.target = Path(target)
        self._overwrite = overwrite
        self._check_target()
        self.path = self._free_name()

    def _check_target(self) -> None:
        check_folder_of(self.target)
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
            f"cannot write {self.target}: there are {MOST_TRIES} unfinished files beside it; delete some"
        )

    def finish(self) -> None:
        """Give the file its final name. Raises `OutputError`, which says where the file is, if that fails."""
        try:
            self._check_target()
            self.path.replace(self.target)
        except OSError as error:
            why = str(error) if isinstance(error, LivePTVError) else f"{error.strerror or error}"
            raise OutputError(
                f"{why}; the complete result is in {self.path} instead of {self.target}"
            ) from error

    def discard(self) -> None:
        """Remove the file. Idempotent."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def kept(self, what: str) -> str:
        """One line for the user: this file is kept, and what is in it."""
        return f"{what} kept in {self.path}; {self.target.name} was not written"


@contextmanager
def written_beside(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """The path of a file to write; it becomes `target` if the block succeeds and is removed if it fails.

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
