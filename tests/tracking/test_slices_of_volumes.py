"""How each volume was taken is in the file of its tracks, slice by slice and to the last bit."""

import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.lib.recfunctions import repack_fields
from trajectory_files import tracks, write

from liveptv.comparing.comparison import compare
from stream.errors import SourceError
from stream.messages import Tracks
from stream.volume_info import VolumeInfo
from tracking.trajectories.compression import pack
from tracking.trajectories.concatenation import join
from tracking.trajectories.file import TrajectoryFile, TrajectoryWriter
from tracking.trajectories.growing_file import WRITTEN
from tracking.trajectories.playback import play
from tracking.trajectories.recovery import recover
from tracking.trajectories.schema import FRAME_BEFORE_SLICES, FRAMES, SLICES

FINITE = st.floats(-1e6, 1e6, allow_nan=False)


@st.composite
def volumes(draw):
    """A volume with any heights, times and missing slices."""
    slices = draw(st.integers(1, 7))
    steps = draw(st.lists(st.floats(1e-3, 50), min_size=slices - 1, max_size=slices - 1))
    times_s = draw(st.just([]) | st.lists(FINITE, min_size=slices, max_size=slices))
    missing = draw(st.sets(st.integers(0, slices - 1)))
    heights = np.concatenate([[0.0], np.cumsum(steps)])
    return VolumeInfo(tuple(heights.tolist()), tuple(times_s), tuple(sorted(missing)), draw(st.booleans()))


def taken(frame: int, volume: VolumeInfo | None, numbers=2) -> Tracks:
    found = tracks(frame, numbers, z_um=1.0)
    return Tracks(replace(found.info, volume=volume), found.table)


def run(path, volumes):
    return write(path, [taken(frame, volume) for frame, volume in enumerate(volumes)])


def played(path):
    with TrajectoryFile(path) as file:
        return [found.info.volume for found in play(file)]


def rows_of(path) -> int:
    with h5py.File(path) as file:
        return file[SLICES].shape[0]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.none() | volumes(), max_size=12), st.randoms())
def test_every_slice_comes_back_to_the_last_bit(tmp_path, volumes, random):
    given = [volume for each in volumes for volume in [each] * random.choice([1, 1, 3])]
    random.shuffle(given)
    path = tmp_path / "tracks.h5"
    path.unlink(missing_ok=True)
    run(path, given)
    assert played(path) == given
    pack(path)
    assert played(path) == given
    other = tmp_path / "joined.h5"
    join(path, path, other)
    assert played(other) == given * 2


def scan(missing=(), upwards=True, slices=10, jitter=None) -> VolumeInfo:
    times_s = 0.004 * np.arange(slices)
    if jitter is not None:
        times_s = times_s + jitter.normal(0, 2e-5, slices)
    order = times_s if upwards else times_s[::-1]
    return VolumeInfo(tuple(0.5 * k for k in range(slices)), tuple(order.tolist()), missing, upwards)


def test_a_scan_that_is_always_the_same_takes_the_room_of_one(tmp_path):
    run(tmp_path / "up.h5", [scan()] * 200)
    assert rows_of(tmp_path / "up.h5") == 10
    both = [scan(upwards=frame % 2 == 0) for frame in range(200)]
    both[77] = scan((3, 4), upwards=False)
    run(tmp_path / "both.h5", both)
    assert rows_of(tmp_path / "both.h5") == 30
    assert played(tmp_path / "both.h5") == both
    run(tmp_path / "images.h5", [None] * 200)
    assert rows_of(tmp_path / "images.h5") == 0


def test_measured_times_take_few_bytes_a_slice(tmp_path):
    rng = np.random.default_rng(1)
    path = tmp_path / "tracks.h5"
    run(path, [scan(jitter=rng) for _ in range(2000)])
    pack(path)
    with h5py.File(path) as file:
        assert file[SLICES].shape[0] == 20_000
        assert file[SLICES].id.get_storage_size() / 20_000 < 8.5


def test_slices_are_read_while_the_file_grows(tmp_path):
    with TrajectoryWriter(tmp_path / "tracks.h5", run_id="run", attributes={}) as writer:
        writer.append(taken(0, scan()))
        writer.commit()
        with TrajectoryFile(tmp_path / "tracks.h5") as file:
            for frame in range(1, 6):
                writer.append(taken(frame, scan((frame,))))
                writer.commit()
            assert file.refresh() == 5
            found = list(file.volumes(file.frames))
    assert found == [scan(), *(scan((frame,)) for frame in range(1, 6))]


