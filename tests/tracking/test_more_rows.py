"""What only some rows know is in the file, and a side of focus that is revised later is read as it is known now."""

from __future__ import annotations

import csv
import math
from itertools import pairwise

import h5py
import numpy as np
import pyarrow.parquet
import pytest
from test_files_in_docs import run_the_code
from trajectory_files import tracks, write

from stream.messages import Tracks
from tracking.export.convert import export
from tracking.trajectories import reader, row_entries
from tracking.trajectories.columns import collect
from tracking.trajectories.compression import pack
from tracking.trajectories.concatenation import join
from tracking.trajectories.file import TrajectoryFile, TrajectoryWriter, read_trajectories
from tracking.trajectories.playback import play
from tracking.trajectories.recovery import recover

NEW = ["z_other_um", "p_side", "revised", "kind", "p_kind"]
FRAMES = 12


def sided(frame: int, revised: float = math.nan) -> Tracks:
    """Track 0 has no second depth, 1 is stored above focus, with the other depth below it, 2 has a kind."""
    return tracks(
        frame,
        z_um=[1.0, 5.0, 2.0],
        vz_um_s=[0.0, 3.0, 0.0],
        z_other_um=[math.nan, -5.0, math.nan],
        p_side=[math.nan, 0.75, math.nan],
        revised=[math.nan, revised, math.nan],
        kind=[math.nan, math.nan, 1.0],
        p_kind=[math.nan, math.nan, 0.875],
    )


def revising(frame: int, back: int) -> Tracks:
    """Track 1 is decided to be below focus, and to have been there `back` frames before."""
    row = sided(frame, back)
    table = row.table.copy()
    at = {name: Tracks.COLUMNS.index(name) for name in Tracks.COLUMNS}
    table[at["z_um"], 1], table[at["z_other_um"], 1] = -5.0, 5.0
    table[at["p_side"], 1], table[at["vz_um_s"], 1], table[at["sigma_vz_um_s"], 1] = 0.9375, -3.0, 0.5
    return Tracks(row.info, table)


def below(frame: int) -> Tracks:
    return revising(frame, math.nan)


@pytest.fixture
def revised(tmp_path):
    """Above focus up to frame 7; in frame 8 it turns out to have been below since frame 3."""
    found = [sided(f) for f in range(8)] + [revising(8, 5)] + [below(f) for f in range(9, FRAMES)]
    return write(tmp_path / "tracks.h5", found)


def depths(path, number: int = 1) -> list[float]:
    found = read_trajectories(path)
    return found.z_um[found.track == number].tolist()


AS_KNOWN = [5.0] * 3 + [-5.0] * 9


def test_a_run_without_second_depths_or_kinds_has_no_new_columns(tmp_path):
    path = write(tmp_path / "tracks.h5", [tracks(f, z_um=1.0) for f in range(5)])
    with h5py.File(path) as file:
        assert file["tracks/more"].shape == (0,)
    assert not set(NEW) & set(read_trajectories(path).columns())
    export(path, tmp_path / "out.csv")
    assert not set(NEW) & set((tmp_path / "out.csv").read_text().splitlines()[0].split(","))


def test_rows_are_read_on_the_side_that_was_decided_last(revised):
    assert depths(revised) == AS_KNOWN
    found = read_trajectories(revised)
    one = found.track == 1
    assert found.z_other_um[one].tolist() == [-z for z in AS_KNOWN]
    assert found.revised[one].tolist() == [0] * 3 + [1] * 5 + [0] * 4
    assert found.p_side[one].tolist() == [0.75] * 3 + [0.9375] * 9
    assert found.vz_um_s[one].tolist() == [3.0] * 3 + [-3.0] * 9
    assert found.sigma_vz_um_s[one][3:].tolist() == [0.5] * 9


def test_the_code_in_the_page_exchanges_the_same_rows(tmp_path, monkeypatch):
    found = [sided(f) for f in range(8)] + [revising(8, 5), below(9), sided(10, 4), sided(11)]
    path = write(tmp_path / "tracks.h5", found)
    expected = read_trajectories(path)
    page = run_the_code(tmp_path, monkeypatch)["sides"]
    assert page["z_um"].tolist() == expected.z_um.tolist()
    assert np.array_equal(page["z_other_um"], expected.z_other_um, equal_nan=True)


def test_what_was_chosen_at_the_time_stays_in_the_file(revised):
    with TrajectoryFile(revised) as file:
        played = list(play(file))
    assert [t.z_um[1] for t in played] == [5.0] * 8 + [-5.0] * 4
    assert [t.revised[1] for t in played if not math.isnan(t.revised[1])] == [5.0]
    assert [t.kind[2] for t in played] == [1.0] * FRAMES
    assert np.isnan(played[0].kind[:2]).all()
    assert np.isnan(played[0].p_side[[0, 2]]).all()


def test_other_tracks_and_kinds_are_untouched(revised):
    assert depths(revised, 0) == [1.0] * FRAMES
    found = read_trajectories(revised)
    assert np.isnan(found.z_other_um[found.track != 1]).all()
    assert (found.kind[found.track == 2] == 1).all()
    assert (found.p_kind[found.track == 2] == 0.875).all()
    assert np.isnan(found.kind[found.track != 2]).all()


