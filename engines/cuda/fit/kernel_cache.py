"""Compiled kernels kept in the user's cache folder: compiling takes 3 to 6 s of a core, at each start."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import platformdirs

from engines.kept_file import read_kept, write_kept
from stream.errors import OutputError

MOST_BYTES = 64 << 20
"""Far more than a kernel (0.2 to 0.4 MB): a larger file is none of ours, and is not read."""


def kept_or_made(of: Sequence[str], make: Callable[[], bytes], folder: Path | None = None) -> bytes:
    """What `make` makes of the texts `of`, from the folder if it is there and whole; else it is made and kept.

    A folder that cannot be written to costs time only.
    """
    folder = folder or platformdirs.user_cache_path("liveptv") / "kernels"
    texts = [hashlib.sha256(text.encode()).digest() for text in of]
    path = folder / hashlib.sha256(b"".join(texts)).hexdigest()[:32]
    with contextlib.suppress(OSError, ValueError):  # not there, or damaged: it is made again
        return read_kept(path, MOST_BYTES)[1]
    made = make()
    with contextlib.suppress(OutputError):
        write_kept(path, {}, made)
    return made
