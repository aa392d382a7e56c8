import math
import time
from dataclasses import dataclass, field

import numpy as np
import pytest

from acquisition.source import Source, SourceInfo
from acquisition.stage import IDLE_S, TAKE_S, AcquireStage
from stream.errors import LinkError, NoRoomError, SourceError
from stream.link import LinkAccount
from stream.messages import Command, CommandKind, CommandReply, Frame, FrameInfo, StageState


class FakeSource:
    """`count` frames, 0.1 s apart; fails at frame `fails_at`."""

    def __init__(self, count=10, fails_at=-1):
        self.info = SourceInfo(2, 2, 1, "uint8", 1.0, 10.0, count, "fake", "fake")
        self.count, self.fails_at, self.next = count, fails_at, 0
        self.stopped = self.paused = self.closed = self.started = False

    @property
    def ended(self):
        return self.stopped or self.next >= self.count

    def start(self):
        self.started = True

    def read(self, timeout_s):
        if self.next == self.fails_at:
            raise SourceError("the cable is out")
        info = FrameInfo("run", self.next, self.next, self.next / 10, time.perf_counter_ns(), 0.0)
        self.next += 1
        return Frame(info, np.zeros((2, 2), np.uint8))

    def stop(self):
        self.stopped = True

    def pause(self):
        self.paused = True

    def resume(self):
        self.paused = False

    def counts(self):
        return {"received": self.next, "lost_in_camera": 2}

    def gauges(self):
        return {"buffer": 3.0}

    def close(self):
        self.closed = True


@dataclass
class FakeSender:
    """Has room for `room` frames; acknowledges only when told to."""

    room: int = 1000
    sent: list = field(default_factory=list)
    reason: str | None = None
    acknowledges: bool = True

    @property
    def account(self):
        return LinkAccount(offered=len(self.sent))

    @property
    def queued(self):
        return len(self.sent)

    def send(self, message, timeout_s=None):
        if len(self.sent) >= self.room:
            raise NoRoomError("full")
        self.sent.append(message.info.frame)
        return True

    def end(self, reason="done"):
        self.reason = reason

    def flush(self, timeout_s):
        return self.acknowledges


@dataclass
class LiveSender(FakeSender):
    """Takes a frame only when one is wanted."""

    wanted: int = 0
    dropped: int = 0

    @property
    def account(self):
        return LinkAccount(offered=len(self.sent) + self.dropped, dropped=self.dropped)

    def wait_for_room(self, timeout_s):
        return self.wanted > 0

    def send(self, message, timeout_s=None):
        assert self.wanted > 0
        self.wanted -= 1
        return super().send(message)

    def drop(self, count):
        self.dropped += count


class Burst(FakeSource):
    """Has `ready` frames at a time in its buffer."""

    def __init__(self, count=100, **more):
        super().__init__(count, **more)
        self.ready = 0

    def read(self, timeout_s):
        if not self.ready:
            return None
        self.ready -= 1
        return super().read(timeout_s)


class FakeCommands:
    """Hands out what is put in, and keeps the answers."""

    def __init__(self):
        self.waiting, self.answers = [], {}

    def put(self, kind, value=None):
        command = Command(kind, value, sender="test")
        self.waiting.append(command)
        return command.command_id

    def poll(self):
        out, self.waiting = self.waiting, []
        return [FakeRequest(self, command) for command in out]


@dataclass
class FakeRequest:
    commands: FakeCommands
    command: Command

    def reply(self, reply):
        self.commands.answers[reply.command_id] = reply


class FakeExecutor:
    """Takes effect with the next frame; counts how often it was asked to be safe."""

    def __init__(self, obeys=True):
        self.pending, self.safe, self.obeys = [], 0, obeys

    is_busy = True

    def execute(self, command):
        if command.value == "bad":
            return CommandReply(command.command_id, False, reason="bad")
        self.pending.append(command)
        return None

    def poll(self):
        return []

    def frame_taken(self, frame):
        done, self.pending = self.pending, []
        return [CommandReply(command.command_id, True, frame.info.frame) for command in done]

    def abandon(self):
        return [CommandReply(command.command_id, True, -1) for command in self.pending]

    def release(self):
        pass

    def safe_state(self):
        self.safe += 1
        if not self.obeys:
            raise SourceError("the pump is unplugged")

    def counts(self):
        return {"commands": 1}


