"""Reads HDF5 files of unknown origin: what a file claims is checked before anything is allocated.

A file of two megabytes can claim a dataset of a terabyte, keep its values in another file, or call a group what
should be a dataset. `open_hdf5` and `reading` turn whatever HDF5 and the decoding raise into one line; `dataset`,
`values` and `attribute` hand out what is really there, of the kind that was asked for and no larger than the file
can hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
import numpy.typing as npt
import psutil

from stream.errors import LivePTVError, SourceError

T = TypeVar("T")

_known_as: ContextVar[Path | None] = ContextVar("known_as", default=None)

NUMBERS = "biuf"
TEXT = "OS"
RECORDS = "V"
ANY = "biufcOSUVmM"

MOST_BYTES = 16 << 30
"""No single dataset that is read as a whole is larger."""
MOST_ATTRIBUTE_BYTES = 64 << 20
SLACK_BYTES = 16 << 20
"""What was reserved and never written, as after a crash: some chunks of the largest datasets that we write."""
MOST_DEFLATED = 1100
"""How many bytes one can stand for: at most 1032 by deflate (RFC 1951), the strongest of HDF5's own filters."""
OWN_FILTERS = 6
"""The highest number of a filter of HDF5's own; others come as plugins."""
MOST_OTHERWISE = 100_000
MOST_CHUNK_BYTES = 1 << 30
MOST_LINKS = 16
NOT_AS_IT_SHOULD = "it is damaged, cut short, or not what it should be"


@contextmanager
def reading(path: Path, what: str = NOT_AS_IT_SHOULD) -> Iterator[None]:
    """Turn what is raised while a file is read into a `SourceError` of one line; our own errors pass."""
    try:
        yield
    except LivePTVError:
        raise
    except MemoryError as error:
        raise SourceError(f"cannot read {path}: it does not fit into this computer's memory") from error
    except OSError as error:
        why = error.strerror if error.errno and error.strerror else error
        raise SourceError(f"cannot read {path}: {_one_line(why)}") from error
    except Exception as error:  # what libraries raise on a damaged file is of any type
        raise SourceError(f"cannot read {path}: {what} ({_one_line(error)})") from error


def _one_line(error: object) -> str:
    text = " ".join(str(error).split()).strip("'\"")
    return text or type(error).__name__


@contextmanager
def known_as(path: Path) -> Iterator[None]:
    """Within the block, a file that HDF5 reads through a Python object goes by the name `path` in messages."""
    before = _known_as.set(path)
    try:
        yield
    finally:
        _known_as.reset(before)


def name_of(item: h5py.Group | h5py.Dataset) -> str:
    """The name of the file that something lies in, for messages."""
    path = _known_as.get()
    return str(path) if path is not None and item.file.driver == "fileobj" else str(item.file.filename)


@contextmanager
def open_hdf5(path: Path, what: str = NOT_AS_IT_SHOULD) -> Iterator[h5py.File]:
    """Open a finished file for reading; raises `SourceError` for all that goes wrong within the block.

    `what` is said of a file that cannot be understood.
    """
    path = Path(path)
    if path.is_dir():
        raise SourceError(f"{path} is a folder, not a file")
    if not path.is_file():
        raise SourceError(f"there is no file {path}")
    with reading(path, what), h5py.File(path, "r", locking=False) as file:
        yield file


