"""Whole runs that take frames from another program or from a folder: what they have, lack and say."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import zmq
from small_run import Run

from liveptv.cli.main import run_command_line
from liveptv.config import Experiment, build_experiment, load_experiment
from liveptv.session.link_rules import frame_rules
from liveptv.session.plan import ImageFormat
from stream.errors import ConfigurationError
from stream.link import Policy
from tracking.trajectories.file import TrajectoryFile

HEIGHT, WIDTH = 96, 128


def picture(number: int) -> npt.NDArray[np.uint8]:
    """Three bright particles that move by one pixel per frame."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    image = np.random.default_rng(number).normal(20, 2, (HEIGHT, WIDTH))
    for x0, y0 in ((10, 20), (20, 50), (15, 80)):
        image += 180 * np.exp(-((x - x0 - number % 90) ** 2 + (y - y0) ** 2) / 8)
    return image.clip(0, 255).astype(np.uint8)


def experiment_of(folder: Path, source: dict[str, Any], **sections: Any) -> Experiment:
    data = {
        "run": {"output": str(folder / "tracks.h5")},
        "source": source,
        "detector": {"polarity": "bright", "diameter_px": 9, "workers": 1},
        "session": {"hang_s": 20.0},
    }
    return build_experiment(data | sections, "the test")


def free_address() -> str:
    """Above the ports that Linux gives to whoever asks for any, so that nobody else gets it before it is used."""
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        return f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1', min_port=61_000)}"


@contextmanager
def sending(address: str, numbers: list[int]) -> Iterator[None]:
    """A program that sends these frames with garbage between them, then the end marker."""

    def work() -> None:
        with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
            socket.linger = 30_000
            socket.connect(address)
            for number in numbers:
                about = {"time_s": number / 40, "pixel_size_um": 0.5, "focus_um": 12.5}
                header = {"htype": "array-1.0", "source": "camera", "type": "uint8", "shape": [HEIGHT, WIDTH]}
                header |= {"frame": number, "info": about}
                socket.send_multipart([json.dumps(header).encode(), picture(number).tobytes()])
                socket.send_multipart([b"GET / HTTP/1.1"])
            end = {"htype": "array-1.0", "source": "camera", "type": "uint8", "shape": [0]}
            socket.send_multipart([json.dumps(end).encode(), b""])

    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join()


def test_frames_of_another_program_become_trajectories(tmp_path: Path) -> None:
    address = free_address()
    numbers = [*range(5, 40), *range(43, 60)]
    controller = {"hold_flow": {"target_um_s": 20.0, "max_flow_ul_s": 0.1}}
    experiment = experiment_of(tmp_path, {"listen": address}, link={"policy": "block"}, controller=controller)
    with sending(address, numbers):
        run = Run(experiment)
    assert run.result.ok
    with TrajectoryFile(run.files.tracks) as file:
        frames, attributes = file.frames[:], file.attributes
    assert frames["camera_frame"].tolist() == numbers
    assert np.allclose(frames["time_s"], (np.array(numbers) - 5) / 40)
    assert set(frames["focus_um"]) == {12.5}
    assert attributes["pixel_size_um"] == 0.5
    assert attributes["source"].startswith(f"camera at {address}")
    assert attributes["account"]["lost"] == {"at the sender or on the way from it": 3}
    assert attributes["accounts"]["acquire"]["malformed"] == len(numbers)
    assert run.result.counts["detect"]["particles"] >= 2 * len(numbers)
    assert any("waiting for the first frame" in note for note in run.notes)


def test_files_of_a_folder_become_trajectories(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(10):
        tifffile.imwrite(folder / f"img_{number:04d}.tif", picture(number))

    def work() -> None:
        for number in [*range(10, 20), *range(22, 30)]:
            tifffile.imwrite(folder / f"img_{number:04d}.tif", picture(number))
            time.sleep(0.02)
        (folder / "liveptv.end").touch()

    writer = threading.Thread(target=work)
    writer.start()
    source = {
        "watch": str(folder),
        "frame_rate_hz": 40,
        "pixel_size_um": 0.5,
        "missing_s": 5,
        "settled_s": 0.1,
    }
    run = Run(experiment_of(tmp_path, source))
    writer.join()
    assert run.result.ok
    with TrajectoryFile(run.files.tracks) as file:
        frames, attributes = file.frames[:], file.attributes
    assert frames["camera_frame"].tolist() == [*range(20), *range(22, 30)]
    assert np.allclose(frames["time_s"], frames["camera_frame"] / 40)
    assert attributes["account"]["lost"] == {"missing in the folder": 2}
    assert len(list(folder.iterdir())) == 29


def test_frames_that_are_sent_are_live_and_files_wait(tmp_path: Path) -> None:
    image = ImageFormat(8, 8, 1, "uint8", 1.0, float("nan"), None, "")
    sent = experiment_of(tmp_path, {"listen": "tcp://127.0.0.1:0"})
    files = experiment_of(tmp_path, {"watch": str(tmp_path)})
    assert frame_rules(sent, image).policy is Policy.LIVE
    assert frame_rules(files, image).policy is Policy.BLOCK


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "[source]\nlisten='tcp://127.0.0.1:1'\n[recording]\npath='x.tif'",
            "both a .recording. and a .source.",
        ),
        ("[source]\nlisten='tcp://0.0.0.0:5560'", "needs keys"),
        ("[source]\nwatch='images'\n[link]\npolicy='live'", "files of a folder wait"),
        ("[source]\nquiet_s=3", "exactly one of source.listen"),
    ],
)
def test_a_source_that_cannot_be_is_refused_in_one_line(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "experiment.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=reason) as caught:
        load_experiment(path)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_ends_the_command_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "experiment.toml"
    path.write_text(f"[source]\nwatch = '{(tmp_path / 'none').as_posix()}'")
    assert run_command_line(["run", str(path), "-o", str(tmp_path / "x.h5")]) == 1
    assert "there is no folder" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "x.h5").exists()
