"""Pieces of a long recording, names of results, lists of recordings, time left."""

import contextlib
import math
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liveptv.batch.jobs import Job, JobState
from liveptv.batch.pieces.plan import plan_pieces
from liveptv.batch.recordings.entry import Entry
from liveptv.batch.recordings.listing import is_list, read_list
from liveptv.batch.recordings.naming import checked, names_of
from liveptv.batch.time_left import in_words, time_left_s
from stream.errors import ConfigurationError


@settings(deadline=None)
@given(st.integers(1, 4_000), st.integers(1, 5_000), st.integers(0, 300))
def test_every_frame_belongs_to_one_piece_and_pieces_are_alike(frames, longest, warm):
    pieces = plan_pieces(frames, longest, warm)
    assert pieces[0].first == 0
    assert pieces[-1].stop == frames
    assert all(one.stop == other.first for one, other in pairwise(pieces))
    sizes = {piece.frames for piece in pieces}
    assert max(sizes) <= longest
    assert max(sizes) - min(sizes) <= 1
    assert len(pieces) == math.ceil(frames / longest), "no more pieces than needed"
    assert all(piece.warm == max(0, piece.first - warm) for piece in pieces)


@pytest.mark.parametrize("wrong", [(0, 10, 0), (10, 0, 0), (10, 5, -1)])
def test_pieces_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="frames in pieces"):
        plan_pieces(*wrong)


PARTS = st.text(st.sampled_from("aAbü. -_:\u2028\U0001f600*"), min_size=1, max_size=6).filter(
    lambda part: part not in {".", ".."} and "::" not in part
)
FILES = st.builds(
    lambda folders, name, ending: Path("/top", *folders, name + ending),
    st.lists(PARTS, max_size=2),
    PARTS,
    st.sampled_from([".tif", ".TIF", ".ome.tif", ".h5", ".zarr", ""]),
)


@settings(deadline=None)
@given(st.lists(FILES, min_size=1, max_size=12, unique=True))
def test_names_of_results_differ_on_every_system_and_stay_in_the_folder(paths):
    names = names_of(paths, Path("/top"))
    assert len({name.lower() for name in names}) == len(paths)
    for name in names:
        parts = name.split("/")
        assert all(
            part.strip(". ") and part.isprintable() and not set(part) & set(':*"<>|\\?') for part in parts
        )


def test_results_lie_as_their_recordings_do():
    paths = [Path("/top/day1/a.ome.tif"), Path("/top/day2/a.ome.tif"), Path("/top/b.zarr")]
    assert names_of(paths, Path("/top")) == ["day1/a", "day2/a", "b"]


def test_recordings_that_differ_only_in_their_ending_keep_it():
    assert names_of([Path("/top/a.tif"), Path("/top/a.h5")], Path("/top")) == ["a.tif", "a.h5"]


def test_one_of_several_positions_is_part_of_the_name():
    assert names_of([Path("/top/a.tif::position=1"), Path("/top/a.tif::position=2")], Path("/top")) == [
        "a-position1",
        "a-position2",
    ]


@pytest.mark.parametrize("name", ["", "../a", "/", "a/../../b", "C:a", "a//b"])
def test_a_name_that_leads_elsewhere_is_refused(name):
    with pytest.raises(ConfigurationError, match="cannot be the name"):
        checked(name)


def test_a_list_is_a_path_a_line(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("# two recordings\nx/a.tif\n\n  y/a.tif  \n", encoding="utf-8-sig")
    assert is_list(path)
    assert read_list(path) == [Entry(tmp_path / "x/a.tif", "x/a"), Entry(tmp_path / "y/a.tif", "y/a")]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_table_gives_recordings_settings_of_their_own(tmp_path, mark):
    path = tmp_path / "list.csv"
    rows = [
        ("recording", "name", "pixel_size_um", "tracker.max_gap_frames", "model"),
        ("a.tif", "first", "0.5", "", "m.onnx"),
        ("b.tif", "", "", "7", ""),
    ]
    path.write_text("\n".join(mark.join(row) for row in rows))
    first, second = read_list(path)
    assert first == Entry(
        tmp_path / "a.tif", "first", ("recording.pixel_size_um=0.5", f"detector.model={tmp_path / 'm.onnx'}")
    )
    assert second == Entry(tmp_path / "b.tif", "b", ("tracker.max_gap_frames=7",))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("recording,pixelsize\na.tif,1\n", "pixelsize"),
        ("recording,name\na.tif,x\nb.tif,X\n", "two recordings"),
        ("recording,name\n,x\n", "line 2"),
        ("# nothing\n", "lists no recording"),
        ("a\0.tif\n", "not a text file"),
    ],
)
def test_what_a_list_has_wrong_is_told(tmp_path, text, why):
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=why):
        read_list(path)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_file_is_a_list_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("lists") / "list.txt"
    path.write_bytes(data)
    with contextlib.suppress(ConfigurationError):
        assert read_list(path)


def job(size, state=JobState.OPEN):
    return Job(Entry(Path("a"), "a"), {}, {}, size, state=state)


def test_the_time_left_follows_the_bytes_that_are_left():
    jobs = [job(10, JobState.DONE), *(job(10) for _ in range(3))]
    assert time_left_s(jobs, 60.0, workers=0) == pytest.approx(180.0)
    assert time_left_s(jobs, 60.0, workers=1) == pytest.approx(60.0 * 25 / 15)
    assert math.isnan(time_left_s([job(10)], 60.0, workers=1))
    before = [job(1000, JobState.THERE), *jobs]
    assert time_left_s(before, 60.0, workers=0) == pytest.approx(180.0), (
        "what was done before took no time now"
    )


@pytest.mark.parametrize(
    ("seconds", "words"), [(40, "40 s"), (700, "12 min"), (12_000, "3 h 20 min"), (math.nan, "unknown")]
)
def test_times_are_short_words(seconds, words):
    assert in_words(seconds) == words
