"""Frames and rows a second into the trajectory file, beside plain h5py appends and the raw disk in one run.

Each is given the tracker's messages and writes the same columns. `liveptv` is `TrajectoryWriter`, committing every
frame or every eight (as the writing stage does under load), with all that makes the file readable meanwhile and
whole after a crash. `h5py` only appends: to one compound dataset, the same flushed with every frame, or to a
dataset a column. `raw file` writes as many bytes in blocks of 1 MiB, the machine's limit; `raw file, synced` waits
until they are on the disk. `times_raw` is the rate in bytes over that of `raw file`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from reporting import save

from stream.messages import FrameInfo, Tracks
from tracking.trajectories.file import TrajectoryWriter
from tracking.trajectories.schema import LIBVER, ROW, ROW_CHUNK, RecordArray

CASES = ((50, 4000), (400, 2000), (2000, 600), (10_000, 150))
BLOCK = 1 << 20
REPEATS = 3

Times = list[float]
Write = Callable[[Path, list[Tracks]], Times]


def make_tracks(rows: int, frames: int) -> list[Tracks]:
    """Tracks as the tracker sends them, every value drawn anew."""
    random = np.random.default_rng(1)
    tracks = []
    for frame in range(frames):
        info = FrameInfo("bench", frame, frame, frame / 100.0, 0, 1e9 + frame / 100.0)
        table = random.normal(100.0, 30.0, (len(Tracks.COLUMNS), rows))
        for name in ("track", "detection"):
            table[Tracks.COLUMNS.index(name)] = np.arange(rows)
        table[Tracks.COLUMNS.index("flags")] = 0
        tracks.append(Tracks(info, table))
    return tracks


def as_stored(tracks: Tracks) -> RecordArray:
    """The rows of a frame as the file stores them."""
    rows = np.zeros(len(tracks), ROW)
    for name in ROW.names or ():
        rows[name] = tracks.info.frame if name == "frame" else getattr(tracks, name)
    return rows


def liveptv(frames_a_commit: int) -> Write:
    def write(path: Path, tracks: list[Tracks]) -> Times:
        times = []
        with TrajectoryWriter(path, run_id="bench", attributes={}) as writer:
            for count, frame in enumerate(tracks, 1):
                start = time.perf_counter()
                writer.append(frame)
                if count % frames_a_commit == 0:
                    writer.commit()
                times.append(time.perf_counter() - start)
            start = time.perf_counter()
            writer.finalize({}, "done")
            times[-1] += time.perf_counter() - start
        return times

    return write


def compound(flush: bool) -> Write:
    def write(path: Path, tracks: list[Tracks]) -> Times:
        times = []
        with h5py.File(path, "w", libver=LIBVER) as file:
            dataset = file.create_dataset("rows", (0,), ROW, maxshape=(None,), chunks=(ROW_CHUNK,))
            for count, frame in enumerate(tracks, 1):
                start = time.perf_counter()
                dataset.resize((count * len(frame),))
                dataset[-len(frame) :] = as_stored(frame)
                if flush:
                    dataset.flush()
                times.append(time.perf_counter() - start)
            start = time.perf_counter()
        times[-1] += time.perf_counter() - start
        return times

    return write


def columns(path: Path, tracks: list[Tracks]) -> Times:
    times = []
    with h5py.File(path, "w", libver=LIBVER) as file:
        sets = {
            name: file.create_dataset(name, (0,), ROW[name], maxshape=(None,), chunks=(ROW_CHUNK,))
            for name in ROW.names or ()
        }
        for count, frame in enumerate(tracks, 1):
            start = time.perf_counter()
            for name, dataset in sets.items():
                dataset.resize((count * len(frame),))
                dataset[-len(frame) :] = frame.info.frame if name == "frame" else getattr(frame, name)
            times.append(time.perf_counter() - start)
        start = time.perf_counter()
    times[-1] += time.perf_counter() - start
    return times


def raw(sync: bool) -> Write:
    def write(path: Path, tracks: list[Tracks]) -> Times:
        left = ROW.itemsize * sum(map(len, tracks))
        block = np.random.default_rng(2).bytes(BLOCK)
        start = time.perf_counter()
        with path.open("wb", buffering=0) as file:
            while left > 0:
                left -= file.write(block[:left])
            if sync:
                os.fsync(file.fileno())
        return [(time.perf_counter() - start) / len(tracks)] * len(tracks)

    return write


WRITERS: dict[str, Write] = {
    "liveptv, a commit a frame": liveptv(1),
    "liveptv, a commit in 8 frames": liveptv(8),
    "h5py compound": compound(flush=False),
    "h5py compound, flushed": compound(flush=True),
    "h5py columns": columns,
    "raw file": raw(sync=False),
    "raw file, synced": raw(sync=True),
}


def measure(rows: int, frames: int, folder: Path) -> list[dict[str, Any]]:
    """Write each case a few times in turn; the best of each counts."""
    tracks = make_tracks(rows, frames)
    best: dict[str, tuple[Times, int]] = {}
    for _ in range(REPEATS):
        for case, write in WRITERS.items():
            path = folder / "bench.h5"
            times = write(path, tracks)
            size = path.stat().st_size
            path.unlink()
            if case not in best or sum(times) < sum(best[case][0]):
                best[case] = times, size
    found = [row_of(case, rows, *best[case]) for case in WRITERS]
    limit = next(row["mb_per_s"] for row in found if row["case"] == "raw file")
    for row in found:
        row["times_raw"] = row["mb_per_s"] / limit
    return found


def row_of(case: str, rows: int, times: Times, size: int) -> dict[str, Any]:
    frames, total_s = len(times), sum(times)
    return {
        "case": case,
        "rows_a_frame": rows,
        "frames": frames,
        "frames_per_s": frames / total_s,
        "rows_per_s": frames * rows / total_s,
        "mb_per_s": frames * rows * ROW.itemsize / total_s / 1e6,
        "p50_ms": 1e3 * float(np.percentile(times, 50)),
        "p99_ms": 1e3 * float(np.percentile(times, 99)),
        "bytes_a_row": size / (frames * rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", help="rows a frame, 100 frames each")
    parser.add_argument("--folder", type=Path, help="write into this folder, to measure its disk")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    cases = [(rows, 100) for rows in options.rows] if options.rows else CASES
    found: list[dict[str, Any]] = []
    print(
        f"{'rows a frame':>12}  {'case':<30}{'frames/s':>10}{'Mrows/s':>9}{'MB/s':>8}{'p99 ms':>8}{'of raw':>8}"
    )
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for rows, frames in cases:
            for row in measure(rows, frames, Path(folder)):
                found.append(row)
                print(
                    f"{rows:>12}  {row['case']:<30}{row['frames_per_s']:>10.0f}{row['rows_per_s'] / 1e6:>9.2f}"
                    f"{row['mb_per_s']:>8.0f}{row['p99_ms']:>8.2f}{row['times_raw']:>8.2f}",
                    flush=True,
                )
    if options.json is not None:
        save(options.json, found)


if __name__ == "__main__":
    main()
