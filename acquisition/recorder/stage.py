"""The recording stage: frames from the acquisition -> a keeper -> image file and frame table, then acknowledged."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

from acquisition.open_requests import OpenRequests, Requests
from acquisition.recorder.keeper import Keep, Keeper, Kept
from acquisition.recorder.writer_thread import Job, WriterThread
from stream.errors import LinkError, LivePTVError
from stream.link import Delivery, Receiver
from stream.messages import Command, CommandKind, Frame, StageState, StreamEnd, StreamStart

ASKED = 0.005
"""Longest wait for a frame while commands may come, s: bounds how late a trigger is answered."""
WAITING = 8
"""Frames handed to the writer at most before the keeper is asked for more of those that it holds itself."""


class RecordStage:
    """Gives every frame to a `keeper`, and what that hands on to a thread that writes it.

    A frame is acknowledged, which gives its place in the acquisition's ring free, once all that the keeper handed
    on when it took it is readable in image file and frame table (or declared lost there). So the ring is what
    bridges a disk that stalls, and nothing else grows.
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
        self._last: Job | None = None

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
            self._take(min(timeout_s, ASKED))
            if self._writer.waiting < WAITING:
                self._hand_on(self._keeper.poll())
            self._acknowledge()
        except LivePTVError:
            self._state = StageState.FAILED
            raise
        return True

    def _answer(self) -> None:
        for command in self._requests.poll():
            if command.kind is not CommandKind.RECORD:
                self._requests.refuse(command, f"{command.kind}: the recorder takes only the command record")
            elif self._state is StageState.DRAINING:
                self._requests.refuse(command, "the run is ending")
            else:
                self._trigger(command)

    def _trigger(self, command: Command) -> None:
        seconds = command.value
        if isinstance(seconds, str):
            self._requests.refuse(command, f"record: {seconds!r} is no number of seconds")
            return
        try:
            first = self._keeper.trigger(command.sender or "a command", command.sender, seconds)
        except LivePTVError as error:
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
            self._writer.end()
            self._requests.refuse_rest("the run is ending")
            self._deliveries.append((delivery, self._last))
            self._state = StageState.DRAINING
            return
        if isinstance(message, Frame):
            self._received += 1
            number = message.info.frame
            self._gaps += max(0, number - self._newest - 1)
            self._newest = max(self._newest, number)
            self._hand_on(self._keeper.take(message))
        elif not isinstance(message, StreamStart):
            raise LinkError(
                f"the recorder was sent {type(message).__name__} on {self._receiver.address}, not frames; "
                "connect it to an acquisition"
            )
        self._deliveries.append((delivery, self._last))

    def _hand_on(self, keeps: Iterable[Keep]) -> None:
        for keep in keeps:
            self._last = self._writer.put(keep)
            self._handed_on.append(self._last)

    def _acknowledge(self) -> None:
        """Give back what is written; one acknowledgement stands for all before it."""
        while self._handed_on and self._handed_on[0].done:
            keep = self._handed_on.popleft().keep
            if isinstance(keep, Kept):
                keep.release()
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
        until_s = time.monotonic() + timeout_s
        while not self._writer.is_over and time.monotonic() < until_s:
            time.sleep(min(ASKED, timeout_s))
        self._writer.check()
        self._acknowledge()
        if not self._writer.is_over:
            return True
        self._state = StageState.DONE
        return False

    def counts(self) -> dict[str, int]:
        """Frames `received`, `sent` (readable in the recording), `lost` (declared there), `stored_bytes`."""
        output = self._writer.output
        own = {"received": self._received, "sent": output.kept, "lost": output.lost, "dropped": 0}
        return self._keeper.counts() | own | {"stored_bytes": output.stored_bytes}

    def gauges(self) -> dict[str, float]:
        """`queue`: frames that wait for the disk; `recording`: 1 while it takes images, else 0."""
        takes = float(not self._writer.output.paused)
        return self._keeper.gauges() | {"queue": float(self._writer.waiting), "recording": takes}

    def close(self) -> None:
        """End the writer and close the message link. Idempotent."""
        try:
            self._writer.close()
        finally:
            self._receiver.close()
