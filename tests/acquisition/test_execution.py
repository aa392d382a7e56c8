import csv
import math
import time

import numpy as np
import pytest
from pydantic import ValidationError
from scripted_microscope import ScriptedMicroscope
from simulated_clock import SimulatedClock
from small_microscope import small_settings

from acquisition.commands.execution import CommandExecutor
from acquisition.microscope.live import MicroscopeStream
from acquisition.microscope.microscope import Microscope
from acquisition.safety.limits import CommandRefused, RateLimit
from acquisition.settings import LimitsSettings, MicroscopeSettings
from stream.errors import ConfigurationError, SourceError
from stream.messages import Command, CommandKind

LIMITS = LimitsSettings(
    min_focus_um=100,
    max_focus_um=200,
    max_focus_step_um=40,
    max_flow_ul_s=0.05,
    safe_flow_ul_s=0.0,
    max_exposure_ms=5,
    commands_per_s=1000,
    properties=("Camera.SNR",),
)


class Rig:
    """A microscope with an executor, and the answers that have come."""

    def __init__(self, microscope, limits=LIMITS, clock=time.monotonic):
        self.microscope = microscope
        self.replies = {}
        try:
            self.stream = MicroscopeStream(microscope, microscope.settings, run_id="test")
            self.executor = CommandExecutor(microscope, self.stream, limits, clock)
        except BaseException:
            microscope.close()
            raise

    def do(self, kind, value=None, **more):
        command = Command(kind, value, **more)
        reply = self.executor.execute(command)
        if reply is not None:
            self.replies[reply.command_id] = reply
        return command.command_id

    def run(self, frames):
        taken = []
        self.run_until(lambda: len(taken) >= frames, taken)
        return taken

    def run_until(self, condition, taken=None, within_s=60):
        """Take frames until something is true; the frames."""
        taken = [] if taken is None else taken
        deadline_s = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline_s
            answers = self.executor.poll()
            frame = self.stream.read(0.1)
            if frame is not None:
                taken.append(frame)
                answers += self.executor.frame_taken(frame)
            self.replies |= {reply.command_id: reply for reply in answers}
        return taken

    def run_until_answered(self, *commands):
        return self.run_until(lambda: all(command in self.replies for command in commands))

    def close(self):
        self.stream.close()
        self.microscope.close()


@pytest.fixture
def rig(tmp_path):
    rigs = []

    def build(*extra, limits=LIMITS, clock=time.monotonic, settings=None, **more):
        settings = settings or small_settings(tmp_path, *extra, **more)
        rigs.append(Rig(Microscope(settings), limits, clock))
        return rigs[-1]

    yield build
    for one in rigs:
        one.close()


@pytest.fixture
def scripted(monkeypatch):
    """Build a rig on a microscope whose clock, `rig.clock`, passes only while the program waits for frames."""

    def build(**camera):
        clock = SimulatedClock()
        monkeypatch.setattr("acquisition.microscope.live.time", clock)
        monkeypatch.setattr("acquisition.commands.execution.time", clock)
        one = Rig(ScriptedMicroscope(clock, **camera), LIMITS, clock.monotonic)
        one.clock = clock
        return one

    return build


def speeds_by_frame(path):
    """Fastest particle of each frame, from the truth."""
    fastest = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            frame = int(row["frame"])
            fastest[frame] = max(fastest.get(frame, 0.0), float(row["vx_um_s"]))
    return fastest


def test_a_flow_command_never_names_a_frame_before_the_new_flow(rig, tmp_path):
    truth = tmp_path / "truth.csv"
    one = rig(f"Camera,TruthFile,{truth}", "Camera,Diffusion_um2_s,0")
    one.stream.start()
    named = []
    for flow in (0.002, 0.04, 0.002, 0.04, 0.002):
        one.run(7)
        command = one.do(CommandKind.SET_FLOW, flow)
        one.run_until_answered(command)
        assert one.replies[command].accepted
        named.append(one.replies[command].first_frame)
    one.run(10)
    one.stream.stop()
    fast = speeds_by_frame(truth)
    is_fast = {frame: speed > 100 for frame, speed in fast.items()}
    changes = [frame for frame in sorted(fast) if frame > 0 and is_fast[frame] != is_fast[frame - 1]]
    assert len(changes) == 5
    assert all(name >= change for name, change in zip(named, changes, strict=True))


