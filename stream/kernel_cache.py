"""Compiled kernels of an installation, taken over by users who cannot write to its folder.

numba keeps compiled kernels beside the source (`__pycache__`), or, where that folder is not writable, in a
folder of the user; it then does not even look beside the source. So what the installer has compiled (`liveptv
warmup`) is copied, once and again when it has been renewed, to where numba looks for it: see docs/decisions/0008.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

ENDINGS = (".nbi", ".nbc")
"""numba's files: an index for each function, and the machine code of each of its forms."""
BESIDE_THE_SOURCE = "__pycache__"


def take_over(beside_the_source: Path, own: Path) -> int:
    """Copy numba's files that are missing or older in a user's `own` folder; returns how many.

    A file is complete once it has its name, and indexes come last, so that another process never reads half of
    one, or an index without its code. What cannot be copied is compiled later.
    """
    copied = 0
    for ending in reversed(ENDINGS):
        for file in sorted(beside_the_source.glob(f"*{ending}")):
            with contextlib.suppress(OSError):
                copied += _copy_if_newer(file, own / file.name)
    return copied


def _copy_if_newer(file: Path, to: Path) -> bool:
    if to.exists() and to.stat().st_mtime >= file.stat().st_mtime:
        return False
    to.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(suffix=".part", dir=to.parent)
    os.close(handle)
    try:
        shutil.copyfile(file, name)
        os.utime(name, (file.stat().st_atime, file.stat().st_mtime))
        Path(name).replace(to)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
    return True


def foreign_folders(sources: Iterable[Path]) -> list[Path]:
    """The folders of `sources` with compiled kernels that this user cannot write to."""
    found = [source / BESIDE_THE_SOURCE for source in sources]
    return [folder for folder in found if folder.is_dir() and not _is_writable(folder)]


def _is_writable(folder: Path) -> bool:
    """Asked as numba does: permissions alone do not tell on every system."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True
