"""A row that the next frame gives to another track is read as that track's, in whatever way it is read."""

from __future__ import annotations

import math

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trajectory_files import tracks, write

from stream.messages import TrackFlag
from tracking.export.convert import export
from tracking.row_limit import without_excess
from tracking.trajectories import reader
from tracking.trajectories.compression import pack
from tracking.trajectories.concatenation import join
from tracking.trajectories.file import read_trajectories
from tracking.trajectories.inspection import inspect_file
from tracking.trajectories.playback import play
from tracking.trajectories.reader import TrajectoryFile
from tracking.trajectories.relinking import renamed

FRAMES = 9
PREDICTED = int(TrackFlag.PREDICTED)


@st.composite
def claims(draw):
    """Tracks of a frame, and which of them the next frame's tracks claim for themselves."""
    numbers = draw(st.lists(st.integers(0, 30), unique=True, max_size=12))
    was = draw(st.lists(st.sampled_from(numbers), unique=True)) if numbers else []
    now = draw(st.lists(st.integers(0, 40), unique=True, min_size=len(was), max_size=len(was)))
    return np.array(numbers, np.int64), np.array(was, np.int64), np.array(now, np.int64)


@given(claims())
def test_every_row_keeps_a_track_of_its_own_and_those_that_are_claimed_go_where_they_are(case):
    numbers, was, now = case
    found = renamed(numbers, was, now)
    assert len(set(found.tolist())) == len(numbers)
    to = dict(zip(was.tolist(), now.tolist(), strict=True))
    for number, name in zip(numbers.tolist(), found.tolist(), strict=True):
        if number in to:
            assert name == to[number]
        elif number not in to.values():
            assert name == number


@given(claims(), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_and_claims_does_not_matter(case, dice):
    numbers, was, now = case
    found = dict(zip(numbers.tolist(), renamed(numbers, was, now).tolist(), strict=True))
    rows, said = dice.sample(range(len(numbers)), len(numbers)), dice.sample(range(len(was)), len(was))
    again = renamed(numbers[rows], was[said], now[said])
    assert dict(zip(numbers[rows].tolist(), again.tolist(), strict=True)) == found


def crossing(frame: int, at: int):
    """Tracks 0 and 1 at y = 10 and 20, and 2 at 30; those of frame `at` - 1 were exchanged, as `at` says."""
    y = [20.0, 10.0, 30.0] if frame == at - 1 else [10.0, 20.0, 30.0]
    before = [1.0, 0.0, math.nan] if frame == at else math.nan
    return tracks(frame, y_um=y, track_before=before)


@pytest.fixture
def exchanged(tmp_path):
    return write(tmp_path / "tracks.h5", [crossing(frame, 4) for frame in range(FRAMES)])


def heights(path) -> dict[int, list[float]]:
    rows = read_trajectories(path, include_predicted=True, include_flagged=True)
    return {int(t): rows.y_um[rows.track == t].tolist() for t in np.unique(rows.track)}


STRAIGHT = {0: [10.0] * FRAMES, 1: [20.0] * FRAMES, 2: [30.0] * FRAMES}


@pytest.mark.parametrize("at", [1, 2, 3, 4, 6, FRAMES - 1], ids=str)
def test_exchanged_rows_are_read_as_of_the_tracks_they_belong_to(tmp_path, at):
    """Three frames are committed at once: rows of one commit are claimed by the next one too."""
    assert heights(write(tmp_path / "tracks.h5", [crossing(f, at) for f in range(FRAMES)])) == STRAIGHT


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 1000])
def test_it_does_not_matter_how_much_is_read_at_once(exchanged, monkeypatch, rows):
    monkeypatch.setattr(reader, "PIECE_ROWS", rows)
    with TrajectoryFile(exchanged) as file:
        pieces = list(file.pieces(rows))
    track, y = (np.concatenate([piece[name] for piece in pieces]) for name in ("track", "y_um"))
    assert {int(t): y[track == t].tolist() for t in np.unique(track)} == STRAIGHT


def test_what_was_sent_at_the_time_stays_in_the_file(exchanged):
    with TrajectoryFile(exchanged) as file:
        sent = list(play(file))
    for frame, message in enumerate(sent):
        np.testing.assert_array_equal(message.y_um, crossing(frame, 4).y_um)
        np.testing.assert_array_equal(message.track_before, crossing(frame, 4).track_before)


def test_exports_packed_and_joined_files_have_them_too(exchanged, tmp_path):
    export(exchanged, tmp_path / "out.csv")
    lines = [line.split(",") for line in (tmp_path / "out.csv").read_text(encoding="utf-8").split()]
    track, y = lines[0].index("track"), lines[0].index("y_um")
    assert {(line[track], float(line[y])) for line in lines[1:]} == {("0", 10.0), ("1", 20.0), ("2", 30.0)}
    other = write(tmp_path / "other.h5", [crossing(frame, 2) for frame in range(FRAMES)])
    join(exchanged, other, tmp_path / "joined.h5")
    assert heights(tmp_path / "joined.h5") == STRAIGHT | {t + 3: y for t, y in STRAIGHT.items()}
    pack(exchanged)
    assert heights(exchanged) == STRAIGHT


def test_a_track_that_is_another_ones_beginning_is_not_one_of_its_own(tmp_path):
    """Track 3 begins in frame 3, where 1 is only predicted: in frame 4 they are known to be one particle."""
    found = [tracks(frame, y_um=[10.0, 20.0, 30.0]) for frame in range(3)]
    found.append(tracks(3, 4, y_um=[10.0, 21.0, 30.0, 20.0], flags=[0, PREDICTED, 0, 4]))
    found.append(tracks(4, y_um=[10.0, 20.0, 30.0], track_before=[math.nan, 3.0, math.nan]))
    path = write(
        tmp_path / "tracks.h5", [*found, *(tracks(f, y_um=[10.0, 20.0, 30.0]) for f in range(5, FRAMES))]
    )
    rows = read_trajectories(path)
    assert {int(t): rows.y_um[rows.track == t].tolist() for t in np.unique(rows.track)} == STRAIGHT
    assert heights(path)[3] == [21.0]  # the prediction that nobody claims
    with TrajectoryFile(path) as file:
        statistics = file.attributes["statistics"]
    assert statistics["tracks"] == statistics["tracks_counted"] == 3
    assert statistics["median_length"] == FRAMES
    inspected = inspect_file(path, path.read_bytes()[:96], closed=True).statistics
    assert {name: inspected[name] for name in ("tracks", "median_length")} == {
        "tracks": 3,
        "median_length": FRAMES,
    }


def test_a_file_of_an_earlier_version_is_read_as_it_is(exchanged):
    with h5py.File(exchanged, "r+") as file:
        more, names = file["tracks/more"], file["tracks/more"].attrs["columns"]
        assert names[-1] == "track_before"
        old = more[:][[*more.dtype.names[:-1]]]
        del file["tracks/more"]
        packed = np.empty(len(old), [(name, old.dtype[name]) for name in old.dtype.names])
        for name in old.dtype.names:
            packed[name] = old[name]
        file.create_dataset("tracks/more", data=packed, maxshape=(None,), chunks=(64,))
    assert heights(exchanged)[0] == [10.0] * 3 + [20.0] + [10.0] * 5


def test_rows_that_claim_others_are_the_last_to_be_left_out():
    full = tracks(5, 4, detection=[0, -1, -1, -1], track_before=[math.nan, 3.0, math.nan, math.nan])
    kept, left_out = without_excess(full, 2)
    assert (kept.track.tolist(), left_out) == ([0, 1], 2)
