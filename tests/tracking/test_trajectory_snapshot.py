import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from trajectory_files import info, tracks, write

from stream.errors import OutputError, SourceError
from stream.messages import Detections, Frame
from tracking.trajectories.file import TrajectoryFile, TrajectoryWriter, annotate, read_trajectories
from tracking.trajectories.recovery import recover
from tracking.trajectories.snapshot import read_snapshot, store_snapshot

HERE = Path(__file__).parent
ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "tracks.h5", [tracks(frame, 500) for frame in range(4)], {"notes": "µ"})


def frame(number=7, shape=(40, 60), dtype=np.uint8, seed=0):
    values = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    return Frame(info(number), values)


def detections(count=5, number=7):
    return Detections.from_columns(info(number), x_um=np.arange(float(count)), y_um=1.5, brightness=40.0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_picture_comes_back_with_its_detections(path, dtype):
    image = frame(dtype=dtype)
    store_snapshot(path, image, detections())
    found = read_snapshot(path)
    assert found.frame == 7
    assert found.image.dtype == dtype
    assert np.array_equal(found.image, image.image)
    assert list(found.detections) == list(Detections.COLUMNS)
    assert found.detections["x_um"].tolist() == [0, 1, 2, 3, 4]
    assert found.detections["y_um"].tolist() == [1.5] * 5
    assert np.isnan(found.detections["z_um"]).all()


@given(
    image=arrays(st.sampled_from([np.uint8, np.uint16]), st.tuples(st.integers(1, 30), st.integers(1, 30))),
    table=arrays(np.float64, st.tuples(st.just(len(Detections.COLUMNS)), st.integers(0, 6))),
)
@settings(max_examples=25, deadline=None)
def test_any_picture_replaces_the_one_before(tmp_path_factory, image, table):
    path = write(tmp_path_factory.mktemp("snapshot") / "tracks.h5", [tracks(0)])
    store_snapshot(path, frame(1), detections())
    store_snapshot(path, Frame(info(2), image), Detections(info(2), table))
    found = read_snapshot(path)
    assert found.frame == 2
    assert np.array_equal(found.image, image)
    assert np.array_equal(np.stack(list(found.detections.values())), table, equal_nan=True)


def test_a_frame_without_particles_has_a_picture_too(path):
    store_snapshot(path, frame(), Detections.empty(info(7)))
    assert {len(column) for column in read_snapshot(path).detections.values()} == {0}


def test_the_trajectories_beside_a_picture_stay_as_they_were(path):
    before = read_trajectories(path)
    store_snapshot(path, frame(), detections())
    after = read_trajectories(path)
    assert after.attributes == before.attributes
    for name, column in before.columns().items():
        assert np.array_equal(getattr(after, name), column, equal_nan=True)
    assert recover(path).already_whole


def test_a_file_without_a_picture_says_so(path):
    assert read_snapshot(path) is None


def test_what_is_no_file_of_ours_cannot_be_read_or_added_to(path):
    for other in (path.with_name("none.h5"), path.with_name("text.h5")):
        with pytest.raises(SourceError, match=f"the image in .*{other.name}"):
            read_snapshot(other)
        with pytest.raises(OutputError, match=f"cannot store the image in .*{other.name}"):
            store_snapshot(other, frame(), detections())
        path.with_name("text.h5").write_text("frame,x_um,y_um\n")
    assert path.with_name("text.h5").read_text() == "frame,x_um,y_um\n"
    assert not path.with_name("none.h5").exists()


def test_an_image_that_is_damaged_is_an_error_and_not_none(path):
    store_snapshot(path, frame(), detections())
    with h5py.File(path, "r+", libver="v110") as file:
        del file["snapshot/detections"]
    with pytest.raises(SourceError, match="the image in"):
        read_snapshot(path)


def test_nothing_is_added_to_a_file_that_is_still_being_written(tmp_path):
    path = tmp_path / "tracks.h5"
    with TrajectoryWriter(path, run_id="run", attributes={}) as writer:
        for number in range(200):
            writer.append(tracks(number, 200))
            writer.commit()
        with pytest.raises(OutputError, match="still being written"):
            store_snapshot(path, frame(), detections())
        with pytest.raises(OutputError, match="still being written"):
            annotate(path, {"losses": 0})
        writer.append(tracks(200, 200))
    with TrajectoryFile(path) as file:
        assert (len(file.frames), file.row_count) == (201, 201 * 200)


FULL = """
import sys
from pathlib import Path
from trajectory_files import limit_file_size
from test_trajectory_snapshot import detections, frame
from stream.errors import LivePTVError
from tracking.trajectories.recovery import recover
from tracking.trajectories.file import annotate
from tracking.trajectories.snapshot import store_snapshot
path, action = Path(sys.argv[1]), sys.argv[2]
limit_file_size(path.stat().st_size + int(sys.argv[3]))
try:
    if action == "picture":
        store_snapshot(path, frame(shape=(1000, 1500)), detections())
    elif action == "attributes":
        annotate(path, {"losses": {str(number): "x" * 50 for number in range(1000)}})
    else:
        recover(path)
    print("done")
except LivePTVError as error:
    print(error)
"""


def on_a_full_disk(path: Path, action: str, room: int) -> str:
    """What is said of an action by a process that can make the file only so much larger."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)])}
    command = [sys.executable, "-c", FULL, str(path), action, str(room)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, timeout=300)
    return done.stdout.strip()


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as POSIX does")
@pytest.mark.parametrize("room", [0, 3000, 1_000_000])
@pytest.mark.parametrize("action", ["picture", "attributes"])
def test_a_disk_full_at_the_end_of_a_run_costs_what_was_to_be_added_and_no_more(path, action, room):
    before = path.read_bytes()
    assert on_a_full_disk(path, action, room).endswith("file too large")
    assert path.read_bytes() == before
    assert on_a_full_disk(path, action, 10_000_000) == "done"
    assert len(read_trajectories(path)) == 2000


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as POSIX does")
@pytest.mark.parametrize("room", [0, 3000])
def test_recovery_on_a_full_disk_leaves_the_file_to_be_recovered_later(tmp_path, room):
    path = tmp_path / "tracks.h5"
    with TrajectoryWriter(path.with_name("live.h5"), run_id="run", attributes={}) as writer:
        writer.append(tracks(0, 500))
        writer.commit()
        path.write_bytes(writer.path.read_bytes())
    before = path.read_bytes()
    assert "disk space" in on_a_full_disk(path, "recover", room)
    assert path.read_bytes() == before
    assert on_a_full_disk(path, "recover", 10_000_000) == "done"
    assert len(read_trajectories(path)) == 500
