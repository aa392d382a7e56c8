import threading
import time

import pytest
from pydantic import ValidationError
from small_microscope import small_config

from acquisition.commands.execution import CommandExecutor
from acquisition.microscope.microscope import Microscope
from acquisition.safety import safe_state as safety
from acquisition.safety.safe_state import SafeState
from acquisition.safety.watchdog import Watchdog
from acquisition.settings import LimitsSettings, MicroscopeSettings
from acquisition.simulated.properties import shared_world
from acquisition.simulated.stepping import SteppedStream
from stream.errors import ConfigurationError
from stream.messages import Command, CommandKind

LIMITS = LimitsSettings(
    min_focus_um=100,
    max_focus_um=200,
    safe_focus_um=120,
    max_flow_ul_s=0.05,
    safe_flow_ul_s=0.001,
    watchdog_s=2.0,
    commands_per_s=1000,
)
LASER = "\n#py pyDevice,Laser,acquisition.simulated.trigger,SimulatedTrigger\n#py Property,Camera,Width"


class Rig:
    """A simulated microscope stepped frame by frame, 0.1 s each, and what its executor said and answered."""

    def __init__(self, folder, limits=LIMITS):
        config = small_config(folder, "Camera,RealTime,0", rate=10)
        config.write_text(config.read_text().replace("\n#py Property,Camera,Width", LASER))
        settings = MicroscopeSettings(config=str(config), trigger="Laser.State")
        self.microscope = Microscope(settings)
        self.said, self.replies = [], {}
        try:
            self.stream = SteppedStream(self.microscope, run_id="test")
            clock = self.stream.now_s
            self.executor = CommandExecutor(self.microscope, self.stream, limits, clock, self.said.append)
        except BaseException:
            self.microscope.close()
            raise

    def do(self, kind, value=None, **more):
        command = Command(kind, value, **more)
        reply = self.executor.execute(command)
        if reply is not None:
            self.replies[reply.command_id] = reply
        return command.command_id

    def run(self, frames):
        for _ in range(frames):
            answers = self.executor.poll()
            frame = self.stream.read()
            answers += self.executor.frame_taken(frame)
            self.replies |= {reply.command_id: reply for reply in answers}
        return frame.info

    def pulses_s(self):
        return [float(t) for t in str(self.microscope.core.getProperty("Laser", "PulseTimes_s")).split()]


@pytest.fixture
def rig(tmp_path):
    rigs = []

    def build(**more):
        rigs.append(Rig(tmp_path, **more))
        return rigs[-1]

    yield build
    for one in rigs:
        one.microscope.close()


def test_heartbeats_keep_the_watchdog_quiet_and_their_absence_wakes_it_once(rig):
    one = rig()
    one.do(CommandKind.SET_FLOW, 0.03)
    shown = one.run(1).frame
    for _ in range(10):
        one.do(CommandKind.HEARTBEAT, decided_on_frame=shown)
        shown = one.run(5).frame
    assert one.said == []
    assert one.run(30).flow_ul_s == 0.001
    while one.microscope.focus_commanded_um != 120:  # each device is told in a thread of its own
        time.sleep(0.001)
    one.run(3)
    assert one.microscope.read_focus() == pytest.approx(120, abs=0.5)
    assert one.said == ["no live result for 2 s: safe state (the pump at 0.001 uL/s, the focus at 120 um)"]
    one.do(CommandKind.SET_FLOW, 0.02, decided_on_frame=one.run(1).frame)
    assert one.run(2).flow_ul_s == 0.02
    assert one.said[1:] == ["live results are back; commands are carried out again"]


def test_a_heartbeat_is_answered_at_once_and_is_not_counted_as_a_command(rig):
    one = rig(limits=LIMITS.model_copy(update={"commands_per_s": 0.1}))
    one.run(3)
    for _ in range(50):
        assert one.replies[one.do(CommandKind.HEARTBEAT)].accepted
    assert one.executor.counts()["commands"] == 0


def test_the_safe_state_can_be_asked_for_with_a_reason(rig):
    one = rig()
    asked = one.do(CommandKind.MAKE_SAFE, "controller mine failed")
    assert one.run(2).flow_ul_s == 0.001
    assert one.replies[asked].accepted
    assert one.said == ["safe state (the pump at 0.001 uL/s, the focus at 120 um): controller mine failed"]
    assert one.run(50).flow_ul_s == 0.001
    assert len(one.said) == 1


