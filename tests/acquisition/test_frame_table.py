"""The frame table of a recording: what is written is read again, whatever happens to the end of the file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acquisition.recorder.frame_table import (
    EventBegan,
    EventEnded,
    FrameRow,
    FrameTableWriter,
    Lost,
    head_line,
    line,
    parse,
    read_frame_table,
    write,
)
from stream.errors import OutputError, SourceError
from stream.messages import FrameInfo

REAL = st.floats(allow_infinity=False)
TEXT = st.text(max_size=20)
WHOLE = st.integers(0, 2**53)
INFO = st.builds(
    FrameInfo, TEXT, WHOLE, WHOLE, REAL, WHOLE, REAL, REAL, REAL, REAL, REAL, REAL, REAL, REAL, REAL
)
ENTRIES = st.one_of(
    st.builds(FrameRow, WHOLE, st.none() | WHOLE, INFO),
    st.builds(lambda first, more, why: Lost(first, first + more, why), WHOLE, st.integers(0, 99), TEXT),
    st.builds(EventBegan, WHOLE, TEXT, TEXT, WHOLE, REAL),
    st.builds(EventEnded, WHOLE, REAL, REAL, WHOLE, WHOLE, WHOLE, WHOLE),
)
HEAD = head_line("a run", "tracks.h5", "tracks.frames.ome.zarr", pixels=7)


@given(ENTRIES)
def test_an_entry_is_read_as_it_was_written(entry):
    text = line(entry)
    assert text.endswith(b"\n")
    assert b"\n" not in text[:-1]
    assert repr(parse(text)) == repr(entry)  # NaN is equal to NaN here


@given(st.binary(max_size=80))
def test_no_line_makes_the_reader_fail(text):
    parse(text)


def info(frame):
    return FrameInfo("a run", frame, frame + 5, 0.1 * frame, 10**15 + frame, 1.7e9 + 0.1 * frame)


def rows(count):
    return [FrameRow(index, None, info(index)) for index in range(count)]


def test_a_file_torn_at_any_byte_has_all_whole_rows(tmp_path):
    path = tmp_path / "tracks.frames.jsonl"
    write(path, HEAD, rows(5))
    data = path.read_bytes()
    for length in range(len(HEAD), len(data)):
        path.write_bytes(data[:length])
        table = read_frame_table(path)
        assert [row.index for row in table.rows] == list(range(data[len(HEAD) : length].count(b"\n")))
    assert (table.run_id, table.head["pixels"]) == ("a run", 7)


def test_unknown_lines_and_keys_are_passed_over(tmp_path):
    path = tmp_path / "t.jsonl"
    write(path, HEAD, rows(1))
    with path.open("ab") as file:
        file.write(b'{"of a later version": 1}\nno json\n')
        file.write(line(rows(2)[1]).replace(b'"event"', b'"more":{"a":1},"event"'))
    table = read_frame_table(path)
    assert repr(table.rows) == repr(tuple(rows(2)))  # NaN is equal to NaN here
    assert (len(table.rows), table.skipped) == (2, 2)


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'{"kind":"start"}\n')
    with pytest.raises(SourceError, match="not a frame table"):
        read_frame_table(path)


def test_an_existing_table_is_not_overwritten(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists"):
        FrameTableWriter(path, HEAD)
    assert path.read_bytes() == b"mine"
