import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from figure_contents import drawn, panels  # noqa: F401
from small_run import Run, kill, small_experiment, wait_until

from liveptv.session.hardware import Hardware
from stream.errors import OutputError
from tracking.control.record import KINDS
from tracking.trajectories.control_record import read_control
from tracking.trajectories.file import TrajectoryFile, read_trajectories


def assert_balanced(result):
    """Every frame offered anywhere was received or declared dropped."""
    for stage, counts in result.counts.items():
        for consumer in ("detect", "track", "write", "control"):
            offered = counts.get(f"to_{consumer}.offered", 0)
            settled = sum(
                counts.get(f"to_{consumer}.{n}", 0) for n in ("acknowledged", "dropped", "unacknowledged")
            )
            assert offered == settled, (stage, consumer)


@pytest.mark.parametrize("mode", ["processes", "threads"])
@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_every_frame_of_a_run_is_in_its_file(tmp_path, mode, transport, drawn):  # noqa: F811
    experiment = small_experiment(
        tmp_path, real_time=False, frames=150, session={"mode": mode}, link={"transport": transport}
    )
    run = Run(experiment)
    assert run.result.ok
    frames, attributes = run.frames()
    assert frames == list(range(150))
    assert attributes["end_reason"] == "done"
    assert attributes["accounts"]["acquire"]["sent"] == 150
    assert attributes["configuration"]["detector"]["diameter_px"] == 15
    assert sum(run.result.lost.values()) == 0
    assert_balanced(run.result)
    names = [path.stem.rsplit(".")[-1] for path in run.outcome.report.figures]
    shown = dict(zip(names, map(panels, drawn), strict=True))
    frame, trajectories, profile = (shown[name][0] for name in ("frame", "trajectories", "profile"))
    assert frame.images[0].shape[:2] == (256, 320)
    assert np.ptp(frame.images[0]) > 20  # dark particles in a bright picture
    rows = read_trajectories(run.files.tracks)
    lengths = np.unique(rows.track, return_counts=True)[1]
    assert 3 < sum(map(len, trajectories.points)) <= np.count_nonzero(lengths > 1)
    assert np.abs(profile.lines[0]).max() > 0
    assert "µm/s" in profile.x_label + profile.y_label
    page = run.outcome.report.page.read_text("utf-8")
    assert page.count("data:image/png;base64,") >= len(names)


def test_stages_that_are_threads_can_pass_frames_by_reference(tmp_path):
    experiment = small_experiment(
        tmp_path, real_time=False, frames=100, session={"mode": "threads"}, link={"transport": "inproc"}
    )
    run = Run(experiment)
    assert run.result.ok
    assert run.frames()[0] == list(range(100))


def test_a_killed_detector_is_started_again_and_no_frame_is_lost(tmp_path):
    run = Run(small_experiment(tmp_path, rate=30, frames=400), kill("detect"), act_after=40)
    frames, attributes = run.frames()
    assert run.result.ok
    assert frames == list(range(400))
    assert attributes["accounts"]["acquire"]["lost_in_camera"] == 0
    assert any("started again" in note for note in run.notes)
    assert any("is back" in note for note in run.notes)
    assert [e["stage"] for e in run.events("process")].count("detect") == 2


@pytest.mark.parametrize("stage", ["acquire", "track", "write"])
def test_a_run_that_loses_a_stage_ends_says_so_and_keeps_every_acknowledged_frame(tmp_path, stage):
    run = Run(small_experiment(tmp_path, frames=100_000), kill(stage), act_after=60)
    frames, attributes = run.frames()
    assert not run.result.ok
    assert run.result.failures[0].startswith(f"{stage} ended without reporting why (killed by SIGKILL")
    assert frames == list(range(len(frames)))
    acknowledged = run.result.count("track", "to_write.acknowledged")
    assert len(frames) >= max(run.acted_at, acknowledged)
    assert attributes["failures"] == list(run.result.failures)
    assert run.events("policy")[0]["text"].startswith(f"the run cannot continue without {stage}")