def run(stage, steps=1000):
    for _ in range(steps):
        if not stage.step(0.0):
            return
    raise AssertionError("the stage did not end")


def test_the_fake_is_a_source():
    assert isinstance(FakeSource(), Source)


def test_every_frame_goes_to_every_consumer_and_the_end_is_told():
    one, other = FakeSender(), FakeSender()
    source = FakeSource(10)
    stage = AcquireStage(source, [one, other])
    run(stage)
    assert one.sent == other.sent == list(range(10))
    assert one.reason == other.reason == "done"
    assert stage.state is StageState.DONE
    assert source.stopped
    assert stage.counts() == {"received": 10, "sent": 20, "dropped": 0, "lost_in_camera": 2}
    assert stage.gauges()["buffer"] == 3.0


def test_a_frame_without_room_is_kept_and_commands_are_heard_meanwhile():
    sender, commands = FakeSender(room=3), FakeCommands()
    source = FakeSource(10)
    stage = AcquireStage(source, [sender], commands=commands)
    for _ in range(20):
        stage.step(0.0)
    assert sender.sent == [0, 1, 2]
    assert source.next == 4
    stop = commands.put(CommandKind.STOP, "enough")
    stage.step(0.0)
    assert commands.answers[stop].accepted
    sender.room = 1000
    run(stage)
    assert sender.sent == [0, 1, 2, 3]
    assert sender.reason == "enough"


def test_the_stage_is_not_done_before_everything_is_acknowledged():
    sender = FakeSender(acknowledges=False)
    stage = AcquireStage(FakeSource(3), [sender])
    for _ in range(50):
        assert stage.step(0.0)
    assert stage.state is StageState.DRAINING
    sender.acknowledges = True
    assert not stage.step(0.0)


@pytest.mark.parametrize(("limits", "expected"), [({"frames": 4}, 4), ({"seconds": 0.5}, 5), ({}, 10)])
def test_a_run_ends_after_so_many_frames_or_seconds(limits, expected):
    sender = FakeSender()
    run(AcquireStage(FakeSource(10), [sender], **limits))
    assert sender.sent == list(range(expected))


def test_a_command_is_answered_with_the_first_frame_after_it():
    sender, commands = FakeSender(), FakeCommands()
    stage = AcquireStage(FakeSource(10), [sender], commands=commands, executor=FakeExecutor())
    for _ in range(3):
        stage.step(0.0)
    good, bad = commands.put(CommandKind.SET_FLOW, 1.0), commands.put(CommandKind.SET_FLOW, "bad")
    stage.step(0.0)
    assert commands.answers[good].first_frame == 3
    assert not commands.answers[bad].accepted
    run(stage)


def test_the_hardware_is_left_safe_before_the_end_is_drained():
    executor, sender = FakeExecutor(), FakeSender(acknowledges=False)
    stage = AcquireStage(FakeSource(2), [sender], executor=executor)
    for _ in range(10):
        stage.step(0.0)
    assert stage.state is StageState.DRAINING
    assert executor.safe == 1


def test_a_source_that_fails_leaves_the_hardware_safe_and_the_stage_failed():
    executor = FakeExecutor()
    stage = AcquireStage(FakeSource(10, fails_at=3), [FakeSender()], executor=executor)
    with pytest.raises(SourceError, match="cable"):
        run(stage)
    assert stage.state is StageState.FAILED
    assert executor.safe == 1
    assert not stage.step(0.0)


def test_commands_without_a_frame_are_answered_when_the_source_fails():
    commands, source = FakeCommands(), FakeSource(10)
    stage = AcquireStage(source, [FakeSender()], commands=commands, executor=FakeExecutor())
    stage.step(0.0)
    source.fails_at = 1
    command = commands.put(CommandKind.SET_FLOW, 1.0)
    with pytest.raises(SourceError):
        run(stage)
    assert commands.answers[command].accepted
    assert commands.answers[command].first_frame == -1


def test_hardware_that_does_not_become_safe_is_said_together_with_the_failure():
    executor = FakeExecutor(obeys=False)
    stage = AcquireStage(FakeSource(10, fails_at=3), [FakeSender()], executor=executor)
    with pytest.raises(SourceError, match=r"cable.*not in its safe state.*unplugged"):
        run(stage)
    stage.close()
    assert executor.safe == 1


