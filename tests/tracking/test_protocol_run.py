from dataclasses import replace

import numpy as np
import pytest
from flows import info
from pydantic import ValidationError

from stream.messages import Command, CommandKind, CommandReply, FrameInfo, Tracks
from tracking.control.controllers import HoldFlow, ProtocolRun, until_enough
from tracking.control.controllers.protocol_run import slices_of
from tracking.control.controllers.sufficiency import Sufficiency, profile_error_um_s
from tracking.control.protocol_settings import (
    Enough,
    Foci,
    ProtocolSettings,
    StepSettings,
    UntilEnoughSettings,
)
from tracking.control.settings import HoldFlowSettings

FRAME_S = 0.02


def seen(frame: int, count: int = 5, depth=0.0, speed=50.0) -> Tracks:
    number = np.arange(count)
    return Tracks.from_columns(
        info(frame), track=number, x_um=speed * frame * FRAME_S, y_um=number, z_um=depth, vx_um_s=speed,
        vy_um_s=0.0, flags=0, age_frames=frame, detection=number,
    )  # fmt: skip


def run(controller, frames, delay=3, refuse=()):
    """Step a protocol; every command is acknowledged `delay` frames later. Returns (frame, command) pairs."""
    asked, waiting = [], []
    for frame in range(frames):
        for when, command in [w for w in waiting if w[0] <= frame]:
            accepted = command.kind not in refuse
            controller.acknowledged(
                CommandReply(command.command_id, accepted, when, "" if accepted else "too high")
            )
            waiting.remove((when, command))
        for command in controller.update(seen(frame)):
            asked.append((frame, command))
            waiting.append((frame + delay, command))
    return asked


def protocol(*steps, **more) -> ProtocolRun:
    return ProtocolRun(ProtocolSettings(steps=[StepSettings(**step) for step in steps], **more), None)


def test_slices_are_gone_through_in_order_each_measured_from_the_first_frame_that_shows_it():
    controller = protocol(
        {"focus_um": [10.0, 20.0], "frames": 10}, {"flow_ul_s": 0.5, "seconds": 0.2}, repeats=2
    )
    asked = run(controller, 200)
    wanted = [("move_focus", 10.0), ("move_focus", 20.0), ("set_flow", 0.5)] * 2 + [("stop", None)]
    assert [(str(c.kind), c.value) for _, c in asked[:-1]] == wanted[:-1]
    assert asked[-1][1].kind is CommandKind.STOP
    assert asked[-1][1].value == "the protocol is complete"
    told = controller.happenings()
    done = [h.facts for h in told if h.facts["done"]]
    assert [facts["slice"] for facts in done] == list(range(6))
    begins = [facts["first_frame"] for facts in done]
    assert begins == [frame + 3 for frame, command in asked[:-1]]
    assert [facts["last_frame"] - facts["first_frame"] + 1 for facts in done] == [10, 10, 11] * 2
    assert [facts["repeat"] for facts in done] == [0, 0, 0, 1, 1, 1]


def test_settling_is_not_measured():
    controller = protocol({"focus_um": 10.0, "settle_s": 0.5, "frames": 5})
    run(controller, 60)
    (done,) = [h.facts for h in controller.happenings() if h.facts["done"]]
    assert done["first_frame"] == 3 + 25


def test_what_was_measured_before_is_passed_over():
    controller = protocol({"focus_um": [1.0, 2.0, 3.0], "frames": 5}, resume_at=2)
    assert [c.value for _, c in run(controller, 30)] == [3.0, "the protocol is complete"]


def test_a_refused_command_ends_the_run_with_its_reason():
    asked = run(protocol({"focus_um": 10.0, "frames": 5}), 30, refuse={CommandKind.MOVE_FOCUS})
    assert asked[-1][1].kind is CommandKind.STOP
    assert asked[-1][1].value == "slice 1 of 1 cannot be measured: too high"


def test_a_microscope_that_never_answers_ends_the_run():
    controller = protocol({"focus_um": 10.0, "frames": 5})
    commands = [c for frame in range(0, 6000, 10) for c in controller.update(seen(frame))]
    assert "no reply" in commands[-1].value


class Inner:
    name = "inner"

    def __init__(self):
        self.targets, self.restarts, self.heard = [], 0, []

    def retarget(self, value):
        self.targets.append(value)

    def restart(self):
        self.restarts += 1

    def acknowledged(self, ack):
        self.heard.append(ack.command_id)

    def update(self, tracks):
        return [Command(CommandKind.SET_FLOW, 0.1, command_id=f"inner {tracks.info.frame}")]


def test_the_controller_within_gets_its_set_points_and_its_own_answers():
    inner = Inner()
    steps = [{"focus_um": 5.0, "target": 75.0, "frames": 4}, {"target": 150.0, "frames": 4}]
    controller = ProtocolRun(ProtocolSettings(steps=[StepSettings(**s) for s in steps]), inner)
    asked = run(controller, 40)
    assert inner.targets == [75.0, 150.0]
    assert inner.restarts == 1
    assert inner.heard
    assert all(name.startswith("inner") for name in inner.heard if name != asked[-1][1].command_id)
    assert asked[-1][1].kind is CommandKind.STOP


def test_until_enough_goes_on_as_soon_as_there_are_enough_trajectories():
    settings = UntilEnoughSettings(
        slices=Foci(first_um=0, last_um=100, count=3), trajectories=5, length_frames=10
    )
    controller = until_enough(settings)
    asked = run(controller, 200)
    assert [c.value for _, c in asked] == [0.0, 50.0, 100.0, "the protocol is complete"]
    frames = [
        h.facts["last_frame"] - h.facts["first_frame"] + 1 for h in controller.happenings() if h.facts["done"]
    ]
    assert all(10 <= count <= 25 for count in frames)


