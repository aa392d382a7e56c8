import time
import uuid
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flows import info
from pydantic import ValidationError

from stream.commands import CommandClient, CommandServer
from stream.errors import ConfigurationError, LinkError
from stream.links import open_receiver, open_sender
from stream.messages import (
    MADE_SAFE,
    Command,
    CommandKind,
    CommandReply,
    Detections,
    StageState,
    TrackFlag,
    Tracks,
)
from stream.stage import Stage
from tracking.control.command_channel import CommandChannel
from tracking.control.controllers import Controller, HoldFlow, StopWhen, load_controller
from tracking.control.record_conditions import request as record_request
from tracking.control.settings import ControllerSettings, HoldFlowSettings, StopWhenSettings
from tracking.control.stage import ControlStage

FRAME_S = 0.02
SET_FLOW = CommandKind.SET_FLOW


def tracks(frame: int, vx=10.0, count: int = 20, *, flags=0, z=0.0, y=0.0, age=50, first=0, **more) -> Tracks:
    return Tracks.from_columns(
        info(frame, **more), track=np.arange(first, first + count), x_um=np.zeros(count), y_um=y, z_um=z,
        vx_um_s=vx, vy_um_s=0.0, age_frames=age, flags=flags, detection=0,
    )  # fmt: skip


class Pump:
    """A pump with a first-order lag behind its set-point, in a channel of known velocity per flow."""

    def __init__(self, flow_ul_s: float, velocity_per_flow: float = 200.0, lag_s: float = 0.3) -> None:
        self.set_point = self.flow = flow_ul_s
        self.velocity_per_flow, self.lag_s = velocity_per_flow, lag_s
        self.rng = np.random.default_rng(0)

    def velocities(self) -> np.ndarray:
        self.flow += (self.set_point - self.flow) * FRAME_S / self.lag_s
        return self.velocity_per_flow * self.flow * self.rng.normal(1.0, 0.1, 20)


def control(controller: HoldFlow, pump: Pump, seconds: float, start: int = 0) -> list[float]:
    """Run the loop; returns the true velocity in each frame."""
    history = []
    for frame in range(start, start + int(seconds / FRAME_S)):
        seen = tracks(frame, pump.velocities(), flow_ul_s=pump.set_point)
        for command in controller.update(seen):
            assert command.kind is SET_FLOW
            pump.set_point = command.value
        history.append(pump.velocity_per_flow * pump.flow)
    return history


def hold(**more) -> HoldFlow:
    return HoldFlow(HoldFlowSettings(**{"target_um_s": 300.0, "max_flow_ul_s": 5.0, **more}))


@pytest.mark.parametrize("start_ul_s", [0.0, 0.5, 4.0])
def test_the_velocity_is_brought_to_its_target_and_held(start_ul_s):
    history = control(hold(), Pump(start_ul_s), 40)
    assert np.allclose(history[-500:], 300.0, rtol=0.05)


def test_a_pump_that_drifts_is_corrected():
    controller, pump = hold(), Pump(1.0)
    control(controller, pump, 20)
    pump.velocity_per_flow = 120.0
    assert control(controller, pump, 20, 1000)[-1] == pytest.approx(300.0, rel=0.05)


def test_a_flow_against_the_axis_is_held_too():
    history = control(hold(target_um_s=-300.0), Pump(1.0, velocity_per_flow=-200.0), 30)
    assert history[-1] == pytest.approx(-300.0, rel=0.05)


def test_the_set_point_stays_in_its_limits_and_recovers_at_once_from_a_target_out_of_reach():
    controller, pump = hold(target_um_s=300.0, max_flow_ul_s=1.0, ul_s_per_um_s=0.005), Pump(0.5)
    control(controller, pump, 60)
    assert pump.set_point == 1.0
    pump.velocity_per_flow = 400.0
    history = control(controller, pump, 15, 3000)
    assert history[-1] == pytest.approx(300.0, rel=0.05)


