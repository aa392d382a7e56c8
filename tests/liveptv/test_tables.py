import math
import re

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liveptv.tables import DetectionTableWriter, iter_detections, read_detection_table
from liveptv.tables import csv_columns as csv_table
from liveptv.tables.reader import read_columns
from stream.errors import ConfigurationError, OutputError, SourceError
from stream.messages import DetectionFlag, Detections, FrameInfo

SUFFIXES = (".csv", ".parquet", ".h5")
COLUMNS = ("frame", *(name for name in Detections.COLUMNS[:-1] if name not in Detections.MORE))
OPTIONAL = COLUMNS[3:]


def detections(frame, count=2, **columns):
    info = FrameInfo("run", frame, frame, 0.0, 0, 0.0)
    if count == 0:
        return Detections.empty(info)
    return Detections.from_columns(info, **{"x_um": np.arange(float(count)), "y_um": 2.0} | columns)


def write(path, messages, **more):
    with DetectionTableWriter(path, **more) as writer:
        for message in messages:
            writer.append(message)
    return path


def store(path, **columns):
    """A table made by another program, with these columns only."""
    if path.suffix == ".csv":
        rows = zip(*columns.values(), strict=True)
        path.write_text("\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)]) + "\n")
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    else:
        with h5py.File(path, "w") as file:
            file.update(columns)
    return path


def csv(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(params=SUFFIXES)
def path(request, tmp_path):
    return tmp_path / f"found{request.param}"


@pytest.fixture
def csv_path(tmp_path):
    return tmp_path / "found.csv"


number = st.floats(-1e6, 1e6)
optional = number | st.just(math.nan)
kind = st.integers(0, 100).map(float) | st.just(math.nan)


@st.composite
def messages(draw):
    frames = sorted(draw(st.sets(st.integers(0, 5000), max_size=5)))
    found = []
    for frame in frames:
        rows = draw(
            st.lists(
                st.tuples(
                    number, number, *(kind if name == "kind" else optional for name in Detections.COLUMNS[2:])
                ),
                max_size=4,
            )
        )
        table = np.array(rows, np.float64).reshape(len(rows), len(Detections.COLUMNS)).T
        found.append(Detections(detections(frame, 0).info, np.ascontiguousarray(table)))
    return found


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(messages=messages())
@settings(max_examples=25, deadline=None)
def test_what_is_written_is_read_again(tmp_path_factory, suffix, messages):
    path = write(tmp_path_factory.mktemp("table") / f"found{suffix}", messages)
    table = read_detection_table(path)
    truth = np.concatenate([np.empty((len(Detections.COLUMNS), 0)), *(m.table for m in messages)], axis=1)[
        :-1
    ]
    assert table.frame.tolist() == [m.info.frame for m in messages for _ in range(len(m))]
    for column, name in zip(truth, Detections.COLUMNS[:-1], strict=True):
        found = getattr(table, name)
        assert found.dtype == np.float64
        if suffix != ".csv":
            assert np.array_equal(found, column, equal_nan=True)
        elif name == "brightness":
            assert np.allclose(found, column, rtol=5.1e-6, atol=0, equal_nan=True)
        else:
            assert np.allclose(found, column, rtol=0, atol=0.51e-4, equal_nan=True)


def test_what_becomes_known_late_makes_the_table_wider(path, monkeypatch):
    monkeypatch.setattr("liveptv.tables.writer.BLOCK_ROWS", 4)
    with DetectionTableWriter(path) as writer:
        writer.append(detections(0, 5, z_um=1.0))
        writer.append(detections(1, 5, z_um=2.0, chi_square=1.25))
        writer.append(
            detections(2, 5, z_um=3.0, z_other_um=[math.nan, -3.0, -3.0, math.nan, -3.0], p_other=0.25)
        )
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    found = read_columns(path)
    assert set(found) == {*COLUMNS, "z_other_um", "p_other", "chi_square"}
    assert found["z_um"].tolist() == [1.0] * 5 + [2.0] * 5 + [3.0] * 5
    assert np.array_equal(found["chi_square"], [math.nan] * 5 + [1.25] * 5 + [math.nan] * 5, equal_nan=True)
    assert np.array_equal(
        found["z_other_um"][9:], [math.nan, math.nan, -3.0, -3.0, math.nan, -3.0], equal_nan=True
    )
    assert np.isnan(found["p_other"][:10]).all()
    assert (found["p_other"][10:] == 0.25).all()
    table = read_detection_table(path)
    assert np.isnan(table.kind).all()
    assert list(table.columns()) == [*COLUMNS, "z_other_um", "p_other", "chi_square"]


def test_particles_at_an_end_of_a_volume_are_told_from_the_others_and_only_where_there_are_any(path):
    with_flags = detections(
        0, x_um=[1.0, 2.0], flags=[float(DetectionFlag.AT_END), float(DetectionFlag.REDUCED)]
    )
    write(path, [with_flags, detections(1)])
    if path.suffix == ".csv":
        header, *rows = path.read_text().splitlines()
        assert header.split(",")[-1] == "at_end"
        assert [row.rsplit(",", 1)[1] for row in rows] == ["1", "0", "0", "0"]
    elif path.suffix == ".parquet":
        assert pyarrow.parquet.read_table(path)["at_end"].to_pylist() == [1, 0, 0, 0]
    else:
        with h5py.File(path) as file:
            assert file["at_end"][:].tolist() == [1, 0, 0, 0]
    assert len(read_detection_table(path)) == 4
    write(path, [detections(0)], overwrite=True)
    assert "at_end" not in read_columns(path)
    if path.suffix == ".csv":
        assert "at_end" not in path.read_text()


def test_a_table_written_in_many_blocks_is_whole(path, monkeypatch):
    monkeypatch.setattr("liveptv.tables.writer.BLOCK_ROWS", 7)
    with DetectionTableWriter(path) as writer:
        for frame in range(40):
            writer.append(detections(frame, frame % 5, z_um=float(frame)))
        assert writer.rows == 80
    table = read_detection_table(path)
    assert len(table) == 80
    assert (table.z_um == table.frame).all()
    assert np.array_equal(table.frame, np.repeat(np.arange(40), np.arange(40) % 5))


def test_a_csv_read_in_blocks_is_whole_and_its_lines_are_counted_through(csv_path, monkeypatch):
    monkeypatch.setattr(csv_table, "BLOCK_BYTES", 50)
    lines = [f"{frame},1.5,{frame}" for frame in range(100)]
    table = read_detection_table(csv(csv_path, "\n".join(["frame,x_um,y_um", *lines])))
    assert table.y_um.tolist() == list(range(100))
    lines[71] = "71,abc,71"
    with pytest.raises(SourceError, match=r"line 73: x_um is 'abc'"):
        read_detection_table(csv(csv_path, "\n".join(["frame,x_um,y_um", *lines])))


def test_the_message_given_may_be_used_again_once_appended(path):
    message = detections(0, 3)
    with DetectionTableWriter(path) as writer:
        writer.append(message)
        message.table[:] = 99.0
    assert read_detection_table(path).x_um.tolist() == [0, 1, 2]


def test_columns_that_a_table_lacks_are_nan(path):
    table = read_detection_table(store(path, frame=[0, 1], x_um=[1.0, 2.0], y_um=[3.0, 4.0]))
    assert table.x_um.tolist() == [1.0, 2.0]
    for name in OPTIONAL:
        assert np.isnan(getattr(table, name)).all()
        assert len(getattr(table, name)) == 2


def test_columns_in_another_order_and_unknown_ones_do_no_harm(path):
    table = read_detection_table(
        store(path, other=[7.0, 8.0], y_um=[3.0, 4.0], z_um=[5.0, 6.0], frame=[0, 1], x_um=[1.0, 2.0])
    )
    assert table.columns()["z_um"].tolist() == [5.0, 6.0]
    assert table.y_um.tolist() == [3.0, 4.0]
    assert "other" not in table.columns()


def test_whole_numbers_and_singles_are_numbers_too(tmp_path):
    for suffix in (".parquet", ".h5"):
        path = store(
            tmp_path / f"other{suffix}",
            frame=np.array([0, 1], np.uint8),
            x_um=np.array([1.5, 2.5], np.float32),
            y_um=np.array([3, 4], np.int16),
        )
        table = read_detection_table(path)
        assert table.frame.dtype == np.int64
        assert table.x_um.tolist() == [1.5, 2.5]
        assert table.y_um.tolist() == [3.0, 4.0]


def test_frames_out_of_order_are_sorted_and_rows_of_a_frame_keep_their_order(path):
    table = read_detection_table(
        store(path, frame=[3, 0, 3, 1, 0], x_um=[1.0, 2.0, 3.0, 4.0, 5.0], y_um=[0.0] * 5)
    )
    assert table.frame.tolist() == [0, 0, 1, 3, 3]
    assert table.x_um.tolist() == [2.0, 5.0, 4.0, 1.0, 3.0]


@pytest.mark.parametrize("missing", ["frame", "x_um", "y_um"])
def test_a_required_column_that_is_missing_is_named_beside_those_there(path, missing):
    columns = {"frame": [0], "x_um": [1.0], "y_um": [2.0], "z_um": [3.0]}
    del columns[missing]
    with pytest.raises(SourceError, match=rf"no column {missing}.*it has: .*z_um"):
        read_detection_table(store(path, **columns))


def test_an_empty_table_is_a_table(path):
    assert len(read_detection_table(write(path, [detections(0, 0)]))) == 0
    assert len(read_detection_table(write(path, [], overwrite=True))) == 0
    assert list(iter_detections(read_detection_table(path), 20.0, "run")) == []


@pytest.mark.parametrize(("name", "value"), [("x_um", math.nan), ("y_um", math.inf), ("frame", -1.0)])
def test_a_bad_number_is_named_with_its_row(tmp_path, name, value):
    columns = {"frame": [0.0, 1.0, 2.0], "x_um": [1.0, 2.0, 3.0], "y_um": [1.0, 2.0, 3.0]}
    columns[name][1] = value
    for suffix in (".parquet", ".h5"):
        with pytest.raises(SourceError, match=rf"row 1 \(from 0\): {name} is {value:g}, not a"):
            read_detection_table(store(tmp_path / f"bad{suffix}", **columns))


BAD_LINES = {
    "0,abc,1,": r"line 4: x_um is 'abc', not a finite number",
    "0,,1,": r"line 4: x_um is empty, not a finite number",
    "0,inf,1,": r"line 4: x_um is 'inf', not a finite number",
    "0,1,NaN,": r"line 4: y_um is 'NaN', not a finite number",
    "0,1,2,deep": r"line 4: z_um is 'deep', not a number",
    "0.5,1,2,3": r"line 4: frame is '0.5', not a whole number from 0 on",
    "-1,1,2,3": r"line 4: frame is '-1', not a whole number",
    "1e300,1,2,3": r"line 4: frame is '1e300', not a whole number",
    ",1,2,3": r"line 4: frame is empty, not a whole number",
    "5,1": r"line 4: 2 fields, none for y_um",
    "0,1;2,3,4": r"line 4: x_um is '1;2'",
}


@pytest.mark.parametrize("line", BAD_LINES)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_bad_number_in_a_csv_is_named_with_its_line(csv_path, line, end):
    text = end.join(["frame,x_um,y_um,z_um", "0,1,2,3", "", line, "1,x,1,1", ""])
    csv_path.write_bytes(text.encode())
    with pytest.raises(SourceError, match=rf"found\.csv, {BAD_LINES[line]}"):
        read_detection_table(csv_path)


def test_csv_as_spreadsheets_and_people_write_it_is_read(csv_path):
    text = (
        '\ufeff"frame", "x_um",y_um,"label","z_um"\r\n'
        '0,1.5,2,"drop, large",3\r\n'
        "\r\n"
        "  1 , +2.5e0 ,3.0,, \r\n"
        "2,3,4,,nan\r\n"
        '"3",4,5,"",'
    )
    table = read_detection_table(csv(csv_path, text))
    assert table.frame.tolist() == [0, 1, 2, 3]
    assert table.x_um.tolist() == [1.5, 2.5, 3.0, 4.0]
    assert np.array_equal(table.z_um, [3.0, np.nan, np.nan, np.nan], equal_nan=True)


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 2**32 - 1), number, number, st.none() | number, st.none() | number),
        max_size=6,
    ),
    spaces=st.sampled_from(["", " ", "\t"]),
)
@settings(max_examples=60, deadline=None)
def test_numbers_of_a_csv_are_read_exactly_and_empty_fields_are_nan(tmp_path_factory, rows, spaces):
    path = tmp_path_factory.mktemp("table") / "found.csv"
    lines = ["frame,x_um,y_um,z_um,confidence"]
    lines += [f",{spaces}".join("" if v is None else repr(v) for v in row) for row in rows]
    table = read_detection_table(csv(path, "\n".join(lines)))
    expected = sorted(rows, key=lambda row: row[0])
    for index, name in enumerate(["frame", "x_um", "y_um", "z_um", "confidence"]):
        values = [math.nan if row[index] is None else row[index] for row in expected]
        assert np.array_equal(getattr(table, name), values, equal_nan=True)


