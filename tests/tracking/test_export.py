import base64
import csv
import io
import json
import math
import sys
import xml.etree.ElementTree as ET
from itertools import pairwise

import numpy as np
import pyarrow.parquet
import pytest
from trajectory_files import FRAME_S, tracks, write

from stream.errors import ConfigurationError, OutputError, SourceError
from stream.messages import TrackFlag
from tracking.export import convert, export, table, vtp
from tracking.trajectories.file import TrajectoryWriter, read_trajectories

TENTATIVE, PREDICTED, SECOND_DETECTION = TrackFlag.TENTATIVE, TrackFlag.PREDICTED, TrackFlag.SECOND_DETECTION
FORMATS = ("csv", "parquet", "xml", "vtp")
COLUMNS = [
    "frame", "x_um", "y_um", "z_um", "sigma_x_um", "sigma_y_um", "sigma_z_um", "brightness", "confidence",
    "track", "time_s", "vx_um_s", "vy_um_s", "vz_um_s",
]  # fmt: skip
VTK_TYPES = {"Float32": "f4", "Float64": "f8", "Int32": "i4", "Int64": "i8", "UInt8": "u1"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tracks.h5"


@pytest.fixture
def mixed(path):
    """Tracks 0 and 1 count; 0 has a predicted row in frame 1; 2 is never confirmed, 3 a second detection."""
    return write(
        path,
        [
            tracks(0, 4, [0, TENTATIVE, TENTATIVE, 0], z_um=5.0, vx_um_s=100.0),
            tracks(1, [0, 1, 3], [PREDICTED, 0, SECOND_DETECTION], z_um=6.0, vx_um_s=100.0),
            tracks(2, 0),
            tracks(4, [1, 0], z_um=7.0, vx_um_s=100.0),
        ],
    )


def rows_of_csv(path):
    return list(csv.DictReader(io.StringIO(path.read_text("ascii"))))


def read_trackmate(path):
    """The root, each spot's (frame, x, y, z) by its number, and each track's spots in order."""
    root = ET.parse(path).getroot()
    assert root.tag == "TrackMate"
    model = root.find("Model")
    assert (model.get("spatialunits"), model.get("timeunits")) == ("micron", "sec")
    spots = {}
    for in_frame in model.find("AllSpots"):
        for spot in in_frame:
            assert spot.get("FRAME") == in_frame.get("frame")
            position = (float(spot.get(f"POSITION_{axis}")) for axis in "XYZ")
            assert spot.get("ID") not in spots
            spots[spot.get("ID")] = (int(spot.get("FRAME")), *position)
    assert int(model.find("AllSpots").get("nspots")) == len(spots)
    lines = {}
    for track in model.find("AllTracks"):
        edges = [(edge.get("SPOT_SOURCE_ID"), edge.get("SPOT_TARGET_ID")) for edge in track]
        assert all(before[1] == after[0] for before, after in pairwise(edges))
        line = [edges[0][0], *(target for _, target in edges)]
        assert int(track.get("NUMBER_SPOTS")) == len(line)
        lines[track.get("TRACK_ID")] = [spots[spot] for spot in line]
    assert [track.get("TRACK_ID") for track in model.find("FilteredTracks")] == list(lines)
    return root, spots, lines


def arrays_of_vtp(path):
    """The piece of a PolyData file and its arrays by section and name."""
    root = ET.parse(path).getroot()
    assert root.attrib == {
        "type": "PolyData", "version": "1.0", "byte_order": "LittleEndian", "header_type": "UInt64"
    }  # fmt: skip
    (piece,) = root.find("PolyData")
    arrays = {}
    for section in piece:
        for element in section:
            data = base64.b64decode("".join(element.text.split()), validate=True)
            size = int.from_bytes(data[:8], "little")
            assert size == len(data) - 8
            values = np.frombuffer(data[8:], VTK_TYPES[element.get("type")])
            components = int(element.get("NumberOfComponents", 1))
            arrays[section.tag, element.get("Name")] = (
                values if components == 1 else values.reshape(-1, components)
            )
    return piece, arrays


def lines_of_vtp(arrays):
    """For each poly-line, the numbers of its points."""
    return np.split(arrays["Lines", "connectivity"], arrays["Lines", "offsets"])[:-1]


def test_a_csv_has_a_row_for_each_measured_position_of_tracks_that_count(mixed):
    report = export(mixed, mixed.with_suffix(".csv"))
    assert (report.format, report.rows, report.tracks) == ("csv", 5, 2)
    rows = rows_of_csv(report.output)
    assert list(rows[0]) == COLUMNS
    assert [(row["frame"], row["track"]) for row in rows] == [
        ("0", "0"), ("0", "1"), ("1", "1"), ("4", "1"), ("4", "0")
    ]  # fmt: skip
    assert [float(row["z_um"]) for row in rows] == [5, 5, 6, 7, 7]
    assert float(rows[-1]["time_s"]) == pytest.approx(4 * FRAME_S)
    assert {row["vx_um_s"] for row in rows} == {"100.0000"}


def test_numbers_survive_in_a_csv_to_a_tenth_of_a_nanometre(path):
    random = np.random.default_rng(3)
    x, z = random.uniform(-5e3, 5e3, 200), random.normal(size=200)
    write(path, [tracks(0, 200, x_um=x, z_um=z, brightness=random.uniform(0, 6e4, 200), confidence=0.5)])
    rows = rows_of_csv(export(path, path.with_suffix(".csv")).output)
    stored = read_trajectories(path)
    for name in ("x_um", "z_um"):
        assert np.allclose([float(row[name]) for row in rows], getattr(stored, name), rtol=0, atol=0.5001e-4)
    assert np.allclose([float(row["brightness"]) for row in rows], stored.brightness, rtol=1e-5)


@pytest.mark.parametrize("suffix", FORMATS)
def test_predicted_and_unconfirmed_rows_are_put_in_on_request(mixed, suffix):
    def exported(**more):
        report = export(mixed, mixed.with_suffix(f".{suffix}"), overwrite=True, **more)
        return report.rows, report.tracks

    assert exported() == (5, 2)
    assert exported(include_predicted=True) == (6, 2)
    assert exported(include_flagged=True) == (8, 4)
    assert exported(include_predicted=True, include_flagged=True) == (9, 4)


@pytest.mark.parametrize("more", [{"include_predicted": True}, {"include_flagged": True}])
def test_rows_put_in_can_be_told_from_the_others_by_their_flags(mixed, more):
    everything = read_trajectories(mixed, **more)
    rows = rows_of_csv(export(mixed, mixed.with_suffix(".csv"), **more).output)
    assert list(rows[0]) == [*COLUMNS, "flags"]
    assert [int(row["flags"]) for row in rows] == everything.flags.tolist()
    export(mixed, mixed.with_suffix(".parquet"), **more)
    found = pyarrow.parquet.read_table(mixed.with_suffix(".parquet"))
    assert found["flags"].to_pylist() == everything.flags.tolist()
    _, arrays = arrays_of_vtp(export(mixed, mixed.with_suffix(".vtp"), **more).output)
    assert arrays["PointData", "flags"].tolist() == everything.flags.tolist()


def test_a_parquet_file_holds_every_value_exactly_with_its_unit(path):
    random = np.random.default_rng(4)
    write(
        path, [tracks(f, 50, x_um=random.normal(size=50), sigma_x_um=0.1) for f in range(3)], {"notes": "µ"}
    )
    export(path, path.with_suffix(".parquet"))
    found = pyarrow.parquet.read_table(path.with_suffix(".parquet"))
    truth = read_trajectories(path)
    assert found.column_names == COLUMNS
    for name in COLUMNS:
        assert np.array_equal(found[name].to_numpy(), getattr(truth, name), equal_nan=True), name
    units = {field.name: field.metadata[b"unit"].decode() for field in found.schema}
    assert (units["x_um"], units["vx_um_s"], units["time_s"], units["track"]) == ("um", "um/s", "s", "1")
    attributes = json.loads(found.schema.metadata[b"liveptv"])
    assert attributes["notes"] == "µ"
    assert attributes["statistics"]["tracks"] == 50


def test_arrays_among_the_attributes_survive_in_parquet(path):
    write(path, [tracks(0)], {"curve": np.linspace(0, 1, 2000)})
    export(path, path.with_suffix(".parquet"))
    schema = pyarrow.parquet.read_schema(path.with_suffix(".parquet"))
    assert json.loads(schema.metadata[b"liveptv"])["curve"] == np.linspace(0, 1, 2000).tolist()


def test_trackmate_gets_the_spots_of_each_track_joined_in_order_of_frames(mixed):
    root, spots, lines = read_trackmate(export(mixed, mixed.with_suffix(".xml")).output)
    assert lines == {
        "0": [(0, 0, 0, 5), (4, 4, 0, 7)],
        "1": [(0, 0, 1, 5), (1, 1, 1, 6), (4, 4, 1, 7)],
    }
    assert sorted(spots.values()) == sorted(spot for line in lines.values() for spot in line)
    times = {int(spot.get("FRAME")): float(spot.get("POSITION_T")) for spot in root.iter("Spot")}
    assert times == pytest.approx({0: 0.0, 1: FRAME_S, 4: 4 * FRAME_S})
    image = root.find("Settings/ImageData")
    assert float(image.get("timeinterval")) == pytest.approx(FRAME_S)
    assert int(image.get("nframes")) == 5


def test_a_track_of_one_row_is_a_spot_without_a_track_for_trackmate(path):
    write(path, [tracks(0, 2), tracks(1, 1)])
    _, spots, lines = read_trackmate(export(path, path.with_suffix(".xml")).output)
    assert len(spots) == 3
    assert list(lines) == ["0"]


def test_the_frame_interval_is_not_misled_by_frames_that_are_missing(path):
    write(path, [tracks(frame) for frame in (0, 10, 20, 21)])
    root, *_ = read_trackmate(export(path, path.with_suffix(".xml")).output)
    assert float(root.find("Settings/ImageData").get("timeinterval")) == pytest.approx(FRAME_S)


def test_text_among_the_attributes_cannot_break_the_xml(path):
    with TrajectoryWriter(path, run_id="<run> & 1", attributes={}) as writer:
        writer.append(tracks(0))
    root, *_ = read_trackmate(export(path, path.with_suffix(".xml")).output)
    assert "<run> & 1" in root.find("Log").text


def test_vtk_gets_a_line_for_each_track_through_its_own_points(mixed):
    piece, arrays = arrays_of_vtp(export(mixed, mixed.with_suffix(".vtp")).output)
    truth = read_trajectories(mixed)
    assert int(piece.get("NumberOfPoints")) == len(truth) == 5
    assert int(piece.get("NumberOfLines")) == 2
    points = arrays["Points", "points_um"]
    assert np.array_equal(points, np.stack([truth.x_um, truth.y_um, truth.z_um], axis=1))
    for name in ("track", "frame", "time_s", "brightness", "confidence", "flags"):
        assert np.array_equal(arrays["PointData", name], getattr(truth, name), equal_nan=True)
    assert np.array_equal(arrays["PointData", "velocity_um_s"][:, 0], truth.vx_um_s)
    assert arrays["PointData", "sigma_um"].shape == (5, 3)
    lines = lines_of_vtp(arrays)
    assert [truth.track[line].tolist() for line in lines] == [[0, 0], [1, 1, 1]]
    assert [truth.frame[line].tolist() for line in lines] == [[0, 4], [0, 1, 4]]
    assert arrays["CellData", "track_of_line"].tolist() == [0, 1]


def test_arrays_larger_than_what_is_encoded_at_once_are_whole(path, monkeypatch):
    write(path, [tracks(frame, 40, z_um=1.5) for frame in range(3)])
    whole = export(path, path.with_suffix(".vtp")).output.read_bytes()
    monkeypatch.setattr(vtp, "PIECE_BYTES", 30)
    pieces = export(path, path.with_suffix(".vtp"), overwrite=True).output
    assert pieces.read_bytes() == whole
    assert arrays_of_vtp(pieces)[1]["Points", "points_um"].shape == (120, 3)


def test_without_depth_tables_have_no_z_and_pictures_have_zero(path):
    write(path, [tracks(frame, 2) for frame in range(3)])
    rows = rows_of_csv(export(path, path.with_suffix(".csv")).output)
    assert {row["z_um"] for row in rows} == {""}
    assert "nan" not in path.with_suffix(".csv").read_text()
    export(path, path.with_suffix(".parquet"))
    found = pyarrow.parquet.read_table(path.with_suffix(".parquet"))
    assert all(math.isnan(z) for z in found["z_um"].to_pylist())
    _, spots, _ = read_trackmate(export(path, path.with_suffix(".xml")).output)
    assert {z for _, _, _, z in spots.values()} == {0.0}
    _, arrays = arrays_of_vtp(export(path, path.with_suffix(".vtp")).output)
    assert (arrays["Points", "points_um"][:, 2] == 0).all()


def test_a_file_without_rows_becomes_an_empty_one_of_each_format(path):
    write(path, [])
    assert rows_of_csv(export(path, path.with_suffix(".csv")).output) == []
    assert path.with_suffix(".csv").read_text().splitlines() == [",".join(COLUMNS)]
    export(path, path.with_suffix(".parquet"))
    found = pyarrow.parquet.read_table(path.with_suffix(".parquet"))
    assert (found.num_rows, found.column_names) == (0, COLUMNS)
    assert read_trackmate(export(path, path.with_suffix(".xml")).output)[1:] == ({}, {})
    piece, arrays = arrays_of_vtp(export(path, path.with_suffix(".vtp")).output)
    assert piece.get("NumberOfPoints") == piece.get("NumberOfLines") == "0"
    assert arrays["Points", "points_um"].shape == (0, 3)
    assert len(arrays["Lines", "offsets"]) == 0


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_read_in_pieces_is_exported_whole(path, suffix, monkeypatch):
    write(path, [tracks(frame, 7, z_um=2.0) for frame in range(9)])
    whole = export(path, path.with_suffix(f".{suffix}"))
    pieces = convert.TrajectoryFile.pieces
    monkeypatch.setattr(convert.TrajectoryFile, "pieces", lambda self: pieces(self, 10))
    monkeypatch.setattr(table, "BLOCK_ROWS", 3)
    again = export(path, path.with_name(f"again.{suffix}"))
    assert (again.rows, again.tracks) == (whole.rows, whole.tracks) == (63, 7)
    if suffix == "parquet":
        found, expected = map(pyarrow.parquet.read_table, (again.output, whole.output))
        assert found.to_pandas().equals(expected.to_pandas())
    else:
        assert again.output.read_bytes() == whole.output.read_bytes()


def test_a_run_still_on_is_exported_up_to_its_last_commit(path):
    with TrajectoryWriter(path, run_id="run", attributes={}) as writer:
        writer.append(tracks(0))
        writer.commit()
        writer.append(tracks(1))
        assert export(path, path.with_suffix(".csv")).rows == 3


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_existing_output_is_refused_and_left_alone(mixed, suffix):
    output = mixed.with_suffix(f".{suffix}")
    output.write_text("mine")
    with pytest.raises(OutputError, match=r"exists.*--overwrite"):
        export(mixed, output)
    assert output.read_text() == "mine"
    fresh = mixed.with_name(f"fresh.{suffix}")
    assert export(mixed, output, overwrite=True).rows == export(mixed, fresh).rows > 0
    assert output.stat().st_size == fresh.stat().st_size


def test_the_output_never_replaces_the_input(mixed):
    before = mixed.read_bytes()
    link = mixed.with_name("link.csv")
    link.hardlink_to(mixed)
    for output in (mixed, link):
        with pytest.raises(OutputError, match="the file to export"):
            export(mixed, output, to="csv", overwrite=True)
    assert mixed.read_bytes() == before


def test_an_input_named_like_an_unfinished_output_survives(mixed):
    before = mixed.read_bytes()
    source = mixed.rename(mixed.with_name("tracks.csv.part"))
    assert export(source, mixed.with_name("tracks.csv")).rows == 5
    assert source.read_bytes() == before


def test_the_format_can_be_named_apart_from_the_suffix(mixed):
    report = export(mixed, mixed.with_name("tracks.txt"), to="CSV")
    assert report.format == "csv"
    assert len(rows_of_csv(report.output)) == 5


@pytest.mark.parametrize("name", ["tracks.xlsx", "tracks"])
def test_an_unknown_suffix_is_refused_with_those_that_are_known(mixed, name):
    with pytest.raises(ConfigurationError, match=r"\.csv, \.parquet, \.xml, \.vtp"):
        export(mixed, mixed.with_name(name))


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_read(mixed):
    with pytest.raises(OutputError, match="no folder"):
        export(mixed, mixed.parent / "nowhere" / "tracks.csv")
    mixed.with_name("folder.csv").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        export(mixed, mixed.with_name("folder.csv"), overwrite=True)


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_export_that_fails_leaves_nothing_behind(path, suffix):
    path.write_text("not a trajectory file")
    with pytest.raises(SourceError, match="not an HDF5 file"):
        export(path, path.with_suffix(f".{suffix}"))
    with pytest.raises(SourceError, match="no file"):
        export(path.with_name("none.h5"), path.with_suffix(f".{suffix}"))
    assert [file.name for file in path.parent.iterdir()] == ["tracks.h5"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_disk_that_fills_up_leaves_the_former_output(mixed, suffix, monkeypatch):
    def fail(path, source):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    output = mixed.with_suffix(f".{suffix}")
    output.write_text("before")
    monkeypatch.setitem(convert.WRITERS, f".{suffix}", fail)
    with pytest.raises(OutputError, match="No space left"):
        export(mixed, output, overwrite=True)
    assert output.read_text() == "before"
    assert {file.name for file in mixed.parent.iterdir()} == {"tracks.h5", output.name}


def test_parquet_without_its_package_says_what_to_install(mixed, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigurationError, match=r"pip install.*parquet"):
        export(mixed, mixed.with_suffix(".parquet"))
