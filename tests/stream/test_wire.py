"""The wire format carries every message unharmed, and lets nothing through that is not one."""

from __future__ import annotations

import contextlib
import json
import random
import re
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_strategies import MESSAGES, TEXT, a_frame, same, some_detections

from stream.errors import WireError
from stream.header import (
    AckFields,
    CommandFields,
    EndFields,
    InfoFields,
    StartFields,
    StatusFields,
    VolumeFields,
)
from stream.messages import (
    Command,
    CommandKind,
    CommandReply,
    Detections,
    Frame,
    Message,
    Predictions,
    Properties,
    StageState,
    Status,
    Tracks,
)
from stream.particle_properties import property_columns
from stream.volume_info import VolumeInfo
from stream.wire import KINDS, MAX_HEADER_BYTES, Header, LinkFields, assemble, decode, decode_header, encode

TIME_OFFSET, BEFORE = "time_offset_s", "track_before"
LINKS = st.one_of(st.none(), st.builds(LinkFields, st.integers(0, 2**63 - 1), TEXT, st.integers(-1, 99)))


def changed(message: Message, **fields: object) -> bytes:
    header = json.loads(encode(message)[0])
    for name, value in fields.items():
        if value is ...:
            del header[name]
        else:
            header[name] = value
    return json.dumps(header).encode()


@settings(max_examples=300, deadline=None)
@given(MESSAGES, TEXT, LINKS)
def test_every_message_comes_back_as_it_was_sent(
    message: Message, source: str, link: LinkFields | None
) -> None:
    header, payload = encode(message, source, link)
    received = decode(header, payload)
    assert same(message, received.message)
    assert (received.source, received.link) == (source, link)


@settings(max_examples=100, deadline=None)
@given(MESSAGES, TEXT)
def test_a_header_is_plain_json_that_starts_with_htype_and_source(message: Message, source: str) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    header, payload = encode(message, source)
    fields = json.loads(header, parse_constant=refuse)
    assert list(fields)[:2] == ["htype", "source"]
    assert header.startswith(b'{"htype":"array-1.0","source":"')
    assert int(np.prod(fields["shape"])) * np.dtype(fields["type"]).itemsize == memoryview(payload).nbytes


def test_an_array_is_neither_copied_on_its_way_out_nor_on_its_way_in() -> None:
    frame = a_frame()
    header, payload = encode(frame)
    received = decode(header, payload).message
    assert isinstance(received, Frame)
    assert np.shares_memory(received.image, frame.image)
    assert not received.image.flags.writeable
    assert frame.image.flags.writeable


def test_a_slice_of_an_image_and_an_image_of_the_other_byte_order_arrive_right() -> None:
    whole = a_frame(shape=(10, 12))
    for image in (whole.image[::2, 3:], whole.image.astype(">u2")):
        header, payload = encode(Frame(whole.info, image))
        received = decode(header, bytes(payload)).message
        assert isinstance(received, Frame)
        assert received.image.dtype == np.uint16
        np.testing.assert_array_equal(received.image, image)


def test_a_table_in_a_crooked_buffer_is_straightened() -> None:
    found = some_detections()
    header, payload = encode(found)
    crooked = memoryview(b"x" + bytes(payload))[1:]
    received = decode(header, crooked).message
    assert isinstance(received, Detections)
    assert received.table.flags.aligned
    np.testing.assert_array_equal(received.table, found.table)


def test_a_message_is_assembled_from_a_slot_once_its_header_is_known() -> None:
    frame = a_frame()
    data, payload = encode(frame)
    header = decode_header(memoryview(data))
    assert header.payload_bytes == frame.image.nbytes
    slot = bytearray(1000)
    slot[64 : 64 + header.payload_bytes] = payload
    assert same(frame, assemble(header, memoryview(slot)[64 : 64 + header.payload_bytes]))


def test_numpy_numbers_in_the_fields_are_numbers_on_the_wire() -> None:
    status = Status("r", "s", StageState.RUNNING, {"n": np.int64(3)}, {"g": np.float32(0.5)})  # type: ignore[dict-item]
    received = decode(*encode(status)).message
    assert isinstance(received, Status)
    assert received.counts == {"n": 3}
    assert received.gauges == {"g": 0.5}


