"""Rings of pre-allocated slots that hold the arrays in transit: the two protocols, local memory, references.

Fresh memory costs five times a copy into memory that was touched before, so every slot is touched once when the
ring is made; one that is `sparse`, for many small messages, takes its memory when it needs it. The ring in shared
memory is in `stream.shared_ring`.
"""

from __future__ import annotations

import secrets
import weakref
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from stream.errors import LinkError

Payload = memoryview | bytes
ByteArray = npt.NDArray[np.uint8]


class SlotWriter(Protocol):
    """The sender's side of a ring; slots are claimed, written and freed by number."""

    @property
    def name(self) -> str:
        """The name by which a receiver opens the ring; empty if the payload travels with the message."""
        ...

    @property
    def sparse(self) -> bool:
        """Whether slots take their memory only when they are written."""
        ...

    def write(self, slot: int, sequence: int, payload: Payload) -> None:
        """Put a payload into a slot. Raises `MemoryError` if a sparse ring finds no memory for it now."""
        ...

    def outgoing(self, slot: int, nbytes: int) -> Payload:
        """What goes through the socket for this slot."""
        ...

    def free(self, slot: int) -> None:
        """Release what the slot refers to."""
        ...

    def consumed(self) -> int:
        """The last message that a receiver marked as consumed in the ring itself; -1 if there is none."""
        ...

    def close(self) -> None:
        """Release the memory."""
        ...


class SlotReader(Protocol):
    """The receiver's side of a ring."""

    def view(self, slot: int, sequence: int, nbytes: int) -> memoryview | None:
        """A read-only view of message `sequence` in `slot`; None if the slot holds another one."""
        ...

    def intact(self, slot: int, sequence: int) -> bool:
        """Whether the slot still holds message `sequence`."""
        ...

    def mark_consumed(self, sequence: int) -> None:
        """Mark a message as consumed; the mark outlives this process."""
        ...

    def close(self) -> None:
        """Release the memory; views that are still held stay valid."""
        ...


class LocalRing:
    """Slots in the memory of this process, sent through the socket without another copy."""

    name = ""

    def __init__(self, slots: int, slot_bytes: int, *, sparse: bool = False) -> None:
        self.sparse = sparse
        self._memory: ByteArray = np.empty((slots, slot_bytes), np.uint8)
        if not sparse:
            self._memory.fill(0)

    def write(self, slot: int, sequence: int, payload: Payload) -> None:
        """Copy a payload into a slot; numpy releases the GIL meanwhile."""
        del sequence
        copy_into(payload, self._memory[slot])

    def outgoing(self, slot: int, nbytes: int) -> Payload:
        """A view of the slot's payload."""
        return self._memory[slot, :nbytes].data

    def free(self, slot: int) -> None:
        """Nothing to release."""

    def consumed(self) -> int:
        """A receiver cannot leave a mark here."""
        return -1

    def close(self) -> None:
        """Drop the reference; libzmq keeps the memory that it still sends from."""
        self._memory = np.empty((0, 0), np.uint8)


class ReferenceRing:
    """Slots that refer to the sender's own arrays; both ends live in one process and find it by name.

    The arrays must stay unchanged until they are acknowledged.
    """

    sparse = False
    _open: ClassVar[weakref.WeakValueDictionary[str, ReferenceRing]] = weakref.WeakValueDictionary()

    def __init__(self, slots: int) -> None:
        self.name = f"liveptv-{secrets.token_hex(8)}"
        self._slots: list[tuple[int, Payload]] = [(-1, b"")] * slots
        self._open[self.name] = self

    @classmethod
    def attach(cls, name: str) -> ReferenceRing:
        """The ring of that name; raises `LinkError` if it is not in this process."""
        ring = cls._open.get(name)
        if ring is None:
            raise LinkError(
                f"the sender's ring {name} is not in this process; use shm:// or tcp:// instead of inproc://"
            )
        return ring

    def write(self, slot: int, sequence: int, payload: Payload) -> None:
        """Refer to a payload."""
        self._slots[slot] = sequence, payload

    def outgoing(self, slot: int, nbytes: int) -> Payload:
        """Nothing: the receiver reads the reference."""
        del slot, nbytes
        return b""

    def free(self, slot: int) -> None:
        """Release the payload."""
        self._slots[slot] = -1, b""

    def view(self, slot: int, sequence: int, nbytes: int) -> memoryview | None:
        """A read-only view of the payload itself."""
        if not 0 <= slot < len(self._slots):
            return None
        held, payload = self._slots[slot]
        if held != sequence or len(payload) != nbytes:
            return None
        return memoryview(payload).toreadonly()

    def intact(self, slot: int, sequence: int) -> bool:
        """Whether the slot still refers to message `sequence`."""
        return self._slots[slot][0] == sequence

    def consumed(self) -> int:
        """Both ends die together, so no mark is needed."""
        return -1

    def mark_consumed(self, sequence: int) -> None:
        """Both ends die together, so no mark is needed."""

    def close(self) -> None:
        """Nothing to do: the ring is freed with the last end that holds it."""


def copy_into(payload: Payload, slot: ByteArray) -> None:
    """Copy a payload to the beginning of a slot; numpy releases the GIL meanwhile."""
    data = np.frombuffer(payload, np.uint8)
    np.copyto(slot[: data.size], data)
