"""The recorder at a camera's full rate, beside the detector, and beside what the disk takes.

`live`: runs by the command line with a camera of 60 full frames/s (1440 x 2560, 221 MB/s), in turn with
`record.mode` off and all: frames stored, lost and not declared, and the age of results, exposure to tracks. The
camera is a paced replay of a BigTIFF whose thousands of pages share the pixels of a few, so that no disk is
read. `rate`: the recording stage alone, in a process of its own, given full frames as fast as it takes them, in
turn with `dd` (with fdatasync, and with direct writes) on the same disk; and the processor time of a stored
frame.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from reporting import save

from acquisition.recorder.closing import undeclared
from acquisition.recorder.frame_table import read_frame_table
from acquisition.recorder.image_writer import ImageFacts
from acquisition.recorder.tiff_images import PLACE, TiffImages
from stream.errors import NoRoomError
from stream.links import open_sender
from stream.messages import Frame, FrameInfo
from tracking.trajectories.file import read_trajectories

ROOT = Path(__file__).resolve().parents[1]
HELPERS = ROOT / "tests" / "acquisition"
SHAPE, RATE_HZ = (1440, 2560), 60.0
PICTURES = 16  # different images of the camera
PARTICLES, NOISE = 120, 2.0  # of an image: spots, grey values
EXPERIMENT = """
[run]
seconds = {seconds}
output = "tracks.h5"
overwrite = true
[recording]
path = "{camera}"
frame_rate_hz = {rate}
pace = true
[link]
policy = "live"
[record]
mode = "{mode}"
format = "{kind}"
compression = "{compression}"
"""


def pictures() -> list[np.ndarray]:
    """Spots that move from image to image, on a background with noise."""
    rng = np.random.default_rng(0)
    height, width = SHAPE
    y, x = rng.uniform(30, height - 30, PARTICLES), rng.uniform(30, width - 30, PARTICLES)
    sigma, near = rng.uniform(2, 6, PARTICLES), np.arange(-20, 21)
    found = []
    for number in range(PICTURES):
        image = np.full(SHAPE, 90.0)
        for one in range(PARTICLES):
            row, column = int(y[one]), int((x[one] + 2 * number) % (width - 60)) + 30
            spot = 70 * np.exp(-(near[:, None] ** 2 + near[None] ** 2) / (2 * sigma[one] ** 2))
            top, left = min(max(row - 20, 0), height - 41), min(max(column - 20, 0), width - 41)
            image[top : top + 41, left : left + 41] += spot
        found.append((image + rng.normal(0, NOISE, SHAPE)).clip(0, 255).astype(np.uint8))
    return found


def camera_file(path: Path, frames: int) -> None:
    """A TIFF of many pages with the pixels of a few."""
    facts = ImageFacts(SHAPE, "uint8", 0.5, RATE_HZ, "camera", "camera")
    writer = TiffImages(path, facts, "none", overwrite=True)
    for number, image in enumerate(pictures()):
        writer.append(image, FrameInfo("camera", number, number, number / RATE_HZ, 0, 0.0))
    writer.commit()
    place = writer._committed_link
    entries = [writer._entries(at, SHAPE[0] * SHAPE[1], 0) for at in _strips(path)]
    end = writer._end + -writer._end % 8
    with path.open("r+b") as file:
        for number in range(PICTURES, frames):
            row = entries[number % PICTURES]
            ifd = (
                PLACE.pack(len(row)) + b"".join(struct.pack("<HHQQ", *entry) for entry in row) + PLACE.pack(0)
            )
            file.seek(end)
            file.write(ifd)
            file.seek(place)
            file.write(PLACE.pack(end))
            place, end = end + len(ifd) - 8, end + len(ifd)
        file.seek(writer._digits_at)
        file.write(b"%010d" % frames)
    writer.close()


def _strips(path: Path) -> list[int]:
    import tifffile

    with tifffile.TiffFile(path) as file:
        return [page.dataoffsets[0] for page in file.pages]


def live(
    folder: Path, camera: Path, seconds: float, mode: str, kind: str, compression: str
) -> dict[str, Any]:
    """One run by the command line."""
    for old in folder.glob("tracks*"):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    asked = {"mode": mode, "kind": kind, "compression": compression}
    (folder / "e.toml").write_text(EXPERIMENT.format(seconds=seconds, camera=camera, rate=RATE_HZ, **asked))
    busy = psutil.cpu_times()
    run = subprocess.run(
        [sys.executable, "-m", "liveptv", "run", "e.toml"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    after = psutil.cpu_times()
    if run.returncode:
        print(run.stdout[-800:], run.stderr[-400:], file=sys.stderr)
    file = read_trajectories(folder / "tracks.h5")
    age = file.frames["age_ms"]
    counts = file.attributes["accounts"]
    row: dict[str, Any] = {
        "case": "live",
        "mode": mode,
        "format": kind,
        "compression": compression,
        "exit": run.returncode,
        "frames": counts["acquire"]["received"],
        "in_file": len(file.frames),
        "lost_in_recording": counts["acquire"].get("lost_in_recording", 0),
        "age_p50_ms": float(np.nanpercentile(age, 50)),
        "age_p99_ms": float(np.nanpercentile(age, 99)),
        "idle": (after.idle - busy.idle) / (sum(after) - sum(busy)),
    }
    if mode == "all":
        table = read_frame_table(folder / "tracks.frames.jsonl")
        first, last = table.rows[0].info.time_s, table.rows[-1].info.time_s
        events = [json.loads(line) for line in (folder / "tracks.events.jsonl").read_text().splitlines()]
        row |= {
            "stored": len(table.rows),
            "declared_lost": table.total_lost,
            "undeclared": sum(each.count for each in undeclared(table, row["frames"])),
            "mb_per_s": len(table.rows) * SHAPE[0] * SHAPE[1] / max(last - first, 1e-9) / 1e6,
            "stored_part": counts["record"]["stored_bytes"] / max(1, len(table.rows) * SHAPE[0] * SHAPE[1]),
            "told": [e["text"] for e in events if e["kind"] == "recorder"],
        }
    print(json.dumps(row), flush=True)
    return row


def dd(folder: Path, seconds: float, direct: bool, rate: float = 1e9) -> float:
    """Bytes/s of dd: writes for about so long, from memory."""
    path = folder / "dd.bin"
    count = max(16, int(seconds * rate / 4e6))
    source = Path("/dev/zero")
    how = ["oflag=direct"] if direct else ["conv=fdatasync"]
    found = subprocess.run(
        ["dd", f"if={source}", f"of={path}", "bs=4M", f"count={count}", *how],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    path.unlink()
    taken = re.search(r"([\d.e+-]+) s, ", found.stderr)
    assert taken is not None
    return count * 4 * 2**20 / float(taken.group(1))


def rate(folder: Path, seconds: float, kind: str, compression: str) -> dict[str, Any]:
    """The recording stage alone, as fast as it goes; the time until everything is synced counts."""
    for old in folder.glob("tracks*"):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    nbytes = SHAPE[0] * SHAPE[1]
    link = {"slot_bytes": nbytes, "slots": 64, "credits": 63}
    sender = open_sender("shm://127.0.0.1:0", run_id="a run", source="bench", **link)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(HELPERS)))}
    child = subprocess.Popen(
        [
            sys.executable,
            HELPERS / "recorded.py",
            sender.address,
            folder / "tracks.h5",
            kind,
            compression,
            "uint8",
            *map(str, SHAPE),
        ],
        env=environment,
        stdout=subprocess.PIPE,
    )
    images = pictures()
    began_s, sent = 0.0, 0
    while True:
        try:
            sender.send(
                Frame(FrameInfo("a run", sent, sent, sent / 60, 0, 0.0), images[sent % PICTURES]), 1.0
            )
        except NoRoomError:
            continue
        sent += 1
        if sent == 70:  # the ring has been filled once: the memory of both ends is there
            began_s, first = time.perf_counter(), sender.account.acknowledged
            cpu = psutil.Process(child.pid).cpu_times()
        if sent > 70 and time.perf_counter() - began_s > seconds:
            break
    stage = psutil.Process(child.pid).cpu_times()
    sender.end()
    sender.flush(60.0)
    child.communicate(timeout=60)
    took_s = time.perf_counter() - began_s
    files = [path for path in folder.rglob("*") if path.is_file() and "tracks.frames" in str(path)]
    stored = sum(path.stat().st_size for path in files)
    frames = sent - first
    sender.close()
    row = {
        "case": "rate",
        "format": kind,
        "compression": compression,
        "frames": sent,
        "mb_per_s": frames * nbytes / took_s / 1e6,
        "stored_mb_per_s": frames * stored / sent / took_s / 1e6,
        "cpu_ms_a_frame": 1e3 * (stage.user + stage.system - cpu.user - cpu.system) / max(1, sent - 70),
    }
    print(json.dumps(row), flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", choices=("", "live", "rate", "long"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--folder", type=Path, help="disk to write to; left out: the temporary folder")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        folder = Path(scratch)
        if options.only in {"", "rate"}:
            for _ in range(options.repeats):
                for kind, compression in (("ome-zarr", "none"), ("ome-tiff", "none"), ("ome-zarr", "auto")):
                    row = {"dd_mb_per_s": dd(folder, 2, direct=False) / 1e6}
                    row["dd_direct_mb_per_s"] = dd(folder, 2, direct=True) / 1e6
                    rows.append(rate(folder, 4, kind, compression) | row)
                    print(row, flush=True)
        camera = folder / "camera.ome.tif"
        if options.only != "rate":
            camera_file(camera, int(RATE_HZ * 62))
        if options.only in {"", "live"}:
            for _ in range(options.repeats):
                for mode, kind, compression in (
                    ("off", "ome-zarr", "auto"),
                    ("all", "ome-zarr", "auto"),
                    ("all", "ome-zarr", "none"),
                    ("all", "ome-tiff", "none"),
                ):
                    rows.append(live(folder, camera, options.seconds, mode, kind, compression))
        if options.only in {"", "long"}:
            row = {"dd_mb_per_s": dd(folder, 4, direct=False) / 1e6}
            rows.append(live(folder, camera, 60, "all", "ome-zarr", "auto") | row)
    if options.json is not None:
        save(options.json, rows)


if __name__ == "__main__":
    main()
