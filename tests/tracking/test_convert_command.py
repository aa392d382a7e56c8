"""`liveptv export` in either direction, at the command line and from Python."""

import csv
import json

import numpy as np
import pytest
from interchange_files import differing, everything
from trajectory_files import tracks, write

from liveptv.cli import run_command_line
from tracking.export import export
from tracking.trajectories.file import TrajectoryFile, read_trajectories


@pytest.fixture
def path(tmp_path):
    frames = [
        tracks(
            frame,
            3,
            [0, 0, 4],
            x_um=np.array([0.5, 1.25, 2.0]) + frame,
            z_um=frame + 0.5,
            vx_um_s=10.0,
            confidence=0.5,
        )
        for frame in range(5)
    ]
    return write(tmp_path / "tracks.h5", frames, {"pixel_size_um": 0.5})


def run(capsys, *arguments):
    """Exit status and everything that was printed, in one line."""
    status = run_command_line([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, " ".join((captured.out + captured.err).split())


@pytest.mark.parametrize(
    "name", ["tracks.geff", "tracks.xml", "tracks.vtp", "flowtracks.zarr", "flow.h5", "t.csv", "t.parquet"]
)
def test_a_file_goes_to_another_program_and_comes_back(path, capsys, name):
    to = ["--to", "flowtracks"] if name.startswith("flow") else []
    there = path.with_name(name)
    status, said = run(capsys, "export", path, "-o", there, "--flagged", *to)
    assert status == 0
    assert "15 rows of 3 trajectories" in said
    assert "not in it:" in said
    back = path.with_name("back.h5")
    status, said = run(capsys, "export", there, "-o", back)
    assert status == 0, said
    assert "15 rows of 3 trajectories" in said
    assert differing(path, back) == ["time_s"] * name.endswith(".csv")
    assert everything(back).time_s == pytest.approx(everything(path).time_s, abs=1e-6)  # CSV has microseconds
    status, said = run(capsys, "info", back, "--json")
    assert json.loads(said)["imported"]["file"] == name
    assert run(capsys, "report", back)[0] == 0


def test_from_one_program_to_another_there_is_no_trajectory_file_left(path, capsys):
    geff = path.with_name("tracks.geff")
    export(path, geff)
    before = sorted(entry.name for entry in path.parent.iterdir())
    status, said = run(capsys, "export", geff, "-o", path.with_name("out.csv"))
    assert (status, "10 rows of 2 trajectories" in said) == (0, True)
    assert sorted(entry.name for entry in path.parent.iterdir()) == sorted([*before, "out.csv"])
    with path.with_name("out.csv").open() as file:
        assert [float(row["x_um"]) for row in csv.DictReader(file)][:2] == [0.5, 1.25]


def test_a_table_of_another_program_is_imported_with_its_tracks(tmp_path, capsys):
    table = tmp_path / "trackpy.csv"
    table.write_text("y,x,mass,frame,particle\n1.0,2.0,300,0,4\n1.5,2.5,300,1,4\n9,9,100,1,\n")
    assert run(capsys, "export", table, "-o", tmp_path / "out.h5")[0] == 1
    status, said = run(
        capsys, "export", table, "-o", tmp_path / "out.h5", "--pixel-size", "0.5", "--frame-rate", "10"
    )
    assert status == 0, said
    found = everything(tmp_path / "out.h5")
    assert found.x_um.tolist() == [1.0, 1.25, 4.5]
    assert found.track.tolist() == [4, 4, 5]
    assert found.time_s.tolist() == [0, 0.1, 0.1]
    assert read_trajectories(tmp_path / "out.h5").track.tolist() == [4, 4]
    assert "1 rows of no track are flagged tentative" in said


def test_what_cannot_be_imported_ends_in_one_line_and_leaves_nothing(tmp_path, capsys):
    table = tmp_path / "detections.csv"
    table.write_text("frame,x_um,y_um\n0,1,2\n")
    (tmp_path / "laughs.xml").write_text('<!DOCTYPE a [<!ENTITY b "c">]><TrackMate>&b;</TrackMate>')
    for name, why in (
        ("detections.csv", "no column of tracks; `liveptv track` links its detections"),
        ("laughs.xml", "document type"),
        ("none.geff", "there is no file"),
    ):
        before = sorted(entry.name for entry in tmp_path.iterdir())
        for output in ("out.h5", "out.csv"):
            status, said = run(capsys, "export", tmp_path / name, "-o", tmp_path / output)
            assert status == 1
            assert why in said
        assert sorted(entry.name for entry in tmp_path.iterdir()) == before


def test_an_import_replaces_a_file_only_on_request_and_never_its_source(path, capsys):
    geff = path.with_name("tracks.geff")
    export(path, geff)
    before = path.read_bytes()
    assert "--overwrite" in run(capsys, "export", geff, "-o", path)[1]
    assert path.read_bytes() == before
    flow = path.with_name("flow.h5")
    export(path, flow, to="flowtracks")
    before = flow.read_bytes()
    status, said = run(capsys, "export", flow, "-o", flow, "--overwrite")
    assert status == 2
    assert "would replace the input" in said
    assert flow.read_bytes() == before
    assert run(capsys, "export", geff, "-o", path, "--overwrite")[0] == 0
    with TrajectoryFile(path) as file:
        assert file.attributes["pixel_size_um"] == 0.5


def test_wrong_units_are_wrong_usage(path, capsys):
    geff = path.with_name("tracks.geff")
    export(path, geff)
    status, said = run(capsys, "export", geff, "-o", path.with_name("b.h5"), "--length-unit", "ell")
    assert status != 0
    assert "it may be um, nm, mm, m" in said
    status, said = run(capsys, "export", path, "-o", path.with_name("b.h5"))
    assert status != 0
    assert "--to flowtracks" in said
