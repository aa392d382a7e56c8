"""Volumes of another program become trajectories in 3D: sent, or as files in a folder."""

import json
import threading

import numpy as np
import tifffile
import zmq
from made_volumes import PIXEL_UM, SHAPE, SIGMA_PX, SIGMA_Z, Z_STEP_UM, drawn, truth_um
from scipy.spatial import cKDTree
from small_run import Run

from liveptv.config import build_experiment
from tracking.trajectories.file import TrajectoryFile, read_trajectories

RATE_HZ, COUNT = 20.0, 24
SPOT_UM = [SIGMA_PX * PIXEL_UM, SIGMA_PX * PIXEL_UM, SIGMA_Z * Z_STEP_UM]
MISSING = {7: [2]}


def volume(number):
    return drawn(truth_um(number / RATE_HZ), number, MISSING.get(number, ()))


def experiment(folder, source):
    return build_experiment(
        {
            "run": {"output": str(folder / "tracks.h5")},
            "source": source,
            "detector": {"spot_um": SPOT_UM, "workers": 1},
            "session": {"mode": "threads"},
            "link": {"transport": "inproc", "policy": "block"},
        },
        "the test",
    )


def check(folder, missing=MISSING):
    tracks = read_trajectories(folder / "tracks.h5")
    places = np.column_stack([tracks.x_um, tracks.y_um, tracks.z_um])
    off_um = [cKDTree(truth_um(t)).query(at)[0] for t, at in zip(tracks.time_s, places, strict=True)]
    assert len(tracks) > 0.9 * COUNT * len(truth_um(0.0))
    assert np.median(off_um) < 0.25 * PIXEL_UM
    with TrajectoryFile(folder / "tracks.h5") as file:
        volumes = list(file.volumes(file.frames))
    assert {number: list(v.missing) for number, v in enumerate(volumes) if v.missing} == missing


def free_address():
    """Above the ports that Linux gives to whoever asks for any, so that nobody else gets it before it is used."""
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        return f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1', min_port=61_000)}"


def test_volumes_that_are_sent_are_tracked_in_3d(tmp_path):
    address = free_address()
    z_um = [Z_STEP_UM * k for k in range(SHAPE[0])]

    def work():
        with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
            socket.linger = 30_000
            socket.connect(address)
            for number in range(COUNT):
                image = volume(number)
                about = {"z_um": z_um, "missing": MISSING.get(number, [])}
                info = {
                    "time_s": number / RATE_HZ,
                    "pixel_size_um": PIXEL_UM,
                    "focus_um": 30.0,
                    "volume": about,
                }
                header = {
                    "htype": "array-1.0",
                    "type": "uint16",
                    "shape": image.shape,
                    "frame": number,
                    "info": info,
                }
                socket.send_multipart([json.dumps(header).encode(), image.tobytes()])
            socket.send_multipart([b'{"htype": "array-1.0", "type": "uint8", "shape": [0]}', b""])

    sender = threading.Thread(target=work)
    sender.start()
    run = Run(experiment(tmp_path, {"listen": address}))
    sender.join()
    assert run.result.ok, run.result.failures
    check(tmp_path)
    assert read_trajectories(tmp_path / "tracks.h5").attributes["volume"]["partial"] == 1


def test_stacks_in_a_folder_are_tracked_in_3d(tmp_path):
    folder = tmp_path / "stacks"
    folder.mkdir()
    about = {"axes": "ZYX", "spacing": Z_STEP_UM, "unit": "um"}
    for number in range(COUNT):
        tifffile.imwrite(
            folder / f"stack_{number:03d}.tif",
            volume(number),
            imagej=True,
            resolution=(1 / PIXEL_UM, 1 / PIXEL_UM),
            metadata=about,
        )
    (folder / "liveptv.end").touch()
    source = {"watch": str(folder), "frame_rate_hz": RATE_HZ, "settled_s": 0.05, "missing_s": 0.5}
    run = Run(experiment(tmp_path, source))
    assert run.result.ok, run.result.failures
    check(tmp_path, missing={})
