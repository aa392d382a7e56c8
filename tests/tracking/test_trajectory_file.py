import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.recfunctions import repack_fields
from trajectory_files import FRAME_S, tracks, write

from stream.errors import OutputError, SourceError
from stream.messages import TrackFlag, Tracks
from tracking.trajectories.commit_mark import committed_frames
from tracking.trajectories.compression import pack
from tracking.trajectories.file import (
    TrajectoryFile,
    TrajectoryWriter,
    annotate,
    read_trajectories,
)
from tracking.trajectories.schema import (
    FRAME,
    FRAME_BEFORE_AGES,
    FRAME_BEFORE_DECISIONS,
    FRAME_BEFORE_SLICES,
    FRAME_BEFORE_VOLUMES,
    FRAMES,
    NO_DECISIONS,
    complete_event_bytes,
    decode_attribute,
    decode_events,
    encode_attribute,
    encode_event,
)

HELPER = Path(__file__).with_name("trajectory_files.py")
ROOT = Path(__file__).parents[2]
TENTATIVE, PREDICTED, SECOND_DETECTION = TrackFlag.TENTATIVE, TrackFlag.PREDICTED, TrackFlag.SECOND_DETECTION


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tracks.h5"


def start(*arguments: object, script: Path = HELPER) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_every_column_comes_back_as_it_was_written_but_for_digits_below_its_errors(path):
    random = np.random.default_rng(1)
    columns = {name: random.normal(size=5) * 4096 for name in Tracks.COLUMNS}
    columns |= {"track": np.arange(5), "flags": np.zeros(5), "detection": np.arange(5)}
    frame = Tracks.from_columns(tracks(7).info, **columns)
    found = read_trajectories(write(path, [frame]))
    for name in ("track", "detection", "flags"):
        assert np.array_equal(getattr(found, name), columns[name])
    for name, step_um in (("x_um", 2.0**-12), ("y_um", 2.0**-12), ("z_um", 2.0**-9)):
        assert np.abs(getattr(found, name) - columns[name]).max() <= step_um / 2
    for name, digits in (
        ("sigma_z_um", 8e-3),
        ("vx_um_s", 1e-3),
        ("sigma_vy_um_s", 8e-3),
        ("brightness", 2e-3),
    ):
        assert np.allclose(getattr(found, name), columns[name], rtol=digits, atol=0)
    assert (found.frame == 7).all()
    assert np.allclose(found.time_s, 7 * FRAME_S)


def test_a_tracks_first_rows_count_once_it_has_been_confirmed(path):
    found = read_trajectories(write(path, [tracks(0, 1, TENTATIVE), tracks(1, 1, TENTATIVE), tracks(2, 1)]))
    assert found.frame.tolist() == [0, 1, 2]


def test_tracks_never_confirmed_and_second_detections_are_left_out_whole_unless_asked_for(path):
    frames = [
        tracks(0, 4, [0, TENTATIVE, 0, 0]),
        tracks(1, 4, [0, TENTATIVE, 0, SECOND_DETECTION]),
        tracks(2, [0, 2, 3], [0, SECOND_DETECTION, 0]),
    ]
    write(path, frames)
    assert set(read_trajectories(path).track) == {0, 3}
    everything = read_trajectories(path, include_flagged=True)
    assert set(everything.track) == {0, 1, 2, 3}
    assert len(everything) == 11
    statistics = everything.attributes["statistics"]
    assert statistics["tracks"] == 4
    assert statistics["tracks_counted"] == 2
    assert statistics["tracks_never_confirmed"] == statistics["tracks_duplicate"] == 1


def test_predicted_rows_are_left_out_and_do_not_decide_over_their_track(path):
    frames = [tracks(0, 2), tracks(1, 2, [PREDICTED, PREDICTED | SECOND_DETECTION]), tracks(2, 1)]
    write(path, frames)
    assert read_trajectories(path).frame.tolist() == [0, 0, 2]
    assert read_trajectories(path, include_predicted=True).frame.tolist() == [0, 0, 1, 1, 2]