@pytest.mark.parametrize("waited_s", [0.0, 0.4])
def test_a_flow_command_names_the_first_frame_with_the_new_flow(scripted, waited_s):
    one = scripted(rate_hz=100, exposure_ms=0.55)
    one.stream.start()
    frames = one.run(5)
    late = []
    for flow in (0.002, 0.04, 0.002, 0.04, 0.002):
        one.clock.sleep(waited_s)  # frames wait in the buffer meanwhile
        change = len(one.microscope.truth)
        command = one.do(CommandKind.SET_FLOW, flow)
        frames += one.run_until_answered(command)
        late.append(one.replies[command].first_frame - change)
        frames += one.run(7)
        assert one.microscope.truth[change].flow_ul_s == flow != one.microscope.truth[change - 1].flow_ul_s
    assert set(late) <= {0, 1}
    assert sum(late) <= 2
    stamped = np.array([frame.info.flow_ul_s for frame in frames])
    true = np.array([exposed.flow_ul_s for exposed in one.microscope.truth[: len(frames)]])
    assert np.count_nonzero(stamped != true) == sum(late)


def test_an_exposure_command_names_a_frame_with_the_new_exposure(scripted):
    one = scripted(exposure_ms=5.0)
    one.stream.start()
    one.run(5)
    for exposure_ms in (2.0, 5.0):
        one.clock.sleep(0.3)  # frames wait in the buffer meanwhile
        change = len(one.microscope.truth)
        command = one.do(CommandKind.SET_EXPOSURE, exposure_ms)
        frames = one.run_until_answered(command) + one.run(30)
        named = one.replies[command].first_frame
        true_ms = [exposed.exposure_ms for exposed in one.microscope.truth]
        assert set(true_ms[change : named + 30]) == {exposure_ms}
        assert true_ms[change - 1] == 7.0 - exposure_ms
        assert 0 <= named - change <= 3  # without a clock of the camera's own it is not known to the frame
        assert {f.info.exposure_ms for f in frames if f.info.frame >= named} == {exposure_ms}
        assert {f.info.exposure_ms for f in frames if f.info.frame < named} == {7.0 - exposure_ms}


def test_a_camera_of_micro_manager_takes_a_new_exposure_while_it_runs(rig):
    one = rig(settings=MicroscopeSettings(config="MMConfig_demo.cfg", exposure_ms=5, buffer_mb=64),
              limits=LimitsSettings(max_exposure_ms=100))  # fmt: skip
    one.stream.start()
    one.run(5)
    command = one.do(CommandKind.SET_EXPOSURE, 40.0)
    one.run_until_answered(command)
    assert one.replies[command].accepted
    assert one.microscope.read_exposure() == 40.0
    assert one.run(1)[0].info.exposure_ms == 40.0


def test_a_focus_command_is_answered_when_the_drive_has_come_to_rest(rig):
    one = rig(read_hz=1000)
    one.stream.start()
    one.run(3)
    command = one.do(CommandKind.MOVE_FOCUS, 180)
    frames = one.run_until_answered(command) + one.run(10)
    first = one.replies[command].first_frame
    arrived = [f.info for f in frames if f.info.frame >= first]
    assert one.replies[command].accepted
    assert len(arrived) > 10
    assert all(info.focus_um == pytest.approx(180, abs=0.2) for info in arrived)
    assert any(f.info.focus_um < 179 for f in frames)


def test_the_next_slice_is_a_step_from_where_the_focus_was_sent(rig):
    one = rig()
    one.stream.start()
    one.do(CommandKind.NEXT_SLICE, 20)
    one.run(15)
    one.do(CommandKind.NEXT_SLICE, -5)
    one.run(15)
    assert one.microscope.focus_commanded_um == 165