def test_a_stage_that_is_closed_early_leaves_the_hardware_safe():
    executor, source = FakeExecutor(), FakeSource(10)
    stage = AcquireStage(source, [FakeSender()], executor=executor)
    stage.step(0.0)
    stage.close()
    stage.close()
    assert executor.safe == 1
    assert source.closed


def test_resuming_is_answered_with_the_first_frame_taken_afterwards():
    commands, source = FakeCommands(), FakeSource(10)
    stage = AcquireStage(source, [FakeSender()], commands=commands)
    stage.step(0.0)
    pause = commands.put(CommandKind.PAUSE)
    stage.step(0.0)
    resume = commands.put(CommandKind.RESUME)
    run(stage)
    assert commands.answers[pause].first_frame == -1
    assert commands.answers[resume].first_frame == 1


def test_a_recording_can_be_paused_and_stopped_but_has_no_pump():
    commands, source = FakeCommands(), FakeSource(100)
    stage = AcquireStage(source, [FakeSender()], commands=commands)
    stage.step(0.0)
    pause, flow = commands.put(CommandKind.PAUSE), commands.put(CommandKind.SET_FLOW, 1.0)
    for _ in range(5):
        stage.step(0.0)
    assert commands.answers[pause].accepted
    assert stage.gauges()["paused"] == 1.0
    assert "recording" in commands.answers[flow].reason
    assert source.paused
    assert source.next == 1
    commands.put(CommandKind.RESUME)
    stage.step(0.0)
    assert not source.paused
    commands.put(CommandKind.STOP)
    run(stage)


def test_commands_that_come_while_the_run_ends_are_refused():
    commands, sender = FakeCommands(), FakeSender(acknowledges=False)
    stage = AcquireStage(FakeSource(1), [sender], commands=commands, executor=FakeExecutor())
    for _ in range(10):
        stage.step(0.0)
    late = commands.put(CommandKind.SET_FLOW, 1.0)
    stage.step(0.0)
    assert commands.answers[late].reason == "the run is ending"


def test_a_stage_without_a_consumer_is_refused():
    with pytest.raises(LinkError):
        AcquireStage(FakeSource(), [])


def test_closing_the_stage_closes_the_source():
    source = FakeSource()
    stage = AcquireStage(source, [FakeSender()])
    stage.close()
    assert source.closed
    assert math.isnan(stage.gauges()["frames_per_s"])


@pytest.mark.parametrize("how", ["command", "order", "frames"])
def test_the_hardware_is_safe_and_the_camera_stopped_while_a_consumer_takes_nothing(how):
    executor, commands = FakeExecutor(), FakeCommands()
    sender, source = FakeSender(room=2), FakeSource(10)
    frames = 3 if how == "frames" else None
    stage = AcquireStage(source, [sender], commands=commands, executor=executor, frames=frames)
    for _ in range(20):
        stage.step(0.0)
    if how == "command":
        commands.put(CommandKind.STOP, "enough")
    elif how == "order":
        stage.request_stop("enough")
    for _ in range(20):
        assert stage.step(0.0)
    assert executor.safe == 1
    assert stage.state is StageState.DRAINING
    assert source.stopped
    sender.room = 1000
    run(stage)
    assert executor.safe == 1
    assert sender.sent == [0, 1, 2]  # the frame at hand was kept


def test_devices_that_do_not_become_safe_cost_no_frame_and_are_said_at_the_end():
    executor, sender = FakeExecutor(obeys=False), FakeSender()
    stage = AcquireStage(FakeSource(3), [sender], executor=executor)
    with pytest.raises(SourceError, match=r"not in its safe state.*unplugged"):
        run(stage)
    assert sender.sent == [0, 1, 2]
    assert sender.reason == "done"


def test_a_device_that_obeys_late_is_no_failure():
    executor, sender = FakeExecutor(obeys=False), FakeSender()
    sender.flush = lambda _timeout_s: setattr(executor, "obeys", True) or True
    stage = AcquireStage(FakeSource(3), [sender], executor=executor)
    run(stage)
    assert stage.state is StageState.DONE
    assert executor.safe == 2


