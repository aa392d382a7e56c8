"""The acquisition hears its session by a lane of its own, whatever its loop does."""

import multiprocessing
import threading

import pytest

from acquisition.safety.hardware_state import DeviceSafety
from liveptv.session.hardware import unsafe
from liveptv.session.plan import MakeSafe, Opening, Secured
from liveptv.session.safety_lane import Lane

SAFE = DeviceSafety("pump Pump", "the pump at 0 uL/s", True)
WAIT_S = 240


class Devices:
    """Counts how often it was secured; says so at once to whoever waits."""

    def __init__(self):
        self.secured, self.stuck, self.called = [], False, threading.Event()

    def secure(self, reason, *, ends, holds=True):
        self.held = holds
        self.secured.append((reason, ends))
        self.called.set()
        return (SAFE,)

    def overlooked(self):
        return self.stuck


@pytest.fixture
def opened():
    ours, theirs = multiprocessing.Pipe()
    lane, devices, ends = Lane(theirs), Devices(), []
    lane.attach(lambda reason, orphaned: ends.append((reason, orphaned)))
    lane.start(devices)
    yield ours, lane, devices, ends
    lane.close()
    ours.close()


def answer(pipe):
    assert pipe.poll(WAIT_S)
    return pipe.recv()


def test_an_order_is_obeyed_and_answered_while_nobody_steps_the_stage(opened):
    pipe, _, devices, ends = opened
    pipe.send(MakeSafe("stopped by the user", ends=True))
    assert answer(pipe) == Secured((SAFE,), "stopped by the user", True)
    assert devices.secured == [("stopped by the user", True)]
    assert ends == [("stopped by the user", False)]


def test_the_run_can_go_on_after_it_was_made_safe(opened):
    pipe, _, devices, ends = opened
    pipe.send(MakeSafe("the controller was lost", ends=False))
    assert answer(pipe) == Secured((SAFE,), "the controller was lost", False)
    assert ends == []
    pipe.send(MakeSafe("enough", ends=True))
    assert answer(pipe).ends
    assert len(devices.secured) == 2


def test_a_session_that_is_gone_ends_the_run_safely(opened):
    pipe, _, devices, ends = opened
    pipe.close()
    assert devices.called.wait(WAIT_S)
    assert devices.secured[0][1]
    assert ends[0][1]


def test_a_loop_that_is_stuck_is_no_excuse_for_the_watchdog(opened):
    pipe, _, devices, ends = opened
    devices.stuck = True
    message = answer(pipe)
    assert not message.ends
    assert "stuck" in message.reason
    assert not devices.held
    assert ends == []


def test_an_order_that_comes_before_the_stage_is_built_ends_it_all_the_same():
    ours, theirs = multiprocessing.Pipe()
    lane, devices, ends = Lane(theirs), Devices(), []
    lane.opening()
    lane.start(devices)
    ours.send(MakeSafe("stopped by the user", ends=True))
    assert answer(ours) == Opening()
    assert answer(ours).ends
    lane.attach(lambda reason, orphaned: ends.append(reason))
    assert ends == ["stopped by the user"]
    lane.close()


def test_closing_makes_safe_and_tells_what_is_known(opened):
    pipe, lane, devices, _ = opened
    lane.close()
    lane.close()
    assert answer(pipe) == Secured((SAFE,), "the acquisition has ended", True)
    assert len(devices.secured) == 1


def test_what_is_not_safe_is_one_line():
    pump = DeviceSafety("pump P", "the pump at 0 uL/s", False, "no answer", "the pump may still run")
    shutter = DeviceSafety(
        "shutter S", "the shutter closed", False, "no answer", "the shutter may still be open"
    )
    assert (
        unsafe((pump, SAFE, shutter)) == "the pump may still run and the shutter may still be open: no answer"
    )
    assert unsafe((SAFE,)) == ""


def test_a_device_that_answers_late_is_told_and_read_back_again(opened, monkeypatch):
    monkeypatch.setattr("liveptv.session.safety_lane.AGAIN_S", 0.01)
    pipe, lane, devices, _ = opened
    pump = DeviceSafety("pump P", "the pump at 0 uL/s", False, "no answer", "the pump may still run")
    found = [(pump,), (pump,), (SAFE,)]
    devices.secure = lambda _reason, **_how: found.pop(0) if len(found) > 1 else found[0]
    pipe.send(MakeSafe("stopped by the user", ends=True))
    assert answer(pipe) == Secured((pump,), "stopped by the user", True)
    late = answer(pipe)
    assert (late.devices, late.ends) == ((SAFE,), True)
    lane.close()
    assert not pipe.poll(0.1)