@pytest.mark.parametrize(
    ("kind", "value", "more", "why"),
    [
        (CommandKind.MOVE_FOCUS, 99, {}, "outside the limits"),
        (CommandKind.MOVE_FOCUS, 195, {}, "max_focus_step_um"),
        (CommandKind.MOVE_FOCUS, math.nan, {}, "finite"),
        (CommandKind.MOVE_FOCUS, math.inf, {}, "finite"),
        (CommandKind.MOVE_FOCUS, "up", {}, "number"),
        (CommandKind.MOVE_FOCUS, None, {}, "number"),
        (CommandKind.NEXT_SLICE, 1000, {}, "outside the limits"),
        (CommandKind.SET_FLOW, 0.06, {}, "outside the limits"),
        (CommandKind.SET_FLOW, -0.01, {}, "outside the limits"),
        (CommandKind.SET_EXPOSURE, 50, {}, "outside the limits"),
        (CommandKind.SET_EXPOSURE, 0, {}, "outside the limits"),
        (CommandKind.SET_SHUTTER, 1, {}, "no shutter"),
        (CommandKind.TRIGGER, None, {}, "no trigger"),
        (CommandKind.SET_PROPERTY, 3, {"device": "Camera", "property": "FrameRate"}, "limits.properties"),
        (CommandKind.SET_PROPERTY, None, {"device": "Camera", "property": "SNR"}, "needs a value"),
        (CommandKind.SET_PROPERTY, -1, {"device": "Camera", "property": "SNR"}, "Camera.SNR"),
    ],
)
def test_what_is_outside_the_limits_is_refused_and_changes_nothing(rig, kind, value, more, why):
    one = rig()
    before = (one.microscope.read_focus(), one.microscope.read_flow(), one.microscope.read_exposure())
    reply = one.replies[one.do(kind, value, **more)]
    assert not reply.accepted
    assert why in reply.reason
    after = (one.microscope.read_focus(), one.microscope.read_flow(), one.microscope.read_exposure())
    assert after == pytest.approx(before)
    assert one.executor.counts()["commands_refused"] == 1


def test_without_limits_nothing_that_can_do_harm_is_moved(rig):
    one = rig(limits=LimitsSettings())
    assert "limits.min_focus_um" in one.replies[one.do(CommandKind.MOVE_FOCUS, 151)].reason
    assert "limits.max_flow_ul_s" in one.replies[one.do(CommandKind.SET_FLOW, 0.01)].reason


def test_a_property_that_the_experiment_names_can_be_set(rig):
    one = rig()
    one.stream.start()
    command = one.do(CommandKind.SET_PROPERTY, 20.0, device="Camera", property="SNR")
    one.run_until_answered(command)
    assert one.replies[command].accepted
    assert float(one.microscope.core.getProperty("Camera", "SNR")) == 20


@pytest.mark.parametrize(
    ("device", "name", "instead"),
    [("Pump", "FlowRate", "set_flow"), ("Camera", "Exposure", "set_exposure")],
)
def test_limits_cannot_be_passed_by_setting_the_property_itself(rig, device, name, instead):
    one = rig(limits=LIMITS.model_copy(update={"properties": (f"{device}.{name}",)}))
    reply = one.replies[one.do(CommandKind.SET_PROPERTY, 9.0, device=device, property=name)]
    assert not reply.accepted
    assert reply.reason.endswith(f"send {instead}")
    assert one.microscope.read_flow() == pytest.approx(0.0246)


def test_a_trigger_is_a_pulse_on_a_property(rig):
    one = rig(trigger="Camera.DropEvery")
    reply = one.replies.get(one.do(CommandKind.TRIGGER))
    assert "DropEvery" in reply.reason  # this one refuses to be 1


def test_a_flood_of_commands_is_let_through_at_the_permitted_rate():
    now = [0.0]
    limit = RateLimit(3, lambda: now[0])
    passed = 0
    for step in range(100):
        now[0] = step * 0.1
        try:
            limit.check(CommandKind.SET_FLOW)
        except CommandRefused:
            continue
        passed += 1
    assert passed == 30


def test_less_than_one_command_a_second_can_be_permitted():
    now = [0.0]
    limit = RateLimit(0.25, lambda: now[0])
    limit.check(CommandKind.SET_FLOW)
    now[0] = 3.9
    with pytest.raises(CommandRefused, match=r"0\.25 commands per second"):
        limit.check(CommandKind.SET_FLOW)
    now[0] = 4.0
    limit.check(CommandKind.SET_FLOW)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_limits_are_finite_numbers(value):
    with pytest.raises(ValidationError, match="finite"):
        LimitsSettings(safe_flow_ul_s=value)


def test_a_watchdog_with_nothing_to_make_safe_is_refused(rig):
    with pytest.raises(ConfigurationError, match=r"safe_flow_ul_s.*microscope\.shutter"):
        rig(limits=LimitsSettings(watchdog_s=1.0))


class BrokenPump:
    """A microscope whose pump does not obey, and which notes what its shutter was told."""

    pump, shutter = "Pump", "Shutter"

    def __init__(self):
        self.shutter_open = True

    def set_flow(self, _flow_ul_s):
        raise SourceError("the pump is unplugged")

    def set_shutter(self, is_open):
        self.shutter_open = is_open


