"""Reads HDF5 files of unknown origin; everything is checked first (`stream.hdf5_checks`).

`open_hdf5` and `reading` turn whatever HDF5 and the decoding raise into an error of one line. `dataset`, `values`
and `attribute` return what is there, of the expected kind and no larger than the file can hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
import numpy.typing as npt

from stream.errors import LivePTVError, SourceError
from stream.hdf5_checks import (
    ANY,
    MOST_BYTES,
    NUMBERS,
    check_attribute,
    check_attributes,
    check_dataset,
    name_of,
)

T = TypeVar("T")
MOST_LINKS = 16  # soft links followed one after the other; more are a circle
NOT_AS_IT_SHOULD = "it is damaged, truncated, or another kind of file"


@contextmanager
def reading(path: Path, what: str = NOT_AS_IT_SHOULD) -> Iterator[None]:
    """Turn any exception while a file is read into a `SourceError` of one line; our own errors pass."""
    try:
        yield
    except LivePTVError:
        raise
    except MemoryError as error:
        raise SourceError(f"cannot read {path}: it does not fit into memory") from error
    except OSError as error:
        why = error.strerror if error.errno and error.strerror else error
        raise SourceError(f"cannot read {path}: {_one_line(why)}") from error
    except Exception as error:  # what libraries raise on a damaged file is of any type
        raise SourceError(f"cannot read {path}: {what} ({_one_line(error)})") from error


def _one_line(error: object) -> str:
    text = " ".join(str(error).split()).strip("'\"")
    return text or type(error).__name__


@contextmanager
def open_hdf5(path: Path, what: str = NOT_AS_IT_SHOULD) -> Iterator[h5py.File]:
    """Open a finished file for reading; raises `SourceError` for any failure within the block.

    `what` is the text for a file that cannot be understood.
    """
    path = Path(path)
    if path.is_dir():
        raise SourceError(f"{path} is a folder, not a file")
    if not path.is_file():
        raise SourceError(f"there is no file {path}")
    with reading(path, what), h5py.File(path, "r", locking=False) as file:
        yield file


def find(group: h5py.Group, name: str, _followed: int = 0) -> Any:
    """The item `name` of a group, in the same file; None if there is none.

    Raises `SourceError` if it lies in another file, or behind links that lead nowhere.
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

    `kinds` are the numpy kinds that are accepted, `ndim` the number of axes. `most_bytes` is the limit for a
    dataset that is read as a whole; None for one that is read in pieces. Raises `SourceError`, which names it.
    """
    found = find(group, name)
    inside = "" if group.name in {None, "/"} else f"{group.name.lstrip('/')}/"
    place = f"{name_of(group)}: {inside}{name}"
    if found is None:
        raise SourceError(f"{place} is missing; the file is damaged, or another kind of file")
    return check_dataset(found, place, kinds=kinds, ndim=ndim, most_bytes=most_bytes)


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
        raise SourceError(f"{name_of(group)}: {name} has values that are neither text nor numbers")
    return np.asarray(found[()])


def attribute(item: h5py.Group | h5py.Dataset, name: str, kind: type | None = None) -> Any:
    """An attribute: `str`, a Python number, or an array; None if there is none.

    `kind` is the expected type: `str`, `float` (any number) or `int` (a whole number). Raises `SourceError` if it
    has another type or an impossible size.
    """
    if name not in item.attrs:
        return None
    place = f"{name_of(item)}: the attribute {name}"
    check_attribute(item, name)
    value = item.attrs[name]
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        value = value.item()
    if isinstance(value, np.ndarray) and value.size == 1 and kind is not None:
        value = value.reshape(()).item()  # as MATLAB writes every number
    return value if kind is None else _of_kind(value, kind, place)


def schema_of(file: h5py.File) -> str:
    """The attribute `schema` of a file, which says what it is; "" without one."""
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
    """Check what all datasets and attributes of one of our files claim, before anything is read.

    A dataset whose name begins with one of `in_pieces` may exceed `most_bytes`. Raises `SourceError`.
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
    """Collect what HDF5 visits; no exception may leave the visit."""
    if wanted:
        found.append(item)
