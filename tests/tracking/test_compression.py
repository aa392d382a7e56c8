import errno
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from flows import channel_flow
from hypothesis import given
from hypothesis import strategies as st
from trajectory_files import info, tracks, write

from stream.errors import OutputError, SourceError
from stream.messages import Detections, Frame, TrackFlag
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker
from tracking.trajectories import compression as packing
from tracking.trajectories.columns import COLUMN_NAMES
from tracking.trajectories.compression import pack
from tracking.trajectories.file import TrajectoryFile, TrajectoryWriter, annotate, read_trajectories
from tracking.trajectories.precision import MANTISSA_BITS, STEPS_PER_UM, rounded
from tracking.trajectories.recovery import recover
from tracking.trajectories.snapshot import read_snapshot, store_snapshot

ROOT = Path(__file__).parents[2]
TENTATIVE, PREDICTED, SECOND_DETECTION = TrackFlag.TENTATIVE, TrackFlag.PREDICTED, TrackFlag.SECOND_DETECTION
MIXED = [
    tracks(0, 4, [0, TENTATIVE, 0, 0], z_um=5.0),
    tracks(1, [0, 1, 3], [PREDICTED, TENTATIVE, 0], z_um=6.0),
    tracks(2, 0),
    tracks(4, [2, 3], [SECOND_DETECTION, 0], z_um=7.0),
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tracks.h5"


def tracked(path, count: int, frames: int):
    """A file as a live run leaves it, every detection with errors, brightness and confidence of its own."""
    rng = np.random.default_rng(0)
    tracker = OnlineTracker(TrackerSettings())
    with TrajectoryWriter(path, run_id="run", attributes={"frame_rate_hz": 50.0}) as writer:
        for found in channel_flow(count, 0.15, frames, seed=1).detections:
            table = found.table.copy()
            table[3:6] *= rng.lognormal(0, 0.3, (3, len(found)))
            table[6:8] = rng.lognormal(3, 0.5, len(found)), rng.uniform(0.5, 1, len(found))
            writer.append(tracker.step(Detections(found.info, table)))
            writer.commit()
        writer.finalize({}, "done")
    return path


def test_a_packed_file_holds_what_it_held_in_a_third_of_the_room(path):
    before = read_trajectories(tracked(path, 1000, 90), include_predicted=True, include_flagged=True)
    size = path.stat().st_size
    assert pack(path) == path.stat().st_size < size / 3
    assert path.stat().st_size / len(before) <= 26
    after = read_trajectories(path, include_predicted=True, include_flagged=True)
    for name in COLUMN_NAMES:
        assert np.array_equal(getattr(after, name), getattr(before, name), equal_nan=True), name
    assert after.frames.tobytes() == before.frames.tobytes()
    assert after.attributes == before.attributes
    with h5py.File(path) as file:
        assert list(file["tracks/rows"].attrs["columns"]) == list(file["tracks/rows"].dtype.names)
    assert list(path.parent.iterdir()) == [path]


def test_events_picture_and_notes_survive_and_can_be_added_afterwards(path):
    with TrajectoryWriter(path, run_id="run", attributes={"notes": "µ"}) as writer:
        writer.event("command", "focus to 12 µm")
        writer.append(tracks(0))
        writer.finalize({}, "done")
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    store_snapshot(path, Frame(info(0), image), Detections.empty(info(0)))
    pack(path)
    assert np.array_equal(read_snapshot(path).image, image)
    with TrajectoryFile(path) as file:
        assert file.events()[0]["text"] == "focus to 12 µm"
    annotate(path, {"losses": {"acquire": 0}})
    assert read_trajectories(path).attributes["losses"] == {"acquire": 0}
    assert recover(path).already_whole


def test_a_packed_file_is_left_alone(path):
    pack(write(path, MIXED))
    before = path.read_bytes()
    pack(path)
    assert path.read_bytes() == before


def test_a_file_without_rows_or_frames_is_packed_too(path):
    pack(write(path, []))
    assert len(read_trajectories(path)) == 0
    path.unlink()
    pack(write(path, [tracks(0, 0)]))
    assert len(read_trajectories(path).frames) == 1


def test_an_unfinished_file_is_refused(path):
    with TrajectoryWriter(path, run_id="run", attributes={}) as writer:
        writer.append(tracks(0))
        writer.commit()
        with pytest.raises(SourceError, match="not finished"):
            pack(path)


def test_a_full_disk_leaves_the_file_as_it_was(path, monkeypatch):
    write(path, MIXED)
    before = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(packing, "_compressed", full)
    with pytest.raises(OutputError, match=r"no space left.*complete, but larger"):
        pack(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


PACK = """
import sys
from pathlib import Path
from stream.errors import OutputError
from tracking.trajectories.compression import pack
from trajectory_files import limit_file_size
limit_file_size(int(sys.argv[2]))
try:
    pack(Path(sys.argv[1]))
except OutputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as POSIX does")
def test_without_room_for_a_second_file_nothing_is_begun(path):
    write(path, (tracks(frame, 3000) for frame in range(20)))
    before = path.read_bytes()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)])}
    said = subprocess.run(
        [sys.executable, "-c", PACK, str(path), "1000000"],
        capture_output=True, text=True, env=environment, check=True, timeout=300,
    ).stdout  # fmt: skip
    assert "complete, but larger" in said
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_vtk_finds_the_points_that_count_of_each_frame_at_their_height(path):
    frames = [tracks(0, 2, z_um=5.0), tracks(1, 0), tracks(2, [0, 1], [PREDICTED, 0], z_um=6.0)]
    write(path, frames, {"refraction_factor": 1.5})
    pack(path)
    with h5py.File(path) as file:
        view = file["VTKHDF"]
        assert view.attrs["Type"] == b"PolyData"
        assert view["NumberOfPoints"][:].tolist() == [2, 0, 1]
        assert view["Steps/PointOffsets"][:].tolist() == [0, 2, 2]
        assert view["Steps/Values"][:].tolist() == pytest.approx([0.0, 0.05, 0.1])
        assert view["Points"][:].tolist() == [[0, 0, 7.5], [0, 1, 7.5], [2, 1, 9.0]]
        assert view["PointData/track"][:].tolist() == [0, 1, 1]
        assert view["Vertices/Connectivity"][:].tolist() == [0, 1]


def test_vtk_reads_the_file_itself(path):
    vtk = pytest.importorskip("vtk")
    support = pytest.importorskip("vtk.util.numpy_support")
    write(path, MIXED)
    pack(path)
    expected = read_trajectories(path)
    reader = vtk.vtkHDFReader()
    assert reader.CanReadFile(str(path))
    reader.SetFileName(str(path))
    reader.UpdateInformation()
    assert reader.GetNumberOfSteps() == 4
    for step, frame in enumerate((0, 1, 2, 4)):
        reader.SetStep(step)
        reader.Update()
        data = reader.GetOutputDataObject(0)
        here = expected.frame == frame
        assert data.GetNumberOfVerts() == data.GetNumberOfPoints() == here.sum()
        if here.any():
            points = support.vtk_to_numpy(data.GetPoints().GetData())
            assert np.allclose(points[:, 2], expected.z_um[here])
            track = support.vtk_to_numpy(data.GetPointData().GetArray("track"))
            assert track.tolist() == expected.track[here].tolist()


@given(st.sampled_from([*STEPS_PER_UM, *MANTISSA_BITS]), st.lists(st.floats(-1e6, 1e6), max_size=20))
def test_rounding_stays_below_its_step_and_does_nothing_twice(name, values):
    given_values = np.array(values, np.float64)
    once = rounded(name, given_values)
    assert np.array_equal(rounded(name, once.astype(np.float64)), once)
    if name in STEPS_PER_UM:
        limit = np.full(given_values.shape, 0.5 / STEPS_PER_UM[name])
    else:
        limit = np.abs(given_values) * 0.5 ** MANTISSA_BITS[name] + 1e-37
    assert (np.abs(once - given_values) <= limit).all()


def test_rounding_leaves_whole_numbers_and_what_is_not_finite():
    odd = np.array([np.nan, np.inf, -np.inf, 0.0])
    for name in ("x_um", "vx_um_s", "brightness"):
        assert np.array_equal(rounded(name, odd), odd, equal_nan=True)
    assert rounded("track", np.array([4_294_967_295.0])).tolist() == [4_294_967_295.0]