def test_only_confirmed_tracks_in_the_band_are_measured():
    flags = np.array([0, TrackFlag.PREDICTED, TrackFlag.TENTATIVE, TrackFlag.SECOND_DETECTION, 0, 0])
    controller = hold(min_tracks=1, min_height_um=90.0, max_height_um=110.0, max_y_um=5.0)
    vx = np.array([10.0, 99, 99, 99, 99, 99])
    z = np.array([0.0, 0, 0, 0, 40.0, 0])
    y = np.array([0.0, 0, 0, 0, 0, 9.0])
    controller.update(tracks(0, vx, 6, flags=flags, z=z, y=y, focus_um=100.0, flow_ul_s=1.0))
    assert controller.velocity_um_s == 10.0


def test_nothing_is_asked_for_while_too_few_tracks_are_seen():
    controller = hold(min_tracks=5)
    assert controller.update(tracks(0, count=4, flow_ul_s=1.0)) == []


def test_commands_are_no_closer_together_than_the_period():
    controller, pump = hold(period_s=0.5), Pump(0.2)
    times = []
    for frame in range(500):
        for command in controller.update(tracks(frame, pump.velocities(), flow_ul_s=pump.set_point)):
            times.append(frame * FRAME_S)
            pump.set_point = command.value
    assert len(times) > 3
    assert np.diff(times).min() >= 0.5 - 1e-9


def test_the_run_is_stopped_once_when_enough_trajectories_are_long_enough():
    controller = StopWhen(StopWhenSettings(trajectories=30, length_frames=10))
    assert controller.update(tracks(0, age=8)) == []
    assert controller.update(tracks(1, age=9)) == []
    assert controller.trajectories == 20
    assert controller.update(tracks(2, age=9)) == []
    assert controller.update(tracks(3, age=9, first=5000, flags=TrackFlag.PREDICTED)) == []
    (command,) = controller.update(tracks(4, age=9, first=5000))
    assert command.kind is CommandKind.STOP
    assert controller.update(tracks(5, age=9)) == []


def test_the_run_is_stopped_after_enough_frames():
    controller = StopWhen(StopWhenSettings(frames=3))
    assert [len(controller.update(tracks(f))) for f in range(5)] == [0, 0, 1, 0, 0]


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"hold_flow": {"target_um_s": 1, "max_flow_ul_s": 1}, "file": "x.py"},
        {"stop_when": {}},
        {"stop_when": {"frames": 1}, "options": {"a": 1}},
        {"hold_flow": {"target_um_s": 1, "max_flow_ul_s": 1, "typo": 1}},
        {"hold_flow": {"target_um_s": 1, "max_flow_ul_s": 1, "min_flow_ul_s": 2}},
        {"hold_flow": {"target_um_s": 1, "max_flow_ul_s": 1, "min_y_um": 2, "max_y_um": 1}},
    ],
)
def test_settings_that_contradict_themselves_are_refused(wrong):
    with pytest.raises(ValidationError):
        ControllerSettings.model_validate(wrong)


def own(tmp_path: Path, source: str, **options) -> Controller:
    path = tmp_path / f"own_{uuid.uuid4().hex}.py"
    path.write_text(source, encoding="utf-8")
    return load_controller(ControllerSettings(file=path, options=options))


def test_the_built_in_controllers_are_made_from_settings():
    assert load_controller(ControllerSettings(stop_when=StopWhenSettings(frames=1))).name == "stop_when"
    flow = HoldFlowSettings(target_um_s=1, max_flow_ul_s=1)
    assert load_controller(ControllerSettings(hold_flow=flow)).name == "hold_flow"


