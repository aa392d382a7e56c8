"""A live run that records: every frame of the camera is in the recording, whatever the detector had time for."""

import pytest
from small_run import Run, kill, small_experiment

from acquisition.recorder.closing import NOT_WRITTEN
from acquisition.recorder.frame_table import read_frame_table
from acquisition.recording import open_stack
from liveptv.workflows.inspect import describe_file
from tracking.trajectories.file import TrajectoryFile

pytestmark = pytest.mark.slow


def recording_run(folder, *, live=True, act=None, act_after=20, frames=60, **record):
    experiment = small_experiment(folder, frames=frames, record={"mode": "all", "keep_free_mb": 1, **record})
    if live:
        link = experiment.link.model_copy(update={"policy": None})
        experiment = experiment.model_copy(update={"link": link})
    return Run(experiment, act=act, act_after=act_after)


def assert_complete(folder, received):
    """Every frame that the camera delivered is stored or declared lost, and both files are of one run."""
    table = read_frame_table(folder / "tracks.frames.jsonl")
    numbers = [row.info.frame for row in table.rows]
    lost = [number for each in table.lost for number in range(each.first, each.last + 1)]
    assert sorted(numbers + lost) == list(range(received))
    with TrajectoryFile(folder / "tracks.h5") as file:
        assert file.finished
        attributes, frames = file.attributes, file.frames
    assert table.run_id == attributes["run_id"]
    assert attributes["recording"]["stored"] == len(numbers)
    assert sum(attributes["recording"]["lost"].values()) == len(lost)
    times = {row.info.frame: (row.info.time_s, row.info.camera_frame) for row in table.rows}
    for one in frames:
        if int(one["frame"]) in times:
            assert times[int(one["frame"])] == (one["time_s"], one["camera_frame"])
    return table


@pytest.mark.parametrize(("kind", "live"), [("ome-zarr", True), ("ome-tiff", False)])
def test_every_frame_is_recorded(tmp_path, kind, live):
    run = recording_run(tmp_path, live=live, format=kind)
    assert run.result.ok
    table = assert_complete(tmp_path, run.result.count("acquire", "received"))
    assert run.outcome.recording.total_lost == 0
    path = tmp_path / table.head["images"]
    stack = open_stack(path)
    assert (stack.info.planes, stack.info.height, stack.info.width) == (60, 256, 320)
    assert stack.info.pixel_size_um == 0.8
    stack.close()
    found = describe_file(path)["recorded"]
    assert (found["run_id"], found["stored"], found["lost"]) == (run.result.run_id, 60, {})


def test_without_its_recorder_a_run_goes_on_and_says_what_is_missing(tmp_path):
    run = recording_run(tmp_path, act=kill("record"), frames=150)
    assert not run.result.ok
    assert run.result.reason == "done"
    assert any("without its recorder" in note for note in run.notes)
    received = run.result.count("acquire", "received")
    assert received == 150
    table = assert_complete(tmp_path, received)
    assert {each.why for each in table.lost} == {NOT_WRITTEN}
    assert table.lost[-1].last == received - 1


def test_a_run_that_shall_stop_without_its_recorder_stops(tmp_path):
    run = recording_run(tmp_path, act=kill("record"), frames=100_000, when_full="stop")
    assert run.result.reason == "record was lost"
    assert_complete(tmp_path, run.result.count("acquire", "received"))


def test_a_recording_is_not_replaced_unless_that_is_asked_for(tmp_path):
    (tmp_path / "tracks.frames.ome.zarr").mkdir()
    with pytest.raises(OSError, match="exists"):
        recording_run(tmp_path)
    assert not (tmp_path / "tracks.h5").exists()
