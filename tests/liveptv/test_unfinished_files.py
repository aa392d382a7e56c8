import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tifffile

from liveptv.cli import run_command_line
from liveptv.shadowed_packages import HOME
from liveptv.tables import read_detection_table
from liveptv.workflows import offline
from stream.errors import OutputError
from stream.unfinished_files import UnfinishedFile, written_beside
from tracking.trajectories.file import read_trajectories


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path):
    target = tmp_path / "page.html"
    with written_beside(target) as part:
        part.write_text("half")
        assert names(tmp_path) == ["page.partial.html"]
    assert names(tmp_path) == ["page.html"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, MemoryError])
def test_what_failed_leaves_the_old_file_and_no_new_one(tmp_path, error):
    target = tmp_path / "page.html"
    target.write_text("old")

    def fail():
        with written_beside(target, overwrite=True) as part:
            part.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert names(tmp_path) == ["page.html"]
    assert target.read_text() == "old"


def test_ctrl_c_says_that_nothing_was_written(tmp_path):
    with pytest.raises(KeyboardInterrupt) as caught, written_beside(tmp_path / "a.csv"):
        raise KeyboardInterrupt
    assert "nothing was written to" in caught.value.__notes__[0]


def test_two_that_write_the_same_file_do_not_meet(tmp_path):
    one, other = UnfinishedFile(tmp_path / "a.csv"), UnfinishedFile(tmp_path / "a.csv")
    assert one.path != other.path
    one.finish()
    with pytest.raises(OutputError, match=r"a\.csv exists.*the complete result is in .*a\.partial-2\.csv"):
        other.finish()
    assert names(tmp_path) == ["a.csv", "a.partial-2.csv"]


def test_a_folder_that_is_missing_or_in_the_way_is_refused_at_once(tmp_path):
    with pytest.raises(OutputError, match="there is no folder"):
        UnfinishedFile(tmp_path / "no" / "a.csv")
    with pytest.raises(OutputError, match="it is a folder"):
        UnfinishedFile(tmp_path, overwrite=True)


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "video.tif"
    images = np.full((8, 64, 64), 120, np.uint8)
    images[:, 30:34, 30:34] = 60
    tifffile.imwrite(path, images, photometric="minisblack")
    return path