def test_a_users_file_with_one_class_is_a_controller(tmp_path):
    source = """
from stream.messages import Command, CommandKind

class Mine:
    def __init__(self, after):
        self.after = after
    def update(self, tracks):
        return [Command(CommandKind.TRIGGER)] if tracks.info.frame > self.after else []
"""
    controller = own(tmp_path, source, after=3)
    assert isinstance(controller, Controller)
    assert controller.name == "Mine"
    assert [len(controller.update(tracks(f))) for f in (3, 4)] == [0, 1]


def test_the_example_keeps_the_particles_in_focus():
    path = Path(__file__).parents[2] / "examples" / "controller.py"
    controller = load_controller(ControllerSettings(file=path, options={"tolerance_um": 2.0}))
    assert controller.update(tracks(0, z=1.0, focus_um=50.0)) == []
    (command,) = controller.update(tracks(1, z=-7.0, focus_um=50.0))
    assert command.kind is CommandKind.MOVE_FOCUS
    assert command.value == 43.0
    assert controller.update(tracks(2, z=-7.0, focus_um=50.0)) == []
    assert controller.update(tracks(100, z=np.nan, focus_um=50.0)) == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = 1\ny = undefined_name\n", r"line 2: NameError"),
        ("class A:\n  def update(self, t)\n", r"line 2: SyntaxError"),
        ("x = 1\n", r"found: none"),
        ("class A:\n  def update(self, t): pass\nclass B(A): pass\n", r"found: A, B"),
        (
            "class A:\n  def __init__(self): 1 / 0\n  def update(self, t): pass\n",
            r"line 2: ZeroDivisionError",
        ),
    ],
)
def test_a_users_file_that_cannot_be_used_is_reported_with_its_line(tmp_path, source, said):
    with pytest.raises(ConfigurationError, match=said) as caught:
        own(tmp_path, source)
    assert "own_" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_wrong_option_are_configuration_errors(tmp_path):
    with pytest.raises(ConfigurationError, match="no controller file"):
        load_controller(ControllerSettings(file=tmp_path / "none.py"))
    with pytest.raises(ConfigurationError, match="no controller file"):
        load_controller(ControllerSettings(file=tmp_path))
    with pytest.raises(ConfigurationError, match="typo"):
        own(tmp_path, "class A:\n  def update(self, t): pass\n", typo=1)


class Script:
    """Does in each frame what it was told."""

    name = "script"

    def __init__(self, *steps) -> None:
        self.steps = list(steps)
        self.heard: list[CommandReply] = []

    def update(self, tracks: Tracks) -> list[Command]:
        step = self.steps.pop(0) if self.steps else []
        if isinstance(step, Exception):
            raise step
        return step

    def acknowledged(self, ack: CommandReply) -> None:
        self.heard.append(ack)


class Loop:
    """A control stage between a real link and a real command channel."""

    def __init__(self, stack: ExitStack, controller, conditions=()) -> None:
        self.source = open_sender(
            f"inproc://{uuid.uuid4().hex}", run_id="run", source="test", slot_bytes=100_000
        )
        stack.callback(self.source.close)
        self.server = CommandServer("tcp://127.0.0.1:0")
        stack.callback(self.server.close)
        self.said: list[str] = []
        self.record: list[tuple[str, str, dict]] = []
        self.heartbeats: list[int] = []
        self.made_safe: list[str] = []
        self.stage = ControlStage(
            open_receiver(self.source.address),
            controller,
            CommandClient(self.server.address),
            self.said.append,
            lambda *entry: self.record.append(entry),
            conditions=conditions,
        )
        stack.callback(self.stage.close)

    def run(self, answer=None, limit_s: float = 240.0) -> list[Command]:
        """Step to the end; every command gets the answer that `answer` makes of it."""
        commands = []
        deadline_s = time.monotonic() + limit_s
        while self.stage.step(0.01):
            assert time.monotonic() < deadline_s
            commands += self.serve(answer)
        return commands

    def serve(self, answer=None) -> list[Command]:
        """Answer what has come so far; returns the commands."""
        commands = []
        for request in self.server.poll():
            command = request.command
            if command.kind is CommandKind.HEARTBEAT:
                self.heartbeats.append(command.decided_on_frame)
                request.reply(CommandReply(command.command_id, True))
                continue
            if command.kind is CommandKind.MAKE_SAFE:
                self.made_safe.append(command.value)
                continue
            commands.append(command)
            if answer is not None:
                request.reply(answer(request.command))
        return commands

    def wait_for_a_heartbeat(self, limit_s: float = 240.0) -> None:
        """It may come after the end of the stage, which does not wait for it."""
        deadline_s = time.monotonic() + limit_s
        while not self.heartbeats:
            assert time.monotonic() < deadline_s, "no heartbeat"
            self.serve()
            time.sleep(0.001)


