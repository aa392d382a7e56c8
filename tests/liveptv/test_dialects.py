import json
import math

import h5py
import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liveptv.cli import run_command_line
from liveptv.tables.columns_option import Wanted, parse_columns
from liveptv.tables.reader import read_columns, read_detection_table
from liveptv.tables.units import split_unit
from stream.errors import ConfigurationError, SourceError
from tracking.trajectories.file import read_trajectories

# Two particles in three frames, in um; what every table below says in its own way.
FRAME = [0, 0, 1, 1, 2, 2]
X_UM = [10.0, 50.0, 10.5, 50.25, 11.0, 50.5]
Y_UM = [20.0, 30.125, 20.0, 30.0, 20.0, 30.0]
TRACK = [4, 7, 4, 7, 4, 7]
PIXEL_UM = 0.5

TRACKMATE = "LABEL,ID,TRACK_ID,QUALITY,POSITION_X,POSITION_Y,POSITION_Z,POSITION_T,FRAME,RADIUS\n"
TRACKMATE_ROWS = (
    "Label,Spot ID,Track ID,Quality,X,Y,Z,T,Frame,Radius\n"
    "Label,Spot ID,Track ID,Quality,X,Y,Z,T,Frame,R\n"
    ",,,(quality),({unit}),({unit}),({unit}),(sec),,({unit})\n"
)


def lines(row, *, first=0, scale=1.0):
    return "".join(
        row.format(f=frame + first, x=x * scale, y=y * scale, t=track, n=index)
        for index, (frame, x, y, track) in enumerate(zip(FRAME, X_UM, Y_UM, TRACK, strict=True))
    )


def trackmate(unit, scale=1.0):
    body = lines("ID{n},{n},{t},3.2,{x},{y},0.0,0.1,{f},2.5\n", scale=scale)
    return TRACKMATE + TRACKMATE_ROWS.format(unit=unit) + body


def comma(text):
    return text.replace(",", ";").replace(".", ",")