def test_a_command_for_later_is_carried_out_before_the_frame_that_is_nearest_to_its_time(rig):
    one = rig()
    start_s = one.stream.world.time_s
    one.run(3)
    late = one.do(CommandKind.TRIGGER, at_time_s=1.02)
    soon = one.do(CommandKind.TRIGGER, at_time_s=0.68)
    one.run(12)
    assert [t - start_s for t in one.pulses_s()] == pytest.approx([0.7, 1.0])
    assert (one.replies[soon].first_frame, one.replies[late].first_frame) == (7, 10)
    assert one.replies[late].executed_ns > one.replies[soon].executed_ns > 0


def test_a_command_for_later_is_checked_when_its_time_has_come(rig):
    one = rig()
    one.run(1)
    wrong = one.do(CommandKind.SET_FLOW, 9.0, at_time_s=0.5)
    assert wrong not in one.replies
    one.run(8)
    assert "outside the limits" in one.replies[wrong].reason


def test_nothing_is_kept_waiting_for_more_than_a_minute(rig):
    one = rig()
    assert "at most 60 s" in one.replies[one.do(CommandKind.TRIGGER, at_time_s=100.0)].reason


def test_what_waits_is_refused_when_the_watchdog_acts_and_when_the_run_ends(rig):
    one = rig()
    one.do(CommandKind.HEARTBEAT)
    dropped = one.do(CommandKind.TRIGGER, at_time_s=10.0)
    one.run(40)
    assert "watchdog" in one.replies[dropped].reason
    command = Command(CommandKind.TRIGGER, at_time_s=30.0)
    one.executor.execute(command)
    (reply,) = one.executor.abandon()
    assert not reply.accepted
    assert "before its time" in reply.reason
    assert one.pulses_s() == []


def test_a_safe_focus_outside_the_limits_is_refused():
    for wrong in ({"safe_focus_um": 5}, {"safe_focus_um": 5, "min_focus_um": 10, "max_focus_um": 20}):
        with pytest.raises(ValidationError, match="safe_focus_um"):
            LimitsSettings(**wrong)


def test_a_safe_focus_without_a_drive_is_refused():
    class NoDrive:
        pump, shutter, focus = "Pump", "", ""

    with pytest.raises(ConfigurationError, match=r"microscope\.focus"):
        CommandExecutor(NoDrive(), None, LIMITS)


def test_only_a_simulated_microscope_in_simulated_time_is_stepped(tmp_path):
    microscope = Microscope(MicroscopeSettings(config=str(small_config(tmp_path))))
    try:
        with pytest.raises(ConfigurationError, match="RealTime"):
            SteppedStream(microscope, run_id="test")
    finally:
        microscope.close()
    with pytest.raises(ConfigurationError, match="no simulated world"):
        shared_world("world")


class HangingScope:
    """Devices of which some never come back; `calls` are what the others were told."""

    pump, shutter, focus = "Pump", "Shutter", "Focus"

    def __init__(self, *hanging):
        self.hanging, self.calls, self.released = hanging, {}, threading.Event()

    def _told(self, device, value):
        if device in self.hanging:
            self.released.wait(240)
        self.calls[device] = value

    def set_flow(self, flow_ul_s):
        self._told("Pump", flow_ul_s)

    def set_shutter(self, is_open):
        self._told("Shutter", is_open)

    def move_focus(self, position_um):
        self._told("Focus", position_um)

    def read_flow(self):
        return self.calls["Pump"]

    def shutter_is_open(self):
        return self.calls["Shutter"]

    def read_focus(self):
        return self.calls["Focus"]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(safety, "DEVICE_S", 1.0)  # less could be too short for one that answers at once


@pytest.mark.parametrize("hanging", ["Pump", "Shutter", "Focus"])
def test_a_device_that_hangs_keeps_no_other_from_becoming_safe(quick, hanging):
    scope = HangingScope(hanging)
    state = SafeState(scope, LIMITS)
    known = {device.device.split()[1]: device for device in state.enter_and_confirm()}
    assert scope.calls == {
        device: value
        for device, value in {"Pump": 0.001, "Shutter": False, "Focus": 120}.items()
        if device != hanging
    }
    assert [device for device, found in known.items() if not found.safe] == [hanging]
    assert "has not answered for 1 s" in str(known[hanging])
    assert "may" in str(known[hanging])
    again = {device.device.split()[1]: device for device in state.enter_and_confirm()}
    assert "has not returned" in again[hanging].problem
    scope.released.set()


def test_a_device_that_takes_the_command_and_does_nothing_is_not_called_safe(quick, monkeypatch):
    monkeypatch.setattr(safety, "CONFIRM_S", 0.1)
    scope = HangingScope()
    scope.read_flow = lambda: 0.03
    pump, shutter, focus = SafeState(scope, LIMITS).enter_and_confirm()
    assert not pump.safe
    why = "pump Pump accepted the command, but reading it back does not confirm it"
    assert str(pump) == f"the pump may still run ({why})"
    assert shutter.safe
    assert focus.safe