def find(group: h5py.Group, name: str, _followed: int = 0) -> Any:
    """What is called `name` in a group, of this file; None if there is nothing.

    Raises `SourceError` where it lies in another file, or behind links that lead nowhere.
    """
    node: Any = group.file if name.startswith("/") else group
    for part in name.split("/"):
        if part in {"", "."}:
            continue
        if not isinstance(node, h5py.Group):
            return None
        link = node.get(part, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise SourceError(
                f"{name_of(group)}: {part} lies in another file ({link.filename}); copy it into this one"
            )
        if isinstance(link, h5py.SoftLink):
            if _followed >= MOST_LINKS:
                raise SourceError(f"{name_of(group)}: {part} is a link that leads nowhere")
            node = find(node, link.path, _followed + 1)
        elif link is None:
            return None
        else:
            node = node[part]
    return node


def dataset(
    group: h5py.Group,
    name: str,
    *,
    kinds: str = NUMBERS,
    ndim: int | None = None,
    most_bytes: int | None = MOST_BYTES,
) -> h5py.Dataset:
    """The dataset `name` of a group, checked but not read.

    `kinds` are numpy's kinds of types that will do, `ndim` how many axes it must have. `most_bytes` is the limit
    for one that is read as a whole; None for one that is read in pieces. Raises `SourceError`, naming it.
    """
    found = find(group, name)
    inside = "" if group.name in {None, "/"} else f"{group.name.lstrip('/')}/"
    place = f"{name_of(group)}: {inside}{name}"
    if found is None:
        raise SourceError(f"{place} is missing; the file is damaged or of another kind")
    return check_dataset(found, place, kinds=kinds, ndim=ndim, most_bytes=most_bytes)


def check_dataset(
    found: Any,
    place: str,
    *,
    kinds: str = NUMBERS,
    ndim: int | None = None,
    most_bytes: int | None = MOST_BYTES,
) -> h5py.Dataset:
    """Return what was found if it is a dataset as in `dataset`; `place` names it in the `SourceError` if not."""
    if not isinstance(found, h5py.Dataset):
        raise SourceError(f"{place} is no dataset")
    if found.shape is None:
        raise SourceError(f"{place} is empty")
    if found.is_virtual or found.external:
        raise SourceError(f"{place} has its values in other files; copy them into one")
    if found.dtype.kind not in kinds:
        raise SourceError(f"{place} has values of type {found.dtype}, which are not {_kind(kinds)}")
    if ndim is not None and found.ndim != ndim:
        raise SourceError(f"{place} has {found.ndim} axes, not {ndim}")
    _check_size(found, place, most_bytes)
    return found


def _kind(kinds: str) -> str:
    return {NUMBERS: "numbers", TEXT: "text", RECORDS: "a table"}.get(kinds, "what belongs there")


def _check_size(found: h5py.Dataset, place: str, most_bytes: int | None) -> None:
    claimed = int(found.size) * found.dtype.itemsize
    stored = min(int(found.id.get_storage_size()), int(found.file.id.get_filesize()))
    possible = stored * _most_ratio(found) + SLACK_BYTES
    if claimed > possible:
        raise SourceError(
            f"{place} claims {_size(claimed)} and the file holds {_size(stored)} of it; it is damaged or made up"
        )
    if found.chunks is not None:
        chunk = int(np.prod(found.chunks, dtype=np.float64)) * found.dtype.itemsize
        if chunk > MOST_CHUNK_BYTES and chunk > possible:
            raise SourceError(f"{place} has pieces of {_size(chunk)}, more than the file can hold")
    if most_bytes is not None:
        check_memory(claimed, place, most_bytes)


def check_memory(nbytes: int, place: str, most_bytes: int = MOST_BYTES) -> None:
    """Raise `SourceError` if that much cannot be read at once: half of the free memory and `most_bytes` can."""
    free = int(psutil.virtual_memory().available) // 2
    if nbytes > min(most_bytes, free):
        limit = "it may have" if most_bytes <= free else "there is room for in memory"
        raise SourceError(
            f"{place} has {_size(nbytes)}, more than the {_size(min(most_bytes, free))} {limit}"
        )


def _most_ratio(found: h5py.Dataset) -> int:
    """How many bytes one of the file can stand for; 2 where nothing is compressed, as pieces may be missing."""
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


def values(
    group: h5py.Group,
    name: str,
    *,
    kinds: str = NUMBERS,
    ndim: int | None = None,
    most_bytes: int | None = MOST_BYTES,
) -> npt.NDArray[Any]:
    """The values of a dataset as in `dataset`; text as an array of `str`."""
    found = dataset(group, name, kinds=kinds, ndim=ndim, most_bytes=most_bytes)
    if h5py.check_string_dtype(found.dtype) is not None:
        return np.asarray(found.asstr(errors="replace")[()]).astype(str)
    if found.dtype.kind == "O":
        raise SourceError(f"{name_of(group)}: {name} has values of another type than text or numbers")
    return np.asarray(found[()])


def attribute(item: h5py.Group | h5py.Dataset, name: str, kind: type | None = None) -> Any:
    """An attribute: `str`, a Python number, or an array; None if there is none.

    `kind` is what it must be: `str`, `float` (any number) or `int` (a whole one). Raises `SourceError` if it is of
    another type or claims more than an attribute can have.
    """
    if name not in item.attrs:
        return None
    place = f"{name_of(item)}: the attribute {name}"
    _check_attribute(item, name)
    value = item.attrs[name]
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        value = value.item()
    if isinstance(value, np.ndarray) and value.size == 1 and kind is not None:
        value = value.reshape(()).item()  # as MATLAB writes every number
    return value if kind is None else _of_kind(value, kind, place)


def schema_of(file: h5py.File) -> str:
    """What a file says that it is: the text of its attribute `schema`, "" without one."""
    found = attribute(file, "schema")
    return found if isinstance(found, str) else ""


def _of_kind(value: Any, kind: type, place: str) -> Any:
    if kind is str:
        fits = isinstance(value, str)
    else:
        fits = isinstance(value, int | float) and (kind is float or float(value).is_integer())
    if not fits:
        what = {str: "text", float: "a number", int: "a whole number"}[kind]
        raise SourceError(f"{place} is {str(value)[:40]!r}, not {what}")
    return kind(value)


def check_file(file: h5py.File, *, most_bytes: int = MOST_BYTES, in_pieces: tuple[str, ...] = ()) -> None:
    """Look through a whole file of ours before anything of it is read: what its datasets and attributes claim.

    A dataset whose name begins with one of `in_pieces` may be larger than `most_bytes`. Raises `SourceError`.
    """

    links: list[str] = []
    items: list[tuple[str, h5py.Dataset | h5py.Group]] = []
    file.visititems_links(lambda name, link: _keep(links, name, isinstance(link, h5py.ExternalLink)))
    for name in links:
        find(file, name)
    file.visititems(lambda name, item: _keep(items, (name, item), hasattr(item, "attrs")))
    check_attributes(file)
    for name, item in items:
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            most = None if in_pieces and name.startswith(in_pieces) else most_bytes
            check_dataset(item, f"{name_of(file)}: {name}", kinds=ANY, most_bytes=most)
        if isinstance(item, h5py.Dataset | h5py.Group):
            check_attributes(item)


def _keep(found: list[T], item: T, wanted: bool) -> None:
    """Collect what HDF5 visits: it must not be interrupted by an exception there."""
    if wanted:
        found.append(item)


def check_attributes(item: h5py.Group | h5py.Dataset) -> None:
    """Raise `SourceError` if an attribute claims more than one can have."""
    for name in item.attrs:
        _check_attribute(item, name)


def _check_attribute(item: h5py.Group | h5py.Dataset, name: str) -> None:
    found = item.attrs.get_id(name)
    if int(np.prod(found.shape or (1,), dtype=np.float64)) * found.dtype.itemsize > MOST_ATTRIBUTE_BYTES:
        raise SourceError(
            f"{name_of(item)}: the attribute {name} is larger than one can be; it is damaged or made up"
        )
