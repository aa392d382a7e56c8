"""ONNX files written byte by byte (protocol buffers), such as a trainer would never write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

FLOAT, INT64, BOOL = 1, 7, 9
GRAPH_ATTRIBUTE, INTS_ATTRIBUTE = 5, 7


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def value_info(name: str, kind: int, shape: tuple[int | str, ...]) -> bytes:
    dims = b"".join(field(1, field(2, size) if isinstance(size, str) else field(1, size)) for size in shape)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, dims)))


def node(op: str, inputs: list[str], outputs: list[str], attributes: bytes = b"") -> bytes:
    return (
        b"".join(field(1, name) for name in inputs)
        + b"".join(field(2, name) for name in outputs)
        + field(4, op)
        + attributes
    )


def tensor(name: str, kind: int, shape: tuple[int, ...], values: list[float]) -> bytes:
    raw = np.asarray(values, {FLOAT: "<f4", INT64: "<i8", BOOL: "?"}[kind]).tobytes()
    return b"".join(field(1, size) for size in shape) + field(2, kind) + field(8, name) + field(9, raw)


def graph(
    nodes: list[bytes], inputs: list[bytes], outputs: list[bytes], initial: Sequence[bytes] = ()
) -> bytes:
    return (
        b"".join(field(1, n) for n in nodes)
        + field(2, "g")
        + b"".join(field(5, t) for t in initial)
        + b"".join(field(11, v) for v in inputs)
        + b"".join(field(12, v) for v in outputs)
    )


def model(whole: bytes, metadata: Mapping[str, str]) -> bytes:
    entries = b"".join(field(14, field(1, key) + field(2, text)) for key, text in metadata.items())
    return field(1, 8) + field(7, whole) + field(8, field(1, "") + field(2, 17)) + entries


def planes_of(image: str, channels: int) -> tuple[list[bytes], list[bytes]]:
    """Nodes and initial values of a network without a meaning: planes `maps` at a quarter of the size."""
    weight = tensor("w", FLOAT, (channels, 1, 4, 4), [0.01] * (16 * channels))
    strides = field(5, field(1, "strides") + field(20, INTS_ATTRIBUTE) + field(8, 4) + field(8, 4))
    return [node("Conv", [image, "w"], ["maps"], strides)], [weight]


def looping(trips: int, metadata: Mapping[str, str], channels: int) -> bytes:
    """A network that goes through a loop `trips` times before it answers."""
    body = graph(
        [node("Identity", ["go"], ["on"]), node("Add", ["x", "x"], ["y"])],
        [value_info("i", INT64, ()), value_info("go", BOOL, ()), value_info("x", FLOAT, (1, 1, "h", "w"))],
        [value_info("on", BOOL, ()), value_info("y", FLOAT, (1, 1, "h", "w"))],
    )
    loop = field(5, field(1, "body") + field(20, GRAPH_ATTRIBUTE) + field(6, body))
    nodes, initial = planes_of("later", channels)
    return model(
        graph(
            [node("Loop", ["trips", "yes", "image"], ["later"], loop), *nodes],
            [value_info("image", FLOAT, (1, 1, "H", "W"))],
            [value_info("maps", FLOAT, (1, channels, "h4", "w4"))],
            [tensor("trips", INT64, (), [trips]), tensor("yes", BOOL, (), [True]), *initial],
        ),
        metadata,
    )
