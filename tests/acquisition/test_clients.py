"""The example clients, as their users run them, feed a real source; so does an unmodified psi-datahub."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import zmq

from acquisition.listened.listened import Listened, open_listened
from acquisition.source_settings import SourceSettings
from stream.messages import Frame

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "examples" / "clients"
PATIENCE_S = 60.0
LIBRARIES = sorted((Path(zmq.__file__).parents[1] / "pyzmq.libs").glob("libzmq*.so*"))
"""The libzmq inside pyzmq's Linux wheel."""


def free_address() -> str:
    """Above the ports that Linux gives to whoever asks for any, so that nobody else gets it before it is used."""
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        return f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1', min_port=61_000)}"


def frames_of(address: str, command: list[str]) -> tuple[list[Frame], Listened]:
    """What a run takes from a program that sends to `address`, until its end marker."""
    with subprocess.Popen(command) as program:
        source = open_listened(
            SourceSettings(listen=address, quiet_s=PATIENCE_S), run_id="run", say=print, keeps_early=True
        )
        source.start()
        frames = []
        while not source.ended:
            frame = source.read(0.05)
            if frame is not None:
                frames.append(frame)
        source.close()
    assert program.returncode == 0
    return frames, source


def check(frames: list[Frame], source: Listened, count: int) -> None:
    assert [frame.info.camera_frame for frame in frames] == list(range(count))
    assert source.counts() == {"received": count, "lost_in_camera": 0, "lost_at_sender": 0}
    assert (source.info.height, source.info.width, source.info.pixel_size_um) == (240, 320, 0.65)
    times = [frame.info.time_s for frame in frames]
    assert times == sorted(set(times))


def test_the_python_client_for_volumes_feeds_a_run() -> None:
    address = free_address()
    frames, source = frames_of(address, [sys.executable, str(CLIENTS / "send_volumes.py"), address, "5"])
    assert [frame.info.camera_frame for frame in frames] == list(range(5))
    assert source.counts() == {"received": 5, "lost_in_camera": 0, "lost_at_sender": 0}
    info = source.info
    assert (info.depth, info.height, info.width, info.z_step_um) == (8, 96, 128, pytest.approx(0.4))
    for frame in frames:
        assert frame.image.max() > 100
        assert frame.info.volume is not None
        assert len(frame.info.volume.time_s) == 8


def test_the_python_client_feeds_a_run() -> None:
    address = free_address()
    frames, source = frames_of(address, [sys.executable, str(CLIENTS / "send_frames.py"), address, "12"])
    check(frames, source, 12)
    assert frames[3].image[80, 63] > frames[3].image[80, 73]


@pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("g++") is None or not LIBRARIES, reason="needs g++ on Linux"
)
def test_the_cpp_client_feeds_a_run(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parent / "zmq_declared.h", tmp_path / "zmq.h")
    program = tmp_path / "send_frames"
    where = LIBRARIES[0].parent
    options = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-pedantic", f"-I{tmp_path}"]
    source_file = CLIENTS / "send_frames.cpp"
    links = [
        str(LIBRARIES[0]),
        f"-Wl,-rpath,{where}",
        "-Wl,--disable-new-dtags",
        "-Wl,--allow-shlib-undefined",
    ]
    subprocess.run(["g++", *options, str(source_file), *links, "-o", str(program)], check=True)
    address = free_address()
    frames, source = frames_of(address, [str(program), address, "12"])
    check(frames, source, 12)
    assert source.info.dtype == "uint16"
    assert frames[5].image[120, 65] == frames[5].image.max()


@contextmanager
def publishing() -> Iterator[str]:
    """A program that publishes frames of 4 x 6 pixels, whose value is the frame's number, 200 a second."""
    context = zmq.Context()
    socket = context.socket(zmq.PUB)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    stop = threading.Event()

    def work() -> None:
        for number in range(10**6):
            header = (
                f'{{"htype":"array-1.0","source":"camera","type":"uint16","shape":[4,6],"frame":{number}}}'
            )
            socket.send_multipart([header.encode(), np.full((4, 6), number % 65536, np.uint16).tobytes()])
            if stop.wait(0.005):
                return

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield f"tcp://127.0.0.1:{port}"
    finally:
        stop.set()
        thread.join()
        context.destroy(linger=0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of psi-datahub, on newer Pythons
def test_psi_datahub_and_a_run_read_the_same_stream() -> None:
    datahub = pytest.importorskip("datahub")
    read: dict[int, np.ndarray] = {}

    class Notebook(datahub.Consumer):  # type: ignore[name-defined, misc]
        def on_channel_record(
            self, source: object, name: str, timestamp: object, pulse_id: int, value: np.ndarray, **_: object
        ) -> None:
            read[pulse_id] = value.copy()

    with publishing() as address:
        source = open_listened(SourceSettings(connect=address), run_id="run", say=print, keeps_early=True)
        source.start()
        other = datahub.Array10(url=address, mode="SUB")
        other.add_listener(Notebook())
        other.request({"start": 0, "end": 10})
        other.close()
        ours: dict[int, np.ndarray] = {}
        deadline_s = time.monotonic() + PATIENCE_S
        while not set(read) <= set(ours):
            assert time.monotonic() < deadline_s
            frame = source.read(0.05)
            if frame is not None:
                ours[frame.info.camera_frame] = frame.image
        source.close()
    assert len(read) >= 10
    for number, image in read.items():
        np.testing.assert_array_equal(ours[number], image)


def test_psi_datahub_feeds_a_run() -> None:
    pytest.importorskip("datahub")
    address = free_address()
    with publishing() as stream:
        script = [sys.executable, "-W", "ignore", str(CLIENTS / "datahub_to_run.py"), stream, address, "30"]
        with subprocess.Popen(script) as program:
            source = open_listened(
                SourceSettings(listen=address, quiet_s=PATIENCE_S), run_id="run", say=print, keeps_early=True
            )
            source.start()
            frames: list[Frame] = []
            while len(frames) < 30 and not source.ended:
                frame = source.read(0.05)
                if frame is not None:
                    frames.append(frame)
            source.close()
    assert program.returncode == 0
    assert source.info.name == "camera"
    for frame in frames:
        assert (frame.image == frame.info.camera_frame % 65536).all()
    assert source.counts()["lost_at_sender"] == 0
