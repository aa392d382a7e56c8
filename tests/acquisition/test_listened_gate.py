"""What a run takes of the messages that reach it: one sender, one size, and everything refused is counted."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from acquisition.foreign_notes import ForeignNotes
from acquisition.listened.gate import Gate, Taken

OURS, THEIRS = 7, 9


class Door:
    """A gate with its notes, and a sender's hand."""

    def __init__(self, name: str | None = None) -> None:
        self.said: list[str] = []
        self.notes = ForeignNotes(self.said.append)
        self.gate = Gate(self.notes, name=name, frame_rate_hz=None)
        self.now_ns = 0

    def send(self, number: int | None, connection: int = OURS, size: int = 4, **fields: Any) -> Taken | None:
        header = {"htype": "array-1.0", "type": "uint8", "shape": [size, 6], "frame": number} | fields
        pixels = np.full((size, 6), (number or 0) % 256, np.uint8)
        return self.raw([json.dumps(header).encode(), pixels.tobytes()], connection)

    def end(self, connection: int = OURS, **fields: Any) -> None:
        header = {"htype": "array-1.0", "type": "uint8", "shape": [0]} | fields
        self.raw([json.dumps(header).encode(), b""], connection)

    def raw(self, parts: list[bytes], connection: int = OURS) -> Taken | None:
        self.now_ns += 10_000_000
        taken = self.gate.take([memoryview(part) for part in parts], connection, self.now_ns)
        self.notes.flush()
        return taken


def test_the_first_frame_decides_size_and_type() -> None:
    door = Door()
    assert door.send(0) is not None
    assert door.send(1, size=5) is None
    assert door.send(2, type="uint16") is None
    taken = door.send(3)
    assert taken is not None
    np.testing.assert_array_equal(taken.image, np.full((4, 6), 3))
    assert door.notes.counts["other_size"] == 2
    assert door.gate.order.lost == 2


def test_a_second_sender_is_refused_until_the_first_has_gone() -> None:
    door = Door()
    door.send(0)
    assert door.send(0, THEIRS) is None
    door.end(THEIRS)
    assert not door.gate.ended
    door.gate.gone(OURS)
    assert door.send(0, THEIRS) is not None
    assert door.notes.counts == {"second_sender": 1, "other_ends": 1, "sender_restarts": 1}
    assert door.send(1, OURS) is None


def test_a_sender_that_reconnects_and_counts_on_has_not_begun_again() -> None:
    door = Door()
    door.send(0)
    door.gate.gone(OURS)
    taken = door.send(3, THEIRS)
    assert taken is not None
    assert (taken.number, door.gate.order.lost, door.notes.counts) == (3, 2, {})


def test_one_of_several_sources_is_taken() -> None:
    door = Door(name="camera 2")
    assert door.send(0, source="camera 1") is None
    assert door.send(0, source="camera 2") is not None
    first = Door()
    assert first.send(0, source="camera 1") is not None
    assert first.send(0, source="camera 2") is None
    assert "source.name" in first.said[-1]


def test_only_the_senders_own_marker_ends_the_run() -> None:
    door = Door()
    door.end()
    assert not door.gate.ended
    door.send(0)
    door.end(kind="start")
    assert not door.gate.ended
    door.end(frame=4)
    assert door.gate.ended
    assert door.gate.order.lost == 4


def test_frames_with_and_without_numbers_are_not_mixed() -> None:
    door = Door()
    door.send(None)
    assert door.send(5) is None
    assert door.send(None) is not None
    assert door.notes.counts == {"malformed": 1}


def test_during_a_pause_frames_are_counted_and_not_lost() -> None:
    door = Door()
    door.send(0)
    door.gate.paused = True
    assert door.send(1) is None
    door.gate.paused = False
    taken = door.send(2)
    assert taken is not None
    assert (taken.number, door.gate.order.lost, door.notes.counts) == (1, 0, {"while_paused": 1})


def test_a_flood_is_counted_and_told_rarely() -> None:
    door = Door()
    for _ in range(1500):
        door.raw([b"GET / HTTP/1.1\x1b[2J"])
    assert door.notes.counts == {"malformed": 1500}
    assert len(door.said) == 4
    assert not any("\x1b" in line for line in door.said)


@given(st.lists(st.lists(st.binary(max_size=60), min_size=1, max_size=4), max_size=10))
def test_garbage_beside_good_frames_changes_nothing(rubbish: list[list[bytes]]) -> None:
    door = Door()
    assert door.send(0) is not None
    for number, parts in enumerate(rubbish, start=1):
        assert door.raw(parts, THEIRS) is None
        taken = door.send(number)
        assert taken is not None
        assert taken.number == number
    assert door.gate.order.lost == 0