def test_the_reason_of_the_end_is_told_before_anything_is_waited_for():
    told, sender = [], FakeSender(acknowledges=False)
    stage = AcquireStage(FakeSource(1), [sender], executor=FakeExecutor(), on_end=told.append)
    for _ in range(5):
        stage.step(0.0)
    assert told == ["done"]
    source = FakeSource(5, fails_at=2)
    failing = AcquireStage(source, [FakeSender()], executor=FakeExecutor(), on_end=told.append)
    with pytest.raises(SourceError):
        run(failing)
    assert told[1:] == ["the cable is out"]


def test_without_a_session_consumers_are_not_waited_for_without_end():
    sender = FakeSender(acknowledges=False)
    stage = AcquireStage(FakeSource(1), [sender], executor=FakeExecutor())
    stage.step(0.0)
    stage.request_stop("the session is gone", drain_s=0.0)
    time.sleep(0.001)
    with pytest.raises(LinkError, match="not taken by their consumers"):
        run(stage)


def test_the_safe_state_may_be_asked_for_while_the_run_ends():
    commands, sender = FakeCommands(), FakeSender(acknowledges=False)
    stage = AcquireStage(FakeSource(1), [sender], commands=commands, executor=FakeExecutor())
    for _ in range(10):
        stage.step(0.0)
    late = commands.put(CommandKind.MAKE_SAFE)
    stage.step(0.0)
    assert commands.answers[late].accepted


def test_live_keeps_the_newest_of_what_the_camera_has_and_declares_the_others():
    sender, source = LiveSender(), Burst()
    stage = AcquireStage(source, [sender], newest_only=True)
    source.ready = 7
    stage.step(0.0)
    assert (source.next, sender.sent, sender.dropped) == (7, [], 6)
    sender.wanted = 1
    stage.step(0.0)
    assert (sender.sent, sender.dropped) == ([6], 6)
    source.ready = 3
    stage.step(0.0)
    sender.wanted = 2
    source.ready = 2
    stage.step(0.0)
    assert (sender.sent, sender.dropped) == ([6, 11], 10)
    counts = stage.counts()
    assert (counts["received"], counts["sent"], counts["dropped"]) == (12, 2, 10)


@pytest.mark.parametrize(("limits", "last"), [({"frames": 5}, 4), ({"seconds": 0.6}, 5)])
def test_the_end_of_a_live_run_counts_frames_as_taken_and_the_last_one_is_delivered(limits, last):
    sender, source = LiveSender(), Burst()
    stage = AcquireStage(source, [sender], newest_only=True, **limits)
    source.ready = 20
    stage.step(0.0)
    assert stage.counts()["received"] == last + 1
    assert stage.step(0.0)
    sender.wanted = 1
    run(stage)
    assert sender.sent == [last]
    assert sender.dropped == last
    assert sender.reason == "done"


def test_a_command_is_answered_with_its_first_frame_also_if_that_is_dropped():
    sender, commands, source = LiveSender(), FakeCommands(), Burst()
    stage = AcquireStage(source, [sender], commands=commands, executor=FakeExecutor(), newest_only=True)
    source.ready = 2
    stage.step(0.0)
    command = commands.put(CommandKind.SET_FLOW, 1.0)
    source.ready = 5
    stage.step(0.0)
    assert commands.answers[command].first_frame == 2
    assert sender.dropped == 6
    stage.close()


def test_a_quiet_source_is_waited_for_and_commands_under_way_are_looked_after():
    quiet_s, waits = [math.inf], []
    source, commands, sender = FakeSource(10), FakeCommands(), FakeSender()
    stage = AcquireStage(
        source,
        [sender],
        commands=commands,
        executor=SlowExecutor(),
        wait=waits.append,
        quiet_s=lambda: quiet_s[0],
    )
    stage.step(1.0)
    commands.put(CommandKind.SET_FLOW, 1.0)
    stage.step(1.0)
    assert waits == [IDLE_S, TAKE_S]
    quiet_s[0] = 0.0
    stage.step(1.0)
    assert len(waits) == 2


class SlowExecutor(FakeExecutor):
    """No frame shows what it has done."""

    def frame_taken(self, frame):
        return []
