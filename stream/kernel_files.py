"""Compiled kernels in files that several processes may write at once, and that a killed one leaves whole.

numba (0.68) numbers the files of a function's forms by what its index names, and writes the index before the code.
Two processes that compile two forms at once take the same number: the index then has, for good, the code of the one
under the types of the other. And until the code is written, or for good where its process is killed before, the
index of a new version names the file that the old one has left under this number.

Here each file gets a name that no other has, and the index follows when the code is there. What is missing in the
last of two indexes written at once is compiled again. numba itself reads these files, and this program reads those
of numba.
"""

from __future__ import annotations

import contextlib
import secrets
from pathlib import Path
from typing import Any

from numba.core.caching import IndexDataCacheFile

NAME_BITS = 40
"""Of a file's name: some thousand forms of one function would be needed for two with the same."""
PARTS = ("_data_name", "_save_data", "_load_index", "_save_index")
"""What is used of numba's class, which is private."""


def init() -> None:
    """Let numba keep kernels so; it calls this before it compiles (entry point `numba_extensions`).

    Raises `AttributeError` where its files are written in another way; it then warns, and keeps them as it does.
    """
    for part in PARTS:
        getattr(IndexDataCacheFile, part)
    IndexDataCacheFile.save = save  # type: ignore[method-assign]


def save(files: Any, key: Any, code: Any) -> None:
    """Keep the code of one form of a function, in the place of `IndexDataCacheFile.save`.

    Removes what its index does not name: code of older versions, and what a process killed meanwhile has left.
    """
    name = files._data_name(secrets.randbits(NAME_BITS))
    files._save_data(name, code)
    index = files._load_index() | {key: name}
    files._save_index(index)
    for file in Path(files._cache_path).glob(files._data_name_pattern.replace("{number:d}", "*")):
        if file.name not in index.values():
            with contextlib.suppress(OSError):  # on Windows, where another process reads it
                file.unlink()
