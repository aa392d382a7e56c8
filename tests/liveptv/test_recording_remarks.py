"""What is assumed or decided of a recording is said on the screen, once, and stands in the trajectory file."""

import json

import numpy as np
import pytest
import tifffile

from liveptv.cli import run_command_line
from tracking.trajectories.file import read_trajectories

THREADS = ["--set", "session.mode=threads", "--set", "detector.diameter_px=12"]


@pytest.fixture(scope="module")
def moving():
    """Frames (24, 80, 120) of three particles that move 1.5 pixels a frame."""
    rng = np.random.default_rng(2)
    row, column = np.indices((80, 120))
    images = rng.normal(60, 2, (24, 80, 120))
    for frame in range(24):
        for y, x in ((18.0, 20.0), (40.0, 30.0), (62.0, 25.0)):
            images[frame] += 120 * np.exp(-((column - x - 1.5 * frame) ** 2 + (row - y) ** 2) / 10)
    return images.astype(np.uint8)


def write_imagej(path, images, **facts):
    facts = {"unit": "um", "axes": "TYX", **facts}
    tifffile.imwrite(path, images, imagej=True, resolution=(2, 2), metadata=facts)


def write_micromanager(path, images, elapsed_ms):
    with tifffile.TiffWriter(path) as writer:
        for frame, image in enumerate(images):
            facts = {"PixelSizeUm": 0.5}
            if elapsed_ms(frame) is not None:
                facts["ElapsedTime-ms"] = elapsed_ms(frame)
            tags = [(51123, 2, 0, json.dumps(facts), True)]
            writer.write(image, metadata=None, contiguous=False, extratags=tags)


CASES = {
    "a repeated stamp": (
        lambda p, i: write_micromanager(p, i, lambda k: 50 * (k if k != 9 else 8)),
        "repeats the",
        15,
    ),
    "a missing stamp": (
        lambda p, i: write_micromanager(p, i, lambda k: 50 * k if k != 9 else None),
        "no time stamp",
        15,
    ),
    "whole ms": (lambda p, i: write_micromanager(p, i, lambda k: k // 2), "spread evenly", 1500),
    "zero stamps": (
        lambda p, i: write_micromanager(p, i, lambda k: 0),
        "1 frame/s assumed (--frame-rate)",
        0.75,
    ),
    "slices": (lambda p, i: write_imagej(p, i, axes="ZYX", finterval=0.05), "taken as times", 15),
    "playback speed": (lambda p, i: write_imagej(p, i, fps=7.0), "not the frame rate of the camera", 0.75),
    "nothing": (lambda p, i: tifffile.imwrite(p, i, photometric="minisblack"), "1 um per pixel assumed", 1.5),
}


@pytest.mark.parametrize(("write", "told", "vx_um_s"), CASES.values(), ids=CASES)
def test_a_replay_says_what_it_assumed_once_and_measures_the_right_velocity(
    tmp_path, capsys, moving, write, told, vx_um_s
):
    video, tracks = tmp_path / "video.tif", tmp_path / "tracks.h5"
    write(video, moving)
    assert run_command_line(["info", str(video), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert sum(told in text for text in described["remarks"]) == 1
    assert run_command_line(["replay", str(video), "-o", str(tracks), *THREADS]) == 0
    screen = " ".join(capsys.readouterr().out.split())
    assert screen.count(told) == 1
    found = read_trajectories(tracks)
    assert np.median(found.vx_um_s) == pytest.approx(vx_um_s, rel=0.02)
    assert told in found.attributes["source"]


def test_nothing_is_said_of_a_recording_that_says_all(tmp_path, capsys, moving):
    video, tracks = tmp_path / "video.tif", tmp_path / "tracks.h5"
    write_micromanager(video, moving, lambda k: 50.0 * k)
    assert run_command_line(["info", str(video), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["frame_rate_hz"] == pytest.approx(20)
    assert described["remarks"] == []
    assert run_command_line(["replay", str(video), "-o", str(tracks), *THREADS]) == 0
    assert "video.tif:" not in capsys.readouterr().out


def test_axes_that_the_user_gives_are_used_by_replay_and_detect(tmp_path, capsys, moving):
    video, tracks, table = tmp_path / "video.tif", tmp_path / "tracks.h5", tmp_path / "found.csv"
    write_imagej(video, moving, axes="ZYX", spacing=2.0, finterval=0.05)
    given = ["--axes", "TYX"]
    assert run_command_line(["replay", str(video), "-o", str(tracks), *THREADS, *given]) == 0
    assert "focus series" not in capsys.readouterr().out
    assert np.median(read_trajectories(tracks).vx_um_s) == pytest.approx(15, rel=0.02)
    assert run_command_line(["detect", str(video), "-o", str(table), *THREADS[2:]]) == 0
    assert "the focus moves (--axes TYX if they are times)" in " ".join(capsys.readouterr().out.split())
    assert (
        run_command_line(["detect", str(video), "-o", str(table), "--overwrite", *THREADS[2:], *given]) == 0
    )
    assert "focus series" not in capsys.readouterr().out


@pytest.mark.parametrize(("axes", "why"), [("XYT", "must be the last two"), ("TWYX", "W is not an axis")])
def test_axes_that_cannot_be_are_wrong_usage(tmp_path, capsys, moving, axes, why):
    video = tmp_path / "video.tif"
    write_imagej(video, moving)
    for command in (["replay"], ["detect"]):
        assert run_command_line([*command, str(video), "-o", str(tmp_path / "a.h5"), "--axes", axes]) == 2
        error = capsys.readouterr().err.strip()
        assert why in error
        assert "\n" not in error
    assert run_command_line(["detect", str(video), "-o", str(tmp_path / "a.h5"), "--axes", "TZYX"]) == 2
    assert "are 4, but video.tif has 3" in capsys.readouterr().err