TABLES = {
    "TrackMate, um": (trackmate("micron"), "", None, "TrackMate"),
    "TrackMate, um as ImageJ writes it": (trackmate("µm"), "", None, "TrackMate"),
    "TrackMate, pixels": (trackmate("pixel", 2.0), "", PIXEL_UM, "pixels of 0.5 um"),
    "TrackMate before version 7, units given": (
        TRACKMATE + lines("ID{n},{n},{t},3.2,{x},{y},0.0,0.1,{f},2.5\n"),
        "x=POSITION_X[um],y=POSITION_Y[um]",
        None,
        "TrackMate",
    ),
    "ThunderSTORM": (
        '"id","frame","x [nm]","y [nm]","sigma [nm]","intensity [photon]","uncertainty [nm]"\n'
        + lines("{n},{f},{x},{y},120.5,800,12\n", first=1, scale=1000),
        "",
        None,
        "ThunderSTORM: x [nm] in nm, frames counted from 1",
    ),
    "trackpy": (
        ",y,x,mass,size,ecc,signal,raw_mass,ep,frame,particle\n"
        + lines("{n},{y},{x},300,2.1,0.1,20,500,0.05,{f}.0,{t}\n", scale=2),
        "",
        PIXEL_UM,
        "trackpy",
    ),
    "Picasso": (
        "frame,x,y,photons,sx,sy,bg,lpx,lpy\n" + lines("{f},{x},{y},900,1.1,1.1,3,0.02,0.02\n", scale=2),
        "",
        PIXEL_UM,
        "Picasso",
    ),
    "ParticleTracker": (
        ",Trajectory,Frame,x,y,z,m0,m1\n" + lines("{n},{t},{f},{x},{y},0,3,4\n", scale=2),
        "",
        PIXEL_UM,
        "ParticleTracker",
    ),
    "ImageJ, calibrated": (
        " ,Area,Mean,X,Y,Slice\n" + lines("{n},12,100,{x},{y},{f}\n", first=1),
        "x=X[um],y=Y[um]",
        None,
        "ImageJ",
    ),
    "ImageJ, in pixels, tabs": (
        " \tArea\tMean\tX\tY\tFrame\n" + lines("{n}\t12\t100\t{x}\t{y}\t{f}\n", first=1, scale=2),
        "",
        PIXEL_UM,
        "ImageJ",
    ),
    "DefocusTracker": (
        "fr,X,Y,Z,DX,DY,DZ,id,bb,cm\n" + lines("{f},{x},{y},0.4,0,0,0,{t},1,0.9\n", first=1, scale=2),
        "x=X[px],y=Y[px]",
        PIXEL_UM,
        "DefocusTracker",
    ),
    "a German spreadsheet": (comma("frame,x_um,y_um,note\n" + lines("{f},{x},{y},gut\n")), "", None, ""),
    "Excel's separator line": ("sep=;\n" + comma("frame,x_um,y_um\n" + lines("{f},{x},{y}\n")), "", None, ""),
    "units in brackets": ("Frame;X (mm);Y (mm)\n" + lines("{f};{x};{y}\n", scale=1e-3), "", None, "in mm"),
    "numpy.savetxt": ("# frame x_um y_um\n" + lines("{f},{x},{y}\n"), "", None, ""),
    "names of one's own": (
        "Bild,Lage quer,Lage längs\n" + lines("{f},{x},{y}\n", first=1, scale=1000),
        "x_nm=Lage quer,y_nm=Lage längs,frame=Bild[1]",
        None,
        "by --columns",
    ),
    "missing values in words": (
        "frame,x_um,y_um,z_um\n" + lines("{f},{x},{y},NA\n").replace("NA", "None", 1), "", None, "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_another_program_is_read_in_um_with_frames_from_0(tmp_path, name, encoding):
    text, columns, pixel_um, told = TABLES[name]
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode(encoding))
    said = []
    found = read_columns(path, Wanted(parse_columns(columns), pixel_um), said.append)
    assert found["frame"].tolist() == FRAME
    np.testing.assert_allclose(found["x_um"], X_UM, atol=1e-9)
    np.testing.assert_allclose(found["y_um"], Y_UM, atol=1e-9)
    assert not np.isfinite(found.get("z_um", np.array([np.nan]))).any()
    assert len(said) == bool(told)
    assert all(told in line and "\n" not in line for line in said)


def test_standard_errors_and_trajectories_of_other_programs_are_read_too(tmp_path):
    path = tmp_path / "storm.csv"
    path.write_text(TABLES["ThunderSTORM"][0])
    table = read_detection_table(path)
    np.testing.assert_allclose(table.sigma_x_um, 0.012)
    np.testing.assert_allclose(table.sigma_y_um, 0.012)
    path.write_text(TABLES["trackpy"][0])
    found = read_columns(path, Wanted(pixel_size_um=PIXEL_UM))
    np.testing.assert_allclose(found["sigma_x_um"], 0.025)
    assert found["track"].tolist() == TRACK
    path.write_text(TABLES["TrackMate, um"][0])
    assert read_columns(path)["track"].tolist() == TRACK


def test_depths_of_another_program_are_read_unless_they_are_all_0(tmp_path):
    path = tmp_path / "spots.csv"
    path.write_text(trackmate("micron").replace(",0.0,0.1,", ",7.5,0.1,"))
    assert (read_detection_table(path).z_um == 7.5).all()


ASKED = {
    "TrackMate without units": (TRACKMATE + "ID1,1,0,3,1,2,0,0,0,2\n", "", r"POSITION_X has no unit.*columns x="),
    "trackpy without a pixel's size": (TABLES["trackpy"][0], "", r"x in pixels; give --pixel-size"),
    "bare x and y": ("frame,x,y\n0,1,2\n", "", r"x has no unit; give --pixel-size UM.*x=x\[um\]; it has: frame,"),
    "no frame": ("t [s],x [um],y [um]\n0,1,2\n", "", r"no column frame.*it has: t \[s\].*--columns frame=NAME"),
    "slices and frames": ("Area,X,Y,Slice,Frame\n1,2,3,1,1\n", "", r"no column frame.*frame=NAME"),
    "x twice": ("frame,x [um],x [nm],y [um]\n0,1,2,3\n", "", r"x \[um\] and x \[nm\] may both be x"),
    "a column twice": ("frame,x_um,x_um,y_um\n0,1,2,3\n", "", r"has 2 columns 'x_um'"),
    "TrackMate's edges": ("LABEL,TRACK_ID,EDGE_X_LOCATION\na,1,2,3\n", "", r"no column frame and no column x_um"),
    "frames from 0 where they are from 1": (
        TABLES["ThunderSTORM"][0].replace(",1,", ",0,", 1), "", r"frame is 0, but frames should be counted from 1",
    ),
    "no header": ("0,1.5,2.5\n1,1.6,2.6\n", "", r"has no header: line 1 is '0,1\.5,2\.5'"),
    "nothing": ("", "", "is empty"),
    "only comments": ("# nothing\n# at all\n", "", "is empty"),
    "decimal commas between commas": ("frame,x_um,y_um\n0,1,5,2,5\n", "", r"line 2: 5 fields where .* has 3"),
    "decimals or thousands": ("frame;x_um;y_um\n0;12,345;67,890\n", "", r"'12,345' may be a decimal number or"),
    "thousands and decimals": ("frame;x_um;y_um\n0;1.234,5;2,5\n", "", r"line 2: x_um is '1\.234,5'"),
    "underscores": ("frame,x_um,y_um\n0,1_0,2\n", "", r"line 2: x_um is '1_0'"),
    "half a frame": ("frame,x [nm],y [nm]\n0.5,1,2\n", "", r"line 2: frame is '0\.5', not a whole number"),
    "a negative frame": ("frame,x [nm],y [nm]\n-1,1,2\n", "", r"line 2: frame is '-1', not a whole number"),
    "a position that is none": ("frame,x [nm],y [nm]\n0,NaN,2\n", "", r"line 2: x \[nm\] is 'NaN', not a finite"),
    "a short row": ("frame,x [nm],y [nm]\n0,1\n", "", r"line 2: 2 fields, none for y \[nm\]"),
    "a column that is not there": ("a,b,c\n0,1,2\n", "x=q[um]", r"no column 'q.*it has: a, b, c"),
    "a unit that is none": ("a,b,c\n0,1,2\n", "x=b[furlong],y=c[um],frame=a", r"'furlong' is not a known unit"),
}  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
def test_what_a_table_does_not_say_is_asked_for_in_one_line(tmp_path, name):
    text, columns, why = ASKED[name]
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises((SourceError, ConfigurationError), match=why) as caught:
        read_columns(path, Wanted(parse_columns(columns)))
    assert str(path) in str(caught.value) or "unit" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x", "write it as x=NAME"),
        ("q=NAME", "there is no 'q'; name one of frame, x, y"),
        ("x=A,x_nm=B", "twice"),
        ("x=", "write it as"),
    ],
)
def test_columns_that_cannot_be_meant_are_refused(text, why):
    with pytest.raises(ConfigurationError, match=why):
        parse_columns(text)


