"""A recorded live run, replayed: the same rows with the same settings, and what would have been with others."""

import json
import re
import shutil

import h5py
import numpy as np
import pytest
import tifffile
from recorded_runs import PIXEL_UM, recorded_live_run, rows_of, run, settings_of

from acquisition.recorder.frame_table import read_frame_table
from liveptv.cli import live
from liveptv.cli.main import run_command_line
from liveptv.comparing.comparison import compare
from liveptv.config import build_experiment
from liveptv.models import SHIPPED_MODEL
from liveptv.replaying.preparing import prepare_replay
from liveptv.replaying.recorded import recorded_run
from stream.errors import ConfigurationError, SourceError
from stream.messages import FitDecision
from tracking.trajectories.control_record import read_control
from tracking.trajectories.file import TrajectoryFile

NETWORK = {"model": str(SHIPPED_MODEL), "workers": 2}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A run of a camera that is faster than the detector, so that it is reduced and leaves frames out."""
    return recorded_live_run(tmp_path_factory.mktemp("run"), rate_hz=80.0, frames=60, detector=NETWORK)


@pytest.fixture(scope="module")
def replayed(recorded):
    """Its replay with the settings that its file has, with another number of workers."""
    found = recorded_run(recorded.tracks)
    settings = found.settings
    settings["detector"]["workers"] = 1
    output = recorded.tracks.with_name("replay.h5")
    outcome, notes = run(settings_of(recorded.tracks, output, **settings))
    return outcome, notes, output


def prepared(recorded, **sections):
    data = settings_of(recorded.tracks, recorded.tracks.with_name("other.h5"), **sections)
    return prepare_replay(build_experiment(data, "the test"))


def test_the_replay_with_the_settings_of_the_run_gives_the_rows_of_the_run(recorded, replayed):
    outcome, notes, output = replayed
    assert any("as it was" in note for note in notes)
    before, frames = rows_of(recorded.tracks)
    after, again = rows_of(output)
    assert len(before) > 0
    assert before.tobytes() == after.tobytes()
    for name in set(frames.dtype.names) - {"age_ms", "wall_s", "commit"}:
        assert np.array_equal(frames[name], again[name], equal_nan=frames[name].dtype.kind == "f"), name
    assert np.isnan(again["age_ms"]).all()
    assert compare(recorded.tracks, output)["identical_rows"]
    with TrajectoryFile(output) as file:
        said = file.attributes["replay_of"]
    assert (said["run_id"], said["decisions"], said["same"]) == (recorded.outcome.result.run_id, "run", True)
    account = outcome.account
    assert account.exposed == account.in_file + account.total_lost
    assert set(account.lost) <= {"not tracked in the run that is replayed either"}


def test_the_run_says_for_each_frame_what_its_detector_decided(recorded):
    _, frames = rows_of(recorded.tracks)
    assert FitDecision.WHOLE not in frames["fit"]  # a live run always has a limit
    assert set(frames["fit"]) <= {
        *FitDecision
    }  # on a busy computer the fit may not have been compiled in time
    assert (frames["predicted_from"] < frames["frame"].astype(np.int64)).all()
    assert (frames["learnt_from"] < frames["frame"].astype(np.int64)).all()


def test_all_frames_are_replayed_where_asked_and_the_reason_is_said(recorded):
    replay = prepared(recorded, detector=NETWORK, recording={"decisions": "off"})
    assert (
        'through all 60 recorded frames, each as if there were time: recording.decisions is "off"'
        in replay.text
    )
    assert replay.experiment.recording.decisions == "off"


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({"tracker": {"max_gap_frames": 4}}, r"tracker.max_gap_frames is 4, it was \d in the run"),
        (
            {"detector": {**NETWORK, "min_confidence": 0.6}},
            "detector.min_confidence is 0.6, it was left out in the run",
        ),
        ({"detector": {"workers": 2}}, "the model is none, it was simulated.onnx"),
        ({"recording": {"pixel_size_um": 0.7}}, "recording.pixel_size_um is given"),
        ({"run": {"frames": 10}}, "another length"),
    ],
)
def test_with_anything_else_than_the_run_had_all_frames_are_replayed_and_the_reason_is_said(
    recorded, sections, why
):
    sections = {"detector": NETWORK, **sections}
    replay = prepared(recorded, **sections)
    assert replay.experiment.recording.decisions == "off"
    assert re.search(why, replay.text)


def test_the_decisions_of_the_run_are_taken_with_another_tracker_where_asked(recorded):
    replay = prepared(
        recorded, detector=NETWORK, tracker={"max_gap_frames": 4}, recording={"decisions": "run"}
    )
    assert replay.experiment.recording.decisions == "run"
    assert "as it was" in replay.text
    assert "tracker.max_gap_frames" in replay.text
    assert not replay.facts["same"]


def test_what_does_not_change_results_may_differ(recorded):
    replay = prepared(recorded, detector={**NETWORK, "workers": 3, "self_check": False})
    assert replay.facts["same"]
    assert replay.experiment.detector.backend != "auto"  # that of the run


def test_a_recording_that_lacks_tracked_frames_is_replayed_whole_and_says_so(recorded, tmp_path):
    for name in ("tracks.h5", "tracks.frames.ome.tif"):
        shutil.copy(recorded.tracks.with_name(name), tmp_path / name)
    lines = recorded.tracks.with_name("tracks.frames.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "tracks.frames.jsonl").write_text("".join(lines[:20]))
    data = settings_of(tmp_path / "tracks.h5", tmp_path / "other.h5", detector=NETWORK)
    replay = prepare_replay(build_experiment(data, "the test"))
    assert "frames that the run tracked are not in the recording" in replay.text
    assert replay.experiment.recording.decisions == "off"


def test_a_recording_whose_last_images_are_gone_is_replayed_whole_and_says_so(recorded, tmp_path):
    for name in ("tracks.h5", "tracks.frames.jsonl"):
        shutil.copy(recorded.tracks.with_name(name), tmp_path / name)
    whole = tifffile.imread(recorded.tracks.with_name("tracks.frames.ome.tif"))
    tifffile.imwrite(
        tmp_path / "tracks.frames.ome.tif", whole[:20], photometric="minisblack", metadata={"axes": "TYX"}
    )
    data = settings_of(tmp_path / "tracks.h5", tmp_path / "other.h5", detector=NETWORK)
    replay = prepare_replay(build_experiment(data, "the test"))
    assert "frames that the run tracked are not in the recording" in replay.text
    assert replay.experiment.recording.decisions == "off"


def test_without_its_trajectory_file_a_recording_is_replayed_as_any_other(recorded, tmp_path):
    for name in ("tracks.frames.jsonl", "tracks.frames.ome.tif"):
        shutil.copy(recorded.tracks.with_name(name), tmp_path / name)
    settings = settings_of(tmp_path / "tracks.frames.ome.tif", tmp_path / "other.h5")
    assert "trajectory file is not there" in prepare_replay(build_experiment(settings, "the test")).text
    settings["recording"]["decisions"] = "run"
    with pytest.raises(ConfigurationError, match="leave out recording"):
        prepare_replay(build_experiment(settings, "the test"))
    shutil.copy(recorded.tracks, tmp_path / "lonely.h5")
    with pytest.raises(SourceError, match="has no recording beside it"):
        recorded_run(tmp_path / "lonely.h5")


def test_another_version_of_what_calculates_is_a_reason(recorded, tmp_path):
    for name in ("tracks.h5", "tracks.frames.jsonl", "tracks.frames.ome.tif"):
        shutil.copy(recorded.tracks.with_name(name), tmp_path / name)
    with TrajectoryFile(tmp_path / "tracks.h5") as file:
        versions = file.attributes["versions"]
    with h5py.File(tmp_path / "tracks.h5", "r+") as file:
        file.attrs["versions"] = json.dumps({**versions, "numpy": "0.1"})
    data = settings_of(tmp_path / "tracks.h5", tmp_path / "other.h5", detector=NETWORK)
    assert "it was 0.1 in the run" in prepare_replay(build_experiment(data, "the test")).text


def test_a_controller_in_a_replay_leaves_its_log_and_changes_nothing(recorded, tmp_path):
    settings = recorded_run(recorded.tracks).settings
    controller = {"hold_flow": {"target_um_s": 75.0, "max_flow_ul_s": 0.1, "period_s": 0.05, "min_tracks": 1}}
    data = settings_of(recorded.tracks, tmp_path / "steered.h5", controller=controller, **settings)
    outcome, notes = run(data)
    found = compare(recorded.tracks, tmp_path / "steered.h5")
    assert found["identical_rows"]
    log = read_control(tmp_path / "steered.h5")
    commands = [entry for entry in log if entry["kind"] == "command"]
    assert all(entry["has_effect"] is False for entry in commands)
    assert found["commands"]["b"] == len(commands)
    assert not any("hardware" in note for note in notes)
    assert outcome.result.ok


@pytest.mark.parametrize("name", ["tracks.h5", "tracks.frames.ome.tif", "tracks.frames.jsonl"])
def test_the_command_takes_from_the_run_what_is_not_given_whichever_of_its_files_is_named(
    recorded, monkeypatch, name
):
    taken = []
    monkeypatch.setattr(live, "_run", lambda experiment, files, *_: taken.append((experiment, files)) or 0)
    path = recorded.tracks.with_name(name)
    assert run_command_line(["replay", str(path), "--all-frames", "--set", "tracker.max_gap_frames=7"]) == 0
    (experiment, files) = taken[0]
    assert experiment.detector.model == SHIPPED_MODEL
    assert experiment.detector.workers == 2
    assert experiment.tracker.max_gap_frames == 7
    assert experiment.recording.decisions == "off"
    assert files.tracks.name == "tracks.replay.h5"


def test_another_kind_of_detector_begins_without_the_settings_of_the_runs_own(recorded, monkeypatch):
    taken = []
    monkeypatch.setattr(live, "_run", lambda experiment, *_: taken.append(experiment) or 0)
    assert run_command_line(["replay", str(recorded.tracks), "--set", "detector.engine=classical"]) == 0
    assert taken[0].detector.model is None
    assert "the model is none, it was simulated.onnx" in prepare_replay(taken[0]).text


def test_a_replay_never_replaces_what_it_reads(recorded):
    for name in ("tracks.h5", "tracks.frames.jsonl"):
        data = settings_of(recorded.tracks, recorded.tracks.with_name(name), run={"overwrite": True})
        with pytest.raises(ConfigurationError, match="the output would replace the input"):
            run(data)


def test_the_recording_of_the_fixture_is_one_as_the_recorder_writes_it(recorded):
    table = read_frame_table(recorded.tracks.with_name("tracks.frames.jsonl"))
    assert [row.info.frame for row in table.rows] == list(range(60))
    assert {row.info.pixel_size_um for row in table.rows} == {PIXEL_UM}