def test_fields_of_others_in_the_header_are_no_harm() -> None:
    header = changed(CommandReply("c", True), timestamp=[1, 2], ndattr={"a": None})
    assert same(decode(header, b"").message, CommandReply("c", True))


DOCUMENT = Path(__file__).parents[2] / "docs" / "streaming.md"


def test_the_headers_in_the_documentation_are_real() -> None:
    examples = re.findall(r"```json\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert [decode_header(text.encode()).kind for text in examples] == ["frame", "detections", "command"]


ACK, FRAME, FOUND = CommandReply("c", True), a_frame(), some_detections()
VOLUME = replace(
    FRAME, image=np.ones((3, 4, 5), np.uint16), info=replace(FRAME.info, volume=VolumeInfo((0.0, 0.5, 1.0)))
)


@pytest.mark.parametrize(
    "told",
    [
        {"z_um": [0.0, 0.5]},
        {"z_um": [0.0, 1.0, 0.5]},
        {"z_um": [1.0, 2.0, 3.0]},
        {"z_um": []},
        {"z_um": [0.0, 0.5, 1.0], "time_s": [0.0]},
        {"z_um": [0.0, 0.5, 1.0], "missing": [3]},
        {"z_um": [0.0, 0.5, 1.0], "missing": [1, 1]},
        {"z_um": [0.0, 0.5, 1.0], "missing": [-1]},
        {"z_um": 3},
    ],
)
def test_a_volume_whose_slices_cannot_be_is_refused(told: dict[str, object]) -> None:
    header, payload = encode(VOLUME)
    fields = json.loads(header)
    assert fields["info"]["volume"] == {"z_um": [0.0, 0.5, 1.0]}
    fields["info"]["volume"] = told
    with pytest.raises(WireError):
        decode(json.dumps(fields).encode(), bytes(payload))


def test_every_field_of_the_header_is_documented() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    structs = (
        *(Header, LinkFields, InfoFields, VolumeFields, CommandFields),
        *(AckFields, StatusFields, StartFields, EndFields),
    )
    names = {field.name for struct in structs for field in msgspec.structs.fields(struct)}
    names |= {*Detections.COLUMNS, *Tracks.COLUMNS, *CommandKind, *StageState, *KINDS.values()}
    assert {name for name in names if f"`{name}`" not in text} == set()


RADII = Properties(("radius_um",), np.linspace(0.1, 0.5, 5)[None], np.full((1, 5), 0.02))
TRACKED = Tracks.from_columns(FOUND.info, track=np.arange(3.0), z_um=[1.0, 2.0, 3.0], flags=[0, 1, 4])
IMAGE, TABLE = bytes(encode(FRAME)[1]), bytes(encode(FOUND)[1])
BAD = {
    "nothing": (b"", b""),
    "no JSON": (b"\xff\xfe", b""),
    "JSON that is no object": (b"[1]", b""),
    "text that is no Unicode": (encode(ACK)[0].replace(b"liveptv", b"\xff\xfe"), b""),
    "too deep": (b"[" * 60000, b""),
    "too deep in a field of others": (
        encode(ACK)[0][:-1] + b',"z":' + b"[" * 30000 + b"]" * 30000 + b"}",
        b"",
    ),
    "too long": (changed(ACK, filler="x" * MAX_HEADER_BYTES), b""),
    "another htype": (changed(ACK, htype="array-2.0"), b""),
    "another schema": (changed(ACK, schema=2), b""),
    "no schema": (changed(ACK, schema=...), b""),
    "unknown kind": (changed(ACK, kind="gift"), b""),
    "kind without its field": (changed(ACK, kind="command"), b""),
    "a buffer where none belongs": (encode(ACK)[0], b"x"),
    "a shape where none belongs": (changed(ACK, shape=[1]), b"x"),
    "shape without a dimension": (changed(FRAME, shape=[]), IMAGE),
    "one dimension": (changed(FRAME, shape=[24]), IMAGE),
    "four dimensions": (changed(FRAME, shape=[1, 1, 4, 6]), IMAGE),
    "negative shape": (changed(FRAME, shape=[-4, -6]), IMAGE),
    "shape beyond 64 bits": (changed(FRAME, shape=[2**64, 6]), IMAGE),
    "a product beyond all memory": (changed(FRAME, shape=[2**62, 2**62, 4]), IMAGE),
    "fractional shape": (changed(FRAME, shape=[4.5, 6]), IMAGE),
    "image without a pixel": (changed(FRAME, shape=[0, 6]), b""),
    "objects": (changed(FRAME, type="object"), IMAGE),
    "image of floats": (changed(FRAME, type="float64"), IMAGE * 4),
    "short buffer": (encode(FRAME)[0], IMAGE[:-1]),
    "long buffer": (encode(FRAME)[0], IMAGE + b"x"),
    "no info": (changed(FRAME, info=...), IMAGE),
    "frame before the first": (changed(FRAME, frame=-1), IMAGE),
    "frame beyond 64 bits": (changed(FRAME, frame=2**63), IMAGE),
    "columns missing": (changed(FOUND, columns=...), TABLE),
    "columns in another order": (changed(FOUND, columns=list(Detections.COLUMNS[::-1])), TABLE),
    "a property without its standard error": (
        changed(FOUND, columns=[*Detections.COLUMNS, "radius_um"], shape=[len(Detections.COLUMNS) + 1, 5]),
        TABLE + TABLE[:40],
    ),
    "a property that is a column already": (
        changed(
            FOUND,
            columns=[*Detections.COLUMNS, "vx_um_s", "sigma_vx_um_s"],
            shape=[len(Detections.COLUMNS) + 2, 5],
        ),
        TABLE + TABLE[:80],
    ),
    "a property of an impossible name": (
        changed(
            FOUND,
            columns=[*Detections.COLUMNS, "Radius!", "sigma_Radius!"],
            shape=[len(Detections.COLUMNS) + 2, 5],
        ),
        TABLE + TABLE[:80],
    ),
    "more properties than there may be": (
        changed(
            FOUND,
            columns=[*Detections.COLUMNS, *property_columns([f"p{i}" for i in range(9)])],
            shape=[len(Detections.COLUMNS) + 18, 5],
        ),
        TABLE + TABLE[:40] * 18,
    ),
    "properties of predictions": (
        changed(
            FOUND,
            kind="predictions",
            columns=[*Predictions.COLUMNS, "radius_um", "sigma_radius_um"],
            shape=[len(Predictions.COLUMNS) + 2, 0],
        ),
        b"",
    ),
    "a row too few": (changed(FOUND, shape=[7, 5]), TABLE[:280]),
    "table of bytes": (changed(FOUND, type="uint8"), TABLE[:40]),
    "negative sequence": (changed(ACK, link={"sequence": -1, "sender": "s"}), b""),
}


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_message_is_refused(name: str) -> None:
    with pytest.raises(WireError):
        decode(*BAD[name])


UNSENDABLE: dict[str, Message] = {
    "no number": Command(CommandKind.MOVE_FOCUS, float("nan")),
    "infinity": Command(CommandKind.MOVE_FOCUS, float("inf")),
    "a long text": CommandReply("x" * MAX_HEADER_BYTES, True),
    "a number beyond 64 bits": CommandReply("c", True, first_frame=2**70),
    "half a character": CommandReply("\ud800", True),
    "an object": CommandReply(object(), True),  # type: ignore[arg-type]
    "an image of floats": Frame(FRAME.info, np.zeros((4, 6), np.float32)),  # type: ignore[arg-type]
    "an image of doubles": Frame(FRAME.info, np.zeros((4, 6))),  # type: ignore[arg-type]
    "a line": Frame(FRAME.info, np.zeros(4, np.uint8)),
    "four dimensions": Frame(FRAME.info, np.zeros((1, 1, 4, 6), np.uint8)),
    "no pixel": Frame(FRAME.info, np.zeros((0, 6), np.uint8)),
    "a table of integers": Detections(FOUND.info, np.zeros((len(Detections.COLUMNS), 3), np.int64)),  # type: ignore[arg-type]
    "a frame before the first": Frame(replace(FRAME.info, frame=-1), FRAME.image),
}


@pytest.mark.parametrize("name", UNSENDABLE)
def test_what_the_format_cannot_carry_is_refused_by_the_sender(name: str) -> None:
    with pytest.raises(WireError):
        encode(UNSENDABLE[name])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=64))