def test_names_with_commas_and_brackets_can_be_named():
    given = parse_columns("x=X, centre[um],y=y [nm],frame=Frame[1]")
    assert [given[name].text for name in ("x_um", "y_um", "frame")] == [
        "X, centre[um]",
        "y [nm]",
        "Frame[1]",
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x [nm]", ("x", "nm")),
        ("X (µm)", ("x", "µm")),
        ("y_px", ("y", "px")),
        ("POSITION_X", ("position_x", "")),
        ("area [photon]", ("area [photon]", "")),
    ],
)
def test_a_unit_is_split_from_a_name(name, expected):
    assert split_unit(name) == expected


def test_a_pixel_size_for_a_table_in_um_is_wrong_usage(tmp_path):
    path = tmp_path / "found.csv"
    path.write_text("frame,x_um,y_um\n0,1,2\n")
    with pytest.raises(ConfigurationError, match="not in pixels; leave --pixel-size out"):
        read_columns(path, Wanted(pixel_size_um=0.5))


def test_parquet_of_pandas_is_read_like_text(tmp_path):
    path = tmp_path / "tp.parquet"
    frame = pandas.DataFrame({"y": [4.0], "x": [2.0], "mass": [1.0], "frame": [3], "ep": [0.1]})
    frame.to_parquet(path)
    said = []
    found = read_columns(path, Wanted(pixel_size_um=0.5), said.append)
    assert (found["frame"][0], found["x_um"][0], found["y_um"][0]) == (3, 1.0, 2.0)
    assert "trackpy" in said[0]


