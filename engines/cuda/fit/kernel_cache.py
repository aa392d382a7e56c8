"""Compiled kernels kept in the user's cache folder: compiling takes 3 to 6 s of a core, at each start."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import platformdirs

DIGEST_BYTES = hashlib.sha256().digest_size
MOST_BYTES = 64 << 20
"""Far more than a kernel (0.2 to 0.4 MB): a larger file is none of ours, and is not read."""


def kept_or_made(of: Sequence[str], make: Callable[[], bytes], folder: Path | None = None) -> bytes:
    """What `make` makes of the texts `of`, from the folder if it is there and whole; else it is made and kept.

    A folder that cannot be written to costs time only.
    """
    folder = folder or platformdirs.user_cache_path("liveptv") / "kernels"
    texts = [hashlib.sha256(text.encode()).digest() for text in of]
    path = folder / hashlib.sha256(b"".join(texts)).hexdigest()[:32]
    with contextlib.suppress(OSError):
        if path.stat().st_size <= MOST_BYTES:
            kept = path.read_bytes()
            if kept[:DIGEST_BYTES] == hashlib.sha256(kept[DIGEST_BYTES:]).digest():
                return kept[DIGEST_BYTES:]
    made = make()
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        # it appears whole or not at all, whoever else does the same
        handle, name = tempfile.mkstemp(dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(made).digest() + made)
            Path(name).replace(path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
    return made