def test_the_shutter_is_closed_even_if_the_pump_does_not_obey():
    microscope = BrokenPump()
    executor = CommandExecutor(microscope, None, LIMITS)
    with pytest.raises(SourceError, match="unplugged"):
        executor.safe_state()
    assert not microscope.shutter_open


def test_a_shutter_of_micro_manager_opens_on_command_and_is_closed_for_safety(rig):
    shutter = "White Light Shutter"
    settings = MicroscopeSettings(config="MMConfig_demo.cfg", shutter=shutter)
    one = rig(settings=settings, limits=LimitsSettings())
    one.do(CommandKind.SET_SHUTTER, 1)
    assert one.microscope.core.getShutterOpen(shutter)
    assert "open" in one.replies[one.do(CommandKind.SET_SHUTTER, 2)].reason
    one.executor.safe_state()
    assert not one.microscope.core.getShutterOpen(shutter)


def test_a_safe_flow_without_a_pump_is_refused(rig):
    with pytest.raises(ConfigurationError, match=r"microscope\.pump"):
        rig(settings=MicroscopeSettings(config="MMConfig_demo.cfg"))


def test_when_the_controller_falls_silent_the_pump_goes_to_its_safe_flow(rig):
    now = [100.0]
    limits = LIMITS.model_copy(update={"watchdog_s": 5.0, "safe_flow_ul_s": 0.001})
    one = rig(limits=limits, clock=lambda: now[0])
    now[0] += 1000
    one.executor.poll()
    assert one.microscope.read_flow() == pytest.approx(0.0246)
    one.do(CommandKind.SET_FLOW, 0.03)  # a person's wish, after which nothing is expected
    now[0] += 1000
    one.executor.poll()
    assert one.microscope.read_flow() == pytest.approx(0.03)
    one.stream.start()
    shown = one.run(1)[-1].info.frame
    one.do(CommandKind.SET_FLOW, 0.03, decided_on_frame=shown)
    now[0] += 4.8
    shown = one.run(1)[-1].info.frame
    one.do(CommandKind.HEARTBEAT, decided_on_frame=shown)
    now[0] += 4.8
    one.executor.poll()
    assert one.microscope.read_flow() == pytest.approx(0.03)
    now[0] += 0.3
    one.executor.poll()
    assert one.microscope.read_flow() == pytest.approx(0.001)
    assert one.executor.counts()["watchdog"] == 1


def test_results_of_frames_that_were_exposed_too_long_ago_do_not_keep_the_watchdog_quiet(rig):
    now = [100.0]
    limits = LIMITS.model_copy(update={"watchdog_s": 2.0, "safe_flow_ul_s": 0.001})
    one = rig(limits=limits, clock=lambda: now[0])
    one.stream.start()
    old = one.run(1)[-1].info.frame
    one.do(CommandKind.HEARTBEAT, decided_on_frame=old)
    for _ in range(10):  # messages come all the time, but what they show grows old
        now[0] += 0.25
        one.do(CommandKind.HEARTBEAT, decided_on_frame=old)
        one.executor.poll()
    assert one.microscope.read_flow() == pytest.approx(0.001)
    assert one.executor.counts()["watchdog"] == 1
    refused = one.do(CommandKind.SET_FLOW, 0.03, decided_on_frame=old)
    assert "exposed more than 2 s ago" in one.replies[refused].reason
    assert one.microscope.read_flow() == pytest.approx(0.001)
    fresh = one.run(1)[-1].info.frame
    one.do(CommandKind.SET_FLOW, 0.03, decided_on_frame=fresh)
    assert one.microscope.read_flow() == pytest.approx(0.03)


def test_the_safe_state_passes_the_rate_limit_and_drops_what_was_scheduled(rig):
    limits = LIMITS.model_copy(update={"commands_per_s": 300.0, "safe_flow_ul_s": 0.001})
    one = rig(limits=limits)
    one.stream.start()
    one.run(1)
    scheduled = [one.do(CommandKind.SET_FLOW, 0.03, at_time_s=50.0) for _ in range(256)]
    asked = [one.do(CommandKind.MAKE_SAFE, at_time_s=40.0) for _ in range(100)]
    assert one.microscope.read_flow() == pytest.approx(0.001)
    one.run_until_answered(*scheduled, *asked)
    assert all("the safe state was requested" in one.replies[command].reason for command in scheduled)
    assert all(one.replies[command].accepted for command in asked)