def test_a_run_goes_on_without_its_controller(tmp_path):
    controller = {"stop_when": {"frames": 100_000}}
    experiment = small_experiment(tmp_path, frames=200, controller=controller)
    run = Run(experiment, kill("control"), act_after=40)
    assert run.frames()[0] == list(range(200))
    assert "control" in run.result.failures[0]
    assert any("continues without its controller" in note for note in run.notes)


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be frozen in the same way")
def test_a_hung_detector_is_killed_and_started_again(tmp_path):
    experiment = small_experiment(tmp_path, rate=30, frames=500, session={"hang_s": 4.0})
    run = Run(experiment, lambda run: run.process("detect").suspend(), act_after=40)
    assert run.frames()[0] == list(range(500))
    assert any("detect hung" in note for note in run.notes)
    assert any("detect gives no sign of life" in note for note in run.notes)  # noticed by the link before


def test_a_session_that_stands_still_takes_no_stage_for_hung(tmp_path, monkeypatch):
    """As where the computer swaps: between taking in what the stages say and looking at how long ago that was."""
    due, poll = [], Hardware.poll

    def stand_still(hardware):
        if due:
            time.sleep(due.pop())
        poll(hardware)

    monkeypatch.setattr(Hardware, "poll", stand_still)
    experiment = small_experiment(tmp_path, rate=30, frames=400, session={"hang_s": 4.0})
    run = Run(experiment, lambda run: due.append(7.0), act_after=40)
    assert run.result.ok
    assert run.frames()[0] == list(range(400))
    assert not run.events("lost")


def test_a_controller_closes_the_loop_through_the_pump(tmp_path):
    hold = {"target_um_s": 100.0, "max_flow_ul_s": 0.03, "min_tracks": 3, "period_s": 0.3}
    experiment = small_experiment(
        tmp_path,
        rate=20,  # results that a slow machine has too late are not acted on
        frames=4000,
        controller={"hold_flow": hold},
        limits={"max_flow_ul_s": 0.03, "safe_flow_ul_s": 0.0},
    )

    def has_acted(run):
        return sum(event["kind"] == "answer" and event["first_frame"] >= 0 for event in run.events()) > 4

    run = Run(experiment, until=has_acted)
    assert run.result.ok
    assert run.result.count("control", "accepted") > 3
    refused = [note for note in run.notes if "refused" in note]
    assert all("the run is ending" in note for note in refused), refused
    with TrajectoryFile(run.files.tracks) as file:
        flow = file.frames["flow_ul_s"]
    assert flow[0] == pytest.approx(0.0246)
    assert len(set(flow.tolist())) > 3
    record = read_control(run.files.tracks)
    assert record == [event for event in run.events() if event["kind"] in KINDS]
    commands = {entry["command_id"]: entry for entry in record if entry["kind"] == "command"}
    answers = [entry for entry in record if entry["kind"] == "answer"]
    assert all(entry["measured"]["target_um_s"] == 100.0 for entry in commands.values())
    shown = [(commands[a["command_id"]]["value"], a["first_frame"]) for a in answers if a["first_frame"] >= 0]
    assert len(shown) > 3
    assert all(flow[frame] == pytest.approx(value) for value, frame in shown)


def test_a_controller_ends_the_run_when_enough_is_measured(tmp_path):
    experiment = small_experiment(tmp_path, frames=100_000, controller={"stop_when": {"frames": 80}})
    run = Run(experiment)
    assert run.result.ok
    assert 80 <= len(run.frames()[0]) < 10_000


def test_a_microscope_that_cannot_be_opened_ends_the_run_before_it_starts(tmp_path):
    experiment = small_experiment(tmp_path, microscope={"camera": "Nobody"})
    run = Run(experiment)
    assert "microscope.camera" in run.result.failures[0]
    assert not run.files.tracks.exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit on the size of files")
