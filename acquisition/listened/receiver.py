"""The thread that takes frames from the socket as they arrive, so that each has the time of its arrival."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from acquisition.foreign_notes import ForeignNotes
from acquisition.listened.gate import Gate, ImageKind, Taken
from acquisition.listened.header import MOST_BYTES
from acquisition.listened.socket import FrameSocket
from stream.errors import LivePTVError
from stream.safe_text import in_words

ROOM_BYTES = 256_000_000
"""Frames that wait here, bytes: 70 full frames (2560 x 1440), 0.35 s at 200 frames/s. If they are not fetched, the
rest waits in the socket and then at the sender. More would only make them older."""
ROOM_FRAMES = 1000  # small images: their number is limited too
LOOK_S = 0.05  # s between two looks at connections and the end
TOO_LARGE = f"(a message of more than {MOST_BYTES // 2**20} MiB closes its connection)"
STUCK_S = 0.005  # s between two looks whether there is room


class FrameReceiver:
    """Frames that passed the gate, in order. `notes` counts what did not; all its methods are for other threads."""

    def __init__(self, socket: FrameSocket, gate: Gate, notes: ForeignNotes, *, keeps_early: bool) -> None:
        """`keeps_early`: whether frames that come before `begin` belong to the run."""
        self._socket = socket
        self._gate = gate
        self._notes = notes
        self._keeps_early = keeps_early
        self._frames: deque[Taken] = deque()
        self._bytes = 0
        self._begun = False
        self._news = threading.Condition()
        self._closing = threading.Event()
        self._failure = ""
        self.on_frame: Callable[[], None] | None = None
        self.newest_s = time.monotonic()
        self.senders = 0
        self._thread = threading.Thread(target=self._work, name="frames", daemon=True)
        self._thread.start()

    @property
    def kind(self) -> ImageKind | None:
        """Size and type of the images; None before the first."""
        return self._gate.kind

    @property
    def failure(self) -> str:
        """Why the thread ended; "" while it works."""
        return self._failure

    @property
    def waiting(self) -> int:
        """Frames that wait to be fetched."""
        return len(self._frames)

    @property
    def ended(self) -> bool:
        """Whether the sender has said that no frame follows."""
        return self._gate.ended

    def wait_for_kind(self, timeout_s: float) -> ImageKind | None:
        """Wait for the first frame; None if none came."""
        with self._news:
            self._news.wait_for(lambda: self._gate.kind is not None or self._failure, timeout_s)
            return self._gate.kind

    def begin(self) -> int:
        """The run begins: frames are kept from now on. Returns how many came before and are not kept."""
        with self._news:
            self._begun = True
            self.newest_s = time.monotonic()
            if not self._keeps_early:
                if self._frames:
                    self._notes.count("before_start", len(self._frames))
                self._frames.clear()
                self._bytes = 0
                self._gate.begin_again()
            return self._notes.counts.get("before_start", 0)

    def pause(self, *, paused: bool) -> None:
        """Discard (and count) what comes, or take it again."""
        with self._news:
            self._gate.paused = paused
            self.newest_s = time.monotonic()

    def fetch(self, timeout_s: float) -> Taken | None:
        """The oldest frame; None if none came in time."""
        with self._news:
            if not self._frames and timeout_s > 0:
                self._news.wait_for(lambda: self._frames or self._gate.ended or self._failure, timeout_s)
            if not self._frames:
                return None
            frame = self._frames.popleft()
            self._bytes -= frame.image.nbytes
            return frame

    def _work(self) -> None:
        try:
            while not self._closing.is_set():
                self._look_at_visitors()
                until_s = time.monotonic() + LOOK_S
                while time.monotonic() < until_s and not self._closing.is_set():
                    if not self._has_room():
                        self.newest_s = time.monotonic()  # the run is slow, not the sender silent
                        time.sleep(STUCK_S)
                    elif not self._take_one(until_s - time.monotonic()):
                        break
        except LivePTVError as error:
            self._fail(str(error))
        except Exception as error:  # noqa: BLE001 - the thread ends: the run must learn why
            self._fail(f"frames can no longer be received: {in_words(error)}")
        finally:
            self._socket.close()

    def _fail(self, why: str) -> None:
        with self._news:
            self._failure = why
            self._news.notify_all()
        self._wake()

    def _look_at_visitors(self) -> None:
        visitors = self._socket.visitors()
        unknown = max(0, len(visitors.gone) - self.senders - visitors.came)  # gone before they were let in
        if self._gate.kind is None and len(visitors.gone) > unknown:
            self._notes.tell(
                "left_without_frame", f"a program connected and was gone without a frame {TOO_LARGE}"
            )
        self.senders = max(0, self.senders + visitors.came - len(visitors.gone))
        for connection in visitors.gone:
            with self._news:
                self._gate.gone(connection)
        for _ in range(visitors.refused):
            self._notes.tell("refused_senders", "a program without a valid key was refused")

        for _ in range(visitors.strange + unknown):
            self._notes.tell(
                "strange_connections",
                "a connection was refused: it is not of ZeroMQ, or its socket is not the one that source.listen or "
                "source.socket asks for",
            )

    def _has_room(self) -> bool:
        return not self._frames or (self._bytes < ROOM_BYTES and len(self._frames) < ROOM_FRAMES)

    def _take_one(self, timeout_s: float) -> bool:
        """Take one message; False if none came in time."""
        message = self._socket.read()
        if message is None:
            if not self._socket.wait(max(0.0, timeout_s)):
                return False
            message = self._socket.read()
            if message is None:
                return True
        self._look_at_visitors()  # a closed connection is known before the frames of its successor
        with self._news:
            was = self._gate.ended
            frame = self._gate.take(message.parts, message.connection, message.arrived_ns)
            if frame is not None:
                if not self._begun and not self._keeps_early and self._frames:
                    self._frames.clear()
                    self._bytes = 0
                    self._notes.count("before_start")
                self._frames.append(frame)
                self._bytes += frame.image.nbytes
                self.newest_s = time.monotonic()
            if frame is not None or self._gate.ended != was:
                self._news.notify_all()
        if frame is not None:
            self._wake()
        return True

    def _wake(self) -> None:
        if self.on_frame is not None:
            self.on_frame()

    def close(self) -> None:
        """End the thread and close the socket. Idempotent."""
        self._closing.set()
        if self._thread is not threading.current_thread():
            self._thread.join()
