import numpy as np
import pytest
from trajectory_files import tracks, write

from stream.messages import Command, CommandKind, Tracks
from tracking.control.reconsider import reconsider
from tracking.trajectories.concatenation import join
from tracking.trajectories.control_record import read_control, store_control
from tracking.trajectories.file import TrajectoryFile, read_trajectories
from tracking.trajectories.playback import play


def entry(frame, **facts):
    return {"wall_s": 0.0, "kind": "slice", "text": "", "first_frame": frame, "time_s": 0.05 * frame, **facts}


@pytest.fixture
def parts(tmp_path):
    one = write(tmp_path / "one.h5", [tracks(f, 4, z_um=1.0, flags=(f < 2) * 4) for f in range(10)])
    other = write(tmp_path / "other.h5", [tracks(f, [0, 2], z_um=2.0) for f in range(6)], {"notes": "later"})
    store_control(one, [entry(3)])
    store_control(other, [entry(1)])
    return one, other


def test_a_recorded_run_is_played_as_it_was_tracked(parts):
    with TrajectoryFile(parts[0]) as file:
        played = list(play(file))
    assert [t.info.frame for t in played] == list(range(10))
    assert [t.info.time_s for t in played] == pytest.approx([0.05 * f for f in range(10)])
    assert all(np.array_equal(t.track, np.arange(4)) for t in played)
    assert all((t.age_frames == t.info.frame).all() for t in played)
    assert (played[1].flags == 4).all()
    assert (played[2].flags == 0).all()
    assert (played[7].x_um == 7.0).all()


def test_joined_files_are_one_run_whose_tracks_frames_and_times_go_on(parts, tmp_path):
    one, other = parts
    join(one, other, other)
    joined = read_trajectories(other)
    assert joined.frames["frame"].tolist() == list(range(16))
    assert (np.diff(joined.frames["time_s"]) > 0).all()
    assert sorted(set(joined.track.tolist())) == [0, 1, 2, 3, 4, 6]
    assert set(joined.frame[joined.track >= 4].tolist()) == set(range(10, 16))
    assert joined.attributes["notes"] == "later"
    assert [part["first_frame"] for part in joined.attributes["joined"]] == [0, 10]
    assert [e["first_frame"] for e in read_control(other)] == [3, 11]
    assert list(tmp_path.glob("*.joining")) == []


def test_three_parts_are_joined_one_after_the_other(parts, tmp_path):
    one, other = parts
    third = write(tmp_path / "third.h5", [tracks(f, 1) for f in range(3)])
    join(one, other, one)
    join(one, third, one)
    with TrajectoryFile(one) as file:
        assert [part["first_frame"] for part in file.attributes["joined"]] == [0, 10, 16]
        assert len(file.frames) == 19


def test_a_file_without_frames_is_joined_too(parts, tmp_path):
    empty = write(tmp_path / "empty.h5", [])
    join(empty, parts[0], empty)
    with TrajectoryFile(empty) as file:
        assert len(file.frames) == 10


def test_another_controller_says_what_it_would_have_done(parts):
    class Once:
        name = "once"

        def update(self, tracks: Tracks) -> list[Command]:
            return [Command(CommandKind.SET_FLOW, 0.5)] if tracks.info.frame == 4 else []

        def measured(self):
            return {"velocity_um_s": 3.0}

    with TrajectoryFile(parts[0]) as file:
        (decision,) = reconsider(file, Once())
    row = decision.row()
    assert (row["frame"], row["command"], row["value"], row["velocity_um_s"]) == (4, "set_flow", 0.5, 3.0)