def accept(command: Command) -> CommandReply:
    return CommandReply(command.command_id, True, first_frame=7)


def test_commands_reach_the_microscope_signed_and_their_answers_the_controller():
    controller = Script([Command(SET_FLOW, 2.0)], [], [Command(CommandKind.STOP, decided_on_frame=1)])
    with ExitStack() as stack:
        loop = Loop(stack, controller)
        assert isinstance(loop.stage, Stage)
        for frame in range(4):
            loop.source.send(tracks(frame))
        loop.source.end()
        commands = loop.run(accept)
        assert {(c.kind, c.sender, c.decided_on_frame) for c in commands} == {
            (SET_FLOW, "script", 0),
            (CommandKind.STOP, "script", 1),  # on a connection of its own: it may come first
        }
        assert [ack.first_frame for ack in controller.heard] == [7, 7]
        counts = loop.stage.counts()
        assert counts["received"] == 4
        assert counts["sent"] == counts["accepted"] == 2
        assert loop.stage.gauges()["latency_ms"] > 0
        assert loop.stage.gauges()["ack_ms"] > 0
        assert loop.stage.state is StageState.DONE
        assert not loop.said


class OnFrame:
    """A condition that asks for an event on one frame."""

    def __init__(self, frame: int) -> None:
        self.frame = frame

    def update(self, seen: Tracks) -> list[Command]:
        asks = seen.info.frame == self.frame
        return [record_request("record.on.something", "it was seen", self.frame)] if asks else []


@pytest.mark.parametrize("steps", [[], [ValueError("broken")], [[Command(SET_FLOW, 2.0)]]])
def test_conditions_ask_for_events_whatever_the_controller_does(steps):
    with ExitStack() as stack:
        loop = Loop(stack, Script(*steps) if steps else None, [OnFrame(1), OnFrame(3)])
        for frame in range(5):
            loop.source.send(tracks(frame))
        loop.source.end()
        asked = [c for c in loop.run(accept) if c.kind is CommandKind.RECORD]
        until_s = time.monotonic() + 240
        while len(asked) < 2:  # the stage does not wait for the answer to a request
            assert time.monotonic() < until_s
            asked += [c for c in loop.serve(accept) if c.kind is CommandKind.RECORD]
        assert [(c.decided_on_frame, c.sender) for c in asked] == [
            (1, "record.on.something"),
            (3, "record.on.something"),
        ]
        assert loop.stage.counts()["events_asked"] == 2
        assert not any(facts.get("command") == "record" for _, _, facts in loop.record)


def test_a_condition_whose_event_is_refused_is_reported():
    def refuse(command: Command) -> CommandReply:
        return CommandReply(command.command_id, False, reason="event 1 has lasted for 600 s")

    with ExitStack() as stack:
        loop = Loop(stack, None, [OnFrame(0)])
        loop.source.send(tracks(0))
        until_s = time.monotonic() + 240
        while not loop.said:
            assert time.monotonic() < until_s
            loop.stage.step(0.01)
            loop.serve(refuse)
        assert loop.said == ["record.on.something: no event: event 1 has lasted for 600 s"]


