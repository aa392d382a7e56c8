"""The acquisition stage of the pipeline: sends frames to its consumers and carries out commands in between."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence

from acquisition.commands.open_requests import Executor, OpenRequests, Requests
from acquisition.microscope.frame_rate import FrameRate
from acquisition.source import Source
from stream.errors import LinkError, LivePTVError, NoRoomError, SourceError
from stream.link import Sender
from stream.messages import NO_EFFECT, Command, CommandKind, Frame, StageState

WAIT_S = 0.02  # s that draining waits for acknowledgements before commands are looked at again
LAST_FRAMES_S = 5.0  # s that consumers have, after a failure, to take frames that were sent before it
CATCH_UP_S = 0.02  # s that a step reads a full buffer before commands are looked at
TAKE_S = 0.002  # s that a step waits for a frame or for room: bounds the delay of commands
IDLE_S = 0.02  # s that it waits where a frame or a command ends the wait: bounds the delay of the watchdog


class AcquireStage:
    """Sends every frame of `source` to all `senders`, until the source ends or a stop is requested.

    Commands are checked in every step, at least every few milliseconds, also while a consumer has no room: the
    current frame is kept and offered again. With `newest_only` (policy `live`) each step takes all frames that the
    source has, keeps the newest until a consumer wants one, and declares the others dropped. At the end,
    whatever its cause, the hardware is made safe first and the source is stopped; only then the stage waits until
    the current frame and all frames sent before are acknowledged. The hardware is also made safe if the stage fails
    or is closed early. The caller closes senders and commands.
    """

    name = "acquire"

    def __init__(
        self,
        source: Source,
        senders: Sequence[Sender],
        *,
        commands: Requests | None = None,
        executor: Executor | None = None,
        frames: int | None = None,
        seconds: float | None = None,
        on_end: Callable[[str], None] = lambda _reason: None,
        wait: Callable[[float], None] | None = None,
        quiet_s: Callable[[], float] = lambda: 0.0,
        newest_only: bool = False,
        recorder: Sender | None = None,
        no_microscope: str = "a recording has no microscope",
    ) -> None:
        """`frames` and `seconds` (on the clock of the frames) end the stream early. `on_end` gets the reason for
        the end or failure before anything is waited for. `wait`, which a new command or frame ends, is used while
        the source is quiet (`quiet_s`, s); otherwise it is read in short turns. `recorder` is offered every frame
        of the source, whatever `senders` have time for. `no_microscope` says why commands are refused without an
        `executor`.
        """
        if not senders:
            raise LinkError("the acquisition has nobody to send its frames to; give it at least one link")
        self._source = source
        self._senders = tuple(senders)
        self._recorder = recorder
        self._executor = executor
        self._frames = frames
        self._seconds = seconds
        self._on_end = on_end
        self._wait = wait
        self._quiet_s = quiet_s
        self._newest_only = newest_only
        self._no_microscope = no_microscope
        self._state = StageState.STARTING
        self._requests = OpenRequests(commands)
        self._frame: Frame | None = None
        self._unsent: list[Sender] = []
        self._first_time_s: float | None = None
        self._reason = ""
        self._paused = False
        self._told_end = False
        self._unsafe = ""
        self._drain_until_s = math.inf
        self._resumed: tuple[Command, int] | None = None
        self._made_safe = False
        self._sent = self._received = 0
        self._rate = FrameRate()

    @property
    def state(self) -> StageState:
        """State of the stage."""
        return self._state

    def step(self, timeout_s: float) -> bool:
        """Carry out commands, pass on one frame; False once everything sent has been acknowledged.

        Raises `SourceError` if the source fails or the hardware does not become safe, `PeerLostError` if a
        consumer is gone for too long; the hardware has been made safe as far as possible then.
        """
        if self._state in {StageState.DONE, StageState.FAILED}:
            return False
        try:
            self._carry_out_commands()
            if self._state is StageState.DRAINING:
                return self._drain(timeout_s)
            self._state = StageState.RUNNING
            self._pass_on(timeout_s)
        except Exception as error:
            self._state = StageState.FAILED
            self._on_end(str(error))
            try:
                self._make_safe()
            except LivePTVError as unsafe:
                raise SourceError(f"{error}; and the hardware is not in its safe state: {unsafe}") from error
            finally:
                with contextlib.suppress(LinkError):  # what is raised is the failure itself
                    self._give_up_on_answers(f"the run failed: {error}")
                with contextlib.suppress(LinkError):
                    self._deliver_what_was_sent(str(error))
            raise
        return True

    def _pass_on(self, timeout_s: float) -> None:
        waited = self._waits(timeout_s)
        short_s = 0.0 if waited else min(timeout_s, TAKE_S)
        if self._newest_only:
            self._take_newest(short_s)
        elif self._frame is None and not self._reason:
            self._take(short_s)
        if self._reason:
            self._end()
        elif self._frame is not None:
            self._offer(min(timeout_s, TAKE_S))

    def _take_newest(self, timeout_s: float) -> None:
        """Take what the source has, so that nothing grows old in its buffer, and keep the newest frame."""
        until_s = time.monotonic() + CATCH_UP_S
        wait_s = timeout_s if self._frame is None else 0.0
        while not self._reason:
            held, unsent = self._frame, self._unsent
            self._take(wait_s)
            if self._frame is held:
                return
            if held is not None:
                for sender in unsent:
                    sender.drop(1)
            if time.monotonic() > until_s:
                return
            wait_s = 0.0

    def _take(self, timeout_s: float) -> None:
        if self._source.ended:
            self._reason = "done"
            return
        if self._paused:
            time.sleep(timeout_s)
            return
        frame = self._source.read(timeout_s)
        if frame is None:
            return
        if self._first_time_s is None:
            self._first_time_s = frame.info.time_s
        if self._seconds is not None and frame.info.time_s - self._first_time_s >= self._seconds:
            self._reason = "done"
            return
        self._received += 1
        self._rate.count()
        self._frame, self._unsent = frame, list(self._senders)
        self._record(frame)
        self._answer_with(frame)
        if self._frames is not None and self._received >= self._frames:
            self._reason = "done"

    def _record(self, frame: Frame) -> None:
        """Offer a frame to the recorder: at once in a live run, which waits for no disk, else like to others."""
        if self._recorder is not None and self._newest_only:
            self._recorder.send(frame, 0.0)
        elif self._recorder is not None:
            self._unsent.append(self._recorder)

    def give_up_recorder(self) -> None:
        """The recorder is lost: nothing is offered to it or waited for any more."""
        recorder, self._recorder = self._recorder, None
        self._unsent = [sender for sender in self._unsent if sender is not recorder]
        if not self._unsent:
            self._frame = None

    @property
    def _consumers(self) -> tuple[Sender, ...]:
        return self._senders if self._recorder is None else (*self._senders, self._recorder)

    def _waits(self, timeout_s: float) -> bool:
        """Wait while the source is quiet, if it says so; commands under way are looked after every few ms."""
        if self._wait is None or self._reason or (quiet_s := self._quiet_s()) <= TAKE_S:
            return False
        if self._frame is not None and (not self._newest_only or self._unsent[0].wait_for_room(0.0)):
            return False
        self._wait(min(timeout_s, quiet_s, TAKE_S if self._is_busy else IDLE_S))
        return True

    @property
    def _is_busy(self) -> bool:
        """Whether commands must be looked after within ms."""
        return self._requests.waiting and (self._executor is None or self._executor.is_busy)

    def _answer_with(self, frame: Frame) -> None:
        if self._executor is not None:
            self._requests.answer(self._executor.frame_taken(frame))
        if self._resumed is not None and frame.info.monotonic_ns >= self._resumed[1]:
            self._requests.accept(self._resumed[0], frame.info.frame)
            self._resumed = None

    def _offer(self, timeout_s: float) -> None:
        frame = self._frame
        while self._unsent and frame is not None:
            sender = self._unsent[0]
            if self._newest_only and not sender.wait_for_room(timeout_s):
                return
            try:
                taken = sender.send(frame, timeout_s)
            except NoRoomError:
                return
            self._sent += taken and sender in self._senders
            self._unsent = [other for other in self._unsent if other is not sender]
        self._frame = None

    def _carry_out_commands(self) -> None:
        for command in self._requests.poll():
            if command.kind is CommandKind.STOP:
                self.request_stop(str(command.value or f"stopped by {command.sender or 'a command'}"))
                self._requests.accept(command)
            elif self._reason and command.kind is CommandKind.MAKE_SAFE and self._executor is not None:
                reply = self._executor.execute(command)
                self._requests.answer([reply] if reply is not None else self._executor.abandon())
            elif self._reason:
                self._requests.refuse(command, "the run is ending")
            elif command.kind is CommandKind.HEARTBEAT and self._executor is None:
                self._requests.accept(command, self._received - 1)
            elif command.kind is CommandKind.PAUSE:
                self._pause(command)
            elif command.kind is CommandKind.RESUME:
                self._resume(command)
            elif command.kind is CommandKind.RECORD:
                self._requests.refuse(command, "nothing is recorded; set record.mode to events or all")
            elif self._executor is None:
                self._requests.refuse(command, f"{NO_EFFECT}: {command.kind}: {self._no_microscope}")
            elif (reply := self._executor.execute(command)) is not None:
                self._requests.answer([reply])
        if self._executor is not None and not self._reason:
            self._requests.answer(self._executor.poll())

    def _pause(self, command: Command) -> None:
        if not self._paused:
            self._paused = True
            self._source.pause()
        self._requests.accept(command)

    def _resume(self, command: Command) -> None:
        if self._executor is not None:
            self._executor.release()
        if not self._paused:
            if self._executor is not None:
                self._source.resume()  # the safe state may have ended a scan of the focus
            self._requests.accept(command, self._received)
            return
        self._paused = False
        if self._resumed is not None:
            self._requests.accept(self._resumed[0])
        self._resumed = (command, time.perf_counter_ns())
        self._source.resume()

    def request_stop(self, reason: str, drain_s: float = math.inf) -> None:
        """End the stream after the current frame; frames still in the camera's buffer are left there.

        Waits for consumers for at most `drain_s`. May be called from another thread.
        """
        self._drain_until_s = min(self._drain_until_s, time.monotonic() + drain_s)
        if not self._reason:
            self._reason = reason

    def _end(self) -> None:
        """Make the hardware safe and stop the source; waits only for devices, each with its own deadline."""
        self._state = StageState.DRAINING
        self._on_end(self._reason)
        try:
            self._make_safe()
        except LivePTVError as error:
            self._unsafe = str(error)  # raised after the frames have been delivered
        self._source.stop()
        self._give_up_on_answers("the run is ending")

    def _deliver_what_was_sent(self, why: str) -> None:
        """Give the consumers time to take the frames that were sent before a failure."""
        if not self._told_end:
            self._told_end = True
            for sender in self._consumers:
                sender.end(f"failed: {why}")
        until_s = time.monotonic() + LAST_FRAMES_S
        while time.monotonic() < until_s:
            if all(sender.flush(WAIT_S) for sender in self._consumers):
                break

    def _make_safe(self) -> None:
        if self._executor is not None and not self._made_safe:
            self._made_safe = True
            self._executor.safe_state()

    def _give_up_on_answers(self, why: str) -> None:
        """Answer the commands that were carried out but show in no frame, and refuse the others."""
        if self._executor is not None:
            self._requests.answer(self._executor.abandon())
        if self._resumed is not None:
            self._requests.accept(self._resumed[0])
            self._resumed = None
        self._requests.refuse_rest(why)

    def _drain(self, timeout_s: float) -> bool:
        if not self._delivered(min(timeout_s, WAIT_S)):
            if time.monotonic() > self._drain_until_s:
                left = max(sender.queued for sender in self._consumers) + (self._frame is not None)
                raise LinkError(f"{left} frames were not taken by their consumers in time: {self._reason}")
            return True
        if self._unsafe and self._executor is not None:
            try:
                self._executor.safe_state()  # a device may have answered late
            except LivePTVError as error:
                raise SourceError(f"the hardware is not in its safe state: {error}") from error
        self._state = StageState.DONE
        return False

    def _delivered(self, timeout_s: float) -> bool:
        """Send the current frame, then the end, then wait briefly for acknowledgements."""
        if self._frame is not None:
            self._offer(timeout_s)
        if self._frame is None and not self._told_end:
            self._told_end = True
            for sender in self._consumers:
                sender.end(self._reason)
        return self._told_end and all(sender.flush(timeout_s) for sender in self._consumers)

    def counts(self) -> dict[str, int]:
        """`received`, `sent` and `dropped` frames, those `lost_in_camera`, and the totals of commands."""
        commands = self._executor.counts() if self._executor is not None else {}
        if self._requests.refused:
            commands["commands_refused"] = commands.get("commands_refused", 0) + self._requests.refused
        dropped = sum(sender.account.dropped for sender in self._senders)
        own = {"received": self._received, "sent": self._sent, "dropped": dropped}
        return commands | self._source.counts() | own

    def gauges(self) -> dict[str, float]:
        """`frames_per_s` over the last second, `queue` of the fullest link, and the gauges of the source.

        `paused` is 1 while the source is paused, else 0.
        """
        queue = max(float(sender.queued) for sender in self._senders)
        own = {"frames_per_s": self._rate.per_s(), "queue": queue, "paused": float(self._paused)}
        return self._source.gauges() | own

    def close(self) -> None:
        """Leave the hardware safe and close the source. Idempotent."""
        try:
            self._make_safe()
        finally:
            self._source.close()
