"""Whatever a controller, a detector or a line does: the hardware ends in its safe state, and the run says why."""

import json
import sys

import pytest
from small_run import Run, kill, small_experiment

from stream.commands import CommandClient
from stream.messages import Command, CommandKind
from tracking.trajectories.file import TrajectoryFile

pytestmark = pytest.mark.slow

SAFE_UL_S = 0.001
LIMITS = {
    "max_flow_ul_s": 0.03,
    "safe_flow_ul_s": SAFE_UL_S,
    "min_focus_um": 140,
    "max_focus_um": 160,
    "watchdog_s": 5.0,
}
QUICK = {**LIMITS, "watchdog_s": 1.0}

RAISES = """
class Mine:
    def update(self, tracks):
        if tracks.info.frame > 40:
            return undefined_name
        return []
"""
HANGS = """
import time
class Mine:
    def update(self, tracks):
        if tracks.info.frame > 40:
            time.sleep(60)
        return []
"""
FLOODS = """
from stream.messages import Command, CommandKind
class Mine:
    def update(self, tracks):
        n = 40 if tracks.info.frame > 40 else 0
        return [Command(CommandKind.SET_FLOW, 0.02 + 1e-6 * k) for k in range(n)]
"""
REACHES_TOO_FAR = """
from stream.messages import Command, CommandKind
class Mine:
    def update(self, tracks):
        if tracks.info.frame % 20:
            return []
        return [Command(CommandKind.SET_FLOW, 1e9), Command(CommandKind.MOVE_FOCUS, 1e9)]
"""
DIES = """
import os
class Mine:
    def update(self, tracks):
        if tracks.info.frame > 40:
            os._exit(3)
        return []
"""
QUIET = """
class Mine:
    def update(self, tracks):
        return []
"""


@pytest.fixture
def run_with(tmp_path):
    def run(source, act=None, act_after=20, **sections):
        path = tmp_path / "mine.py"
        path.write_text(source)
        sections = {"frames": 260, "limits": LIMITS, "controller": {"file": str(path)}} | sections
        return Run(small_experiment(tmp_path, **sections), act, act_after)

    return run


def flows_and_foci(run):
    with TrajectoryFile(run.files.tracks) as file:
        assert file.finished
        frames = file.frames
        assert frames["frame"].tolist() == list(range(len(frames)))
        return frames["flow_ul_s"], frames["focus_um"]


def said(run, *texts):
    log = json.dumps(run.events())
    return all(text in log for text in texts)


def assert_made_safe(run, frames=260):
    """The pump ran as it was set, and from some frame to the last one at its safe flow; nothing is missing."""
    flow, _ = flows_and_foci(run)
    assert len(flow) == frames
    assert flow[0] == pytest.approx(0.0246)
    assert flow[-1] == pytest.approx(SAFE_UL_S)
    assert flow.max() <= LIMITS["max_flow_ul_s"]


def test_a_controller_that_raises_leaves_the_hardware_safe_and_its_traceback_in_the_log(run_with):
    run = run_with(RAISES)
    assert_made_safe(run)
    assert said(run, "Traceback", "mine.py", "undefined_name", f"safe state (the pump at {SAFE_UL_S:g} uL/s)")
    assert any("undefined_name" in note for note in run.notes)
    assert run.result.ok


def test_a_controller_that_hangs_is_noticed_by_the_watchdog_long_before_it_is_killed(run_with):
    run = run_with(HANGS, frames=420, limits=QUICK, session={"hang_s": 4.0})
    assert_made_safe(run, 420)
    flow, _ = flows_and_foci(run)
    assert (flow == SAFE_UL_S).argmax() < 40 + 60 * 2.5
    assert said(run, "no live result for 1 s: safe state", "control hung", "continues without its controller")


def test_a_controller_that_floods_the_microscope_is_given_up(run_with):
    run = run_with(FLOODS)
    assert_made_safe(run)
    assert said(run, "more than 20 commands a second", "floods the microscope", "safe state")


def test_what_is_beyond_the_limits_is_refused_with_the_reason_and_nothing_moves(run_with):
    run = run_with(REACHES_TOO_FAR)
    flow, focus = flows_and_foci(run)
    assert set(flow.tolist()) == {0.0246}
    assert focus == pytest.approx(150.0)
    assert said(run, "outside the limits 0 to 0.03 uL/s", "outside the limits 140 to 160 um")
    assert run.result.count("control", "refused") > 10


def test_a_controller_that_dies_leaves_the_hardware_safe(run_with):
    run = run_with(DIES)
    assert_made_safe(run)
    assert "exit status 3" in run.result.failures[0]
    assert said(run, "the controller was lost", "safe state")


def test_a_control_stage_that_dies_while_no_controller_is_on_leaves_the_pump_as_it_is(tmp_path):
    run = Run(small_experiment(tmp_path, frames=200, limits=LIMITS), kill("control"))
    flow, _ = flows_and_foci(run)
    assert len(flow) == 200
    assert flow == pytest.approx(0.0246)
    assert said(run, "no controller can be switched on any more")
    assert [event["text"] for event in run.events("safety")] == [
        f"safe state (the pump at {SAFE_UL_S:g} uL/s): done"
    ]


def test_a_detector_that_stays_away_leaves_the_hardware_safe_until_live_results_are_back(run_with):
    run = run_with(QUIET, kill("detect"), 40, frames=500, limits={**LIMITS, "watchdog_s": 0.5})
    flow, _ = flows_and_foci(run)
    assert len(flow) == 500
    assert flow[-1] == pytest.approx(SAFE_UL_S)
    assert said(
        run, "no live result for 0.5 s: safe state", "detect is started again", "live results are back"
    )
    assert run.result.ok


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be frozen in the same way")
def test_a_cut_line_between_controller_and_microscope_leaves_the_hardware_safe(run_with):
    run = run_with(
        QUIET,
        lambda run: run.process("control").suspend(),
        40,
        limits=QUICK,
        session={"hang_s": 3.0},
        frames=420,
    )
    assert_made_safe(run, 420)
    assert said(run, "no live result for 1 s: safe state")


def test_a_device_that_refuses_is_answered_with_its_own_reason_and_the_run_goes_on(run_with):
    source = """
from stream.messages import Command, CommandKind
class Mine:
    def update(self, tracks):
        return [Command(CommandKind.SET_PROPERTY, -1.0, "Camera", "SNR")] if tracks.info.frame == 40 else []
"""
    run = run_with(source, limits={**LIMITS, "properties": ["Camera.SNR"]}, frames=150)
    flow, _ = flows_and_foci(run)
    assert len(flow) == 150
    assert said(run, "refused a command of Mine", "Camera.SNR")
    assert run.result.ok


def test_another_program_of_the_same_user_is_held_by_the_same_limits(run_with):
    answers = []

    def command(run):
        address = next(e["text"] for e in run.events("commands"))
        client = CommandClient(address, run.keys())
        answers.append(client.request(Command(CommandKind.SET_FLOW, 5.0, sender="another program"), 30.0))
        client.close()

    run_with(QUIET, command, 40, frames=150)
    assert not answers[0].accepted
    assert "outside the limits" in answers[0].reason
