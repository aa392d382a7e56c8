"""The recording stage: frames from the acquisition -> a keeper -> image file and frame table, then acknowledged."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

from acquisition.commands.open_requests import OpenRequests, Requests
from acquisition.recorder.keeper import Keep, Keeper, Kept
from acquisition.recorder.requests import asked_by
from acquisition.recorder.writer_thread import Job, WriterThread
from acquisition.safety.limits import CommandRefused
from stream.errors import LinkError, LivePTVError
from stream.link import Delivery, Receiver
from stream.messages import Command, Frame, StageState, StreamEnd, StreamStart

ASKED = 0.005
"""Longest wait for a frame while commands may come, s: bounds how late a trigger is answered."""
WAITING = 8
"""Frames that the writer may have in front of it before the keeper is asked for more of those that it holds."""


class RecordStage:
    """Gives every frame to a `keeper`, and what that hands on to a thread that writes it.

    A frame is acknowledged, which gives its place in the acquisition's ring free, once all that the keeper handed
    on when it took it is readable in image file and frame table (or declared lost there), and at once where it
    handed on nothing. So that ring, or the keeper's, is what bridges a disk that stalls, and nothing else grows.
    """

    name = "record"

    def __init__(
        self, receiver: Receiver, keeper: Keeper, writer: WriterThread, commands: Requests | None = None
    ) -> None:
        """`commands` brings those of the kind `record`; others are refused."""
        self._receiver, self._keeper, self._writer = receiver, keeper, writer
        self._requests = OpenRequests(commands)
        self._deliveries: deque[tuple[Delivery, Job | None]] = deque()
        self._handed_on: deque[Job] = deque()
        self._state = StageState.STARTING
        self._received = 0
        self._newest = -1
        self._gaps = 0
        self._end: Delivery | None = None
        self._is_written = False

    @property
    def state(self) -> StageState:
        """State of the stage."""
        return self._state

    def step(self, timeout_s: float) -> bool:
        """Take a frame or wait for one; False once everything is written after the end of the stream.

        Raises `OutputError` when the disk takes nothing and the run is to stop then.
        """
        if self._state in {StageState.DONE, StageState.FAILED}:
            return False
        try:
            self._answer()
            self._writer.check()
            if self._state is StageState.DRAINING:
                return self._drain(timeout_s)
            self._state = StageState.RUNNING
            if self._keeper.has_room:
                self._take(min(timeout_s, ASKED))
            else:
                time.sleep(min(timeout_s, ASKED))
            if self._writer.queued < WAITING:
                self._hand_on(self._keeper.poll())
            self._acknowledge()
        except LivePTVError:
            self._state = StageState.FAILED
            raise
        return True

    def _answer(self) -> None:
        for command in self._requests.poll():
            if self._state is StageState.DRAINING:
                self._requests.refuse(command, "the run is ending")
            else:
                self._trigger(command)

    def _trigger(self, command: Command) -> None:
        try:
            first = self._keeper.trigger(asked_by(command))
        except CommandRefused as error:
            self._requests.refuse(command, str(error))
        else:
            self._requests.accept(command, first)

    def _take(self, timeout_s: float) -> None:
        delivery = self._receiver.receive(timeout_s)
        if delivery is None:
            return
        message = delivery.message
        if isinstance(message, StreamEnd):
            self._hand_on(self._keeper.end(max(0, message.dropped - self._gaps)))
            self._requests.refuse_rest("the run is ending")
            self._end = delivery
            self._state = StageState.DRAINING
            return
        job = None
        if isinstance(message, Frame):
            if not self._received:
                self._writer.begin()
            self._received += 1
            number = message.info.frame
            self._gaps += max(0, number - self._newest - 1)
            self._newest = max(self._newest, number)
            job = self._hand_on(self._keeper.take(message))
        elif not isinstance(message, StreamStart):
            raise LinkError(
                f"the recorder was sent {type(message).__name__} on {self._receiver.address}, not frames; "
                "connect it to an acquisition"
            )
        self._deliveries.append((delivery, job))

    def _hand_on(self, keeps: Iterable[Keep]) -> Job | None:
        """Hand on to the writer; the last job, None where there is none."""
        last = None
        for keep in keeps:
            last = self._writer.put(keep)
            self._handed_on.append(last)
        return last

    def _acknowledge(self) -> None:
        """Give back what is written; one acknowledgement stands for all before it."""
        while self._handed_on and self._handed_on[0].done:
            written = self._handed_on.popleft()
            if isinstance(written.keep, Kept):
                written.keep.release(written.is_stored)
        done = None
        while self._deliveries:
            delivery, job = self._deliveries[0]
            if job is not None and not job.done:
                break
            done = delivery
            self._deliveries.popleft()
        if done is not None:
            done.done()

    def _drain(self, timeout_s: float) -> bool:
        """Write what the keeper still has, and its last entries; then end the files."""
        until_s = time.monotonic() + timeout_s
        while not self._writer.is_over and time.monotonic() < until_s:
            self._writer.check()
            self._acknowledge()
            if self._is_written:
                pass
            elif self._writer.queued < WAITING and self._hand_on(self._keeper.poll()) is not None:
                continue
            elif not self._handed_on:
                self._is_written = True
                self._writer.end()
            time.sleep(min(ASKED, timeout_s))
        self._writer.check()
        if not self._writer.is_over:
            return True
        if self._end is not None:
            self._end.done()
        self._state = StageState.DONE
        return False

    def counts(self) -> dict[str, int]:
        """Frames `received`, `sent` (readable in the recording), `lost` (declared there), `stored_bytes`."""
        own = {"received": self._received, "sent": 0, "lost": 0, "dropped": 0, "stored_bytes": 0}
        if (output := self._writer.output) is not None:
            own |= {"sent": output.kept, "lost": output.lost, "stored_bytes": output.stored_bytes}
        return self._keeper.counts() | own

    def gauges(self) -> dict[str, float]:
        """`queue`: frames that wait for the disk; `recording`: 1 while it takes images, else 0."""
        output = self._writer.output
        takes = float(output is not None and not output.paused)
        return self._keeper.gauges() | {"queue": float(self._writer.waiting), "recording": takes}

    def close(self) -> None:
        """End the writer and close the message link. Idempotent."""
        try:
            self._writer.close()
        finally:
            self._receiver.close()