def test_a_controller_that_asks_again_and_again_is_refused_and_does_not_count_as_a_flood():
    controller = Script(*[[Command(CommandKind.RECORD, "always")] for _ in range(300)])

    def refuse(command: Command) -> CommandReply:
        return CommandReply(command.command_id, False, reason="event 1 has lasted for 600 s")

    with ExitStack() as stack:
        loop = Loop(stack, controller)
        for frame in range(300):
            loop.source.send(tracks(frame))
            while loop.stage.counts()["received"] <= frame:
                loop.stage.step(0.01)
            loop.serve(refuse)
        loop.source.end()
        loop.run(refuse)
        assert loop.stage.counts()["refused"] == 300
        assert not loop.stage.failure
        assert not loop.made_safe


def test_a_condition_that_is_refused_again_and_again_is_reported_once():
    accepts = iter([True, False, False, False, True, False])

    def answer(command: Command) -> CommandReply:
        return CommandReply(command.command_id, next(accepts), reason="event 1 has lasted for 600 s")

    with ExitStack() as stack:
        loop = Loop(stack, None, [OnFrame(frame) for frame in range(6)])
        for frame in range(6):
            loop.source.send(tracks(frame))
            while loop.stage.counts()["received"] <= frame:
                loop.stage.step(0.01)
            asked = []
            while not asked:
                asked = loop.serve(answer)
        until_s = time.monotonic() + 240
        while len(loop.said) < 2:
            assert time.monotonic() < until_s
            loop.stage.step(0.01)
        loop.source.end()
        loop.run()
        assert loop.said == 2 * ["record.on.something: no event: event 1 has lasted for 600 s"]


def test_a_request_for_an_event_is_sent_while_the_hardware_was_made_safe():
    controller = Script(
        [Command(SET_FLOW, 1.0)], [Command(CommandKind.RECORD, "odd"), Command(SET_FLOW, 2.0)]
    )
    with ExitStack() as stack:
        loop, kinds = Loop(stack, controller), []

        def serve() -> None:
            for asked in loop.server.poll():
                kind = asked.command.kind
                if kind is not CommandKind.HEARTBEAT:
                    kinds.append(kind)
                accepted = kind is not SET_FLOW
                held = "" if kind is CommandKind.RECORD else f"{MADE_SAFE} by hand"
                asked.reply(CommandReply(asked.command.command_id, accepted, reason=held))

        until_s = time.monotonic() + 240
        loop.source.send(tracks(0))
        while not controller.heard:
            assert time.monotonic() < until_s
            loop.stage.step(0.01)
            serve()
        loop.source.send(tracks(1))
        while len(controller.heard) < 3:
            assert time.monotonic() < until_s
            loop.stage.step(0.01)
            serve()
        assert kinds == [SET_FLOW, CommandKind.RECORD]
        assert loop.stage.counts()["unsent"] == 1


def test_a_controller_is_shown_the_age_that_a_result_has_when_it_gets_it():
    class Watcher:
        name = "watcher"

        def __init__(self) -> None:
            self.ages_ms: list[float] = []

        def update(self, tracks: Tracks) -> list[Command]:
            self.ages_ms.append(tracks.info.age_ms)
            return []

    watcher = Watcher()
    with ExitStack() as stack:
        loop = Loop(stack, watcher)
        loop.source.send(tracks(0))
        stamped = tracks(1, age_ms=40.0)
        taken_ns = time.perf_counter_ns() - 60_000_000
        loop.source.send(replace(stamped, info=replace(stamped.info, monotonic_ns=taken_ns)))
        loop.source.end()
        loop.run()
    assert np.isnan(watcher.ages_ms[0])
    assert watcher.ages_ms[1] >= 60.0