def test_no_bytes_raise_anything_but_a_wire_error(header: bytes, payload: bytes) -> None:
    with pytest.raises(WireError):
        decode(header, payload)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(MESSAGES, st.data())
def test_a_header_with_a_wrong_field_raises_nothing_but_a_wire_error(
    message: Message, data: st.DataObject
) -> None:
    header, payload = encode(message)
    fields = json.loads(header)
    place = data.draw(st.sampled_from([fields, *(f for f in fields.values() if isinstance(f, dict) and f)]))
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(JSON)
    with contextlib.suppress(WireError):
        decode(json.dumps(fields).encode(), payload)


def test_random_damage_to_good_messages_raises_nothing_but_a_wire_error() -> None:
    dice = random.Random(1)
    good = [(h, bytes(p)) for h, p in (encode(m) for m in (FRAME, FOUND, ACK, Command(CommandKind.STOP)))]
    refused = 0
    for _ in range(20_000):
        header, payload = dice.choice(good)
        damaged = bytearray(header)
        for _ in range(dice.randint(1, 4)):
            where = dice.randrange(len(damaged))
            damaged[where : where + dice.randint(0, 3)] = dice.randbytes(dice.randint(0, 3))
        try:
            decode(damaged, payload[: dice.choice([len(payload), 5])])
        except WireError:
            refused += 1
    assert refused > 5_000