def test_nothing_undoes_the_safe_state_of_a_run_that_ends(rig):
    one = rig(limits=LIMITS.model_copy(update={"safe_flow_ul_s": 0.001}))
    (pump,) = one.executor.secure("stopped by the user", ends=True)
    assert pump.safe
    late = one.do(CommandKind.SET_FLOW, 0.03)
    assert "the run is ending" in one.replies[late].reason
    assert one.microscope.read_flow() == pytest.approx(0.001)


def test_commands_that_no_frame_will_show_are_answered_at_the_end(rig):
    one = rig()
    command = one.do(CommandKind.SET_FLOW, 0.03)
    (reply,) = one.executor.abandon()
    assert (reply.command_id, reply.accepted, reply.first_frame) == (command, True, -1)
    assert one.executor.abandon() == []


def held_rig(rig, now):
    limits = LIMITS.model_copy(update={"watchdog_s": 5.0, "safe_flow_ul_s": 0.001})
    one = rig(limits=limits, clock=lambda: now[0])
    one.stream.start()
    frame = one.run(1)[-1].info.frame
    one.do(CommandKind.SET_FLOW, 0.03, decided_on_frame=frame)
    return one, frame


def test_a_safe_state_that_was_asked_for_holds_against_controllers_and_what_is_scheduled(rig):
    now = [100.0]
    one, frame = held_rig(rig, now)
    one.do(CommandKind.MAKE_SAFE, "asked for on the page", sender="page")
    for more in ({"decided_on_frame": frame}, {"at_time_s": 0.0}, {"at_time_s": 50.0}):
        reply = one.replies[one.do(CommandKind.SET_FLOW, 0.03, **more)]
        assert not reply.accepted
        assert reply.reason == (
            "the hardware was made safe by page (asked for on the page); resume, or send a command manually"
        )
    beat = one.replies[one.do(CommandKind.HEARTBEAT, decided_on_frame=frame)]
    assert beat.accepted
    assert beat.reason == reply.reason  # so that the controller's stage knows
    now[0] += 100
    one.executor.poll()
    one.do(CommandKind.HEARTBEAT, decided_on_frame=one.run(1)[-1].info.frame)
    late = one.do(CommandKind.SET_FLOW, 0.03, decided_on_frame=one.run(1)[-1].info.frame)
    assert "was made safe by page" in one.replies[late].reason
    assert one.microscope.read_flow() == pytest.approx(0.001)


@pytest.mark.parametrize("how", ["manually", "resume", "another controller"])
def test_a_person_ends_a_safe_state_that_was_asked_for(rig, how):
    one, frame = held_rig(rig, [100.0])
    one.do(CommandKind.MAKE_SAFE)
    refused = one.replies[one.do(CommandKind.SET_FLOW, 9.0)]
    assert "outside the limits" in refused.reason
    assert "made safe" in one.replies[one.do(CommandKind.SET_FLOW, 0.03, decided_on_frame=frame)].reason
    if how == "manually":
        one.do(CommandKind.MOVE_FOCUS, 151)
    elif how == "resume":
        one.executor.release()
    else:
        assert one.replies[one.do(CommandKind.CONTROL, sender="page")].accepted
    assert one.replies[one.do(CommandKind.HEARTBEAT, decided_on_frame=frame)].reason == ""
    one.do(CommandKind.SET_FLOW, 0.03, decided_on_frame=frame)
    assert one.microscope.read_flow() == pytest.approx(0.03)


def test_the_lane_s_safe_state_holds_too_but_for_the_watchdog_s_and_is_no_change_from_outside(rig):
    one, frame = held_rig(rig, [100.0])
    one.executor.secure("the controller was lost", ends=False)
    assert one.stream.ours_changes
    one.run(1)
    assert not one.stream.ours_changes
    refused = one.replies[one.do(CommandKind.SET_FLOW, 0.03, decided_on_frame=frame)]
    assert "made safe by the session (the controller was lost)" in refused.reason
    one.executor.release()
    one.executor.secure("no live result, and the acquisition is stuck", ends=False, holds=False)
    one.do(CommandKind.SET_FLOW, 0.03, decided_on_frame=frame)
    assert one.microscope.read_flow() == pytest.approx(0.03)
