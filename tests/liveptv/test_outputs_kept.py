"""The results of other runs are kept, and a run whose place is lost goes on elsewhere and says so."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys

import pytest
from small_run import Run, kill, small_experiment, wait_until

from engines import factory
from liveptv.cli.main import run_command_line
from liveptv.files import RunFiles, claimed
from liveptv.session.run_log import RunLog
from liveptv.workflows.demo import prepare_demo
from liveptv.workflows.run import run_experiment
from stream.errors import LivePTVError, OutputError
from stream.writer_lock import WRITER, Claim, lock_path
from tracking.trajectories.file import TrajectoryFile, TrajectoryWriter, read_trajectories

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals, and removing open files, are POSIX's")


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def earlier_results(folder, stem="tracks"):
    """What an earlier run has left, by name."""
    files = RunFiles.beside(folder / f"{stem}.h5")
    with TrajectoryWriter(files.tracks, run_id="earlier", attributes={}):
        pass
    files.events.write_text('{"kind":"start","text":"run earlier"}\n')
    files.report.write_text("the earlier report")
    files.figure("frame").write_bytes(b"the earlier picture")
    return {path.name: path.read_bytes() for path in folder.glob(f"{stem}.*")}


def files_of(folder, stem="tracks"):
    return {path.name: path.read_bytes() for path in folder.glob(f"{stem}.*")}


def start(tmp_path, *arguments, config=None):
    config = config or small_experiment(tmp_path, frames=1_000_000).microscope.config
    toml = tmp_path / "experiment.toml"
    toml.write_text(
        f"[microscope]\nconfig = {str(config)!r}\npixel_size_um = 0.8\n[detector]\ndiameter_px = 15\n"
    )
    command = [
        sys.executable,
        "-m",
        "liveptv",
        "run",
        str(toml),
        "-o",
        str(tmp_path / "tracks.h5"),
        *arguments,
    ]
    with (tmp_path / f"output{len(list(tmp_path.glob('output*')))}.txt").open("w") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def said(tmp_path, number=0):
    return (tmp_path / f"output{number}.txt").read_text()


def committed(path):
    try:
        with TrajectoryFile(path) as file:
            return len(file.frames)
    except OSError:
        return 0


@pytest.mark.parametrize("what", ["camera", "model", "bright"])
def test_a_run_that_cannot_start_leaves_the_earlier_results(tmp_path, what):
    before = earlier_results(tmp_path)
    experiment = small_experiment(tmp_path, run={"overwrite": True}, session={"mode": "threads"})
    broken = {
        "camera": {
            "microscope": experiment.microscope.model_copy(update={"config": str(tmp_path / "no.cfg")})
        },
        "model": {"detector": experiment.detector.model_copy(update={"model": tmp_path / "no.onnx"})},
        "bright": {"detector": experiment.detector.model_copy(update={"bright": tmp_path / "no.tif"})},
    }[what]
    files = RunFiles.beside(tmp_path / "tracks.h5")
    with contextlib.suppress(LivePTVError):
        outcome = run_experiment(
            experiment.model_copy(update=broken), files, on_update=lambda _: None, on_note=lambda _: None
        )
        assert not outcome.result.ok
        assert outcome.frames == 0
    left = files_of(tmp_path)
    left.pop("tracks.events.new.jsonl", None)
    assert left == before


def test_a_writer_that_is_a_thread_gives_its_file_free_when_the_run_cannot_start(tmp_path, monkeypatch):
    before = earlier_results(tmp_path)
    locked = lock_path(tmp_path / "tracks.h5", WRITER)

    def fail_once_the_writer_is_ready(*_, **__):
        wait_until(locked.exists)
        raise LivePTVError("no such engine")

    monkeypatch.setattr(factory, "open_engine", fail_once_the_writer_is_ready)
    experiment = small_experiment(tmp_path, run={"overwrite": True}, session={"mode": "threads"})
    run = Run(experiment)
    assert "no such engine" in run.result.failures[0]
    left = files_of(tmp_path)
    left.pop("tracks.events.new.jsonl", None)
    assert left == before


@posix
def test_ctrl_c_during_the_start_leaves_the_earlier_results(tmp_path):
    before = earlier_results(tmp_path)
    process = start(tmp_path, "--overwrite")
    wait_until((tmp_path / "tracks.events.new.jsonl").exists)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(300) == 1
    left = files_of(tmp_path)
    left.pop("tracks.events.new.jsonl")
    assert left == before


@posix
def test_a_second_run_into_the_same_file_is_refused_and_the_first_loses_nothing(tmp_path):
    earlier_results(tmp_path)
    first = start(tmp_path, "--overwrite")
    wait_until((tmp_path / "tracks.events.new.jsonl").exists)
    for number, more in enumerate(([], ["--overwrite"]), 1):
        assert start(tmp_path, *more).wait(300) == 1
        assert "is being written by process" in " ".join(said(tmp_path, number).split())
    wait_until(lambda: committed(tmp_path / "tracks.h5") > 30)
    assert start(tmp_path, "--overwrite").wait(300) == 1
    assert not (tmp_path / "tracks.report.html").exists()
    os.killpg(first.pid, signal.SIGINT)
    assert first.wait(300) == 0
    found = read_trajectories(tmp_path / "tracks.h5")
    assert found.attributes["run_id"] != "earlier"
    assert found.attributes["account"]["in_file"] == len(found.frames) > 30
    assert b"earlier" not in (tmp_path / "tracks.events.jsonl").read_bytes()
    assert "earlier" not in (tmp_path / "tracks.report.html").read_text()
    assert (
        not list(tmp_path.glob("*.lock")) + list(tmp_path.glob("*.replaced")) + list(tmp_path.glob("*.new.*"))
    )


def lose(what):
    def act(run):
        tracks = run.files.tracks
        if what == "file":
            tracks.unlink()
        elif what == "replaced":
            with TrajectoryWriter(tracks.with_name("other.h5"), run_id="other", attributes={}):
                pass
            tracks.with_name("other.h5").replace(tracks)
        else:
            shutil.rmtree(tracks.parent)

    return act


@posix
@pytest.mark.parametrize("what", ["file", "replaced", "folder"])
def test_a_run_whose_place_is_lost_goes_on_in_a_second_one_and_says_where(tmp_path, what):
    experiment = small_experiment(tmp_path, rate=60, frames=240)
    folder = tmp_path / "results"
    folder.mkdir()
    run_settings = experiment.run.model_copy(update={"output": folder / "tracks.h5"})
    run = Run(experiment.model_copy(update={"run": run_settings}), lose(what), act_after=40)
    place = (tmp_path / "state" / "liveptv" / "rescued" if what == "folder" else folder) / "tracks.2.h5"
    assert run.outcome.files.tracks == place
    assert not run.result.ok
    assert str(place) in run.result.failures[-1]
    assert any(f"the run continues in {place}" in note for note in run.notes)
    found = read_trajectories(place)
    assert found.frames["frame"].tolist() == list(range(240))
    assert found.attributes["account"]["exposed"] == 240
    assert run.outcome.report.page.parent == place.parent
    log = run.outcome.files.events.read_text()
    assert log.count('"kind":"start"') == log.count('"kind":"moved"') == 1
    if what == "replaced":
        assert read_trajectories(folder / "tracks.h5").attributes["run_id"] == "other"


@posix
def test_a_run_whose_file_is_cut_short_goes_on_in_a_new_one_and_counts_what_was_in_the_first(tmp_path):
    def cut(run):
        os.truncate(run.files.tracks, 3000)

    run = Run(small_experiment(tmp_path, rate=60, frames=240), cut, act_after=40)
    assert run.outcome.files.tracks == tmp_path / "tracks.2.h5"
    assert not run.result.ok
    account = run.outcome.account
    lost = account.lost["in an earlier file, which was spoilt"]
    assert lost >= 40
    frames = read_trajectories(tmp_path / "tracks.2.h5").frames["frame"].tolist()
    assert frames == list(range(lost, 240))
    assert (account.exposed, account.in_file) == (240, 240 - lost)
    assert (tmp_path / "tracks.h5").stat().st_size == 3000


@pytest.mark.parametrize("stage", ["acquire", "track", "write"])
def test_the_account_is_closed_when_a_stage_was_killed(tmp_path, stage):
    run = Run(small_experiment(tmp_path, rate=60, frames=100_000), kill(stage), act_after=40)
    account = run.outcome.account
    with TrajectoryFile(run.files.tracks) as file:
        assert account.in_file == len(file.frames)
        assert file.attributes["account"] == account.to_dict()
        assert account.exposed >= int(file.frames["frame"][-1]) + 1
    assert account.exposed == account.in_file + account.total_lost
    assert account.exposed >= run.result.count("acquire", "received")
    if stage == "acquire":
        assert "how many frames the camera took until then is not known" in account.in_words()


@pytest.mark.parametrize("blocked", ["experiment.toml", "model.onnx"])
def test_a_demonstration_that_cannot_write_says_so_in_one_line(tmp_path, blocked):
    (tmp_path / blocked).mkdir()
    with pytest.raises(OutputError, match=rf"cannot write .*{blocked}"):
        prepare_demo(tmp_path, 1.0, [], overwrite=True, say=print)


def test_two_demonstrations_never_share_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepared = [prepare_demo(None, 1.0, [], overwrite=False, say=print) for _ in range(3)]
    assert len({demo.files.tracks for demo in prepared}) == 3
    with claimed(prepared[0].files.tracks, "a run"), pytest.raises(OutputError, match="being written"):
        prepare_demo(prepared[0].files.tracks.parent, 1.0, [], overwrite=True, say=print)


@pytest.mark.parametrize(
    "words",
    [
        ["detect", "missing.tif", "-o", "{out}.csv"],
        ["track", "missing.csv", "-o", "{out}.h5"],
        ["export", "missing.h5", "-o", "{out}.csv"],
        ["calibrate", "missing.tif", "-o", "{out}.h5"],
        ["replay", "missing.tif", "-o", "{out}.h5"],
    ],
)
def test_every_output_is_locked_while_a_command_writes_it(tmp_path, capsys, words):
    words = [word.format(out=tmp_path / "out") for word in words]
    with Claim(words[-1] and tmp_path / words[-1], "another command"):
        assert run_command_line(words) == 1
    assert "is being written by process" in " ".join(capsys.readouterr().err.split())


@posix
@pytest.mark.parametrize("loss", ["removed", "replaced", "cut"])
def test_an_event_log_that_loses_its_place_goes_on_with_all_it_had(tmp_path, monkeypatch, loss):
    now_s, told = [0.0], []
    monkeypatch.setattr("liveptv.session.run_log.time.monotonic", lambda: now_s[0])
    with RunLog(tmp_path / "run.events.jsonl", told.append) as log:
        log.write("start", "run 1")
        now_s[0] += 2
        log.look_after()
        if loss == "removed":
            log.path.unlink()
        elif loss == "replaced":
            (tmp_path / "other").write_text("other")
            (tmp_path / "other").replace(log.path)
        else:
            os.truncate(log.path, 0)
        now_s[0] += 2
        log.look_after()
        log.write("end", "done")
        text = log.path.read_text()
    assert ("run 1" in text) == (loss != "cut")
    assert '"kind":"end"' in text
    assert log.path.name == ("run.events.jsonl" if loss == "cut" else "run.events.2.jsonl")
    assert bool(told) == (loss != "cut")


def test_an_earlier_event_log_is_replaced_when_the_run_has_a_frame(tmp_path):
    path = tmp_path / "run.events.jsonl"
    path.write_text("earlier\n")
    with RunLog(path, print) as log:
        log.write("start", "run 1")
        assert path.read_text() == "earlier\n"
        log.settle()
        log.settle()
        log.write("end", "done")
    assert path.read_text().count("\n") == 2
    assert list(tmp_path.iterdir()) == [path]
