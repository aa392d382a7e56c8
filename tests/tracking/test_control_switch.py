import contextlib
import json
from dataclasses import dataclass, field

import pytest
from flows import info
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import ConfigurationError
from stream.messages import MADE_SAFE, Command, CommandKind, CommandReply, StageState, StreamEnd, Tracks
from tracking.control.settings import ControllerSettings
from tracking.control.stage import ControlStage
from tracking.control.switch import ControllerSwitch

HOLD = {"hold_flow": {"target_um_s": 300.0, "max_flow_ul_s": 5.0, "ul_s_per_um_s": 0.005, "period_s": 0.0}}


@dataclass
class Asked:
    """A request of somebody's, and the answer to it."""

    command: Command
    answer: CommandReply | None = None

    def reply(self, ack):
        self.answer = ack


@dataclass
class World:
    """A control stage with a tracker before it, a microscope behind it, and somebody who asks for controllers."""

    controller: object = None
    own: ControllerSettings | None = None
    frames: list = field(default_factory=list)
    sent: list = field(default_factory=list)
    record: list = field(default_factory=list)
    asked: list = field(default_factory=list)
    acks_: list = field(default_factory=list)
    address = "here"

    def __post_init__(self):
        self.stage = ControlStage(
            self, self.controller, self, lambda _: None, self.keep, ControllerSwitch(self, self.own)
        )
        self.number = 0

    def keep(self, kind, text, facts):
        self.record.append((kind, text, facts))

    def receive(self, timeout_s):
        return self.frames.pop(0) if self.frames else None

    def send(self, command):
        self.sent.append(command)

    def replies(self):
        return [self.acks_.pop(0) for _ in range(len(self.acks_))]

    def poll(self):
        asked, self.asked = self.asked, []
        return asked

    def see(self, velocity_um_s=200.0, count=1):
        """Let the stage look at frames; the commands that it sends to them, heartbeats left out."""
        before = len(self.sent)
        for _ in range(count):
            seen = Tracks.from_columns(
                info(self.number, flow_ul_s=1.0), track=range(20), vx_um_s=velocity_um_s, vy_um_s=0.0,
                x_um=0.0, y_um=0.0, z_um=0.0, sigma_vx_um_s=1.0, flags=0, detection=0, age_frames=50,
            )  # fmt: skip
            self.frames.append(Delivered(seen))
            self.number += 1
            self.stage.step(0.0)
        return [command for command in self.sent[before:] if command.kind is not CommandKind.HEARTBEAT]

    def ask(self, wanted, kind=CommandKind.CONTROL):
        text = wanted if isinstance(wanted, str) else json.dumps(wanted)
        request = Asked(Command(kind, text, sender="page"))
        self.asked.append(request)
        self.stage.step(0.0)
        return request.answer


@dataclass
class Delivered:
    message: object

    def done(self):
        pass


def test_a_run_without_a_controller_sends_nothing_until_one_is_switched_on():
    world = World()
    assert world.see(count=100) == []
    assert world.sent == []
    assert world.stage.gauges()["controller_on"] == 0.0
    answer = world.ask(HOLD)
    assert (answer.accepted, answer.first_frame) == (True, 100)
    commands = world.see(count=100)
    assert {command.kind for command in commands} == {CommandKind.SET_FLOW}
    assert commands[0].decided_on_frame >= 100
    assert world.stage.gauges()["controller_on"] == 1.0
    assert world.stage.gauges()["measured_target_um_s"] == 300.0


def test_a_controller_that_is_switched_off_leaves_the_hardware_as_it_is_and_the_watchdog_quiet(monkeypatch):
    monkeypatch.setattr("tracking.control.command_channel.HEARTBEAT_S", 0.0)
    world = World()
    world.ask(HOLD)
    world.see(count=100)
    assert world.ask({}).accepted
    before = len(world.sent)
    assert world.see(count=50) == []
    assert len(world.sent) == before + 50


def test_switching_is_on_record_with_who_asked_and_what_for():
    world = World()
    world.ask(HOLD)
    world.ask({})
    on, off = [(text, facts) for kind, text, facts in world.record if kind == "controller"]
    assert "target_um_s = 300.0" in on[0]
    assert on[1] == {
        "on": True, "controller": "hold_flow", "settings": HOLD["hold_flow"], "sender": "page", "first_frame": 0,
    }  # fmt: skip
    assert off[1]["on"] is False


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({"hold_flow": {}}, "target_um_s: field required"),
        ({"hold_flow": {"target_um_s": "fast", "max_flow_ul_s": 1}}, "hold_flow.target_um_s"),
        ({"hold_flow": {"target_um_s": 1, "max_flow_ul_s": 1, "min_flow_ul_s": 2}}, "must be less than"),
        ({"stop_when": {}}, "give trajectories, frames or both"),
        ({"stop_when": {"frames": 9, "hours": 2}}, "unknown key 'stop_when.hours'"),
        ({"hold_flow": HOLD["hold_flow"], "hold_focus": {}}, "exactly one"),
        ({"file": "code.py"}, "only the experiment's own"),
        ({"nonsense": {}}, "unknown key"),
        ("[" * 3000, "JSON"),
        ("5", "dictionary"),
    ],
)
def test_what_is_not_valid_is_refused_with_the_reason_and_the_controller_before_goes_on(wanted, why):
    world = World()
    world.ask(HOLD)
    answer = world.ask(wanted)
    assert not answer.accepted
    assert why in answer.reason
    assert "\n" not in answer.reason
    assert world.see(count=100)


