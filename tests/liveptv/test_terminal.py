import io
import os
import subprocess
import sys

import pytest

from liveptv.shadowed_packages import HOME
from liveptv.terminal import is_unicode, safe_stream
from stream.safe_text import json_bytes, storable

CHINESE = "没有文件.csv"


class Closed(io.TextIOBase):
    """A stream whose reader is gone."""

    def write(self, _text):
        raise BrokenPipeError(32, "Broken pipe")

    def flush(self):
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "gbk", "utf-8"])
@pytest.mark.parametrize("text", [CHINESE, "µm", "bad\udcff", "😀", "plain"])
def test_text_that_an_encoding_does_not_have_is_escaped(encoding, text):
    raw = io.BytesIO()
    stream = safe_stream(io.TextIOWrapper(raw, encoding=encoding, newline="\n"))
    assert stream.write(f"{text}\n") == len(text) + 1
    stream.flush()
    assert raw.getvalue() == f"{text}\n".encode(encoding, "backslashreplace")
    assert stream.encoding == encoding


def test_a_stream_without_a_reader_or_without_a_terminal_takes_everything():
    for stream in (safe_stream(Closed()), safe_stream(None)):
        assert stream.write("text") == 4
        stream.flush()
        stream.writelines(["more", "text"])
        assert not stream.isatty()


def test_a_stream_is_made_safe_once():
    stream = safe_stream(io.StringIO())
    assert safe_stream(stream) is stream
    stream.write("text")


def test_which_streams_have_every_letter():
    assert is_unicode(io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert not is_unicode(io.TextIOWrapper(io.BytesIO(), encoding="cp1252"))


def liveptv(*arguments, **options):
    environment = os.environ | {"PYTHONPATH": str(HOME)} | options.pop("env", {})
    return subprocess.run(
        [sys.executable, "-m", "liveptv", *arguments],
        timeout=240,
        check=False,
        env=environment,
        stderr=subprocess.PIPE,
        **options,
    )


ENVIRONMENTS = [
    {"PYTHONIOENCODING": "cp1252"},
    {"PYTHONIOENCODING": "ascii:strict"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=str)
def test_a_path_that_the_terminal_cannot_show_does_not_end_a_command(tmp_path, environment):
    table = tmp_path / CHINESE
    table.write_text("frame,x_um,y_um\n0,1,2\n1,1,2\n2,1,2\n", encoding="utf-8")
    tracks = tmp_path / "轨迹.h5"
    done = liveptv("track", str(table), "-o", str(tracks), env=environment, stdout=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")
    assert tracks.is_file()
    done = liveptv("info", f"{table}x", env=environment, stdout=subprocess.PIPE)
    assert done.returncode == 1
    assert b"is not a detection table" in done.stderr or b"error: " in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="pipes there report it otherwise")
def test_a_reader_that_goes_does_not_end_the_work(tmp_path):
    table, tracks = tmp_path / "table.csv", tmp_path / "tracks.h5"
    table.write_text("frame,x_um,y_um\n0,1,2\n1,1,2\n2,1,2\n", encoding="utf-8")
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = liveptv("track", str(table), "-o", str(tracks), stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
    assert tracks.is_file()


def test_names_that_are_no_text_are_stored_escaped():
    assert storable("a\udcffb") == "a\\udcffb"
    assert storable("µ") == "µ"
    assert json_bytes({"a": ["b\udcff", 1]}) == b'{"a":["b\\\\udcff",1]}'