def stopping_after(frames, how):
    """`detect_images` or `iter_detections`, which something ends after some frames."""

    def wrap(function):
        def wrapped(*arguments, **options):
            for number, item in enumerate(function(*arguments, **options)):
                if number == frames:
                    raise how
                yield item

        return wrapped

    return wrap


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".h5"])
@pytest.mark.parametrize(
    "how", [KeyboardInterrupt(), KeyboardInterrupt("SIGTERM"), OutputError("the disk is full")]
)
def test_detect_that_is_stopped_keeps_what_it_found_under_another_name_and_says_so(
    tmp_path, video, capsys, monkeypatch, suffix, how
):
    how.__notes__ = []
    monkeypatch.setattr(offline, "detect_images", stopping_after(3, how)(offline.detect_images))
    found = tmp_path / f"found{suffix}"
    assert run_command_line(["detect", str(video), "-o", str(found), "--pixel-size", "0.5"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "3 of 8 frames with 3 particles are kept in" in said
    assert ("SIGTERM" in said) == (str(how) == "SIGTERM")
    assert not found.exists()
    table = read_detection_table(tmp_path / f"found.partial{suffix}")
    assert table.frame.tolist() == [0, 1, 2]


def test_detect_that_is_stopped_before_its_first_frame_leaves_nothing(tmp_path, video, capsys, monkeypatch):
    monkeypatch.setattr(
        offline, "detect_images", stopping_after(0, KeyboardInterrupt())(offline.detect_images)
    )
    assert run_command_line(["detect", str(video), "-o", str(tmp_path / "a.csv"), "--pixel-size", "1"]) == 1
    assert "error: stopped by the user" in capsys.readouterr().err
    assert names(tmp_path) == ["video.tif"]


def test_track_that_is_stopped_keeps_what_it_linked_and_says_so(tmp_path, capsys, monkeypatch):
    table, tracks = tmp_path / "table.csv", tmp_path / "tracks.h5"
    table.write_text("frame,x_um,y_um\n" + "".join(f"{k},{k},5\n" for k in range(40)))
    monkeypatch.setattr(
        offline, "iter_detections", stopping_after(25, KeyboardInterrupt())(offline.iter_detections)
    )
    assert run_command_line(["track", str(table), "-o", str(tracks), "--frame-rate", "20"]) == 1
    said = capsys.readouterr().err
    assert "stopped by the user; trajectories of the first 25 frames are kept in" in said
    assert names(tmp_path) == ["table.csv", "tracks.partial.h5"]
    found = read_trajectories(tmp_path / "tracks.partial.h5")
    assert len(found.frames) == 25
    assert found.attributes["end_reason"] == "stopped before the end of the table"


@pytest.mark.parametrize("signalled", [True, False])
def test_a_signal_that_a_library_turned_into_another_error_is_still_a_stop(
    tmp_path, capsys, monkeypatch, signalled
):
    monkeypatch.setattr("liveptv.cli.main.end_requested", event := threading.Event())
    if signalled:
        event.set()
    table, tracks = tmp_path / "table.csv", tmp_path / "tracks.h5"
    table.write_text("frame,x_um,y_um\n" + "".join(f"{k},{k},5\n" for k in range(40)))
    swallowed = TypeError("an integer is required")
    monkeypatch.setattr(offline, "iter_detections", stopping_after(25, swallowed)(offline.iter_detections))
    assert run_command_line(["track", str(table), "-o", str(tracks), "--frame-rate", "20"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: stopped by the user; trajectories of the first 25") == signalled
    assert ("bug in liveptv" in said) != signalled


def test_track_with_overwrite_keeps_the_old_file_until_the_new_one_is_whole(tmp_path, monkeypatch, capsys):
    table, tracks = tmp_path / "table.csv", tmp_path / "tracks.h5"
    table.write_text("frame,x_um,y_um\n" + "".join(f"{k},{k},5\n" for k in range(40)))
    arguments = ["track", str(table), "-o", str(tracks), "--frame-rate", "20", "--overwrite"]
    assert run_command_line(arguments) == 0
    before = tracks.read_bytes()
    monkeypatch.setattr(
        offline, "iter_detections", stopping_after(5, KeyboardInterrupt())(offline.iter_detections)
    )
    assert run_command_line(arguments) == 1
    assert tracks.read_bytes() == before


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no signal to send to another process")
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"])
def test_a_program_that_is_ended_from_outside_leaves_nothing_under_the_final_name(tmp_path, number):
    table, tracks = tmp_path / "table.csv", tmp_path / "tracks.h5"
    with table.open("w") as file:
        file.write("frame,x_um,y_um\n")
        file.writelines(f"{k},{k % 7},{20 * n}\n" for k in range(120_000) for n in range(5))
    process = subprocess.Popen(
        [sys.executable, "-m", "liveptv", "track", str(table), "-o", str(tracks), "--frame-rate", "20"],
        env=os.environ | {"PYTHONPATH": str(HOME)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    partial = tmp_path / "tracks.partial.h5"
    while process.poll() is None and not (partial.exists() and partial.stat().st_size > 4096):
        time.sleep(0.02)
    process.send_signal(getattr(signal, number))
    _, said = process.communicate(timeout=240)
    assert process.returncode != 0, said
    assert not tracks.exists()
    if number != "SIGKILL":
        assert process.returncode == 1
        assert said.startswith("error: stopped by the user")
        assert said.count("\n") == 1


FINALISER = """
import os, signal, sys, time
from liveptv.__main__ import _stop_politely
_stop_politely()
class Slow:
    def __del__(self):
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        time.sleep(0.01)
try:
    slow = Slow()
    del slow
    for _ in range(3000):
        time.sleep(0.01)
    print("went on")
except KeyboardInterrupt as error:
    print("stopped", error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no signal to send to another process")
@pytest.mark.parametrize(("name", "said"), [("SIGINT", ""), ("SIGTERM", "SIGTERM"), ("SIGHUP", "SIGHUP")])
def test_a_signal_that_comes_in_a_finaliser_is_not_lost(name, said):
    found = subprocess.run(
        [sys.executable, "-c", FINALISER, name],
        env=os.environ | {"PYTHONPATH": str(HOME)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == ["stopped", *said.split()]
    assert found.stderr == ""