def test_a_loop_whose_results_are_too_old_says_so_on_the_terminal_and_in_the_record():
    with ExitStack() as stack:
        loop = Loop(stack, HoldFlow(HoldFlowSettings(target_um_s=20.0, max_flow_ul_s=5.0), watchdog_s=1.0))
        begun_ns = time.perf_counter_ns()
        for frame in range(3):
            seen = tracks(frame, age_ms=700.0, flow_ul_s=1.0)
            loop.source.send(replace(seen, info=replace(seen.info, monotonic_ns=begun_ns)))
        loop.source.end()
        assert loop.run(accept) == []
        (said,) = loop.said
        assert said.startswith("hold_flow does not act: the result is 0.7")
        assert "the limit is 0.5 s (controller.hold_flow.max_age_s)" in said
        (entry,) = [(text, facts) for kind, text, facts in loop.record if kind == "controller"]
        assert entry[0] == said
        assert entry[1]["acts"] is False
        loop.wait_for_a_heartbeat()


def test_a_refused_command_is_counted_and_said():
    with ExitStack() as stack:
        loop = Loop(stack, Script([Command(SET_FLOW, 1e9)]))
        loop.source.send(tracks(0))
        loop.source.end()
        loop.run(lambda c: CommandReply(c.command_id, False, reason="above the limit of 5 ul/s"))
        assert loop.stage.counts()["refused"] == 1
        assert "above the limit" in loop.said[0]


def test_a_controller_that_raises_is_reported_with_its_line_and_the_run_goes_on_without_it():
    with ExitStack() as stack:
        controller = Script([], RuntimeError("no such\nthing"), [Command(CommandKind.STOP)])
        loop = Loop(stack, controller)
        for frame in range(5):
            loop.source.send(tracks(frame))
        loop.source.end()
        assert loop.run(accept) == []
        counts = loop.stage.counts()
        assert counts["received"] == 5
        assert counts["controller_errors"] == 1
        assert counts["sent"] == 0
        assert loop.stage.gauges()["controller_works"] == 0.0
        assert len(loop.said) == 1
        assert "script failed on frame 1" in loop.said[0]
        assert "Traceback (most recent call last)" in loop.said[0]
        assert loop.made_safe == [loop.stage.failure]
        loop.wait_for_a_heartbeat()
        assert loop.heartbeats == [0]
        assert [kind for kind, _, _ in loop.record] == ["controller"]
        assert "test_controllers.py, line" in loop.said[0]
        assert loop.source.flush(240.0)


def test_a_controller_that_returns_nonsense_is_one_that_failed():
    with ExitStack() as stack:
        loop = Loop(stack, Script(["stop"]))
        loop.source.send(tracks(0))
        loop.source.end()
        assert loop.run() == []
        assert "list of Command" in loop.said[0]


def test_a_microscope_that_does_not_answer_does_not_keep_the_stage_from_ending():
    with ExitStack() as stack:
        loop = Loop(stack, Script([Command(CommandKind.STOP)]))
        loop.source.send(tracks(0))
        loop.source.end()
        assert len(loop.run()) == 1
        assert loop.stage.gauges()["queue"] == 1
        assert loop.stage.state is StageState.DONE


def test_a_command_that_cannot_be_sent_is_counted_and_said():
    class Broken:
        def send(self, command):
            raise LinkError("commands pile up")

        def replies(self):
            return []

        def close(self):
            pass

    with ExitStack() as stack:
        loop = Loop(stack, Script([Command(CommandKind.STOP)]))
        loop.stage._channel.close()
        loop.stage._channel = CommandChannel(Broken())
        loop.source.send(tracks(0))
        loop.source.end()
        loop.run()
        assert loop.stage.counts()["unsent"] == 1
        assert "pile up" in loop.said[0]


def test_something_else_than_tracks_is_refused_in_one_line():
    with ExitStack() as stack:
        loop = Loop(stack, Script())
        loop.source.send(Detections.empty(info(0)))
        with pytest.raises(LinkError, match="was sent Detections"):
            loop.run()
        assert loop.stage.state is StageState.FAILED
