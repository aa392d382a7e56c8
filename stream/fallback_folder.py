"""Where a result goes when its place is gone: beside it, else to the user's folder, else to a temporary one."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs

MOST_NUMBERS = 1000  # of names tried in one folder


def second_places(path: Path) -> Iterator[Path]:
    """Free names, best first: `NAME.2.h5` in the same folder, in `liveptv/rescued` of the user's state, in the
    temporary folder. The folders exist; whether they can be written to is for the caller to find out."""
    yield from itertools.islice(_names(path, path.parent), 1)
    for folder in (platformdirs.user_state_path("liveptv") / "rescued", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        yield from itertools.islice(_names(path, folder), 1)


def _names(path: Path, folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for number in range(2, MOST_NUMBERS):
        candidate = folder / f"{path.stem}.{number}{path.suffix}"
        if not candidate.exists():
            yield candidate
