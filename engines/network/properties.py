"""Changes the metadata of an ONNX file and leaves the network as it is, byte for byte; needs no ONNX library.

An ONNX file is one protobuf message, `ModelProto`; its field 14 holds the metadata, an entry {1: key, 2: value}
each (onnx.proto, protobuf encoding).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

METADATA, ENTRY_KEY, ENTRY_VALUE = 14, 1, 2
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
MOST_VARINT_BYTES = 10


def with_properties(content: bytes, changed: Mapping[str, str]) -> bytes:
    """The file with these entries of the metadata; others stay. Raises `ValueError` for what is no such file."""
    kept = bytearray()
    for field, start, value, stop in _fields(content):
        if field == METADATA and value is not None:
            key = next(
                (
                    content[at:end]
                    for name, _, at, end in _fields(content, value, stop)
                    if name == ENTRY_KEY and at
                ),
                b"",
            )
            if key.decode("utf-8", "replace") in changed:
                continue
        kept += content[start:stop]
    for name, text in changed.items():
        entry = _delimited(ENTRY_KEY, name.encode()) + _delimited(ENTRY_VALUE, text.encode())
        kept += _delimited(METADATA, entry)
    return bytes(kept)


def _fields(
    content: bytes, at: int = 0, end: int | None = None
) -> Iterator[tuple[int, int, int | None, int]]:
    """Number, start, start of the value (None where it has no length), and end of each field."""
    end = len(content) if end is None else end
    while at < end:
        start = at
        tag, at = _varint(content, at, end)
        kind, value = tag & 7, None
        if kind == LENGTH:
            size, at = _varint(content, at, end)
            value, at = at, at + size
        elif kind == VARINT:
            _, at = _varint(content, at, end)
        elif kind in (FIXED64, FIXED32):
            at += 8 if kind == FIXED64 else 4
        else:
            raise ValueError(f"no ONNX file: a field of type {kind} at byte {start}")
        if at > end:
            raise ValueError(f"no ONNX file, or cut short: a field at byte {start} ends beyond it")
        yield tag >> 3, start, value, at


def _varint(content: bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(MOST_VARINT_BYTES):
        if at >= end:
            raise ValueError("no ONNX file, or cut short")
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << (7 * shift)
        if not byte & 0x80:
            return value, at
    raise ValueError(f"no ONNX file: a number without an end at byte {at}")


def _delimited(field: int, value: bytes) -> bytes:
    return _number(field << 3 | LENGTH) + _number(len(value)) + value


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
