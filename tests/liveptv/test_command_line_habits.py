"""Every command, given what it cannot use, says so in one line with the right status and leaves nothing behind."""

import os
import sys

import h5py
import numpy as np
import pytest
import tifffile
from ordinary_user import ordinary_user

from liveptv.cli import run_command_line

COMMANDS = {
    "info": "info IN",
    "report": "report IN",
    "recover": "recover IN",
    "export": "export IN -o OUT.csv",
    "track": "track IN -o OUT.h5",
    "detect": "detect IN -o OUT.csv",
    "detect with a model": "detect VIDEO -m IN -o OUT.csv --pixel-size 0.8",
    "detect with a flat field": "detect VIDEO --bright IN -o OUT.csv --pixel-size 0.8",
    "evaluate": "evaluate --truth IN --found IN",
    "evaluate against": "evaluate --truth TABLE --found IN",
    "calibrate": "calibrate IN -o OUT.h5 --z-step 1 --pixel-size 1",
    "calibrate with a reference": "calibrate VIDEO --bright IN -o OUT.h5 --z-step 1 --pixel-size 1",
    "train": "train IN -o OUT.onnx --minutes 0.01",
    "train on optics": "train --optics IN -o OUT.onnx --minutes 0.01",
    "replay": "replay IN -o OUT.h5 --set session.mode=threads",
    "run": "run IN -o OUT.h5",
    "scan": "scan IN -o OUT.ome.tif",
    "control": "control IN IN",
    "engine list": "engine list IN",
    "engine quantise": "engine quantise IN VIDEO",
    "bench": "bench engine -m IN --seconds 0.1",
}  # fmt: skip


def missing(folder):
    return folder / "nothing.h5"


def a_folder(folder):
    path = folder / "folder.h5"
    path.mkdir()
    return path


def an_empty_file(folder):
    path = folder / "empty.h5"
    path.touch()
    return path


def another_suffix(folder):
    path = folder / "notes.docx"
    path.write_bytes(b"PK\x03\x04" + bytes(200))
    return path


def another_kind(folder):
    path = folder / "other.h5"
    with h5py.File(path, "w") as file:
        file["something"] = ["else"]
    return path


def text_as_hdf5(folder):
    path = folder / "text.h5"
    path.write_text("frame,x_um\n1,2\n")
    return path


def bytes_as_csv(folder):
    path = folder / "bytes.csv"
    path.write_bytes(bytes(range(256)) * 8)
    return path


def no_permission(folder):
    path = folder / "secret.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    path.chmod(0)
    return path


INPUTS = [
    missing,
    a_folder,
    an_empty_file,
    another_suffix,
    another_kind,
    text_as_hdf5,
    bytes_as_csv,
    *([] if sys.platform == "win32" else [no_permission]),
]


@pytest.fixture(autouse=True)
def _permissions_count():
    with ordinary_user():
        yield


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    tifffile.imwrite(folder / "video.tif", np.full((3, 64, 64), 100, np.uint8), photometric="minisblack")
    (folder / "table.csv").write_text("frame,x_um,y_um\n0,1,2\n")
    return folder


def said(command, capsys):
    capsys.readouterr()
    status = run_command_line(command.split())
    return status, capsys.readouterr().err.strip()


@pytest.mark.parametrize("make", INPUTS)
@pytest.mark.parametrize("name", COMMANDS)
def test_an_input_that_is_no_good_is_an_error_of_one_line(tmp_path, good, capsys, name, make):
    path = make(tmp_path)
    before = sorted(tmp_path.iterdir())
    command = COMMANDS[name].replace("IN", str(path)).replace("OUT", str(tmp_path / "out"))
    command = command.replace("VIDEO", str(good / "video.tif")).replace("TABLE", str(good / "table.csv"))
    status, error = said(command, capsys)
    assert status in {1, 2}
    assert error.startswith("error: ")
    assert "\n" not in error
    assert "bug in liveptv" not in error
    left = [p for p in sorted(tmp_path.iterdir()) if p not in before and not p.name.endswith(".events.jsonl")]
    assert left == []


SEALED = [] if sys.platform == "win32" else ["sealed/out"]
OUTPUTS = {
    "track": "track TABLE -o OUT.h5",
    "detect": "detect VIDEO -o OUT.csv --pixel-size 1",
    "evaluate": "evaluate --truth TABLE --found TABLE -o OUT.html",
}


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("place", ["nowhere/out", "folder", "exists", *SEALED])
def test_an_output_that_cannot_be_written_is_an_error_of_one_line(tmp_path, good, capsys, name, place):
    command = (
        OUTPUTS[name].replace("VIDEO", str(good / "video.tif")).replace("TABLE", str(good / "table.csv"))
    )
    command = command.replace("OUT", str(tmp_path / place))
    output = tmp_path / command.rpartition(os.sep)[2].split()[0]
    if place == "folder":
        output.mkdir()
        command += " --overwrite"
    elif place == "exists":
        output.write_text("mine")
    elif place == "sealed/out":
        (tmp_path / "sealed").mkdir(mode=0o500)
    status, error = said(command, capsys)
    assert status == 1
    assert error.startswith("error: ")
    assert "\n" not in error
    if place == "exists":
        assert output.read_text() == "mine"


@pytest.mark.parametrize("command", [*COMMANDS.values(), *OUTPUTS.values()])
def test_an_option_that_is_not_there_is_wrong_usage(command, capsys):
    status, error = said(f"{command} --no-such-option", capsys)
    assert status == 2
    assert "\n" not in error
