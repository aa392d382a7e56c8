"""Live runs under overload and with stages that stand still: the run goes on, and every loss is declared."""

import threading

import numpy as np
import pytest
from small_run import Run, kill, small_experiment

from liveptv.session.frame_account import IN_BUFFER, IN_CAMERA, TOO_LATE
from tracking.trajectories.file import TrajectoryFile

pytestmark = pytest.mark.slow

DECLARED = {IN_CAMERA, IN_BUFFER, "before the detector", TOO_LATE}
STOPPED_S = 3.0


def live_experiment(folder, **more):
    """With the policy that a run with a microscope has if its file says nothing."""
    experiment = small_experiment(folder, **more)
    link = experiment.link.model_copy(update={"policy": None})
    return experiment.model_copy(update={"link": link})


def assert_declared(run):
    """Every frame is in the file, once and in order, or was lost where it may be lost, by declaration."""
    account = run.outcome.account
    assert run.result.ok
    assert set(account.lost) <= DECLARED
    assert not account.not_known
    with TrajectoryFile(run.files.tracks) as file:
        assert file.finished
        number, events = file.frames["frame"].astype(int), file.events()
        assert (np.diff(number) > 0).all()
        assert len(number) == account.in_file
        assert file.attributes["account"] == account.to_dict()
        assert np.isfinite(file.frames["age_ms"]).all()
        assert file.attributes["result_age"] == run.outcome.age.to_dict()
        lost_before_the_end = (
            account.total_lost - account.lost.get(IN_BUFFER, 0) - account.lost.get(IN_CAMERA, 0)
        )
        taken = run.result.count("acquire", "received")
        assert taken == len(number) + lost_before_the_end
    assert [event["kind"] for event in events].count("end") == 1


@pytest.mark.parametrize(
    ("mode", "transport"), [("processes", "shm"), ("processes", "tcp"), ("threads", "inproc")]
)
def test_a_camera_that_is_much_too_fast_loses_frames_by_declaration_and_no_frame_waits(
    tmp_path, mode, transport
):
    section = {"session": {"mode": mode}, "link": {"transport": transport}}
    run = Run(live_experiment(tmp_path, rate=1000, frames=2000, **section))
    assert_declared(run)
    assert run.result.count("acquire", "received") == 2000
    assert run.outcome.account.lost["before the detector"] > 0
    assert run.outcome.account.exposed >= 2000
    assert run.result.count("acquire", "to_detect.unacknowledged") == 0


class Stopped:
    """Stops the process of a stage for a while."""

    def __init__(self, stage):
        self._stage = stage
        self.goes_on = threading.Event()

    def __call__(self, run):
        process = run.process(self._stage)
        process.suspend()

        def resume():
            process.resume()
            self.goes_on.set()

        threading.Timer(STOPPED_S, resume).start()


@pytest.mark.parametrize("stage", ["acquire", "detect", "track", "write", "control"])
def test_a_stage_that_stands_still_for_three_seconds_costs_only_declared_frames(tmp_path, stage):
    stopped = Stopped(stage)
    experiment = live_experiment(tmp_path, rate=30, frames=100_000)
    run = Run(experiment, stopped, act_after=20, until=lambda _: stopped.goes_on.is_set())
    assert_declared(run)
    assert run.outcome.frames > run.acted_at
    assert run.result.count("track", "skipped") == 0 or stage == "control"
    assert [event["stage"] for event in run.events("process")].count(stage) == 1, "it was not started again"


def test_a_live_detector_that_was_killed_is_started_again_and_the_frames_meanwhile_are_declared(tmp_path):
    def is_back(run):
        return any("is back" in note for note in run.notes)

    run = Run(live_experiment(tmp_path, rate=30, frames=100_000), kill("detect"), 40, until=is_back)
    assert_declared(run)
    assert run.outcome.frames > run.acted_at
    assert [event["stage"] for event in run.events("process")].count("detect") == 2