@given(st.text("0123456789.,;-+einfa\" \t\n'#_x", max_size=60))
@settings(max_examples=150, deadline=None)
def test_whatever_a_csv_holds_it_is_a_table_or_an_error_with_a_line(tmp_path_factory, text):
    path = csv(tmp_path_factory.mktemp("table") / "found.csv", "frame,x_um,y_um,z_um\n" + text)
    table, said = None, ""
    try:
        table = read_detection_table(path)
    except SourceError as error:
        said = str(error)
    if table is None:
        assert re.search(r"line \d+: ", said)
    else:
        assert np.isfinite(table.x_um).all()
        assert (table.frame >= 0).all()
        assert len(table) == sum(bool(line.strip()) for line in path.read_text("utf-8").split("\n")[1:])


def test_a_file_that_is_not_there_or_has_another_suffix_is_refused(path, tmp_path):
    with pytest.raises(SourceError, match="there is no file"):
        read_detection_table(path)
    with pytest.raises(SourceError, match=r"is not a detection table; these end in \.csv, \.parquet, \.h5"):
        read_detection_table(tmp_path / "found.xlsx")
    with pytest.raises(ConfigurationError, match=r"end in \.csv, \.parquet, \.h5"):
        DetectionTableWriter(tmp_path / "found.txt")
    with pytest.raises(OutputError, match="no folder"):
        DetectionTableWriter(tmp_path / "nowhere" / path.name)


