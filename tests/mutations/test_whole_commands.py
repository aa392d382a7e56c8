"""A sample of the mutations through a program of its own, and through the whole pipeline."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from all_mutations import ALL
from command_run import check_no_traceback, command
from known_video import RATE_HZ, SPEED_UM_S

from tracking.trajectories.file import read_trajectories

ROOT = Path(__file__).resolve().parents[2]
CASES = {case.name: case for case in ALL}

MEASURED = [
    "ome-tiff: one stamp missing",
    "ome-tiff: one stamp repeated",
    "imagej: a time-lapse called slices",
    "micro-manager: the time of frame 5 is 30 s ahead",
    "micro-manager stack: 2 files, by number 2",
    "ome-zarr 0.4: the scale at the level of the multiscales",
    "ome-zarr 0.5: the scale in both, multiplied",
    "hdf5: big-endian",
    "folder: a gap of three, tif",
]
"""Files whose velocity can be measured right in spite of what is the matter with them."""


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", MEASURED)
def test_a_replay_measures_the_velocity_of_a_mutated_file(tmp_path, name):
    case = CASES[name]
    output = tmp_path / "tracks.h5"
    given = ["--frame-rate", RATE_HZ, "--pixel-size", 0.5] if case.given else []
    replay = command(
        "replay", case.make(tmp_path), "-o", output, *given, "--set", "session.mode=threads",
    )  # fmt: skip
    check_no_traceback(replay)
    assert replay.status == 0, replay.error
    rows = read_trajectories(output)
    tracks = [rows.track == number for number in np.unique(rows.track)]
    speeds = [np.polyfit(rows.time_s[one], rows.x_um[one], 1)[0] for one in tracks if one.sum() > 5]
    assert len(speeds) >= 6
    assert speeds == pytest.approx([SPEED_UM_S] * len(speeds), rel=0.03)


SHOWN = [
    "tiff: at once, cut to 3 bytes",
    "ome-tiff: the unit is 'pixel'",
    "micro-manager stack: 2 files, by number 1",
    "ome-zarr 0.5: the metadata of the array is cut",
    "csv: a row is too short",
]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", SHOWN)
def test_a_program_of_its_own_ends_as_the_command_in_this_process(tmp_path, name):
    path = CASES[name].make(tmp_path)
    here = command("info", path)
    done = subprocess.run(
        [sys.executable, "-m", "liveptv", "info", str(path)], capture_output=True, text=True, cwd=ROOT,
        encoding="utf-8", timeout=200, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == here.status
    assert done.stderr.split() == here.err.split()
