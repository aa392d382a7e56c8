"""Where a result is written when its place is lost: beside it, else the user's folder, else a temporary one."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs

MOST_NUMBERS = 1000  # names tried in one folder


def second_places(path: Path) -> Iterator[Path]:
    """Free names, best first: `NAME.2.h5` in the same folder, in `liveptv/rescued` of the user's state folder, in
    the temporary folder. The folders exist; the caller must find out whether they can be written to.
    """
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
