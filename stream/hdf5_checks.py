"""Checks what an HDF5 file claims before anything is allocated: kind, axes and size of datasets and attributes.

A file of two megabytes can claim a dataset of a terabyte, or keep its values in another file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil

from stream.errors import SourceError

_known_as: ContextVar[Path | None] = ContextVar("known_as", default=None)
NUMBERS = "biuf"
TEXT = "OS"
RECORDS = "V"
ANY = "biufcOSUVmM"
MOST_BYTES = 16 << 30
"""Largest dataset that is read as a whole, bytes: hours of trajectories; also limited by the free memory."""
MOST_ATTRIBUTE_BYTES = 64 << 20
"""Largest attribute, bytes; ours (settings, events) have kilobytes."""
SLACK_BYTES = 16 << 20
"""Bytes that may be reserved and never written, as after a crash: some chunks of our largest datasets."""
MOST_DEFLATED = 1100
"""Largest ratio of compression: deflate reaches 1032 (RFC 1951), the strongest of the filters in HDF5 itself."""
OWN_FILTERS = 6
"""Highest number of a filter in HDF5 itself; others are plugins."""
MOST_OTHERWISE = 100_000
"""Largest ratio for plugins: run lengths and Zstandard on constant data exceed deflate by far."""
MOST_CHUNK_BYTES = 1 << 30
"""A chunk is read as a whole, so a larger one must at least be possible; ours have 1 MB."""


@contextmanager
def known_as(path: Path) -> Iterator[None]:
    """Within the block, errors call a file that HDF5 reads through a Python object `path`."""
    before = _known_as.set(path)
    try:
        yield
    finally:
        _known_as.reset(before)


def name_of(item: h5py.Group | h5py.Dataset) -> str:
    """The name of the file of a group or dataset, for messages."""
    path = _known_as.get()
    return str(path) if path is not None and item.file.driver == "fileobj" else str(item.file.filename)


def check_dataset(
    found: Any,
    place: str,
    *,
    kinds: str = NUMBERS,
    ndim: int | None = None,
    most_bytes: int | None = MOST_BYTES,
) -> h5py.Dataset:
    """Return `found` if it is a suitable dataset (see `stream.hdf5_reading.dataset`).

    Raises `SourceError` otherwise; `place` names the dataset there.
    """
    if not isinstance(found, h5py.Dataset):
        raise SourceError(f"{place} is not a dataset")
    if found.shape is None:
        raise SourceError(f"{place} is empty")
    if found.is_virtual or found.external:
        raise SourceError(f"{place} stores its values in other files; copy them into one file")
    if found.dtype.kind not in kinds:
        raise SourceError(f"{place} has values of type {found.dtype}, not {_kind(kinds)}")
    if ndim is not None and found.ndim != ndim:
        raise SourceError(f"{place} has {found.ndim} axes, not {ndim}")
    _check_size(found, place, most_bytes)
    return found


def _kind(kinds: str) -> str:
    return {NUMBERS: "numbers", TEXT: "text", RECORDS: "a table"}.get(kinds, "the expected type")


def _check_size(found: h5py.Dataset, place: str, most_bytes: int | None) -> None:
    claimed = int(found.size) * found.dtype.itemsize
    stored = min(int(found.id.get_storage_size()), int(found.file.id.get_filesize()))
    possible = stored * _most_ratio(found) + SLACK_BYTES
    if claimed > possible:
        raise SourceError(
            f"{place} claims {_size(claimed)}, but the file holds {_size(stored)} of it; it is damaged or forged"
        )
    if found.chunks is not None:
        chunk = int(np.prod(found.chunks, dtype=np.float64)) * found.dtype.itemsize
        if chunk > MOST_CHUNK_BYTES and chunk > possible:
            raise SourceError(f"{place} has chunks of {_size(chunk)}, more than the file can hold")
    if most_bytes is not None:
        check_memory(claimed, place, most_bytes)


def check_memory(nbytes: int, place: str, most_bytes: int = MOST_BYTES) -> None:
    """Raise `SourceError` for more than half of the free memory, or than `most_bytes`."""
    free = int(psutil.virtual_memory().available) // 2
    if nbytes > min(most_bytes, free):
        limit = "allowed" if most_bytes <= free else "that fit into memory"
        raise SourceError(
            f"{place} has {_size(nbytes)}, more than the {_size(min(most_bytes, free))} {limit}"
        )


def _most_ratio(found: h5py.Dataset) -> int:
    """Largest plausible ratio of claimed to stored bytes; 2 without compression, as chunks may be missing."""
    if found.chunks is None:
        return 2
    properties = found.id.get_create_plist()
    filters = [properties.get_filter(index)[0] for index in range(properties.get_nfilters())]
    if not filters:
        return 2
    return MOST_DEFLATED if max(filters) <= OWN_FILTERS else MOST_OTHERWISE


def _size(nbytes: int) -> str:
    for unit, power in (("TB", 12), ("GB", 9), ("MB", 6)):
        if nbytes >= 10**power:
            return f"{nbytes / 10**power:.3g} {unit}"
    return f"{nbytes} bytes"


def check_attributes(item: h5py.Group | h5py.Dataset) -> None:
    """Raise `SourceError` if an attribute claims an impossible size."""
    for name in item.attrs:
        check_attribute(item, name)


def check_attribute(item: h5py.Group | h5py.Dataset, name: str) -> None:
    """Raise `SourceError` if this attribute claims an impossible size."""
    found = item.attrs.get_id(name)
    if int(np.prod(found.shape or (1,), dtype=np.float64)) * found.dtype.itemsize > MOST_ATTRIBUTE_BYTES:
        raise SourceError(
            f"{name_of(item)}: the attribute {name} is too large; the file is damaged or forged"
        )
