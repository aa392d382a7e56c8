"""Rings of slots: what is read from a slot is what was written, or it is known to be torn."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from link_workers import HANGS_S, process, wait_until

from stream.errors import LinkError
from stream.ring import LocalRing, ReferenceRing
from stream.shared_ring import SharedRing, SharedRingReader

SLOTS = 4
SLOT_BYTES = 1000


@pytest.mark.parametrize("sparse", [False, True])
@given(
    payloads=st.lists(st.binary(min_size=1, max_size=SLOT_BYTES), min_size=1, max_size=8),
)
@settings(max_examples=30, deadline=None)
def test_shared_memory_gives_back_what_was_written(sparse: bool, payloads: list[bytes]) -> None:
    ring = SharedRing(SLOTS, SLOT_BYTES, sparse=sparse)
    reader = SharedRingReader(ring.name, SLOTS, SLOT_BYTES, sparse=sparse)
    for sequence, payload in enumerate(payloads):
        ring.write(sequence % SLOTS, sequence, payload)
        view = reader.view(sequence % SLOTS, sequence, len(payload))
        assert view is not None
        assert bytes(view) == payload
        del view
    reader.close()
    ring.close()


def test_a_slot_that_was_written_again_is_not_intact() -> None:
    ring = SharedRing(SLOTS, SLOT_BYTES)
    reader = SharedRingReader(ring.name, SLOTS, SLOT_BYTES)
    ring.write(1, 5, b"first")
    assert reader.intact(1, 5)
    ring.write(1, 9, b"again")
    assert not reader.intact(1, 5)
    assert reader.view(1, 5, 5) is None
    reader.close()
    ring.close()


@pytest.mark.parametrize(("slot", "nbytes"), [(-1, 10), (SLOTS, 10), (0, SLOT_BYTES + 1), (2**40, 1)])
def test_a_slot_that_does_not_exist_is_no_message(slot: int, nbytes: int) -> None:
    ring = SharedRing(SLOTS, SLOT_BYTES)
    reader = SharedRingReader(ring.name, SLOTS, SLOT_BYTES)
    assert reader.view(slot, 0, nbytes) is None
    reader.close()
    ring.close()


def test_views_are_read_only_and_outlive_the_ring() -> None:
    ring = SharedRing(SLOTS, SLOT_BYTES)
    reader = SharedRingReader(ring.name, SLOTS, SLOT_BYTES)
    ring.write(0, 0, bytes(range(200)))
    view = reader.view(0, 0, 200)
    assert view is not None
    array = np.frombuffer(view, np.uint8)
    del view
    reader.close()
    ring.close()
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    assert list(array) == list(range(200))
    del array, reader
    gc.collect()


def test_memory_that_cannot_be_had_is_said() -> None:
    with pytest.raises(LinkError, match="fewer slots"):
        SharedRing(1000, 2**50)


def test_memory_that_is_not_there_is_said() -> None:
    with pytest.raises(LinkError, match="tcp://"):
        SharedRingReader("liveptv-none", SLOTS, SLOT_BYTES)


def test_memory_smaller_than_announced_is_said() -> None:
    ring = SharedRing(SLOTS, SLOT_BYTES)
    with pytest.raises(LinkError, match="announced"):
        SharedRingReader(ring.name, 100 * SLOTS, SLOT_BYTES)
    ring.close()


def read_once(name: str) -> None:
    reader = SharedRingReader(name, SLOTS, SLOT_BYTES)
    assert reader.intact(0, 7)
    reader.close()


def test_a_reader_that_ends_does_not_take_the_memory_with_it() -> None:
    ring = SharedRing(SLOTS, SLOT_BYTES)
    ring.write(0, 7, b"here")
    with process(read_once, ring.name) as child:
        child.join(HANGS_S)
        assert child.exitcode == 0
    read_once(ring.name)
    ring.close()


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="shared memory has no names to look at here")
def test_the_memory_of_a_killed_sender_is_released() -> None:
    code = (
        "import time; from stream.shared_ring import SharedRing; r = SharedRing(4, 1000); "
        "print(r.name, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        assert child.stdout is not None
        name = child.stdout.readline().strip()
        assert (Path("/dev/shm") / name).exists()
        child.kill()
        child.wait()
        wait_until(lambda: not (Path("/dev/shm") / name).exists())


def test_a_reference_is_the_senders_own_memory() -> None:
    ring = ReferenceRing(SLOTS)
    array = np.arange(100, dtype=np.uint8)
    ring.write(2, 11, array.data)
    view = ReferenceRing.attach(ring.name).view(2, 11, 100)
    assert view is not None
    assert np.shares_memory(np.frombuffer(view, np.uint8), array)
    assert view.readonly
    ring.free(2)
    assert ring.view(2, 11, 100) is None


def test_a_ring_of_another_process_cannot_be_referred_to() -> None:
    with pytest.raises(LinkError, match="shm:// or tcp://"):
        ReferenceRing.attach("liveptv-elsewhere")


def test_a_local_slot_is_sent_without_a_copy() -> None:
    ring = LocalRing(SLOTS, SLOT_BYTES)
    ring.write(3, 0, b"abc")
    view = ring.outgoing(3, 3)
    ring.write(3, 1, b"xyz")
    assert bytes(view) == b"xyz"
    ring.close()


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="counts the blocks of a file in /dev/shm")
def test_a_sparse_ring_takes_the_memory_of_its_messages_and_not_of_its_slots() -> None:
    slots, slot_bytes = 256, 1 << 20
    ring = SharedRing(slots, slot_bytes, sparse=True)
    reader = SharedRingReader(ring.name, slots, slot_bytes, sparse=True)
    try:
        file = Path("/dev/shm") / ring.name
        for slot in range(8):
            ring.write(slot, slot, bytes(100_000))
        taken_bytes = 512 * file.stat().st_blocks
        assert 8 * 100_000 <= taken_bytes < 8 * 300_000 + slots * 8192
    finally:
        reader.close()
        ring.close()


def test_a_sparse_ring_without_memory_says_so_and_keeps_what_it_has(monkeypatch) -> None:
    ring = SharedRing(SLOTS, SLOT_BYTES, sparse=True)
    ring.write(0, 0, bytes(200))

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("stream.shared_ring._reserve", full)
    with pytest.raises(MemoryError, match="no space left"):
        ring.write(1, 1, bytes(500))
    ring.write(0, 2, bytes(400))
    ring.close()