def test_a_file_of_another_format_under_the_suffix_is_an_error_that_names_it(path):
    path.write_bytes(b"\xff\xfe\x00\x01" * 50)
    with pytest.raises(SourceError, match=path.name):
        read_detection_table(path)
    path.write_bytes(b"")
    with pytest.raises(SourceError, match=path.name):
        read_detection_table(path)


@pytest.mark.parametrize("suffix", [".parquet", ".h5"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.99])
def test_a_file_cut_short_is_refused(tmp_path, suffix, kept):
    path = write(tmp_path / f"found{suffix}", [detections(frame, 50) for frame in range(50)])
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(SourceError, match=path.name):
        read_detection_table(path)


def test_h5_files_with_other_things_under_the_names_are_refused(tmp_path):
    path = tmp_path / "found.h5"
    for x in ([1.0, 2.0, 3.0], [[1.0, 2.0]], 1.0, ["a", "b"]):
        with h5py.File(path, "w") as file:
            file.update({"frame": [0, 1], "x_um": x, "y_um": [1.0, 2.0]})
        with pytest.raises(SourceError, match=r"found\.h5"):
            read_detection_table(path)
    with h5py.File(path, "w") as file:
        file.update({"frame": [0, 1], "y_um": [1.0, 2.0]})
        file.create_group("x_um")
    with pytest.raises(SourceError, match="x_um is not a dataset"):
        read_detection_table(path)


