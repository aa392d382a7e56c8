"""What is in a recording after kill -9, and what other programs read while it is written.

First the recording stage alone, in a process of its own that is killed at random moments while frames come as
fast as it takes them: every frame that it had acknowledged must be in the image file, with its pixels, and in
the frame table. Before, the files are opened by others while they grow. Then whole runs of the simulated
microscope, of which one process, or all at once, are killed: what is in the recording and the trajectory file,
and whether the frame table accounts for every frame. `--napari PYTHON` opens each recording with the readers
that napari uses (ome-zarr, napari-ome-zarr), in a Python that has them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from reporting import save

from acquisition.recorder.closing import undeclared
from acquisition.recorder.frame_table import read_frame_table
from acquisition.recording import open_stack
from stream.errors import LivePTVError, NoRoomError
from stream.links import open_sender

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "acquisition"))
from recorded import frame, images_in, wrong_in

ROOT = Path(__file__).resolve().parents[1]
HELPERS = ROOT / "tests" / "acquisition"
KILLS, RUN_KILLS = 100, 20
SIZES = ((64, 80), (480, 640), (1440, 2560), (5, 60, 70))
KINDS = (
    ("ome-zarr", "auto"),
    ("ome-zarr", "none"),
    ("ome-zarr", "zstd"),
    ("ome-tiff", "none"),
    ("ome-tiff", "zstd"),
)
SUFFIX = {"ome-zarr": ".ome.zarr", "ome-tiff": ".ome.tif"}
LATEST_S = 0.8
STAGES = ("record", "acquire", "detect", "track", "write", "control", "all")

NAPARI = """
import sys
from napari_ome_zarr._reader import napari_get_reader
path = sys.argv[1]
(layer, *_), = napari_get_reader(path)(path)[:1]
layer = layer[0] if isinstance(layer, list) else layer
import numpy as np
print(layer.shape[0], int(np.asarray(layer[-1]).sum()))
"""


class Feeder(threading.Thread):
    """Sends frames until it is told to stop."""

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        super().__init__(daemon=True)
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.sender = open_sender(
            "shm://127.0.0.1:0", run_id="a run", source="bench", slot_bytes=nbytes, slots=12, credits=11
        )
        self._shape, self._dtype = shape, dtype
        self.ends = False
        self.sent = 0

    def run(self) -> None:
        while not self.ends:
            message = frame(self.sent, self._shape, self._dtype)
            while not self.ends:
                try:
                    self.sender.send(message, 0.05)
                except NoRoomError:
                    continue
                self.sent += 1
                break


def start(*command: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(HELPERS)))}
    return subprocess.Popen([sys.executable, *map(str, command)], text=True, env=environment)


def napari_reads(python: str | None, path: Path, images: int) -> bool | None:
    """Whether napari's readers show as many images; None if they are not there or it is no OME-Zarr."""
    if python is None or path.suffix != ".zarr" or not images:
        return None
    found = subprocess.run([python, "-c", NAPARI, str(path)], capture_output=True, text=True, check=False)
    if found.returncode:
        print(found.stderr[-500:], file=sys.stderr)
        return False
    return int(found.stdout.split()[-2]) >= images


