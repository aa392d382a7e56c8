"""Replaces an existing file by a new one, in such a way that the old one can come back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

Made = TypeVar("Made")


class Replacement:
    """The old file at `path`, under another name, until the new one has its first frame."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._aside: Path | None = None

    @property
    def under_way(self) -> bool:
        """Whether the old file still exists under another name."""
        return self._aside is not None

    def begin(self, create: Callable[[Path], Made]) -> Made:
        """Rename the old file and create the new one; if that fails, the old one gets its name back."""
        aside = self._path.with_name(f"{self._path.name}.{uuid4().hex[:8]}.replaced")
        try:
            self._path.rename(aside)
        except FileNotFoundError:
            return create(self._path)
        try:
            made = create(self._path)
        except BaseException:
            aside.rename(self._path)
            raise
        self._aside = aside
        return made

    def complete(self) -> None:
        """Delete the old file. Idempotent."""
        aside, self._aside = self._aside, None
        if aside is not None:
            aside.unlink(missing_ok=True)

    def undo(self) -> None:
        """Put the old file in the place of the new one, which must be closed."""
        aside, self._aside = self._aside, None
        if aside is not None:
            aside.replace(self._path)
