"""The queue between the thread of a Python camera and the reader of its frames.

It replaces the ring buffer of `UniMMCore`, which loses and tears frames where it wraps around, and has the methods
that the core calls on that buffer.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

MIB = 1 << 20
ROOM_CHECK_S = 0.05  # s; longest wait before a camera in simulated time sees that it need not wait any more

Array = npt.NDArray[Any]
Entry = tuple[Array, Mapping[str, Any]]


class FrameQueue:
    """Complete frames in order, at most `size_mb` MiB; each is its own array and is handed over without a copy.

    A full queue discards its oldest frame and counts it in `discarded`, or raises `BufferError` where
    `overwrite_on_overflow` is False (the core then stops the camera). With `patient` set, the camera waits for room
    instead, which only a camera in simulated time can do. `on_frame` is called, in the camera's thread, after each
    frame.
    """

    def __init__(self, size_mb: float, *, overwrite_on_overflow: bool = True) -> None:
        self.size_bytes = int(size_mb * MIB)
        self.overwrite_on_overflow = overwrite_on_overflow
        self.discarded = 0
        self._patient = False
        self._frames: deque[Entry] = deque()
        self._pending: deque[Array] = deque()
        self._used_bytes = 0
        self._overflow = False
        self._room = threading.Condition()
        self.on_frame: Callable[[], None] | None = None

    @property
    def patient(self) -> bool:
        """Whether the camera waits when the queue is full."""
        return self._patient

    @patient.setter
    def patient(self, patient: bool) -> None:
        with self._room:
            self._patient = patient
            self._room.notify_all()

    def acquire_slot(self, shape: Sequence[int], dtype: npt.DTypeLike = np.uint8) -> Array:
        """An array for the next frame; the camera fills it and then calls `finalize_slot`."""
        array = np.empty(tuple(shape), dtype)
        with self._room:
            if array.nbytes > self.size_bytes:
                raise BufferError(f"a frame of {array.nbytes} bytes is larger than the camera's buffer")
            while self._patient and self._is_full(array.nbytes):
                self._room.wait(ROOM_CHECK_S)
            while self._is_full(array.nbytes):
                self._overflow = True
                if not self.overwrite_on_overflow or not self._frames:
                    raise BufferError("the camera's buffer is full")
                self._used_bytes -= self._frames.popleft()[0].nbytes
                self.discarded += 1
            self._pending.append(array)
            self._used_bytes += array.nbytes
        return array

    def _is_full(self, nbytes: int) -> bool:
        return self._used_bytes + nbytes > self.size_bytes

    def finalize_slot(self, metadata: Mapping[str, Any] | None = None) -> None:
        """Make the array handed out last readable."""
        with self._room:
            if self._pending:
                self._frames.append((self._pending.popleft(), dict(metadata or {})))
        if self.on_frame is not None:
            self.on_frame()

    def insert_data(self, data: Array, metadata: Mapping[str, Any] | None = None) -> None:
        """Put a copy of a frame in."""
        self.acquire_slot(data.shape, data.dtype)[...] = data
        self.finalize_slot(metadata)

    def pop_next(self, *, out: Array | None = None) -> Entry | None:
        """Remove and return the oldest frame; None if there is none."""
        with self._room:
            if not self._frames:
                return None
            array, metadata = self._frames.popleft()
            self._used_bytes -= array.nbytes
            self._room.notify_all()
        return _into(array, out), metadata

    def peek_last(self, *, out: Array | None = None) -> Entry | None:
        """The newest frame, which stays in the queue."""
        return self.peek_nth_from_last(0, out=out)

    def peek_nth_from_last(self, n: int, *, out: Array | None = None) -> Entry | None:
        """The n-th newest frame, which stays in the queue."""
        with self._room:
            if not 0 <= n < len(self._frames):
                return None
            array, metadata = self._frames[-(n + 1)]
        return (array.copy() if out is None else _into(array, out)), dict(metadata)

    def clear(self) -> None:
        """Forget all frames."""
        with self._room:
            self._frames.clear()
            self._pending.clear()
            self._used_bytes = 0
            self._overflow = False
            self._room.notify_all()

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def size_mb(self) -> float:
        """Capacity, MiB."""
        return self.size_bytes / MIB

    @property
    def used_bytes(self) -> int:
        """Bytes of the frames in the queue and of those being filled."""
        return self._used_bytes

    @property
    def free_bytes(self) -> int:
        """Free bytes."""
        return self.size_bytes - self.used_bytes

    @property
    def overflow_occurred(self) -> bool:
        """Whether the queue has been full since it was cleared."""
        return self._overflow


def _into(array: Array, out: Array | None) -> Array:
    if out is None:
        return array
    out[...] = array
    return out
