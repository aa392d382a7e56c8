"""Volumes of another program: their slices are as it says, and what cannot be is refused with the reason."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_listened import Opening, Sender, read

from acquisition.foreign_notes import ForeignNotes
from acquisition.listened.gate import Gate, Taken
from stream.errors import SourceError

SHAPE = (4, 5, 6)
Z_UM = [0.0, 0.5, 1.0, 1.5]


class Door:
    """A gate, and what it said about each message."""

    def __init__(self, z_step_um: float | None = None) -> None:
        self.said: list[str] = []
        self.notes = ForeignNotes(self.said.append)
        self.gate = Gate(self.notes, name=None, frame_rate_hz=10.0, z_step_um=z_step_um)
        self._number = -1

    def send(self, volume: Any = None, shape: Any = SHAPE, info: Any = None, pixels: int = 7) -> Taken | None:
        self._number += 1
        about = (info or {}) | ({} if volume is None else {"volume": volume})
        header = {"htype": "array-1.0", "type": "uint8", "shape": shape, "frame": self._number, "info": about}
        count = math.prod(shape) if all(isinstance(n, int) for n in shape) else 0
        payload = np.full(count if 0 <= count < 10**6 else 0, pixels, np.uint8).tobytes()
        taken = self.gate.take([memoryview(json.dumps(header).encode()), memoryview(payload)], 1, 10**7)
        self.notes.flush()
        return taken


def test_a_volume_has_the_heights_times_and_missing_slices_that_are_said() -> None:
    said = {"z_um": Z_UM, "time_s": [0.03, 0.02, 0.01, 0.0], "missing": [2], "upwards": False}
    taken = Door().send(said)
    assert taken is not None
    volume = taken.volume
    assert volume is not None
    assert (volume.z_um, volume.time_s) == (tuple(Z_UM), (0.03, 0.02, 0.01, 0.0))
    assert (volume.missing, volume.upwards) == ((2,), False)
    assert (taken.image[[0, 1, 3]] == 7).all()
    assert not taken.image[2].any()


def test_heights_may_be_said_once_or_be_given_by_the_user() -> None:
    door = Door()
    first, second = door.send({"z_um": Z_UM}), door.send()
    assert first is not None
    assert second is not None
    assert first.volume == second.volume
    given = Door(z_step_um=0.3).send({"z_um": Z_UM})
    assert given is not None
    assert given.volume is not None
    assert given.volume.z_um == pytest.approx((0.0, 0.3, 0.6, 0.9))


@pytest.mark.parametrize(
    ("volume", "reason"),
    [
        ({"z_um": [0.0, 0.5, 1.0]}, "z_um has 3 values, but the shape 4 slices"),
        ({"z_um": Z_UM, "time_s": [0.0]}, "time_s has 1 values"),
        ({"z_um": [0.0, 0.5, 0.5, 1.0]}, "must ascend"),
        ({"z_um": Z_UM[::-1]}, "from 0"),
        ({"z_um": [1.0, 1.5, 2.0, 2.5]}, "from 0"),
        ({"z_um": [0.0, None, 1.0, 1.5]}, "info.volume cannot be used"),
        ({"z_um": [0.0, math.nan, 1.0, 1.5]}, "not a header"),
        ({"z_um": [0.0, 1.0, 2.0, 1e999]}, "not a header"),
        ({"z_um": "high"}, "info.volume cannot be used"),
        ({"z_um": Z_UM, "missing": [4]}, "missing are planes"),
        ({"z_um": Z_UM, "missing": [2, 1]}, "missing are planes"),
        ({"z_um": Z_UM, "missing": [-1]}, "missing are planes"),
        ({"z_um": Z_UM, "missing": [0, 1, 2, 3]}, "all 4 slices are missing"),
        ({"z_um": Z_UM, "upwards": "yes"}, "info.volume cannot be used"),
        ([1, 2, 3], "info.volume cannot be used"),
    ],
)
def test_slices_that_cannot_be_are_refused_in_a_line(volume: Any, reason: str) -> None:
    door = Door()
    assert door.send({"z_um": Z_UM}) is not None
    assert door.send(volume) is None
    assert door.notes.counts["malformed"] == 1
    assert any(reason in text for text in door.said), door.said
    assert all("\n" not in text for text in door.said)
    assert door.send({"z_um": Z_UM}) is not None


def test_images_other_depths_and_other_distances_are_not_of_the_run() -> None:
    door = Door()
    assert door.send({"z_um": Z_UM}) is not None
    assert door.send(shape=SHAPE[1:]) is None
    assert door.send({"z_um": Z_UM[:3]}, shape=(3, 5, 6)) is None
    assert door.notes.counts["other_size"] == 2
    assert door.send({"z_um": [0.0, 0.7, 1.4, 2.1]}) is None
    assert door.notes.counts["other_step"] == 1
    assert door.send({"z_um": [0.0, 0.52, 1.01, 1.5]}) is not None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2000) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
NUMBERS = st.lists(st.floats() | st.integers(-2, 2000), max_size=6)
VOLUMES = JSON | st.fixed_dictionaries(
    {},
    optional={"z_um": NUMBERS | JSON, "time_s": NUMBERS | JSON, "missing": NUMBERS | JSON, "upwards": JSON},
)
SHAPES = st.lists(st.integers(-2, 7) | st.integers(), min_size=0, max_size=5) | st.just(list(SHAPE))


@given(st.lists(st.tuples(VOLUMES, SHAPES), max_size=6))
def test_whatever_is_said_a_run_gets_sound_volumes_or_a_reason(messages: list[tuple[Any, Any]]) -> None:
    door = Door()
    door.send({"z_um": Z_UM})
    for volume, shape in messages:
        taken = door.send(volume, shape)
        if taken is not None:
            assert taken.image.shape == SHAPE
            assert taken.volume is not None
            assert taken.volume.slices == SHAPE[0]
            assert len(taken.volume.missing) < SHAPE[0]
    refused = sum(door.notes.counts.values())
    assert door.send({"z_um": Z_UM}) is not None or door.gate.ended
    assert refused <= len(messages)


def volume_of(number: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray[Any, np.dtype[np.uint16]]:
    return np.random.default_rng(number).integers(1, 900, shape, np.uint16)


def send(sender: Sender, number: int, **info: Any) -> None:
    volume = volume_of(number)
    sender.raw(volume.tobytes(), type="uint16", shape=volume.shape, frame=number, info=info)


def test_volumes_arrive_over_a_socket_as_frames_of_a_source() -> None:
    opening = Opening()
    sender = Sender(opening.address)
    about = {"pixel_size_um": 0.2, "focus_um": 40.0, "volume": {"z_um": Z_UM}}
    send(sender, 0, time_s=5.0, **about)
    send(sender, 1, time_s=5.1, **(about | {"volume": {"z_um": Z_UM, "missing": [3]}}))
    source = opening.opened()
    source.start()
    info = source.info
    assert (info.depth, info.height, info.width, info.z_step_um) == (*SHAPE, pytest.approx(0.5))
    first, second = read(source, 2)
    np.testing.assert_array_equal(first.image, volume_of(0))
    assert first.info.volume is not None
    assert second.info.volume is not None
    assert (first.info.volume.missing, second.info.volume.missing) == ((), (3,))
    assert (first.info.focus_um, second.info.time_s) == (40.0, pytest.approx(0.1))
    sender.close()
    source.close()


@pytest.mark.parametrize(
    ("info", "settings", "reason"),
    [
        ({"pixel_size_um": 0.2}, {}, "how far its slices are apart; give source.z_step_um"),
        ({"volume": {"z_um": Z_UM}}, {}, "how large its pixels are; give source.pixel_size_um"),
        ({}, {"z_step_um": 0.5}, "how large its pixels are; give source.pixel_size_um"),
        ({"pixel_size_um": 200.0, "volume": {"z_um": Z_UM}}, {}, "which is not possible: a unit is wrong"),
    ],
)
def test_voxels_that_are_not_known_are_asked_for_in_a_line(info: Any, settings: Any, reason: str) -> None:
    opening = Opening(settings={"listen": "tcp://127.0.0.1:0", **settings})
    sender = Sender(opening.address)
    send(sender, 0, **info)
    with pytest.raises(SourceError, match=reason) as caught:
        opening.opened()
    assert "--" not in str(caught.value)
    sender.close()
