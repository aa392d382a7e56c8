"""What a header of another program says, and that no bytes do harm."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acquisition.listened.header import (
    MOST_BYTES,
    EndHeader,
    ImageHeader,
    OtherHeader,
    image_of,
    read_header,
)
from stream.errors import WireError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ("htype", "type", "shape", "frame", "source", "kind", "encoding", "compression", "info", "link")


def header(**fields: Any) -> bytes:
    """A minimal header, with other fields."""
    return json.dumps({"htype": "array-1.0", "type": "uint8", "shape": [4, 6], "frame": 3} | fields).encode()


def test_four_fields_are_enough() -> None:
    found = read_header(header())
    assert isinstance(found, ImageHeader)
    assert (found.number, found.shape, found.nbytes) == (3, (4, 6), 24)


def test_the_htype_may_be_a_list_as_in_the_specification() -> None:
    assert isinstance(read_header(header(htype=["array-1.0"])), ImageHeader)


def test_without_a_frame_number_the_cameras_own_one_counts() -> None:
    found = read_header(header(frame=None, info={"camera_frame": 17}))
    assert isinstance(found, ImageHeader)
    assert found.number == 17
    bare = read_header(header(frame=None))
    assert isinstance(bare, ImageHeader)
    assert bare.number is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"htype": "pulse-1.0"}, "array-1.0"),
        ({"type": "float64"}, "uint8 or uint16"),
        ({"type": "int16"}, "uint8 or uint16"),
        ({"shape": [3, 4, 6, 1]}, "height, width"),
        ({"shape": [1, 4, 6]}, "height, width"),
        ({"shape": [0, 4, 6]}, "2 to 1000 slices"),
        ({"shape": [5000, 4, 6]}, "2 to 1000 slices"),
        ({"shape": [3, 0, 6]}, "1 to"),
        ({"shape": [24]}, "height, width"),
        ({"shape": []}, "height, width"),
        ({"shape": [0, 6]}, "1 to"),
        ({"shape": [-4, 6]}, "1 to"),
        ({"shape": [2**40, 2**40]}, "1 to"),
        ({"shape": [2**70, 1]}, "not a header"),
        ({"shape": "4x6"}, "not a header"),
        ({"frame": -1}, "count up from 0"),
        ({"frame": 1.5}, "not a header"),
        ({"frame": "3"}, "not a header"),
        ({"encoding": "middle"}, "little or big"),
        ({"compression": "bitshuffle_lz4"}, "raw pixels"),
        ({"info": [1, 2]}, "not a header"),
    ],
)
def test_what_cannot_be_a_frame_is_refused_with_the_reason(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        read_header(header(**fields))


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xfe", b"[]", b"{" * 60_000, b"null", header(source="x" * 70_000)]
)
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        read_header(data)


def test_a_message_without_pixels_ends_the_stream_unless_it_is_another_kind() -> None:
    assert read_header(header(shape=[0])) == EndHeader(3, "")
    assert read_header(header(shape=[0], kind="start")) == OtherHeader("start")
    assert read_header(header(kind="detections", type="float64", shape=[8, 3])) == OtherHeader("detections")


def test_numbers_about_a_frame_are_used_and_others_named() -> None:
    info = {"focus_um": 12.5, "exposure_ms": "long", "pixel_size_um": -1, "flow_ul_s": True, "unknown": {}}
    found = read_header(header(info=info))
    assert isinstance(found, ImageHeader)
    assert found.said.focus_um == 12.5
    assert set(found.ignored) == {"exposure_ms", "pixel_size_um", "flow_ul_s"}


@pytest.mark.parametrize(("encoding", "order"), [(None, "<"), ("little", "<"), ("big", ">")])
def test_both_byte_orders_are_read(encoding: str | None, order: str) -> None:
    pixels = np.arange(24, dtype=np.uint16).reshape(4, 6) * 1000
    found = read_header(header(type="uint16", **({} if encoding is None else {"encoding": encoding})))
    assert isinstance(found, ImageHeader)
    image = image_of(found, memoryview(pixels.astype(f"{order}u2").tobytes()))
    np.testing.assert_array_equal(image, pixels)
    assert image.dtype == np.uint16
    assert image.dtype.isnative


@pytest.mark.parametrize("length", [0, 23, 25, 48])
def test_a_buffer_of_another_length_is_refused(length: int) -> None:
    found = read_header(header())
    assert isinstance(found, ImageHeader)
    with pytest.raises(WireError, match="needs 24"):
        image_of(found, memoryview(bytes(length)))


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(WireError):
        read_header(data)


@given(st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=8), st.binary(max_size=40))
def test_any_header_gives_a_valid_image_or_is_refused(fields: dict[str, Any], payload: bytes) -> None:
    data = json.dumps({"htype": "array-1.0", "type": "uint8", "shape": [4, 6]} | fields).encode()
    try:
        found = read_header(data)
        if not isinstance(found, ImageHeader):
            return
        assert found.nbytes <= 2 * MOST_BYTES
        image = image_of(found, memoryview(payload))
    except WireError:
        return
    assert image.shape == found.shape
    assert image.nbytes == len(payload)
    assert not image.flags.writeable
