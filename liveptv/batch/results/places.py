"""Where the files of a recording's result are, and how they get their final names."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stream.errors import OutputError

WORK = ".batch"
"""Folder, in that of the results, for what is not finished."""
TRIES, TRY_S = 20, 0.1
"""On Windows a file that another program reads cannot be replaced: how often it is tried, and how long in
between.
"""


@dataclass(frozen=True, slots=True)
class Places:
    """The files of the recording `name` in the folder `out` of a batch's results."""

    out: Path
    name: str

    def _named(self, ending: str) -> Path:
        return self.out / f"{self.name}{ending}"

    @property
    def result(self) -> Path:
        """The trajectory file."""
        return self._named(".h5")

    @property
    def partial(self) -> Path:
        """The tracks up to where a damaged recording ends."""
        return self._named(".partial.h5")

    @property
    def marker(self) -> Path:
        """What the result was made from; there is one only beside a complete result."""
        return self._named(".done.json")

    @property
    def work(self) -> Path:
        """Folder for what is not finished."""
        return self.out / WORK / self.name

    @property
    def coming_marker(self) -> Path:
        """The marker before the result has its name."""
        return self.work / "marker.json"

    @property
    def lock(self) -> Path:
        """What is locked while the recording is processed."""
        return self.work / "recording"

    def pieces(self, key: str) -> Path:
        """Folder for the detections of its pieces; `key` is the hash of the recording and the settings."""
        return self.work / f"pieces-{key[:16]}"

    def fresh(self, what: str, ending: str) -> Path:
        """A name for an unfinished file that no other process uses; `what` it is for."""
        return self.work / f"{_unfinished(what)}{uuid.uuid4().hex}{ending}"

    def make_folders(self) -> None:
        """Create the folders for the result and for what is not finished. Raises `OutputError`."""
        try:
            self.work.mkdir(parents=True, exist_ok=True)
            self.result.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write to {self.out}: {error.strerror}") from error

    def clear_unfinished(self, what: str, older_than_s: float) -> None:
        """Remove unfinished files of killed processes; only who holds the lock of `what` may call this.

        Those of other computers are removed once they are old: a file system may have no locks between computers.
        """
        for path in self.work.glob(f"unfinished-{what}-*"):
            with contextlib.suppress(OSError):
                is_ours = path.name.startswith(_unfinished(what))
                if is_ours or time.time() - path.stat().st_mtime > older_than_s:
                    path.unlink()

    def clear_pieces(self) -> None:
        """Remove the pieces, which are not needed beside a finished result, as far as nobody uses them."""
        for folder in self.work.glob("pieces-*"):
            for path in folder.iterdir():
                with contextlib.suppress(OSError):
                    path.unlink()
            with contextlib.suppress(OSError):
                folder.rmdir()

    def remove_empty(self) -> None:
        """Remove the folders for what is not finished that are empty."""
        folder = self.work
        while folder != self.out:
            try:
                folder.rmdir()
            except OSError:  # somebody else uses it
                return
            folder = folder.parent


def _unfinished(what: str) -> str:
    return f"unfinished-{what}-{socket.gethostname()}-"


def put_in_place(source: Path, target: Path) -> None:
    """Give a complete file its name. Raises `OutputError` if that is impossible."""
    tries = TRIES if os.name == "nt" else 1
    for left in reversed(range(tries)):
        try:
            source.replace(target)
            return
        except OSError as error:
            if not left:
                why = f"cannot write {target}: {error.strerror}; the complete file is {source}"
                raise OutputError(why) from error
            time.sleep(TRY_S)


def write_json(path: Path, facts: dict[str, Any]) -> None:
    """Write a small file at once. Raises `OutputError`."""
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
    put_in_place(part, path)


def read_json(path: Path) -> dict[str, Any] | None:
    """What a small file holds; None if it is not there or no JSON object."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) else None