def test_a_side_that_is_revised_back_is_as_it_was(tmp_path):
    back = sided(10, 2)
    found = [sided(f) for f in range(8)] + [revising(8, 5), below(9), back, sided(11)]
    path = write(tmp_path / "tracks.h5", found)
    assert depths(path) == [5.0] * 3 + [-5.0] * 5 + [5.0] * 4
    found[10] = sided(10, 20)
    assert depths(write(tmp_path / "again.h5", found)) == [-5.0] * 3 + [5.0] * 9


def test_rows_without_a_second_depth_are_not_exchanged(tmp_path):
    found = [sided(f) for f in range(8)] + [revising(8, 5)]
    found[5] = tracks(5, z_um=[1.0, -5.0, 2.0])
    path = write(tmp_path / "tracks.h5", found)
    assert depths(path) == [5.0] * 3 + [-5.0] * 6


@pytest.mark.parametrize("rows", [1, 2, 5, 7])
def test_it_does_not_matter_how_much_is_read_at_once(revised, monkeypatch, rows):
    whole = read_trajectories(revised)
    monkeypatch.setattr(reader.TrajectoryFile.pieces, "__defaults__", (rows,))
    monkeypatch.setattr(row_entries, "BLOCK", rows)
    again = read_trajectories(revised)
    for name, column in whole.columns().items():
        assert np.array_equal(getattr(again, name), column, equal_nan=True)


def test_packing_and_joining_keep_it(revised, tmp_path):
    other = write(tmp_path / "other.h5", [tracks(0, 2), sided(1), revising(2, 1)])
    expected = depths(revised) + depths(other)[1:]
    assert depths(other) == pytest.approx([math.nan, -5.0, -5.0], nan_ok=True)
    pack(revised)
    assert depths(revised) == AS_KNOWN
    with h5py.File(revised) as file:
        assert file["tracks/more"].compression == "gzip"
        assert list(file["tracks/more"].attrs["columns"]) == list(file["tracks/more"].dtype.names)
    join(revised, other, tmp_path / "joined.h5")
    found = read_trajectories(tmp_path / "joined.h5")
    second = found.z_um[(found.z_other_um == 5.0) | (found.z_other_um == -5.0)]
    assert second.tolist() == expected


def test_tables_have_the_columns_that_hold_anything(revised, tmp_path):
    export(revised, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[-5:] == ["z_other_um", "p_side", "kind", "p_kind", "revised"]
    one = [row for row in rows if row["track"] == "1"]
    assert [float(row["z_um"]) for row in one] == AS_KNOWN
    assert [row["revised"] for row in one] == ["0"] * 3 + ["1"] * 5 + ["0"] * 4
    assert {row["z_other_um"] for row in rows if row["track"] == "0"} == {""}
    assert {row["kind"] for row in rows if row["track"] == "2"} == {"1"}
    export(revised, tmp_path / "out.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert table.schema.field("z_other_um").metadata[b"unit"] == b"um"
    assert [
        z
        for z, number in zip(table["z_um"].to_pylist(), table["track"].to_pylist(), strict=True)
        if number == 1
    ] == AS_KNOWN


def test_a_live_file_is_read_as_far_as_it_is_decided(tmp_path):
    path = tmp_path / "tracks.h5"
    with TrajectoryWriter(path, run_id="run", attributes={}) as writer:
        for frame in range(8):
            writer.append(sided(frame))
        writer.commit()
        with TrajectoryFile(path) as file:
            pieces = list(file.trajectories())
            assert (pieces[0].z_um[pieces[0].track == 1] == 5.0).all()
            writer.append(revising(8, 5))
            writer.commit()
            assert file.refresh() == 1
            found = collect(file.trajectories())
            assert found.z_um[found.track == 1].tolist() == AS_KNOWN[:9]


def test_a_crash_in_the_middle_of_a_commit_costs_only_what_was_not_committed(revised, tmp_path):
    whole = depths(revised)
    with TrajectoryWriter(tmp_path / "live.h5", run_id="run", attributes={}) as writer:
        for frame in range(6):
            writer.append(sided(frame))
        writer.commit()
        sets, file = writer._file._sets, writer._file
        torn = np.zeros(7, sets[1].dtype)
        torn["row"][:4] = file.rows + np.arange(4)  # the rest was allocated and never written
        written = file.sizes()["tracks/more"]
        sets[1].resize((written + 7,))
        sets[1][written:] = torn
        sets[1].flush()
        crashed = tmp_path / "crashed.h5"
        crashed.write_bytes((tmp_path / "live.h5").read_bytes())
    assert depths(crashed) == whole[:3] + [5.0] * 3
    report = recover(crashed)
    assert (report.frames, report.rows) == (6, 18)
    assert depths(crashed) == [5.0] * 6
    with h5py.File(crashed) as recovered:
        rows = recovered["tracks/more"]["row"]
        assert len(rows) == 12
        assert all(a < b for a, b in pairwise(rows.tolist()))


def test_a_file_of_an_earlier_version_is_read(revised):
    with h5py.File(revised, "r+") as file:
        del file["tracks/more"]
    assert depths(revised) == [5.0] * 8 + [-5.0] * 4
    pack(revised)
    assert depths(revised) == [5.0] * 8 + [-5.0] * 4