def kill_the_stage(folder: Path, kills: int, napari: str | None) -> list[dict[str, Any]]:
    """Kill recording stages; count what was acknowledged, opened and lost, for each format."""
    rng = np.random.default_rng(1)
    rows = []
    for kind, compression in KINDS:
        count = {
            "kills": 0,
            "acknowledged": 0,
            "stored": 0,
            "acknowledged_lost": 0,
            "wrong": 0,
            "opened_live": 0,
            "opened_by_us": 0,
            "opened_by_napari": 0,
            "asked_napari": 0,
        }
        for _ in range(kills // len(KINDS)):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            shape = SIZES[rng.integers(len(SIZES))]
            dtype = ("uint8", "uint16")[rng.integers(2)]
            feeder = Feeder(shape, dtype)
            tracks, images = folder / "tracks.h5", folder / f"tracks.frames{SUFFIX[kind]}"
            table = folder / "tracks.frames.jsonl"
            address = feeder.sender.address
            process = start(HELPERS / "recorded.py", address, tracks, kind, compression, dtype, *shape)
            feeder.start()
            while not feeder.sender.account.acknowledged and process.poll() is None:
                time.sleep(0.002)
            until_s = time.monotonic() + rng.uniform(0, LATEST_S)
            while time.monotonic() < until_s:
                count["wrong"] += bool(wrong_in(images, read_frame_table(table)))
                count["opened_live"] += 1
            process.kill()
            process.wait()
            time.sleep(0.05)  # acknowledgements under way
            acknowledged = feeder.sender.account.acknowledged
            feeder.ends = True
            feeder.join()
            feeder.sender.close()
            found = read_frame_table(table)
            problem = wrong_in(images, found)
            if problem:
                print(kind, compression, shape, dtype, problem, file=sys.stderr)
            count["kills"] += 1
            count["acknowledged"] += acknowledged
            count["stored"] += len(found.rows)
            count["acknowledged_lost"] += max(0, acknowledged - len(found.rows))
            count["wrong"] += bool(problem)
            with contextlib.closing(open_stack(images)) as stack:
                count["opened_by_us"] += stack.info.planes >= len(found.rows)
            if (shown := napari_reads(napari, images, len(found.rows))) is not None:
                count["asked_napari"] += 1
                count["opened_by_napari"] += shown
        rows.append(
            {"case": "kill -9 of the recording stage", "format": kind, "compression": compression, **count}
        )
        print(rows[-1], flush=True)
    return rows


EXPERIMENT = """
[run]
seconds = 60
output = "tracks.h5"
overwrite = true
[microscope]
config = "simulated"
[record]
mode = "all"
format = "{kind}"
"""


def stage_pids(run: psutil.Process) -> dict[str, int]:
    """Processes of the stages by name, from the event log's lines."""
    found = {}
    for line in (Path(run.cwd()) / "tracks.events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["kind"] == "process" and "pid" in event:
            found[event["stage"]] = event["pid"]
    return found


def kill_runs(folder: Path, kills: int) -> list[dict[str, Any]]:
    """Kill one process of a run, or all of them, at random moments."""
    rng = np.random.default_rng(2)
    rows = []
    for number in range(kills):
        stage = STAGES[number % len(STAGES)]
        kind = ("ome-zarr", "ome-tiff")[(number // len(STAGES)) % 2]
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "e.toml").write_text(EXPERIMENT.format(kind=kind))
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        run = subprocess.Popen(
            [sys.executable, "-m", "liveptv", "run", "e.toml"],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        table = folder / "tracks.frames.jsonl"
        until_s = time.monotonic() + 90
        while not table.exists() and run.poll() is None and time.monotonic() < until_s:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 4))
        pids = stage_pids(psutil.Process(run.pid))
        if stage == "all":
            children = psutil.Process(run.pid).children(recursive=True)
            for process in [psutil.Process(run.pid), *children]:
                process.kill()
        else:
            os.kill(pids[stage], signal.SIGKILL)
            time.sleep(2)
            run.send_signal(signal.SIGINT)
        run.wait(90)
        images = folder / f"tracks.frames{SUFFIX[kind]}"
        found = read_frame_table(table)
        stored = images_in(images)
        numbers = [row.info.frame for row in found.rows]
        newest = max([*numbers, *(lost.last for lost in found.lost)], default=-1)
        row = {
            "case": "kill -9 in a run",
            "killed": stage,
            "format": kind,
            "rows": len(numbers),
            "images": len(stored),
            "images_missing": max(0, len(numbers) - len(stored)),
            "declared_lost": found.total_lost,
            "undeclared": sum(lost.count for lost in undeclared(found, newest + 1)),
            "empty": int((stored[: len(numbers)].reshape(len(numbers), -1).max(axis=1) == 0).sum()),
        }
        try:
            from tracking.trajectories.file import read_trajectories

            if stage == "all":
                from tracking.trajectories.recovery import recover

                recover(folder / "tracks.h5")
            tracks = read_trajectories(folder / "tracks.h5")
            row["frames_in_trajectory_file"] = len(tracks.frames)
            row["recording_named"] = tracks.attributes.get("recording", {}).get("images")
            row["other_run"] = tracks.attributes["run_id"] != found.run_id
        except LivePTVError as error:
            row["trajectories"] = str(error)
        rows.append(row)
        print(row, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=KILLS, help="of the recording stage")
    parser.add_argument("--run-kills", type=int, default=RUN_KILLS, help="of processes of whole runs")
    parser.add_argument("--napari", help="a Python with napari-ome-zarr")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "recording"
        rows = kill_the_stage(folder, options.kills, options.napari)
        rows += kill_runs(folder, options.run_kills)
    if options.json is not None:
        save(options.json, rows)


if __name__ == "__main__":
    main()
