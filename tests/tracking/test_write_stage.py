import time
import uuid
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
from trajectory_files import tracks

from stream.errors import LinkError, OutputError, PeerLostError
from stream.links import open_receiver, open_sender
from stream.messages import Detections, StageState
from stream.stage import Stage
from tracking.trajectories.disk_space import DiskReserve
from tracking.trajectories.file import TrajectoryFile, TrajectoryWriter, read_trajectories
from tracking.trajectories.stage import COMMIT_MESSAGES, WriteStage


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tracks.h5"


@contextmanager
def writing(path, scheme: str = "inproc", slots: int = 64, **more):
    """A tracker's end of a link and the stage that writes what it sends."""
    with ExitStack() as stack:
        address = f"inproc://{uuid.uuid4().hex}" if scheme == "inproc" else f"{scheme}://127.0.0.1:0"
        sender = open_sender(address, run_id="run", source="test", slot_bytes=200_000, slots=slots)
        stack.callback(sender.close)
        receiver = open_receiver(sender.address)
        stack.callback(receiver.close)
        stage = WriteStage(receiver, TrajectoryWriter(path, run_id="run", attributes={}), **more)
        stack.callback(stage.close)
        yield sender, stage


def step_until(stage, condition, limit_s: float = 240.0) -> None:
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s
        stage.step(0.01)


def run_to_end(stage) -> None:
    deadline_s = time.monotonic() + 120
    while stage.step(0.05):
        assert time.monotonic() < deadline_s


@pytest.mark.parametrize("scheme", ["inproc", "shm", "tcp"])
def test_every_frame_is_in_the_file_and_acknowledged_when_the_stream_has_ended(path, scheme):
    with writing(path, scheme) as (sender, stage):
        assert isinstance(stage, Stage)
        for frame in range(40):
            sender.send(tracks(frame, 20))
            stage.step(0.01)
        sender.end("enough")
        run_to_end(stage)
        assert stage.state is StageState.DONE
        assert sender.flush(240.0)
        account = sender.account
        assert account.offered == account.acknowledged == 40
        counts = stage.counts()
        assert (counts["received"], counts["sent"], counts["rows"]) == (40, 40, 800)
        assert counts["commits"] < 40
        assert not stage.step(0.0)
    found = read_trajectories(path)
    assert found.frames["frame"].tolist() == list(range(40))
    assert np.array_equal(found.y_um, found.track)
    assert found.attributes["end_reason"] == "enough"
    written = found.attributes["accounts"]["write"]
    assert written["sent"] == 40
    assert written["offered_by_tracker"] == 40
    assert written["link"]["missing"] == 0


def test_a_frame_is_acknowledged_only_once_it_is_in_the_file(path):
    with writing(path, commit_every_s=1000.0) as (sender, stage):
        for frame in range(COMMIT_MESSAGES + 3):
            sender.send(tracks(frame))
        step_until(stage, lambda: stage.counts()["received"] == COMMIT_MESSAGES - 1)
        assert sender.account.acknowledged == 0
        assert len(read_trajectories(path).frames) == 0
        step_until(stage, lambda: stage.counts()["received"] == COMMIT_MESSAGES)
        assert stage.counts()["sent"] == COMMIT_MESSAGES
        assert len(read_trajectories(path).frames) == COMMIT_MESSAGES
        deadline_s = time.monotonic() + 120
        while sender.account.acknowledged < COMMIT_MESSAGES:
            assert time.monotonic() < deadline_s
            stage.step(0.0)


def test_a_commit_does_not_wait_for_more_when_nothing_comes(path):
    with writing(path, slots=4, commit_every_s=1000.0) as (sender, stage):
        sender.send(tracks(0))
        step_until(stage, lambda: stage.counts()["sent"] == 1)
        assert stage.gauges()["queue"] == 0


def test_many_rows_are_committed_at_once(path):
    with writing(path, commit_every_s=1000.0, commit_rows=100) as (sender, stage):
        for frame in range(2):
            sender.send(tracks(frame, 60))
        step_until(stage, lambda: stage.counts()["received"] == 2)
        assert stage.counts()["sent"] == 2


def test_a_repeated_frame_is_recognised_and_written_once(path):
    with writing(path) as (sender, stage):
        for frame in (0, 1, 1, 0, 2):
            sender.send(tracks(frame))
        sender.end()
        run_to_end(stage)
        assert stage.counts()["duplicates"] == 2
        assert sender.flush(240.0)
    assert read_trajectories(path).frames["frame"].tolist() == [0, 1, 2]


def test_frames_that_never_came_are_counted(path):
    with writing(path) as (sender, stage):
        for frame in (2, 3, 7):
            sender.send(tracks(frame))
        sender.end()
        run_to_end(stage)
        assert stage.counts()["missing_frames"] == 5
        assert stage.counts()["received"] == 3
    assert read_trajectories(path).attributes["accounts"]["write"]["missing_frames"] == 5


def test_a_lost_tracker_fails_the_stage_and_leaves_a_finished_file(path):
    with writing(path) as (sender, stage):
        for frame in range(3):
            sender.send(tracks(frame))
        step_until(stage, lambda: stage.counts()["received"] == 3)
        receiver = stage._receiver

        def lost(timeout_s):
            raise PeerLostError("the tracker died")

        receiver.receive = lost
        with pytest.raises(PeerLostError, match="the tracker died"):
            stage.step(0.1)
        assert stage.state is StageState.FAILED
        assert not stage.step(0.1)
    found = read_trajectories(path)
    assert len(found.frames) == 3
    assert found.attributes["end_reason"] == "the tracker died"
    with TrajectoryFile(path) as file:
        assert file.events()[-1]["kind"] == "lost"


def test_a_disk_that_fills_up_fails_the_stage_and_keeps_what_was_committed(path, monkeypatch):
    with writing(path, commit_rows=1) as (sender, stage):
        sender.send(tracks(0))
        step_until(stage, lambda: stage.counts()["sent"] == 1)
        monkeypatch.setattr(DiskReserve, "ensure", _full)
        sender.send(tracks(1))
        with pytest.raises(OutputError, match=r"no space left.*1 frames are safe"):
            step_until(stage, lambda: False)
        assert stage.state is StageState.FAILED
        assert sender.account.acknowledged <= 1
    assert read_trajectories(path).frames["frame"].tolist() == [0]


def _full(self, end):
    raise OSError(28, "No space left on device")


def test_what_is_not_tracks_is_refused(path):
    with writing(path) as (sender, stage):
        sender.send(Detections.empty(tracks(0).info))
        with pytest.raises(LinkError, match="sent Detections"):
            step_until(stage, lambda: False)


def test_a_stage_closed_early_commits_what_it_has(path):
    with writing(path, commit_every_s=1000.0) as (sender, stage):
        sender.send(tracks(0))
        step_until(stage, lambda: stage.counts()["received"] == 1)
        stage.close()
        stage.close()
        assert stage.state is StageState.FAILED
    found = read_trajectories(path)
    assert found.frames["frame"].tolist() == [0]
    assert "stopped" in found.attributes["end_reason"]
