"""The writing stage: writes tracks to the trajectory file, commits every few frames, and then acknowledges them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import asdict

from stream.errors import LinkError, LivePTVError, OutputError
from stream.link import Delivery, Receiver
from stream.messages import StageState, StreamEnd, StreamStart, Tracks
from tracking.trajectories.writer import TrajectoryWriter

COMMIT_MESSAGES = 8
"""Messages after which a commit is due. At 800 frames/s a commit for every 8 frames takes 9 % of a core, one for
each frame 34 % (docs/files.md); more messages delay the acknowledgements, which a sender with a full ring waits
for."""
IDLE_S = 0.1
"""Time without a message after which a commit is due, s: two frame periods at 24 frames/s, so that cameras from 10
frames/s on get a commit for several frames (1.3 ms of processor time for each, measured). Longer, a tracker that
waits for acknowledgements waits that long; shorter, slow cameras cause a commit for each frame."""


class WriteStage:
    """Appends tracks and commits them every few frames; a delivery is acknowledged only after its commit.

    A commit is due after `commit_every_s`, `commit_rows` rows or `COMMIT_MESSAGES` messages, or when no message has
    come for `IDLE_S`, whichever is first. A frame whose number is not greater than the last one's is a repeated
    frame: it is acknowledged and counted in `duplicates`, but not written. Every second the stage checks that the
    file is still in its place. When the stream ends or breaks, or the disk is full, the file is finished, complete
    up to the last commit.
    """

    name = "write"

    def __init__(
        self,
        receiver: Receiver,
        writer: TrajectoryWriter,
        *,
        commit_every_s: float = 0.5,
        commit_rows: int = 50_000,
        record: Callable[[str, str, dict[str, object]], None] | None = None,
    ) -> None:
        """`record` receives an entry (kind, text, facts) when writing continues in a second place."""
        self._receiver = receiver
        self._writer = writer
        self._commit_every_s = commit_every_s
        self._commit_rows = commit_rows
        self._record = record
        self._pending: list[Delivery] = []
        self._pending_since_s = 0.0
        self._state = StageState.STARTING
        self._counts = dict.fromkeys(("received", "duplicates", "missing_frames", "commits"), 0)
        self._gauges: dict[str, float] = {}
        self._moves = 0

    @property
    def state(self) -> StageState:
        """State of the stage."""
        return self._state

    def step(self, timeout_s: float) -> bool:
        """Take one message or wait for one, and commit if that is due.

        Raises `OutputError` when the file cannot grow, `LinkError` when the tracker is lost; the file has been
        finished then.
        """
        if self._state in {StageState.DONE, StageState.FAILED}:
            return False
        self._state = StageState.RUNNING
        try:
            return self._step(timeout_s)
        except LivePTVError as error:
            self._fail(str(error))
            raise

    def _step(self, timeout_s: float) -> bool:
        copying = self._writer.look_after()
        self._tell_of_moves()
        if copying:
            return True
        wait_s = min(timeout_s, IDLE_S, self._until_due_s()) if self._pending else timeout_s
        delivery = self._receiver.receive(wait_s)
        if delivery is not None:
            message = delivery.message
            if isinstance(message, StreamEnd):
                self._end(delivery, message)
                return False
            if isinstance(message, Tracks):
                self._append(message)
            elif not isinstance(message, StreamStart):
                raise LinkError(
                    f"the writer was sent {type(message).__name__} on {self._receiver.address}, not tracks; "
                    "connect it to a tracker"
                )
            if not self._pending:
                self._pending_since_s = time.monotonic()
            self._pending.append(delivery)
        if self._pending and (delivery is None or self._commit_due()):
            self._commit()
        return True

    def _tell_of_moves(self) -> None:
        moved, self._writer.moved[:] = list(self._writer.moved), []
        for text in moved:
            self._moves += 1
            if self._record is not None:
                self._record("moved", text, {"path": str(self._writer.path)})

    def _append(self, tracks: Tracks) -> None:
        if tracks.info.frame <= self._writer.newest_frame:
            self._counts["duplicates"] += 1
            return
        self._counts["missing_frames"] += tracks.info.frame - self._writer.newest_frame - 1
        self._writer.append(tracks)
        self._counts["received"] += 1
        self._gauges["latency_ms"] = (time.perf_counter_ns() - tracks.info.monotonic_ns) / 1e6

    def _until_due_s(self) -> float:
        return max(self._pending_since_s + self._commit_every_s - time.monotonic(), 0.0)

    def _commit_due(self) -> bool:
        return (
            len(self._pending) >= COMMIT_MESSAGES
            or self._writer.pending_rows >= self._commit_rows
            or self._until_due_s() <= 0.0
        )

    def _commit(self) -> None:
        began_s = time.perf_counter()
        self._writer.commit()
        self._tell_of_moves()
        self._gauges["commit_ms"] = (time.perf_counter() - began_s) * 1e3
        self._counts["commits"] += 1
        pending, self._pending = self._pending, []
        if pending:
            pending[-1].done()  # and with it all before it, in one acknowledgement

    def _end(self, delivery: Delivery, end: StreamEnd) -> None:
        self._state = StageState.DRAINING
        self._commit()
        self._writer.event("end", end.reason, offered=end.offered, dropped=end.dropped)
        self._finalize(end.reason, {"offered_by_tracker": end.offered, "dropped_by_tracker": end.dropped})
        delivery.done()
        self._state = StageState.DONE

    def _fail(self, why: str) -> None:
        self._state = StageState.FAILED
        with contextlib.suppress(LivePTVError):
            if not self._writer.failed:
                self._writer.event("lost", why)
                self._commit()
        with contextlib.suppress(OutputError):
            self._finalize(why, {})

    def _finalize(self, reason: str, more: dict[str, int]) -> None:
        account = {"link": asdict(self._receiver.account), **self.counts(), **more}
        self._writer.finalize({"accounts": {self.name: account}}, reason)

    def counts(self) -> dict[str, int]:
        """Frames `received`, `sent` (committed), `dropped` (0), `duplicates`, `missing_frames`; `rows`, `commits`.

        `missing_frames` are numbers from 0 on that never came, wherever they were lost. If another program has
        damaged the file, `in_spoilt_file` are the frames that had been committed to it; `moves` counts how often
        writing continued in a second place.
        """
        rare = {"in_spoilt_file": self._writer.frames_elsewhere, "moves": self._moves}
        own = {"sent": self._writer.frames, "dropped": 0, "rows": self._writer.rows}
        return self._counts | own | {name: count for name, count in rare.items() if count}

    def gauges(self) -> dict[str, float]:
        """`queue`: frames not yet committed; `commit_ms` and `latency_ms` since exposure of the last ones."""
        return self._gauges | {"queue": float(len(self._pending))}

    def close(self) -> None:
        """Finish the file, if the stream has not ended, and close the message link. Idempotent."""
        try:
            if self._state not in {StageState.DONE, StageState.FAILED}:
                self._fail("the writer was stopped before the end of the run")
        finally:
            self._receiver.close()
            self._writer.close()