def test_frames_without_particles_and_gaps_keep_their_times(path):
    found = read_trajectories(write(path, [tracks(0, 2), tracks(1, 0), tracks(5, 1)]))
    assert found.frames["frame"].tolist() == [0, 1, 5]
    assert found.frames["rows"].tolist() == [2, 0, 1]
    assert np.allclose(found.time_s, np.array([0, 0, 5]) * FRAME_S)
    assert found.of_frame("camera_frame").tolist() == [100, 100, 105]
    assert found.attributes["statistics"]["frames_missing"] == 3


def test_a_run_without_any_frame_is_a_readable_file(path):
    found = read_trajectories(write(path, []))
    assert len(found) == len(found.frames) == 0
    assert found.attributes["end_reason"] == "done"


def test_the_file_explains_itself_to_plain_h5py(path):
    write(path, [tracks(0)], {"frame_rate_hz": 20.0, "configuration": {"tracker": {"mode": "kalman"}}})
    with h5py.File(path) as file:
        rows = file["tracks/rows"]
        assert list(rows.attrs["columns"]) == list(rows.dtype.names)
        units = dict(zip(rows.attrs["columns"], rows.attrs["units"], strict=True))
        assert units["x_um"] == "um"
        assert units["vz_um_s"] == "um/s"
        assert "first pixel" in file.attrs["axes"]
        assert file.attrs["frame_rate_hz"] == 20.0
        assert "kalman" in file.attrs["configuration"]
        assert file.attrs["schema_version"] == 2
        assert rows["x_um"].tolist() == [0.0, 0.0, 0.0]


def test_the_file_says_how_well_its_positions_are_known(path):
    frames = [tracks(0, 2, [0, PREDICTED], sigma_x_um=[3.0, 99.0]), tracks(1, 1, sigma_x_um=4.0)]
    statistics = read_trajectories(write(path, frames)).attributes["statistics"]
    assert statistics["rms_sigma_x_um"] == pytest.approx(np.sqrt(12.5))
    assert "rms_sigma_z_um" not in statistics


def test_events_come_back_in_order(path):
    with TrajectoryWriter(path, run_id="run", attributes={}) as writer:
        writer.event("command", "focus to 12 µm", device="Z")
        writer.append(tracks(0))
        writer.commit()
        writer.event("loss", "3 frames")
        writer.finalize({}, "done")
    with TrajectoryFile(path) as file:
        first, second = file.events()
    assert (first["kind"], first["text"], first["device"]) == ("command", "focus to 12 µm", "Z")
    assert second["text"] == "3 frames"


def test_an_existing_file_is_refused_and_left_alone(path):
    write(path, [tracks(0)])
    before = path.read_bytes()
    with pytest.raises(OutputError, match=r"tracks\.h5 exists.*--overwrite"):
        TrajectoryWriter(path, run_id="run", attributes={})
    assert path.read_bytes() == before
    write(path, [tracks(4)], overwrite=True)
    assert read_trajectories(path).frame.tolist() == [4, 4, 4]


def test_a_file_that_cannot_be_created_says_why(path):
    with pytest.raises(OutputError, match="no folder"):
        TrajectoryWriter(path.parent / "nowhere" / "tracks.h5", run_id="run", attributes={})
    with pytest.raises(OutputError, match="is a folder"):
        TrajectoryWriter(path.parent, run_id="run", attributes={}, overwrite=True)


def test_files_that_are_none_of_ours_are_refused(path):
    with pytest.raises(SourceError, match="no file"):
        read_trajectories(path)
    path.write_text("frame,x_um,y_um\n")
    with pytest.raises(SourceError, match="not an HDF5 file"):
        read_trajectories(path)
    path.unlink()
    with h5py.File(path, "w", libver="v110") as file:
        file["image"] = np.zeros(3)
    with pytest.raises(SourceError, match="not a trajectory file"):
        read_trajectories(path)