def test_whatever_an_adapter_raises_is_told_and_keeps_nobody_from_becoming_safe(quick):
    scope = HangingScope()

    def raises(_value):
        raise ValueError("serial port\nis gone")

    scope.set_flow = raises
    pump, shutter, _ = SafeState(scope, LIMITS).enter_and_confirm()
    assert "ValueError: serial port is gone" in pump.problem
    assert shutter.safe


def test_the_watchdog_acts_where_the_loop_that_asks_it_is_stuck():
    now = [0.0]
    watchdog = Watchdog(2.0, lambda: now[0])
    watchdog.taken(0, 0.1)
    watchdog.heard(0)
    now[0] = 2.1
    assert not watchdog.overdue(0.5)
    now[0] = 2.6
    assert watchdog.overdue(0.5)
    assert watchdog.expired()
    assert not watchdog.overdue(0.5)


def test_a_result_counts_by_when_its_frame_was_exposed_not_by_when_it_came():
    now = [100.0]
    watchdog = Watchdog(2.0, lambda: now[0])
    watchdog.taken(0, 1.5)  # it waited in the camera's buffer
    assert watchdog.age_s(0) == pytest.approx(1.5)
    watchdog.heard(0)
    now[0] += 0.6
    assert watchdog.expired()
    assert not watchdog.heard(0)  # the same old result again
    now[0] += 10
    assert not watchdog.expired()
    assert watchdog.is_stale(0)
    watchdog.taken(1, 0.0)
    assert watchdog.heard(1)  # live again
    now[0] += 2.1
    assert watchdog.expired()


@pytest.mark.parametrize("stops", [False, True])
def test_the_watchdog_knows_whether_results_stay_away_or_only_come_too_late(stops):
    now = [100.0]
    watchdog = Watchdog(2.0, lambda: now[0])
    for frame in range(60):  # ten frames a second, whose results come later and later
        watchdog.taken(frame, 0.0)
        watchdog.heard(int(0.2 * frame))
        now[0] += 0.1
        if watchdog.expired():
            break
    assert 20 < frame < 30
    if stops:
        now[0] += 1.2
        assert watchdog.late_results() == ""
    else:
        assert watchdog.late_results() == "; results still come, but 2.0 s after the exposure of their frames"
        watchdog.heard(0)
        assert "but 2.5 s after" in watchdog.late_results()


def test_a_result_of_a_frame_that_was_never_taken_keeps_nothing_quiet():
    now = [100.0]
    watchdog = Watchdog(2.0, lambda: now[0])
    for frame in (-1, 10**9):
        for _ in range(20):
            now[0] += 0.2
            watchdog.heard(frame)
        assert watchdog.expired()
        watchdog.disarm()
    watchdog.taken(0, 0.0)
    now[0] += 60
    watchdog.taken(1, 0.0)
    assert watchdog.age_s(0) == float("inf")  # forgotten, so older than the limit
    assert watchdog.is_stale(0)


def test_the_safe_state_may_be_entered_by_several_threads_at_once():
    scope, known = HangingScope(), []
    state = SafeState(scope, LIMITS)
    told = scope._told
    scope._told = lambda device, value: (time.sleep(0.05), told(device, value))
    threads = [threading.Thread(target=lambda: known.append(state.enter_and_confirm())) for _ in range(4)]
    for thread in threads:
        thread.start()
    state.enter()
    for thread in threads:
        thread.join()
    assert len(known) == 4
    assert all(device.safe for devices in known for device in devices)


def test_a_device_that_comes_back_is_called_again(quick):
    scope = HangingScope("Pump")
    state = SafeState(scope, LIMITS)
    assert not all(device.safe for device in state.enter_and_confirm())
    scope.released.set()
    deadline_s = time.monotonic() + 120
    while not all(device.safe for device in state.enter_and_confirm()):
        assert time.monotonic() < deadline_s
    assert scope.calls["Pump"] == 0.001


def test_the_devices_can_be_sent_again_while_a_focus_still_travels(quick):
    scope = HangingScope()
    travelling = threading.Event()
    scope.read_focus = lambda: 150.0 if not travelling.wait(0.05) else 120.0
    state, known = SafeState(scope, LIMITS), []
    thread = threading.Thread(target=lambda: known.extend(state.enter_and_confirm()))
    thread.start()
    time.sleep(0.1)
    for _ in range(3):
        state.enter()
    travelling.set()
    thread.join()
    assert [device.safe for device in known] == [True, True, True]
