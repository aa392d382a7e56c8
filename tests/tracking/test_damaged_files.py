import contextlib

import numpy as np
import pytest
from trajectory_files import tracks, write

from liveptv.workflows.inspect import describe_file
from stream.errors import LivePTVError, SourceError
from tracking.trajectories.file import read_trajectories
from tracking.trajectories.recovery import recover
from tracking.trajectories.schema import ROW


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = write(tmp_path_factory.mktemp("whole") / "tracks.h5", [tracks(frame, 40) for frame in range(30)])
    return path.read_bytes()


@pytest.mark.parametrize("seed", range(60))
def test_a_file_overwritten_anywhere_is_read_or_refused_but_never_crashes_us(whole, tmp_path, seed):
    """No other error than ours, and no memory for tracks that a damaged number promises."""
    random = np.random.default_rng(seed)
    damaged = bytearray(whole)
    length = int(random.integers(1, 400))
    at = int(random.integers(60, len(damaged) - length))
    damaged[at : at + length] = random.bytes(length)
    path = tmp_path / "tracks.h5"
    path.write_bytes(bytes(damaged))
    for use in (read_trajectories, describe_file, recover):
        with contextlib.suppress(LivePTVError):
            use(path)


def overwritten_row(whole, folder, nbytes):
    """A file in which the first bytes of track 7 in frame 12 are all ones."""
    row = np.zeros(1, ROW)
    row["track"], row["frame"], row["x_um"] = 7, 12, 12.0
    at = whole.index(row.tobytes()[:16])
    path = folder / "tracks.h5"
    path.write_bytes(whole[:at] + b"\xff" * nbytes + whole[at + nbytes :])
    return path


def test_rows_that_say_another_frame_than_they_are_stored_under_are_named(whole, tmp_path):
    path = overwritten_row(whole, tmp_path, 8)
    with pytest.raises(SourceError, match="row 487 is stored under frame 12 and says 4294967295"):
        read_trajectories(path)
    with pytest.raises(SourceError, match="the file is unchanged"):
        recover(path)


def test_a_track_number_beyond_all_births_is_refused(whole, tmp_path):
    path = overwritten_row(whole, tmp_path, 4)
    with pytest.raises(SourceError, match="there cannot be that many tracks"):
        read_trajectories(path)