@pytest.mark.parametrize("kept", [8, 60, 1000, 8_000, 100_000])
def test_a_file_cut_short_is_refused(path, kept):
    write(path, (tracks(frame, 2000) for frame in range(5)))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(SourceError, match=str(path.name)):
        read_trajectories(path)


def test_a_file_rewritten_by_another_program_is_read(path):
    write(path, [tracks(0)])
    copy = path.with_name("copy.h5")
    with h5py.File(path) as old, h5py.File(copy, "w", libver="earliest") as new:
        for name in old:
            old.copy(name, new)
        new.attrs.update(old.attrs)
    assert len(read_trajectories(copy)) == 3


def test_frames_out_of_order_are_refused(path):
    with TrajectoryWriter(path, run_id="run", attributes={}) as writer:
        writer.append(tracks(3))
        with pytest.raises(OutputError, match="frame 3 came after frame 3"):
            writer.append(tracks(3))


def test_a_writer_that_is_only_closed_leaves_a_complete_file_that_says_so(path):
    with TrajectoryWriter(path, run_id="run", attributes={}) as writer:
        writer.append(tracks(0))
    assert read_trajectories(path).attributes["end_reason"] == "closed before the end of the run"
    assert len(read_trajectories(path)) == 3
    with pytest.raises(OutputError, match="closed"):
        writer.append(tracks(1)) or writer.commit()


def test_what_only_the_session_knows_can_be_added_afterwards(path):
    annotate(write(path, [tracks(0)]), {"losses": {"acquire": {"dropped": 0}}})
    assert read_trajectories(path).attributes["losses"] == {"acquire": {"dropped": 0}}
    with pytest.raises(OutputError, match="cannot add"):
        annotate(path.with_name("other.h5"), {})


def test_a_live_file_shows_committed_frames_and_no_others(path):
    with TrajectoryWriter(path, run_id="run", attributes={}) as writer:
        writer.append(tracks(0))
        writer.commit()
        writer.append(tracks(1))
        assert read_trajectories(path).frames["frame"].tolist() == [0]
        with TrajectoryFile(path) as file:
            assert not file.finished
            assert file.refresh() == 0
            writer.commit()
            assert file.refresh() == 1
            assert file.frames["frame"].tolist() == [0, 1]
            assert file.rows(3, 100)["frame"].tolist() == [1, 1, 1]


READER = """
import sys
import time
from pathlib import Path
from tracking.trajectories.file import TrajectoryFile
deadline_s = time.monotonic() + 240
with TrajectoryFile(Path(sys.argv[1])) as file:
    seen, checked = len(file.frames), 0
    print("open", flush=True)
    while seen < int(sys.argv[2]) and time.monotonic() < deadline_s:
        seen += file.refresh()
        rows = file.rows(checked, file.row_count)
        assert (rows["x_um"] == rows["frame"]).all() and (rows["z_um"] == rows["frame"]).all()
        assert len(rows) == 0 or rows["frame"][0] * 500 == checked
        checked += len(rows)
    print(seen, checked, file.frames["frame"][-1])
"""


def test_other_processes_read_every_committed_frame_while_it_is_written(path, tmp_path):
    script = tmp_path / "reader.py"
    script.write_text(READER)
    with TrajectoryWriter(path, run_id="run", attributes={}) as writer:
        writer.append(tracks(0, 500, z_um=0.0))
        writer.commit()
        readers = [start(path, 300, script=script) for _ in range(2)]
        for reader in readers:
            assert reader.stdout.readline() == "open\n"
        for frame in range(1, 300):
            writer.append(tracks(frame, 500, z_um=float(frame)))
            writer.commit()
        writer.finalize({}, "done")
    for reader in readers:
        output, _ = reader.communicate()
        assert output.split() == ["300", "150000", "299"]
        assert reader.returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as POSIX does")
