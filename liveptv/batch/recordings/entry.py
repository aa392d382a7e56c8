"""A recording of a batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Entry:
    """A recording: its `path` (with a choice behind `::`), the `name` of its result, and settings of its own.

    `name` has no suffix and may have folders, with `/` between them. `settings` are `section.key=value`.
    """

    path: Path
    name: str
    settings: tuple[str, ...] = field(default_factory=tuple)