def test_parquet_with_text_is_refused_and_a_null_is_a_missing_value(tmp_path):
    path = tmp_path / "found.parquet"
    with pytest.raises(SourceError, match=r"found\.parquet"):
        read_detection_table(store(path, frame=[0], x_um=["a"], y_um=[1.0]))
    table = read_detection_table(store(path, frame=[0, 1], x_um=[1.0, 2.0], y_um=[1, 2], z_um=[None, 3]))
    assert np.array_equal(table.z_um, [np.nan, 3.0], equal_nan=True)
    with pytest.raises(SourceError, match=r"row 1 \(from 0\): frame is nan"):
        read_detection_table(store(path, frame=[0, None], x_um=[1.0, 2.0], y_um=[1, 2]))


def test_an_existing_table_is_refused_and_left_alone(path):
    path.write_text("mine")
    with pytest.raises(OutputError, match=r"exists.*--overwrite"):
        DetectionTableWriter(path)
    assert path.read_text() == "mine"
    assert len(read_detection_table(write(path, [detections(0)], overwrite=True))) == 2


def test_a_folder_in_the_way_is_an_error(path):
    path.mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        DetectionTableWriter(path, overwrite=True)


def test_a_closed_table_takes_no_more(path):
    writer = DetectionTableWriter(path)
    writer.append(detections(0))
    writer.close()
    writer.close()
    with pytest.raises(OutputError, match="closed"):
        writer.append(detections(1))
    assert len(read_detection_table(path)) == 2


def test_other_programs_find_units_beside_the_numbers(tmp_path):
    write(tmp_path / "found.parquet", [detections(0)])
    schema = pyarrow.parquet.read_schema(tmp_path / "found.parquet")
    assert schema.names == list(COLUMNS)
    assert schema.field("x_um").metadata[b"unit"] == b"um"
    with h5py.File(write(tmp_path / "found.h5", [detections(0)])) as file:
        assert file["sigma_z_um"].attrs["unit"] == "um"
        assert file["frame"].dtype == np.int64
    header, first, _ = write(tmp_path / "found.csv", [detections(0)]).read_text("ascii").splitlines()
    assert header == ",".join(COLUMNS)
    assert first == "0,0.0000,2.0000,,,,,,"


def test_a_table_is_played_from_its_first_frame_to_its_last_with_the_empty_ones(path):
    write(path, [detections(3, 2), detections(4, 0), detections(6, 1, z_um=5.0)])
    found = list(iter_detections(read_detection_table(path), 20.0, "again"))
    assert [message.info.frame for message in found] == [3, 4, 5, 6]
    assert [len(message) for message in found] == [2, 0, 0, 1]
    assert [message.info.time_s for message in found] == pytest.approx([0.15, 0.2, 0.25, 0.3])
    assert {message.info.run_id for message in found} == {"again"}
    assert found[0].x_um.tolist() == [0, 1]
    assert found[3].z_um.tolist() == [5.0]
    assert all(message.table.flags.c_contiguous for message in found)
