"""The ring in shared memory, as its writer and its readers see it.

The memory holds a mark of what was consumed and then the slots. A slot begins with a word that names the message in
it; the writer clears the word before it writes and sets it afterwards, and the reader checks it before and after
reading. A mismatch means that the slot was overwritten meanwhile: what was read from it is torn.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
from collections.abc import Sized
from multiprocessing import resource_tracker, shared_memory
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stream.errors import LinkError
from stream.ring import ByteArray, Payload, copy_into

WORD_BYTES = 64  # a cache line, so that the word of a slot shares none with pixels
NO_MESSAGE = 2**64 - 1
POSIX_SHARED = Path("/dev/shm")
WordArray = npt.NDArray[np.uint64]
_attach_lock = threading.Lock()


class SharedRing:
    """Slots in shared memory, written by the sender.

    All of it is allocated and touched at once; with `sparse` only the word of each slot, and the rest when it is
    written for the first time.
    """

    def __init__(self, slots: int, slot_bytes: int, *, sparse: bool = False) -> None:
        stride, size = _layout(slots, slot_bytes)
        self.sparse = sparse
        self._stride = stride
        self._allocated = [0 if sparse else stride - WORD_BYTES] * slots
        try:
            self._memory = _Segment(create=True, size=size)
        except OSError as error:
            raise LinkError(_no_room(size, str(error))) from error
        try:
            for start in range(0, size, stride) if sparse else ():
                _reserve(self._memory.name, start, min(2 * WORD_BYTES, size - start))
            if not sparse:
                _reserve(self._memory.name, 0, size)
        except OSError as error:
            self._memory.close()
            self._memory.unlink()
            raise LinkError(_no_room(size, str(error))) from error
        self.name = self._memory.name
        self._mark, self._words, self._payloads = _lay_out(self._memory, slots, stride)
        if not sparse:
            self._payloads.fill(0)
        self._words.fill(NO_MESSAGE)
        self._mark[0] = 0

    def write(self, slot: int, sequence: int, payload: Payload) -> None:
        """Clear the slot's word, copy the payload in, and set the word. Raises `MemoryError` if it cannot grow."""
        if len(payload) > self._allocated[slot]:
            self._grow(slot, len(payload))
        self._words[slot] = NO_MESSAGE
        copy_into(payload, self._payloads[slot])
        self._words[slot] = sequence

    def _grow(self, slot: int, nbytes: int) -> None:
        """Give a slot twice the memory that it needs now: a slowly growing message does not ask each time."""
        start = WORD_BYTES + slot * self._stride
        room = min(self._stride - WORD_BYTES, 2 * nbytes)
        try:
            _reserve(self._memory.name, start, WORD_BYTES + room)
        except OSError as error:
            raise MemoryError(f"there is no shared memory left for {nbytes} bytes ({error})") from error
        self._allocated[slot] = room

    def outgoing(self, slot: int, nbytes: int) -> Payload:
        """Nothing: the receiver reads the shared memory."""
        del slot, nbytes
        return b""

    def free(self, slot: int) -> None:
        """Nothing to release; the word stays until the slot is written again."""

    def consumed(self) -> int:
        """The last message that a receiver marked as consumed; -1 if there is none."""
        return int(self._mark[0]) - 1

    def close(self) -> None:
        """Release and unlink the memory; receivers that have it open keep it until they close it."""
        del self._mark, self._words, self._payloads
        self._memory.close()
        self._memory.unlink()


class SharedRingReader:
    """Slots in shared memory, read in place by the receiver. All of it is touched once, unless it is `sparse`."""

    def __init__(self, name: str, slots: int, slot_bytes: int, *, sparse: bool = False) -> None:
        stride, size = _layout(slots, slot_bytes)
        try:
            self._memory = _attach(name)
        except (OSError, ValueError) as error:
            raise LinkError(
                f"shared memory {name} of the sender cannot be opened ({error}); shm:// works on one host "
                "only, use tcp:// between hosts"
            ) from error
        if self._memory.size < size:
            found = self._memory.size
            self._memory.close()
            raise LinkError(
                f"shared memory {name} has {found} bytes instead of the {size} announced; restart the sender"
            )
        self._slot_bytes = slot_bytes
        self._mark, self._words, self._payloads = _lay_out(self._memory, slots, stride)
        if not sparse:
            self._payloads[:, :: mmap.PAGESIZE].max()

    def view(self, slot: int, sequence: int, nbytes: int) -> memoryview | None:
        """A read-only view of the shared memory itself."""
        if not (0 <= slot < len(self._words) and nbytes <= self._slot_bytes) or not self.intact(
            slot, sequence
        ):
            return None
        return self._payloads[slot, :nbytes].data.toreadonly()

    def intact(self, slot: int, sequence: int) -> bool:
        """Whether the slot's word still names message `sequence`."""
        return int(self._words[slot]) == sequence

    def mark_consumed(self, sequence: int) -> None:
        """Mark a message as consumed; the mark stays if this process is killed."""
        self._mark[0] = sequence + 1

    def close(self) -> None:
        """Release the memory."""
        del self._mark, self._words, self._payloads
        self._memory.close()


class _Segment(shared_memory.SharedMemory):
    """Shared memory whose `close` keeps the mapping as long as arrays still refer to it."""

    def close(self) -> None:
        try:
            super().close()
        except BufferError:
            self._buf = None
            self._mmap = None
            super().close()


def _attach(owned_elsewhere: str) -> shared_memory.SharedMemory:
    """Open shared memory that another process owns: it must not be unlinked when this process ends.

    Before Python 3.13 every opened segment is registered for unlinking (cpython #82300).
    """
    if sys.version_info >= (3, 13):
        return _Segment(owned_elsewhere, track=False)

    def register_others(name: Sized, rtype: str) -> None:
        if str(name).lstrip("/") != owned_elsewhere:
            register(name, rtype)

    with _attach_lock:
        register = resource_tracker.register
        resource_tracker.register = register_others
        try:
            return _Segment(owned_elsewhere)
        finally:
            resource_tracker.register = register


def _reserve(name: str, start: int, nbytes: int) -> None:
    """Allocate the pages now: with /dev/shm full, the first write to a page would kill the process."""
    if hasattr(os, "posix_fallocate") and (POSIX_SHARED / name).exists():
        with (POSIX_SHARED / name).open("r+b") as file:
            os.posix_fallocate(file.fileno(), start, nbytes)


def _no_room(size: int, reason: str) -> str:
    return f"shared memory of {size / 1e6:.0f} MB cannot be allocated ({reason}); use fewer slots or a tcp:// link"


def _layout(slots: int, slot_bytes: int) -> tuple[int, int]:
    stride = WORD_BYTES + -(-slot_bytes // WORD_BYTES) * WORD_BYTES
    return stride, WORD_BYTES + slots * stride


def _lay_out(
    memory: shared_memory.SharedMemory, slots: int, stride: int
) -> tuple[WordArray, WordArray, ByteArray]:
    """The consumption mark, the word of each slot (N,), and the payload of each slot (N, bytes)."""
    assert memory.buf is not None
    mark = np.frombuffer(memory.buf, np.uint64, 1)
    whole = np.frombuffer(memory.buf, np.uint8, slots * stride, WORD_BYTES).reshape(slots, stride)
    return mark, whole[:, :8].view(np.uint64)[:, 0], whole[:, WORD_BYTES:]