def test_slices_that_no_committed_volume_has_are_cut_off_after_a_crash(tmp_path):
    path = tmp_path / "tracks.h5"
    given = [scan(), scan((1,)), scan()]
    with TrajectoryWriter(tmp_path / "live.h5", run_id="run", attributes={}) as writer:
        for frame, volume in enumerate(given):
            writer.append(taken(frame, volume))
            writer.commit()
        dataset = writer._file._sets[WRITTEN.index(SLICES)]
        dataset.resize((27,))  # of a commit that did not come to its end
        dataset.flush()
        path.write_bytes((tmp_path / "live.h5").read_bytes())
    assert played(path) == given
    recover(path)
    assert played(path) == given
    assert rows_of(path) == 20


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be removed there")
@pytest.mark.parametrize("what", ["removed", "cut short"])
def test_slices_are_in_the_second_place_as_well(tmp_path, what):
    path = tmp_path / "tracks.h5"
    given = [scan(upwards=frame % 2 == 0) for frame in range(12)]
    with TrajectoryWriter(path, run_id="run", attributes={}) as writer:
        for frame, volume in enumerate(given):
            if frame == 6:
                if what == "removed":
                    path.unlink()
                else:
                    path.write_bytes(path.read_bytes()[:4000])
            writer.append(taken(frame, volume))
            writer.commit()
        writer.finalize({}, "done")
    assert writer.path != path
    assert played(writer.path) == (given if what == "removed" else given[6:])


def of_an_earlier_version(path) -> None:
    with h5py.File(path, "r+") as file:
        table = file[FRAMES][:]
        del file[FRAMES], file[SLICES]
        file.create_dataset(
            FRAMES, data=repack_fields(table[list(FRAME_BEFORE_SLICES.names)]), maxshape=(None,), chunks=(64,)
        )


def test_a_file_of_an_earlier_version_knows_that_it_does_not_know(tmp_path):
    path = run(tmp_path / "tracks.h5", [scan()] * 4)
    same = run(tmp_path / "same.h5", [scan()] * 4)
    with TrajectoryFile(path) as file:
        assert file.keeps_slices
    of_an_earlier_version(path)
    for _ in range(2):
        with TrajectoryFile(path) as file:
            assert not file.keeps_slices
            assert file.frames["slices"].tolist() == [10] * 4
            file.check()
        assert played(path) == [None] * 4
        assert recover(path).already_whole
        assert compare(path, same)["identical_rows"]
        pack(path)
    join(path, same, tmp_path / "joined.h5")
    assert played(tmp_path / "joined.h5") == [None] * 4 + [scan()] * 4
    images = run(tmp_path / "images.h5", [None] * 4)
    of_an_earlier_version(images)
    with TrajectoryFile(images) as file:
        assert file.keeps_slices


def test_runs_that_differ_only_in_how_a_volume_was_taken_are_not_the_same(tmp_path):
    one = run(tmp_path / "one.h5", [scan()] * 4)
    assert compare(one, run(tmp_path / "two.h5", [scan()] * 4))["identical_rows"]
    later = [scan(), scan(), replace(scan(), time_s=(0.0, *scan().time_s[:-1])), scan()]
    assert not compare(one, run(tmp_path / "three.h5", later))["identical_rows"]


@pytest.mark.parametrize(
    ("column", "value"),
    [("first_slice", 2**64 - 3), ("first_slice", 11), ("slice_rows", 2000), ("slice_rows", 21)],
)
def test_slices_that_are_not_there_are_damage(tmp_path, column, value):
    path = run(tmp_path / "tracks.h5", [scan(), scan((1,))])
    with h5py.File(path, "r+") as file:
        table = file[FRAMES][:]
        table[column][1] = value
        file[FRAMES][:] = table
    with pytest.raises(SourceError, match="slices from row"), TrajectoryFile(path) as file:
        list(file.volumes(file.frames))


@pytest.mark.parametrize(("column", "value"), [("z_um", np.nan), ("z_um", 0.1), ("time_s", np.inf)])
def test_slices_that_cannot_be_are_damage(tmp_path, column, value):
    path = run(tmp_path / "tracks.h5", [scan()])
    with h5py.File(path, "r+") as file:
        table = file[SLICES][:]
        table[column][2] = value
        file[SLICES][:] = table
    with pytest.raises(SourceError, match="damaged"):
        played(path)