def test_picassos_localisations_are_read_from_their_table_in_hdf5(tmp_path):
    path = tmp_path / "locs.hdf5"
    fields = [("frame", "u4"), *((n, "f4") for n in ("x", "y", "photons", "lpx", "lpy"))]
    with h5py.File(path, "w") as file:
        file["locs"] = np.array([(5, 10, 20, 900, 0.25, 0.5)], fields)
    found = read_columns(path, Wanted(pixel_size_um=0.5))
    assert {n: float(v[0]) for n, v in found.items()} == {
        "frame": 5.0, "x_um": 5.0, "y_um": 10.0, "sigma_x_um": 0.125, "sigma_y_um": 0.25,
    }  # fmt: skip


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 999), st.floats(-999, 999), st.floats(-999, 999)), min_size=1, max_size=8
    ),
    separator=st.sampled_from([";", "\t"]),
    encoding=st.sampled_from(["utf-8", "utf-16", "latin-1"]),
)
@settings(max_examples=60, deadline=None)
def test_decimal_commas_are_read_as_the_numbers_they_are_or_refused(
    tmp_path_factory, rows, separator, encoding
):
    path = tmp_path_factory.mktemp("table") / "found.csv"
    text = "\n".join(
        ["frame x_um y_um".replace(" ", separator)]
        + [separator.join([str(f), f"{x:.6f}", f"{y:.2f}"]).replace(".", ",") for f, x, y in rows]
    )
    path.write_bytes(text.encode(encoding))
    found = read_columns(path)
    expected = sorted(rows, key=lambda row: row[0])
    np.testing.assert_allclose(found["x_um"], [x for _, x, _ in expected], atol=1e-6)
    np.testing.assert_allclose(found["y_um"], [y for _, _, y in expected], atol=1e-2)


def test_track_reads_another_programs_table_and_says_how(tmp_path, capsys):
    path, tracks = tmp_path / "spots.csv", tmp_path / "tracks.h5"
    rows = [
        f"ID,{k},{k % 3},1,{10 + 20 * (k % 3) + 0.75 * (k // 3)},{5 + 20 * (k % 3)},0,0,{k // 3},1"
        for k in range(60)
    ]
    path.write_text(TRACKMATE + TRACKMATE_ROWS.format(unit="micron") + "\n".join(rows) + "\n")
    assert run_command_line(["track", str(path), "-o", str(tracks), "--frame-rate", "20"]) == 0
    assert "spots.csv is read as TrackMate's spots: POSITION_X in micron" in capsys.readouterr().out
    found = read_trajectories(tracks)
    assert len(np.unique(found.track)) == 3
    assert np.median(found.vx_um_s) == pytest.approx(15.0, rel=0.02)
    assert np.isnan(found.z_um).all()


def test_evaluate_compares_tables_of_two_programs(tmp_path, capsys):
    truth, found = tmp_path / "truth.csv", tmp_path / "found.csv"
    truth.write_text(TABLES["ThunderSTORM"][0])
    found.write_text(TABLES["trackpy"][0])
    arguments = ["evaluate", "--truth", str(truth), "--found", str(found), "--json"]
    assert run_command_line([*arguments, "--pixel-size", "0.5"]) == 0
    out = capsys.readouterr()
    scores = json.loads(out.out)
    assert (scores["missed"], scores["false"]) == (0.0, 0.0)
    assert "ThunderSTORM" in out.err
    assert "trackpy" in out.err


def test_evaluate_says_where_one_table_counts_frames_from_1(tmp_path, capsys):
    truth, found = tmp_path / "truth.csv", tmp_path / "found.csv"
    truth.write_text("frame,x_um,y_um\n" + lines("{f},{x},{y}\n"))
    found.write_text("frame,x_um,y_um\n" + lines("{f},{x},{y}\n", first=1))
    arguments = ["evaluate", "--truth", str(truth), "--found", str(found), "--json"]
    assert run_command_line(arguments) == 0
    assert "counts from 1" in capsys.readouterr().err
    assert run_command_line([*arguments, "--columns", "frame=frame[1]"]) == 0
    out = capsys.readouterr()
    assert "counts from 1" not in out.err
    assert json.loads(out.out)["missed"] == 0.0


def test_info_says_how_another_programs_table_would_be_read(tmp_path, capsys):
    path = tmp_path / "tp.csv"
    path.write_text(TABLES["trackpy"][0])
    assert run_command_line(["info", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "trackpy: x in pixels" in found["read_as"]
    assert found["ranges"]["x"] == [20.0, 101.0]
    assert math.isclose(found["rows"], len(FRAME))