def test_what_a_detector_measures_beside_places_arrives_with_its_standard_errors() -> None:
    found = replace(FOUND, properties=RADII)
    received = decode(*encode(found)).message
    assert isinstance(received, Detections)
    assert same(received, found)
    np.testing.assert_array_equal(received.properties.value("radius_um"), RADII.values[0])
    np.testing.assert_array_equal(received.properties.error("radius_um"), RADII.errors[0])


def test_other_programs_find_a_property_among_the_columns_of_a_message() -> None:
    header, payload = encode(replace(FOUND, properties=RADII))
    columns = json.loads(header)["columns"]
    rows = np.frombuffer(payload).reshape(json.loads(header)["shape"])
    np.testing.assert_array_equal(rows[columns.index("sigma_radius_um")], RADII.errors[0])


def test_properties_of_an_older_sender_are_read_beside_its_fewer_columns() -> None:
    found = replace(FOUND, properties=RADII)
    header, payload = encode(found)
    fields = json.loads(header)
    kept = [name for name in fields["columns"] if name != TIME_OFFSET]
    rows = np.frombuffer(payload).reshape(fields["shape"])
    data = np.stack([rows[fields["columns"].index(name)] for name in kept]).tobytes()
    received = decode(json.dumps(fields | {"columns": kept, "shape": [len(kept), 5]}).encode(), data).message
    assert isinstance(received, Detections)
    assert same(received.properties, RADII)


@pytest.mark.parametrize(
    ("table", "without"),
    [
        (FOUND, FOUND.MORE),
        (FOUND, (*FOUND.MORE, "flags")),
        (TRACKED, (*TRACKED.MORE, *TRACKED.DETECTED, BEFORE)),
        (TRACKED, (*TRACKED.DETECTED, TIME_OFFSET, BEFORE)),
        (FOUND, (TIME_OFFSET,)),
        (TRACKED, (TIME_OFFSET, BEFORE)),
        (TRACKED, (BEFORE,)),
    ],
    ids=[
        "detections",
        "detections without flags",
        "tracks",
        "tracks without what was detected",
        "detections before volumes",
        "tracks before volumes",
        "tracks before links were decided anew",
    ],
)
def test_a_table_of_an_older_sender_is_read_and_its_new_columns_are_unknown(
    table: Detections | Tracks, without: tuple[str, ...]
) -> None:
    header, payload = encode(table)
    fields = json.loads(header)
    kept = [name for name in table.COLUMNS if name not in without]
    rows = np.frombuffer(payload).reshape(len(table.COLUMNS), -1)
    fields["columns"] = kept
    fields["shape"] = [len(kept), len(table)]
    data = np.stack([rows[table.COLUMNS.index(name)] for name in kept]).tobytes()
    found = decode(json.dumps(fields).encode(), data).message
    assert isinstance(found, type(table))
    for name in kept:
        np.testing.assert_array_equal(getattr(found, name), getattr(table, name))
    for name in set(without) - {"flags"}:
        assert np.isnan(getattr(found, name)).all()
    if "flags" in without:
        np.testing.assert_array_equal(found.flags, 0.0)
