"""Whatever a controller, a detector or a line does: the hardware ends in its safe state, and the run says why."""

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
PATIENT = {**LIMITS, "watchdog_s": 120.0}
"""Where a slow machine, whose results come late, is not to be what makes the hardware safe."""

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
    """Run with a controller until the log says what is waited for, which takes as long as the machine needs."""

    def run(source, *texts, act=None, act_after=20, until=None, **sections):
        path = tmp_path / "mine.py"
        path.write_text(source)
        sections = {"limits": LIMITS, "controller": {"file": str(path)}} | sections
        experiment = small_experiment(tmp_path, frames=100_000, **sections)
        return Run(experiment, act, act_after, until or (lambda run: run.says(*texts)))

    return run


def flows_and_foci(run):
    """Of every frame that was taken: none is missing."""
    with TrajectoryFile(run.files.tracks) as file:
        assert file.finished
        frames = file.frames
        assert frames["frame"].tolist() == list(range(len(frames)))
        assert len(frames) == file.attributes["accounts"]["acquire"]["sent"]
        return frames["flow_ul_s"], frames["focus_um"]


def order(run, *texts):
    """Where in the log each text is said first; the log's entries are in order of time."""
    entries = [event["text"] for event in run.events()]
    return [next(at for at, entry in enumerate(entries) if text in entry) for text in texts]


def assert_made_safe(run):
    """The pump ran as it was set, and from some frame to the last one at its safe flow; nothing is missing."""
    flow, _ = flows_and_foci(run)
    assert flow[0] == pytest.approx(0.0246)
    assert flow[-10:] == pytest.approx(SAFE_UL_S)
    assert flow.max() <= LIMITS["max_flow_ul_s"]


def test_a_controller_that_raises_leaves_the_hardware_safe_and_its_traceback_in_the_log(run_with):
    run = run_with(RAISES, "undefined_name", f"safe state (the pump at {SAFE_UL_S:g} uL/s)")
    assert_made_safe(run)
    assert run.says("Traceback", "mine.py")
    assert any("undefined_name" in note for note in run.notes)
    assert run.result.ok


def test_a_controller_that_hangs_is_noticed_by_the_watchdog_long_before_it_is_killed(run_with):
    run = run_with(HANGS, "continues without its controller", limits=QUICK, session={"hang_s": 4.0})
    assert_made_safe(run)
    noticed, killed = order(run, "no live result for 1 s: safe state", "control hung")
    assert noticed < killed


def test_a_controller_that_floods_the_microscope_is_given_up(run_with):
    run = run_with(FLOODS, "floods the microscope", "safe state")
    assert_made_safe(run)
    assert run.says("more than 20 commands per second")


def test_what_is_beyond_the_limits_is_refused_with_the_reason_and_nothing_moves(run_with):
    def often_enough(run):
        return sum("outside the limits 140 to 160 um" in event["text"] for event in run.events()) > 5

    run = run_with(REACHES_TOO_FAR, until=often_enough, limits=PATIENT)
    flow, focus = flows_and_foci(run)
    before_the_end = slice(None, -1)  # the safe state of the end may show in the last frame
    assert set(flow[before_the_end].tolist()) == {0.0246}
    assert focus == pytest.approx(150.0)
    assert run.says("outside the limits 0 to 0.03 uL/s")
    assert run.result.count("control", "refused") > 10


def test_a_controller_that_dies_leaves_the_hardware_safe(run_with):
    run = run_with(DIES, "the controller was lost", "safe state")
    assert_made_safe(run)
    assert "exit status 3" in run.result.failures[0]


def test_a_control_stage_that_dies_while_no_controller_is_on_leaves_the_pump_as_it_is(tmp_path):
    run = Run(
        small_experiment(tmp_path, frames=100_000, limits=PATIENT),
        kill("control"),
        until=lambda run: run.says("no controller can be switched on any more"),
    )
    flow, _ = flows_and_foci(run)
    assert len(flow) > run.acted_at
    assert flow[:-1] == pytest.approx(0.0246)
    assert [event["text"] for event in run.events("safety")] == [
        f"safe state (the pump at {SAFE_UL_S:g} uL/s): stopped by the user (SIGINT)"
    ]


def test_a_detector_that_stays_away_leaves_the_hardware_safe_until_live_results_are_back(run_with):
    def is_back(run):
        texts = [event["text"] for event in run.events()]
        again = next((at for at, text in enumerate(texts) if "detect is started again" in text), len(texts))
        return any("live results are back" in text for text in texts[again:])

    limits = {**LIMITS, "watchdog_s": 0.5}
    run = run_with(QUIET, act=kill("detect"), act_after=40, until=is_back, limits=limits, rate=15)
    assert_made_safe(run)
    assert run.says("no live result for 0.5 s: safe state")
    assert run.result.ok


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be frozen in the same way")
def test_a_cut_line_between_controller_and_microscope_leaves_the_hardware_safe(run_with):
    run = run_with(
        QUIET,
        "no live result for 1 s: safe state",
        act=lambda run: run.process("control").suspend(),
        act_after=40,
        limits=QUICK,
        session={"hang_s": 3.0},
    )
    assert_made_safe(run)


def test_a_device_that_refuses_is_answered_with_its_own_reason_and_the_run_goes_on(run_with):
    source = """
from stream.messages import Command, CommandKind
class Mine:
    sent = False
    def update(self, tracks):
        if self.sent or tracks.info.frame < 40:
            return []
        self.sent = True
        return [Command(CommandKind.SET_PROPERTY, -1.0, "Camera", "SNR")]
"""
    run = run_with(
        source, "refused a command of Mine", "Camera.SNR", limits={**LIMITS, "properties": ["Camera.SNR"]}
    )
    flow, _ = flows_and_foci(run)
    assert len(flow) > 40
    assert run.result.ok


def test_another_program_of_the_same_user_is_held_by_the_same_limits(run_with):
    answers = []

    def command(run):
        address = next(e["text"] for e in run.events("commands"))
        client = CommandClient(address, run.keys())
        answers.append(client.request(Command(CommandKind.SET_FLOW, 5.0, sender="another program"), 120.0))
        client.close()

    run_with(QUIET, act=command, act_after=40, until=lambda _: answers)
    assert not answers[0].accepted
    assert "outside the limits" in answers[0].reason