def test_a_full_disk_ends_the_run_with_the_frames_that_fitted(tmp_path):
    def fill_the_disk(run):
        size = run.files.tracks.stat().st_size + 100_000
        run.process("write").rlimit(psutil.RLIMIT_FSIZE, (size, size))

    experiment = small_experiment(
        tmp_path, frames=100_000, detector={"threshold": 1.0, "min_confidence": 0.0, "max_particles": 5000}
    )
    run = Run(experiment, fill_the_disk, act_after=20)
    frames, attributes = run.frames()
    assert "no space left" in run.result.failures[0]
    assert "write" in attributes["accounts"]
    assert frames == list(range(len(frames)))
    assert len(frames) >= run.result.count("track", "to_write.acknowledged")


def test_an_existing_output_is_refused_before_anything_starts(tmp_path):
    experiment = small_experiment(tmp_path)
    (tmp_path / "tracks.h5").write_text("precious")
    with pytest.raises(OutputError, match="--overwrite"):
        Run(experiment)
    assert (tmp_path / "tracks.h5").read_text() == "precious"


def start_cli(tmp_path, *arguments):
    config = small_experiment(tmp_path, frames=1_000_000).microscope.config
    toml = tmp_path / "experiment.toml"
    toml.write_text(f"[microscope]\nconfig = {config!r}\npixel_size_um = 0.8\n[detector]\ndiameter_px = 15\n")
    command = [sys.executable, "-m", "liveptv", "run", str(toml), "-o", str(tmp_path / "cli.h5"), *arguments]
    log = (tmp_path / "output.txt").open("w")
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    log.close()
    return process


def committed(path):
    try:
        with TrajectoryFile(path) as file:
            return len(file.frames)
    except OSError:
        return 0


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent in another way there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_a_run_cleanly_with_a_complete_file(tmp_path, number):
    process = start_cli(tmp_path)
    wait_until(lambda: committed(tmp_path / "cli.h5") > 30)
    os.killpg(process.pid, number)  # a terminal, or a service that is stopped, tells every process
    assert process.wait(300) == 0
    output = (tmp_path / "output.txt").read_text()
    assert "stopped by the user" in output
    assert "Traceback" not in output
    with TrajectoryFile(tmp_path / "cli.h5") as file:
        assert file.finished
        assert file.attributes["failures"] == []
        assert file.attributes["accounts"]["write"]["sent"] == len(file.frames)
    assert "stopped by the user" in (tmp_path / "cli.report.html").read_text("utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent in another way there")
def test_ctrl_c_before_the_first_frame_leaves_no_trajectory_file(tmp_path):
    process = start_cli(tmp_path)
    events = tmp_path / "cli.events.jsonl"
    wait_until(lambda: events.exists() and '"kind":"process"' in events.read_text())
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(300) == 1
    assert "before the first frame" in (tmp_path / "output.txt").read_text()
    assert not (tmp_path / "cli.h5").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent in another way there")
def test_when_the_session_itself_is_killed_its_stages_finish_the_file_and_leave(tmp_path):
    process = start_cli(tmp_path)
    wait_until(lambda: committed(tmp_path / "cli.h5") > 30)
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(300)
    _, alive = psutil.wait_procs(children, timeout=300)
    assert alive == []
    with TrajectoryFile(tmp_path / "cli.h5") as file:
        assert file.finished
        assert "session" in file.attributes["end_reason"]
        assert len(file.frames) > 30


def test_a_start_says_what_is_being_done(tmp_path):
    run = Run(small_experiment(tmp_path, frames=5))
    before = [text for text in run.shown if text != "running"]
    assert before
    assert all(
        text.startswith(("starting", "compiling for this computer", "waiting for the first frame"))
        for text in before
    )
    assert run.shown[-1] == "running"