def test_the_stage_does_not_pass_on_what_is_for_the_microscope():
    assert "only switches controllers" in World().ask("1", CommandKind.SET_FLOW).reason


def test_a_controller_that_failed_is_replaced_by_the_next(tmp_path):
    code = tmp_path / "bad.py"
    code.write_text("class Bad:\n    def update(self, tracks):\n        raise ValueError('no')\n")
    world = World(own=ControllerSettings(file=code))
    assert world.ask({"file": str(code)}).accepted
    assert [command.kind for command in world.see(count=5)] == [CommandKind.MAKE_SAFE]
    assert world.stage.gauges()["controller_works"] == 0.0
    assert world.ask(HOLD).accepted
    assert world.stage.gauges()["controller_works"] == 1.0
    assert world.see(count=100)


def test_nothing_takes_over_from_a_protocol_that_is_under_way():
    world = World()
    steps = {"until_enough": {"slices": [10.0, 20.0], "trajectories": 5}}
    assert world.ask(steps).accepted
    answer = world.ask(HOLD)
    assert "switch it off before" in answer.reason
    assert world.ask({}).accepted
    assert world.ask(HOLD).accepted


def test_answers_to_a_controller_that_is_off_are_not_told_to_the_next():
    world = World()
    world.ask(HOLD)
    sent = world.see(count=100)
    world.ask({"hold_focus": {}})
    world.acks_ = [CommandReply(command.command_id, False, reason="too late") for command in sent]
    world.see()
    assert world.stage.counts()["refused"] == len(sent)
    assert world.stage.state is StageState.RUNNING


def test_after_the_end_of_the_run_no_controller_is_switched_on():
    world = World()
    world.frames.append(Delivered(StreamEnd("r", "track", 0, 0)))
    world.stage.step(0.0)
    assert "over" in world.ask(HOLD).reason


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8))  # fmt: skip
def test_whatever_is_asked_for_is_granted_or_refused(wanted):
    with contextlib.suppress(ConfigurationError):
        assert ControllerSwitch(World()).choose(Command(CommandKind.CONTROL, json.dumps(wanted))) is not None


HELD = f"{MADE_SAFE} by page (enough); resume, or send a command manually"


def test_while_the_hardware_is_held_safe_no_controller_floods_it_or_is_given_up(monkeypatch):
    monkeypatch.setattr("tracking.control.command_channel.HEARTBEAT_S", 0.0)

    class Eager:
        name = "eager"
        heard = ()

        def update(self, tracks):
            return [Command(CommandKind.SET_FLOW, 1.0)] * 50

        def acknowledged(self, ack):
            self.heard = (*self.heard, ack.reason)

    world = World(Eager())
    assert len(world.see()) == 50
    world.acks_ = [CommandReply(world.sent[0].command_id, False, reason=HELD)]
    assert world.see(count=100) == []
    assert not world.stage.failure
    assert set(world.stage._controller.heard) == {HELD}
    world.acks_ = [CommandReply(beat.command_id, True) for beat in world.sent[-1:]]
    assert len(world.see()) == 50


def test_a_protocol_waits_while_the_hardware_is_held_safe_and_measures_its_slice_again(monkeypatch):
    monkeypatch.setattr("tracking.control.command_channel.HEARTBEAT_S", 0.0)
    world = World()
    world.ask({"until_enough": {"slices": [10.0, 20.0], "trajectories": 5}})
    (move,) = world.see()
    world.acks_ = [CommandReply(move.command_id, False, reason=HELD)]
    assert world.see(count=50) == []
    world.acks_ = [CommandReply(world.sent[-1].command_id, True)]
    (again,) = world.see()
    assert (again.kind, again.value) == (move.kind, move.value)


def test_a_controller_that_is_switched_on_tells_the_acquisition_so():
    world = World()
    world.ask(HOLD)
    assert [(command.kind, command.sender) for command in world.sent] == [(CommandKind.CONTROL, "page")]
    world.ask({})
    assert len(world.sent) == 1


class WordlessError(Exception):
    def __str__(self):
        raise RuntimeError("no words")


@pytest.mark.parametrize("raised", [WordlessError(), SystemExit("bye \x1b[31m"), GeneratorExit()])
@pytest.mark.parametrize("where", ["update", "acknowledged"])
def test_whatever_a_controller_raises_the_run_goes_on_and_another_can_be_switched_on(raised, where):
    class Bad:
        name = "bad"

        def update(self, tracks):
            if where == "update":
                raise raised
            return [Command(CommandKind.SET_FLOW, 1.0)]

        def acknowledged(self, ack):
            raise raised

    world = World(Bad())
    world.see()
    world.acks_ = [CommandReply(command.command_id, True) for command in world.sent]
    world.see()
    assert world.sent[-1].kind is CommandKind.MAKE_SAFE
    assert type(raised).__name__ in world.stage.failure
    assert world.stage.failure.isprintable()
    assert world.ask(HOLD).accepted
    assert world.see(count=100)


def test_a_controller_file_that_leaves_while_it_is_made_is_refused(tmp_path):
    code = tmp_path / "leaves.py"
    code.write_text("import sys\nclass C:\n    def update(self, tracks): return []\nsys.exit('bye')\n")
    world = World(own=ControllerSettings(file=code))
    answer = world.ask({"file": str(code)})
    assert not answer.accepted
    assert "SystemExit: bye" in answer.reason
