"""The data arrays of a VTK XML file: ascii, base64 or appended, compressed or not.

After the VTK User's Guide, "VTK File Formats". An array in base64 or appended begins with its number of bytes; a
compressed one with the number of blocks, their size, the size of the last, and the compressed size of each.
"""

from __future__ import annotations

import base64
import binascii
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from stream.hdf5_checks import check_memory

TYPES = {
    "Int8": "i1", "UInt8": "u1", "Int16": "i2", "UInt16": "u2", "Int32": "i4", "UInt32": "u4", "Int64": "i8",
    "UInt64": "u8", "Float32": "f4", "Float64": "f8",
}  # fmt: skip
MOST_RATIO = (
    1100  # deflate's largest ratio of compression (RFC 1951), the strongest of the three on such data
)
SLACK_BYTES = 16 << 20
Inflate = Callable[[bytes, int], bytes]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file stores its arrays: byte order (`<` or `>`), type of headers, compressor ("" for none)."""

    order: str
    header: str
    compressor: str


@dataclass(slots=True)
class DataArray:
    """One array as it stands in the file; `data` is its text, or where it begins in the appended data."""

    name: str
    section: str
    kind: str
    components: int
    format: str
    data: bytes | int


class DamagedError(ValueError):
    """An array does not hold what it should; the text says what."""


def values_of(
    array: DataArray, layout: Layout, appended: bytes | memoryview, is_base64: bool
) -> npt.NDArray[Any]:
    """The values, (N,), or (N, components) for more than one. Raises `DamagedError`."""
    if array.kind not in TYPES:
        raise DamagedError(f"the array {array.name} is of type {array.kind}")
    dtype = np.dtype(layout.order + TYPES[array.kind])
    if array.format == "ascii":
        assert isinstance(array.data, bytes)
        values = _of_text(array, dtype)
    else:
        if isinstance(array.data, int):
            if not 0 <= array.data < len(appended):
                raise DamagedError(f"the array {array.name} begins at byte {array.data} of {len(appended)}")
            rest: bytes | memoryview = memoryview(appended)[array.data :]
            raw = (
                _of_base64(bytes(rest), layout, array.name)
                if is_base64
                else _blocks(rest, layout, array.name)
            )
        else:
            raw = _of_base64(b"".join(array.data.split()), layout, array.name)
        if len(raw) % dtype.itemsize:
            raise DamagedError(
                f"the array {array.name} has {len(raw)} bytes, not a multiple of {dtype.itemsize}"
            )
        values = np.frombuffer(raw, dtype)
    if len(values) % array.components:
        raise DamagedError(
            f"the array {array.name} has {len(values)} values for {array.components} components"
        )
    native = values.astype(dtype.newbyteorder("="), copy=False)
    return native.reshape(-1, array.components) if array.components > 1 else native


def _of_text(array: DataArray, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    assert isinstance(array.data, bytes)
    words = array.data.split()
    try:
        if dtype.kind == "f":
            return np.array(words, "S").astype(np.float64).astype(dtype) if words else np.empty(0, dtype)
        return np.array([int(word) for word in words], dtype)
    except (ValueError, OverflowError):
        raise DamagedError(f"the array {array.name} has something that is not a number") from None


def _decoded(text: bytes, name: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise DamagedError(f"the array {name} is not base64") from None


def _of_base64(text: bytes, layout: Layout, name: str) -> bytes:
    """Bytes of an array in base64; the header of a compressed one is encoded by itself."""
    size = np.dtype(layout.header).itemsize
    if not layout.compressor:
        nbytes = _integers(_decoded(text[: _letters(size)], name)[:size], layout, name)[0]
        return bytes(_blocks(_decoded(text[: _letters(size + nbytes)], name), layout, name))
    count = _integers(_decoded(text[: _letters(size)], name)[:size], layout, name)[0]
    if not 0 <= count <= len(text):
        raise DamagedError(f"the array {name} claims {count} blocks")
    head = _letters(size * (3 + count))
    lengths = _integers(_decoded(text[:head], name), layout, name)[3 : 3 + count]
    body = text[head : head + _letters(sum(lengths))]
    return _blocks(_decoded(text[:head], name)[: size * (3 + count)] + _decoded(body, name), layout, name)


def _letters(nbytes: int) -> int:
    return 4 * ((nbytes + 2) // 3)


def _integers(data: bytes | memoryview, layout: Layout, name: str) -> list[int]:
    dtype = np.dtype(layout.order + layout.header[-2:])
    whole = len(data) // dtype.itemsize * dtype.itemsize
    if not whole:
        raise DamagedError(f"the array {name} is cut short")
    return [int(value) for value in np.frombuffer(data[:whole], dtype)]


def _blocks(data: bytes | memoryview, layout: Layout, name: str) -> bytes:
    """Bytes of an array that begins with its header, decompressed."""
    size = np.dtype(layout.header).itemsize
    first = _integers(data[:size], layout, name)[0]
    if not layout.compressor:
        if len(data) < size + first:
            raise DamagedError(f"the array {name} is cut short: {len(data) - size} of {first} bytes")
        return bytes(data[size : size + first])
    if not 0 <= first <= len(data):
        raise DamagedError(f"the array {name} claims {first} blocks")
    if first == 0:
        return b""
    head = _integers(data[: size * (3 + first)], layout, name)
    if len(head) < 3 + first:
        raise DamagedError(f"the array {name} is cut short")
    block, last, lengths = head[1], head[2], head[3:]
    claimed = block * (first - (last > 0)) + last
    if claimed > len(data) * MOST_RATIO + SLACK_BYTES:
        raise DamagedError(f"the array {name} claims {claimed} bytes in {len(data)}")
    check_memory(claimed, f"the array {name}")
    at = size * (3 + first)
    found = []
    for number, length in enumerate(lengths):
        wanted = last if last and number == first - 1 else block
        found.append(_inflate(bytes(data[at : at + length]), wanted, layout.compressor, name))
        at += length
    return b"".join(found)


def _inflate(data: bytes, nbytes: int, compressor: str, name: str) -> bytes:
    try:
        if compressor == "vtkZLibDataCompressor":
            inflated = zlib.decompressobj().decompress(data, nbytes + 1)
        elif compressor == "vtkLZMADataCompressor":
            inflated = lzma.LZMADecompressor().decompress(data, nbytes + 1)
        elif compressor == "vtkLZ4DataCompressor":
            inflated = bytes(imagecodecs.lz4_decode(data, header=False, out=nbytes))
        else:
            raise DamagedError(f"the array {name} is compressed by {compressor}, which is not known")
    except (zlib.error, lzma.LZMAError, imagecodecs.Lz4Error) as error:
        raise DamagedError(f"the array {name} cannot be decompressed ({error})") from error
    if len(inflated) != nbytes:
        raise DamagedError(f"a block of the array {name} has {len(inflated)} bytes, not {nbytes}")
    return inflated
