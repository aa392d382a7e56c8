import os
import random
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trajectory_files import tracks, write

from stream.errors import SourceError
from tracking.trajectories.file import TrajectoryWriter, read_trajectories
from tracking.trajectories.hdf5_superblock import OPEN_FOR_WRITING, SIZE, Superblock, build, lookup3, parse
from tracking.trajectories.recovery import recover
from tracking.trajectories.repair_steps import END_REASON

HELPER = Path(__file__).with_name("trajectory_files.py")
ROOT = Path(__file__).parents[2]
ROWS = 700


def start_writing(path: Path) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(HELPER), str(path), "1000000", str(ROWS)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout.readline() == "0\n"
    return process


def kill(process: subprocess.Popen) -> int:
    """Kill it; returns the last frame it has acknowledged."""
    process.kill()
    rest, _ = process.communicate()
    lines = rest.rpartition("\n")[0].split()
    return int(lines[-1]) if lines else 0


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tracks.h5"


@pytest.fixture
def live(path):
    """A file as a writer leaves it that dies after a commit: still marked as open."""
    with TrajectoryWriter(path.with_name("live.h5"), run_id="run", attributes={}) as writer:
        for frame in range(4):
            writer.append(tracks(frame))
            writer.event("note", "x")
            writer.commit()
        path.write_bytes(writer.path.read_bytes())
    return path


@pytest.mark.parametrize("seed", range(5))
def test_a_killed_writer_loses_no_acknowledged_frame(path, seed):
    with start_writing(path) as process:
        time.sleep(random.Random(seed).random() * 0.6)
        acknowledged = kill(process)
    unrepaired = read_trajectories(path)
    report = recover(path)
    assert not report.already_whole
    assert report.last_frame == report.frames - 1 >= acknowledged
    found = read_trajectories(path)
    for trajectories in (unrepaired, found):
        assert len(trajectories.frames) == report.frames
        assert len(trajectories) == report.rows == ROWS * report.frames
        assert (trajectories.z_um == trajectories.frame).all()
    assert found.attributes["recovered"]["rows_cut"] == report.rows_cut
    assert found.attributes["end_reason"] == END_REASON
    assert found.attributes["statistics"]["tracks_counted"] == ROWS
    with h5py.File(path, "r+") as file:
        assert file["frames"].shape == (report.frames,)
        assert file["tracks/rows"].shape == (report.rows,)
        assert bytes(file["events"][-1:]) == b"\n"
    assert recover(path).already_whole


def test_a_file_that_is_being_written_is_not_touched(path):
    with start_writing(path) as process:
        with pytest.raises(SourceError, match=f"still being written by process {process.pid}"):
            recover(path)
        while process.stdout.readline() != "3\n":
            pass
        acknowledged = max(3, kill(process))
    assert recover(path).last_frame >= acknowledged


def test_rows_and_events_behind_the_last_committed_frame_are_cut_off(live):
    data = live.read_bytes()
    live.write_bytes(build(parse(data[:SIZE]).repaired(len(data))) + data[SIZE:])
    with h5py.File(live, "r+", libver=("v110", "v110")) as file:
        file["tracks/rows"].resize((17,))
        file["events"].resize((file["events"].shape[0] + 9,))
        file["frames"].resize((6,))
    report = recover(live)
    assert (report.frames, report.rows) == (4, 12)
    assert (report.frames_cut, report.rows_cut, report.event_bytes_cut) == (2, 5, 9)
    assert read_trajectories(live).frame.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_a_whole_file_is_left_as_it_is(path):
    before = write(path, [tracks(0), tracks(1)]).read_bytes()
    report = recover(path)
    assert report.already_whole
    assert (report.frames, report.rows, report.last_frame) == (2, 6, 1)
    assert path.read_bytes() == before


def test_a_file_left_open_while_it_was_being_finished_is_repaired(path):
    data = write(path, [tracks(0)]).read_bytes()
    path.write_bytes(build(replace(parse(data[:SIZE]), flags=OPEN_FOR_WRITING)) + data[SIZE:])
    with pytest.raises(SourceError, match="liveptv recover"):
        read_trajectories(path)
    copy = path.with_name("copy.h5")
    copy.write_bytes(path.read_bytes())
    assert recover(copy).rows == 3
    found = read_trajectories(copy)
    assert len(found) == 3
    assert found.attributes["end_reason"] == "done"


@pytest.mark.parametrize("kept", [0, 30, 100, 2000, 6000])
def test_a_file_damaged_beyond_repair_is_reported_and_not_changed(live, kept):
    damaged = live.read_bytes()[:kept]
    live.write_bytes(damaged)
    with pytest.raises(SourceError):
        recover(live)
    assert live.read_bytes() == damaged


def test_what_is_no_trajectory_file_is_refused(path):
    with pytest.raises(SourceError, match="no file"):
        recover(path)
    path.write_text("not HDF5 " * 20)
    with pytest.raises(SourceError, match="not an HDF5 file"):
        recover(path)
    with h5py.File(path, "w", libver="v110") as file:
        file["image"] = np.zeros(3)
    before = path.read_bytes()
    with pytest.raises(SourceError, match="not a trajectory file"):
        recover(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("data", "seed", "expected"),
    [
        (b"", 0, 0xDEADBEEF),
        (b"", 0xDEADBEEF, 0xBD5B7DDE),
        (b"Four score and seven years ago", 0, 0x17770551),
        (b"Four score and seven years ago", 1, 0xCD628161),
    ],
)
def test_the_checksum_is_lookup3(data, seed, expected):
    assert lookup3(data, seed) == expected


@given(st.integers(0, 2000), st.text("abcdef", min_size=1, max_size=20))
@settings(max_examples=15, deadline=None)
def test_the_superblocks_of_hdf5_itself_are_read_and_built_alike(size, name):
    file = h5py.File("memory.h5", "w", driver="core", backing_store=False, libver=("v110", "v110"))
    with file:
        file[name] = np.zeros(size)
        file.flush()
        head = file.id.get_file_image()[:SIZE]
    assert build(parse(head)) == head


U64 = st.integers(0, 2**64 - 1)


@given(st.builds(Superblock, st.sampled_from([2, 3]), st.integers(0, 5), U64, U64, U64))
def test_a_superblock_survives_being_built_and_parsed(block):
    assert parse(build(block)) == block
    assert parse(build(block.repaired(12345))) == replace(block, flags=0, end_of_file=12345)


@given(st.integers(0, SIZE * 8 - 1))
def test_a_single_flipped_bit_in_the_superblock_is_noticed(bit):
    data = bytearray(build(Superblock(3, 0, 2**64 - 1, 10_000, 48)))
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ValueError, match=r"superblock|not an HDF5"):
        parse(bytes(data))


@given(st.binary(max_size=80))
def test_the_checksum_depends_on_every_word(data):
    assert 0 <= lookup3(data) < 2**32
    if data:
        (changed,) = struct.unpack("B", data[-1:])
        assert lookup3(data[:-1] + bytes([changed ^ 1])) != lookup3(data)