def test_a_slice_that_never_has_enough_is_left_after_its_longest_time():
    enough = Enough(trajectories=1000, longest_s=1.0)
    controller = protocol({"until": enough.model_dump()})
    run(controller, 100)
    (done,) = [h.facts for h in controller.happenings() if h.facts["done"]]
    assert not done["reached"]
    assert done["seconds"] == pytest.approx(1.0, abs=0.3)


def test_the_standard_error_is_that_of_the_scatter_of_the_trajectories():
    rng = np.random.default_rng(0)
    depth = rng.uniform(0, 100, 4000)
    velocity = rng.normal(50, 2.0, 4000)
    assert profile_error_um_s(depth, velocity, 25.0) == pytest.approx(2.0 / np.sqrt(1000), rel=0.1)
    assert np.isnan(profile_error_um_s(depth[:3], velocity[:3], 25.0))
    assert np.isnan(profile_error_um_s(np.empty(0), np.empty(0), 25.0))


class Channel:
    """Particles of one slice of a laminar channel of 3 mm, 2 mm of it in the picture, at 24 frames/s."""

    def __init__(self, focus_um: float, count=70, seed=0):
        self.rng = np.random.default_rng(seed + int(focus_um))
        self.focus_um, self.frame, self.count = focus_um, -1, count
        self.x, self.depth = self.rng.uniform(0, 2048, count), self.rng.uniform(-71, 71, count)
        self.number = np.arange(count)

    def next(self) -> Tracks:
        self.frame += 1
        height = self.focus_um + self.depth
        speed = 50 * 4 * height * (3000 - height) / 3000**2
        self.x += speed / 24 + self.rng.normal(0, 0.1, self.count)
        left = self.x > 2048
        self.x[left], self.depth[left] = 0.0, self.rng.uniform(-71, 71, left.sum())
        self.number[left] = self.number.max() + 1 + np.arange(left.sum())
        stamp = FrameInfo("run", self.frame, self.frame, self.frame / 24, 0, 0.0)
        noise = self.rng.normal(0, 1, self.count)
        return Tracks.from_columns(
            stamp, track=self.number, x_um=self.x, y_um=0.0, z_um=self.depth + noise, flags=0, detection=0
        )


def test_every_slice_is_known_as_well_as_the_worst_of_a_fixed_protocol_in_less_than_half_its_frames():
    def measure(focus_um, target_um_s, longest):
        judge = Sufficiency(Enough(standard_error_um_s=target_um_s, length_frames=10, bin_um=50))
        channel = Channel(focus_um)
        while channel.frame < longest - 1 and not judge.update(channel.next()):
            pass
        judge._judge()
        return channel.frame + 1, judge.standard_error_um_s

    foci = np.linspace(71, 2929, 21)[::2]
    fixed = np.array([measure(focus, 1e-9, 452) for focus in foci])
    wanted = fixed[:, 1].max()
    adaptive = np.array([measure(focus, wanted, 452) for focus in foci])
    assert fixed[:, 0].sum() == len(foci) * 452
    assert adaptive[:, 1].max() <= wanted
    assert adaptive[:, 0].sum() < 0.5 * fixed[:, 0].sum()


def test_only_trajectories_of_the_depth_that_is_asked_for_count():
    judge = Sufficiency(Enough(trajectories=3, length_frames=5, min_depth_um=-10, max_depth_um=10))
    for frame in range(40):
        judge.update(seen(frame, 6, depth=np.array([-40.0, -5, 0, 5, 40, 41])))
    assert judge.trajectories == 3
    assert judge.reached


def test_thousands_of_trajectories_are_counted():
    judge = Sufficiency(Enough(trajectories=3000, length_frames=2))
    for frame in range(30):
        judge.update(seen(frame, 3500))
    assert judge.trajectories == 3500


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": []},
        {"steps": [{}]},
        {"steps": [{"seconds": 1, "frames": 3}]},
        {"steps": [{"until": {}}]},
        {"steps": [{"seconds": 1, "focus_um": {"first_um": 0, "last_um": 1, "count": 1}}]},
        {"steps": [{"until": {"trajectories": 1, "min_depth_um": 2, "max_depth_um": 1}}]},
    ],
)
def test_protocols_that_cannot_be_carried_out_are_refused(wrong):
    with pytest.raises(ValidationError):
        ProtocolSettings.model_validate(wrong)


def test_every_slice_of_a_protocol_is_listed_in_order():
    steps = [
        {"focus_um": {"first_um": 0, "last_um": 20, "count": 3}, "frames": 1},
        {"flow_ul_s": 1, "frames": 1},
    ]
    found = slices_of(ProtocolSettings.model_validate({"steps": steps, "repeats": 2}))
    assert [s.focus_um for s in found] == [0, 10, 20, None] * 2
    assert [s.index for s in found] == list(range(8))


def test_what_the_inner_controller_says_of_itself_is_passed_on():
    inner = HoldFlow(HoldFlowSettings(target_um_s=1.0, max_flow_ul_s=1.0))
    controller = ProtocolRun(ProtocolSettings(steps=[StepSettings(seconds=10.0)]), inner)
    for frame in range(3):
        late = seen(frame)
        controller.update(replace(late, info=replace(late.info, age_ms=3000.0)))
    assert [happening.kind for happening in controller.happenings()] == ["slice", "controller"]
    assert controller.happenings() == []


def test_a_slice_knows_how_many_of_its_frames_were_tracked():
    controller = protocol({"frames": 100})
    for frame in range(0, 120, 3):
        controller.update(seen(frame))
    (done,) = [h.facts for h in controller.happenings() if h.facts["done"]]
    assert done["last_frame"] - done["first_frame"] + 1 == 100
    assert done["tracked_frames"] == 34