@pytest.mark.parametrize("limit", [4_500_000, 6_000_000, 9_000_000])
def test_a_full_disk_ends_in_an_error_and_a_file_complete_up_to_the_last_commit(path, limit):
    with start(path, 100_000, 1000, limit) as process:
        *committed, last = process.communicate(timeout=300)[0].splitlines()
    assert process.returncode == 0
    assert "no space left" in last
    assert "frames are safe" in last
    found = read_trajectories(path)
    assert found.frames["frame"].tolist() == list(map(int, committed))
    assert len(found) == 1000 * len(committed) > 0
    assert (found.z_um == found.frame).all()
    assert found.attributes["end_reason"] == last
    with h5py.File(path) as file:
        assert file["tracks/rows"].shape == (len(found),)


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as POSIX does")
def test_a_disk_that_is_full_from_the_start_leaves_no_file(path):
    with start(path, 10, 10, 1_000_000) as process:
        process.communicate(timeout=300)
    assert process.returncode != 0 or not path.exists()
    assert not path.exists()


def test_room_is_taken_by_writing_zeros_where_there_is_no_other_way(path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    write(path, (tracks(frame, 5000) for frame in range(60)))
    assert len(read_trajectories(path)) == 300_000
    assert path.stat().st_size < 300_000 * 82 + 150_000


@given(
    rows=st.lists(st.integers(0, 5), max_size=8),
    torn=st.integers(0, 8),
    missing_rows=st.integers(0, 10),
)
@settings(max_examples=100)
def test_only_whole_frames_count_as_committed(rows, torn, missing_rows):
    frames = np.zeros(len(rows), FRAME)
    frames["rows"] = rows
    frames["first_row"] = np.cumsum(rows, dtype=int) - rows
    frames["commit"] = 1
    frames[max(len(rows) - torn, 0) :] = 0
    stored = max(sum(rows) - missing_rows, 0)
    count = committed_frames(frames, stored)
    assert count <= max(len(rows) - torn, 0)
    assert sum(rows[:count]) <= stored
    if count < max(len(rows) - torn, 0):
        assert sum(rows[: count + 1]) > stored


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4) | st.lists(JSON, max_size=4))
@settings(max_examples=60)
def test_configurations_survive_as_attributes(value):
    assert decode_attribute(encode_attribute(value)) == value


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=20)), max_size=5), st.integers(0, 200))
@settings(max_examples=60)
def test_events_that_are_whole_are_read_and_a_torn_one_is_not(events, cut):
    lines = [encode_event(1.0, kind, text, {}) for kind, text in events]
    data = b"".join(lines)
    torn = data[: max(len(data) - cut, 0)] + bytes(cut)
    whole = decode_events(torn)
    assert [(event["kind"], event["text"]) for event in whole] == events[: len(whole)]
    assert complete_event_bytes(torn) == sum(map(len, lines[: len(whole)]))


@pytest.mark.parametrize(
    "earlier", [FRAME_BEFORE_AGES, FRAME_BEFORE_DECISIONS, FRAME_BEFORE_VOLUMES, FRAME_BEFORE_SLICES]
)
def test_a_file_of_an_earlier_version_is_read_packed_and_recovered_as_before(tmp_path, earlier):
    path = write(tmp_path / "tracks.h5", [tracks(frame) for frame in range(7)])
    with h5py.File(path, "r+") as file:
        table, attributes = file[FRAMES][:], dict(file[FRAMES].attrs)
        del file[FRAMES]
        old = file.create_dataset(
            FRAMES, data=repack_fields(table[list(earlier.names)]), maxshape=(None,), chunks=(64,)
        )
        for name, values in attributes.items():
            old.attrs[name] = list(values)[: len(earlier.names)]
    for _ in range(2):
        with TrajectoryFile(path) as file:
            assert file.frames.dtype == FRAME
            assert file.frames["frame"].tolist() == list(range(7))
            assert np.isnan(file.frames["age_ms"]).all()
            assert (file.frames["fit"] == NO_DECISIONS).all()
            assert file.finished
        pack(path)
    with h5py.File(path) as file:
        assert list(file[FRAMES].attrs["columns"]) == list(file[FRAMES].dtype.names)
