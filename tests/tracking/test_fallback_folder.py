"""A file that another program removes or spoils while it is written: nothing that is in memory is lost."""

import errno
import os
import shutil
import sys

import pytest
from trajectory_files import tracks, write

from stream import fallback_folder as second_place
from stream.errors import OutputError
from stream.fallback_folder import second_places
from tracking.trajectories import commit_mark
from tracking.trajectories.file import TrajectoryFile, TrajectoryWriter, read_trajectories

posix = pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be removed there")


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """The user's own folder and the temporary one are the test's."""
    monkeypatch.setattr(second_place.platformdirs, "user_state_path", lambda _name: tmp_path / "state")
    return tmp_path / "state" / "rescued"


@pytest.fixture
def path(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run" / "tracks.h5"


def remove(path):
    path.unlink()


def replace(path):
    other = write(path.with_name("other.h5"), [tracks(99)])
    other.replace(path)


def remove_folder(path):
    shutil.rmtree(path.parent)


def move_folder(path):
    path.parent.rename(path.parent.with_name("elsewhere"))


def write_some(writer, first, last):
    for frame in range(first, last):
        writer.append(tracks(frame, 20))
        if frame % 3 == 0:
            writer.commit()


@posix
@pytest.mark.parametrize("loss", [remove, replace, remove_folder, move_folder])
def test_a_file_without_a_place_is_copied_to_a_second_one_with_all_that_was_in_it(path, places, loss):
    with TrajectoryWriter(path, run_id="run", attributes={"notes": "x"}) as writer:
        write_some(writer, 0, 31)
        loss(path)
        write_some(writer, 31, 60)
        (text,) = writer.moved
    folder = path.parent if loss in {remove, replace} else places
    assert writer.path == folder / "tracks.2.h5"
    assert str(path) in text
    assert str(writer.path) in text
    found = read_trajectories(writer.path)
    assert found.frames["frame"].tolist() == list(range(60))
    assert len(found) == 60 * 20
    assert (found.attributes["notes"], found.attributes["run_id"]) == ("x", "run")
    with TrajectoryFile(writer.path) as file:
        assert [event["kind"] for event in file.events()] == ["moved"]
    if loss is replace:
        assert read_trajectories(path).frame.tolist() == [99, 99, 99]
    assert not list(folder.glob("*.lock"))


def cut_short(path):
    os.truncate(path, 5000)


def write_over(path):
    """As `cp` does: the same file, other contents, and longer."""
    path.write_bytes(b"somebody else's results " * 500_000)


@pytest.mark.parametrize("loss", [cut_short, write_over])
def test_a_file_that_was_spoilt_is_left_to_whoever_did_it_and_a_new_one_goes_on(path, loss):
    writer = TrajectoryWriter(path, run_id="run", attributes={})
    write_some(writer, 0, 31)
    loss(path)
    theirs = path.read_bytes()
    write_some(writer, 31, 60)
    assert writer.frames_elsewhere == 31
    writer.finalize({}, "done")
    assert path.read_bytes() == theirs
    found = read_trajectories(path.with_name("tracks.2.h5"))
    assert found.frames["frame"].tolist() == list(range(31, 60))
    assert found.attributes["begun_in"]["frames"] == 31


@posix
def test_it_is_noticed_within_a_second_and_copied_in_pieces(path, monkeypatch):
    now_s = [100.0]
    monkeypatch.setattr("tracking.trajectories.writer.time.monotonic", lambda: now_s[0])
    monkeypatch.setattr("tracking.trajectories.second_place.COPY_BYTES", 1 << 20)
    with TrajectoryWriter(path, run_id="run", attributes={}) as writer:
        write_some(writer, 0, 31)
        path.unlink()
        assert not writer.look_after()
        now_s[0] += 1.1
        steps = 0
        while writer.look_after():
            steps += 1
        assert steps > 5
        assert writer.frames == 31
        assert writer.path.name == "tracks.2.h5"
    assert len(read_trajectories(writer.path).frames) == 31


def test_a_disk_that_fails_does_not_take_what_is_in_memory(path, monkeypatch):
    writer = TrajectoryWriter(path, run_id="run", attributes={})
    write_some(writer, 0, 31)
    extend = commit_mark._extend
    failures = [OSError(errno.EIO, "input/output error")]

    def failing(*arguments):
        if failures:
            raise failures.pop()
        extend(*arguments)

    monkeypatch.setattr(commit_mark, "_extend", failing)
    write_some(writer, 31, 60)
    writer.finalize({}, "done")
    assert "input/output error" in writer.moved[0]
    assert read_trajectories(writer.path).frames["frame"].tolist() == list(range(31, 60))


@posix
def test_without_any_second_place_the_run_fails_and_says_what_was_tried(path, monkeypatch):
    monkeypatch.setattr("tracking.trajectories.second_place.second_places", lambda _path: iter(()))
    writer = TrajectoryWriter(path, run_id="run", attributes={})
    write_some(writer, 0, 4)
    path.unlink()
    writer.append(tracks(50))
    with pytest.raises(
        OutputError, match="was removed by another program, and no second place can be written"
    ):
        writer.commit()
    assert writer.failed


def test_second_places_are_free_and_beside_first(path, places):
    path.with_name("tracks.2.h5").touch()
    found = list(second_places(path))
    assert found[0] == path.with_name("tracks.3.h5")
    assert found[1] == places / "tracks.2.h5"
    assert not any(place.exists() for place in found)


def test_an_old_file_is_replaced_by_the_first_frame_and_not_before(path):
    before = write(path, [tracks(0)]).read_bytes()
    writer = TrajectoryWriter(path, run_id="new", attributes={}, overwrite=True)
    writer.event("note", "nothing yet")
    writer.commit()
    assert path.read_bytes() == before
    writer.append(tracks(7))
    assert path.read_bytes() == before
    writer.commit()
    writer.finalize({}, "done")
    assert read_trajectories(path).attributes["run_id"] == "new"
    assert [file.name for file in path.parent.iterdir()] == ["tracks.h5"]


@pytest.mark.parametrize("ending", ["closed", "failed"])
def test_a_run_without_a_frame_leaves_the_old_file(path, ending):
    before = write(path, [tracks(0)]).read_bytes()
    writer = TrajectoryWriter(path, run_id="new", attributes={}, overwrite=True)
    if ending == "closed":
        writer.close()
    else:
        writer.finalize({"accounts": {}}, "the camera cannot be loaded")
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["tracks.h5"]


def test_a_new_file_that_cannot_be_written_gives_the_old_one_its_name_back(path, monkeypatch):
    before = write(path, [tracks(0)]).read_bytes()
    writer = TrajectoryWriter(path, run_id="new", attributes={}, overwrite=True)

    def full(*_arguments):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(commit_mark, "_extend", full)
    writer.append(tracks(7))
    with pytest.raises(OutputError, match=r"no space left|cannot create"):
        writer.commit()
    writer.close()
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["tracks.h5"]


def test_two_writers_of_the_same_file_do_not_disturb_each_other(path):
    with TrajectoryWriter(path, run_id="one", attributes={}) as writer:
        writer.append(tracks(0))
        writer.commit()
        for overwrite in (False, True):
            with pytest.raises(OutputError, match=r"exists|being written by process \d+ \(run one"):
                TrajectoryWriter(path, run_id="two", attributes={}, overwrite=overwrite)
        writer.append(tracks(1))
    assert read_trajectories(path).attributes["run_id"] == "one"
    assert len(read_trajectories(path).frames) == 2
