"""The writer of trajectories in a live run: does it keep up with a camera, and with which share of a core?

The same rows are written by `TrajectoryWriter` (SWMR, room taken ahead, a commit mark, flushed at each commit),
by plain h5py appends in steps of the same size (no commit, no flush, no room taken), and as bytes to a raw file,
all in turn; medians of the repeats. Then the writer is given frames at a fixed rate. All is left to the system's
cache; only the writer's closing of its file waits for the disk. `writer.py` compares sizes of frames.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import h5py
import numpy as np
from reporting import device, save

from stream.messages import FrameInfo, Tracks
from tracking.trajectories.schema import (
    FRAME,
    FRAME_CHUNK,
    FRAMES,
    LIBVER,
    ROW,
    ROW_CHUNK,
    ROWS,
)
from tracking.trajectories.writer import TrajectoryWriter


def make_tracks(frames: int, tracks: int) -> list[Tracks]:
    random = np.random.default_rng(0)
    found = []
    for frame in range(frames):
        info = FrameInfo("bench", frame, frame, frame / 800, 0, 1e9 + frame / 800)
        table = random.normal(100.0, 30.0, (len(Tracks.COLUMNS), tracks))
        table[Tracks.COLUMNS.index("track")] = np.arange(tracks) + frame // 50
        table[Tracks.COLUMNS.index("detection")] = np.arange(tracks)
        table[Tracks.COLUMNS.index("flags")] = 0
        found.append(Tracks(info, table))
    return found


def as_stored(frames: list[Tracks]) -> np.ndarray[Any, Any]:
    rows = np.zeros((len(frames), len(frames[0])), ROW)
    for index, frame in enumerate(frames):
        rows["frame"][index] = frame.info.frame
        for name in ("track", "x_um", "y_um", "z_um", "vx_um_s", "brightness"):
            rows[name][index] = getattr(frame, name)
    return rows


def with_writer(path: Path, frames: list[Tracks], step: int) -> None:
    with TrajectoryWriter(path, run_id="bench", attributes={}) as writer:
        for count, frame in enumerate(frames, 1):
            writer.append(frame)
            if count % step == 0:
                writer.commit()
        writer.finalize({}, "done")


def with_h5py(path: Path, rows: np.ndarray[Any, Any], step: int) -> None:
    with h5py.File(path, "w", libver=LIBVER) as file:
        row_set = file.create_dataset(ROWS, (0,), ROW, maxshape=(None,), chunks=(ROW_CHUNK,))
        frame_set = file.create_dataset(FRAMES, (0,), FRAME, maxshape=(None,), chunks=(FRAME_CHUNK,))
        for start in range(0, len(rows), step):
            block = rows[start : start + step].reshape(-1)
            for dataset, values in (
                (row_set, block),
                (frame_set, np.zeros(min(step, len(rows) - start), FRAME)),
            ):
                first = dataset.shape[0]
                dataset.resize((first + len(values),))
                dataset[first:] = values


def with_raw_file(path: Path, rows: np.ndarray[Any, Any], step: int) -> None:
    entry = bytes(FRAME.itemsize)
    with path.open("wb", buffering=0) as file:
        for start in range(0, len(rows), step):
            file.write(rows[start : start + step])
            file.write(entry * min(step, len(rows) - start))


def seconds(action: Callable[[Path], None], folder: Path) -> tuple[float, float]:
    """Wall and processor time of writing one file."""
    path = folder / "bench.h5"
    began_s, cpu_s = time.perf_counter(), time.process_time()
    action(path)
    taken = time.perf_counter() - began_s, time.process_time() - cpu_s
    path.unlink()
    return taken


def compare(folder: Path, frames: list[Tracks], step: int, repeats: int) -> dict[str, Any]:
    """As fast as possible, in steps of so many frames."""
    rows = as_stored(frames)
    writers: dict[str, Callable[[Path], None]] = {
        "writer": lambda path: with_writer(path, frames, step),
        "h5py": lambda path: with_h5py(path, rows, step),
        "raw": lambda path: with_raw_file(path, rows, step),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in writers}
    for _ in range(repeats):
        for name, action in writers.items():
            taken[name].append(seconds(action, folder))
    wall_s = {name: median(wall for wall, _ in times) for name, times in taken.items()}
    tracks = rows.shape[1]
    return {
        "tracks_per_frame": tracks,
        "frames_per_commit": step,
        "frames_per_s": round(len(frames) / wall_s["writer"]),
        "rows_per_s": round(len(frames) * tracks / wall_s["writer"]),
        "mb_per_s": round(rows.nbytes / wall_s["writer"] / 1e6, 1),
        "h5py_frames_per_s": round(len(frames) / wall_s["h5py"]),
        "raw_frames_per_s": round(len(frames) / wall_s["raw"]),
        "ratio_to_h5py": round(wall_s["h5py"] / wall_s["writer"], 3),
        "ratio_to_raw": round(wall_s["raw"] / wall_s["writer"], 3),
        "cpu_us_per_frame": round(1e6 * median(cpu for _, cpu in taken["writer"]) / len(frames), 1),
    }


def paced(folder: Path, frames: list[Tracks], step: int, rate_hz: float) -> dict[str, Any]:
    """Frames at a fixed rate: share of a core, the longest commit, and how late the last frames were taken."""
    commits_ms, late_ms = [], []
    with TrajectoryWriter(folder / "paced.h5", run_id="bench", attributes={}) as writer:
        began_s, cpu_s = time.perf_counter(), time.process_time()
        for count, frame in enumerate(frames, 1):
            due_s = began_s + count / rate_hz
            wait_s = due_s - time.perf_counter()
            if wait_s > 0:
                time.sleep(wait_s)
            late_ms.append(1e3 * (time.perf_counter() - due_s))
            writer.append(frame)
            if count % step == 0 or count == len(frames):
                commit_s = time.perf_counter()
                writer.commit()
                commits_ms.append(1e3 * (time.perf_counter() - commit_s))
        elapsed_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    (folder / "paced.h5").unlink()
    return {
        "tracks_per_frame": len(frames[0]),
        "frames_per_commit": step,
        "given_frames_per_s": rate_hz,
        "taken_frames_per_s": round(len(frames) / elapsed_s, 1),
        "share_of_a_core": round(cpu_s / elapsed_s, 3),
        "commit_p50_ms": round(float(np.percentile(commits_ms, 50)), 2),
        "commit_max_ms": round(max(commits_ms), 2),
        "late_p99_ms": round(float(np.percentile(late_ms, 99)), 2),
        "late_at_end_ms": round(median(late_ms[-20:]), 2),
    }


def show(row: dict[str, Any]) -> dict[str, Any]:
    print("  ".join(f"{name} {value}" for name, value in row.items()))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=4000, help="frames of each file")
    parser.add_argument("--tracks", type=int, default=200, help="tracks of each frame")
    parser.add_argument("--rate", type=float, default=800.0, help="frames per second of the paced run")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--folder", type=Path, help="where to write; the system's temporary folder if not given"
    )
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    print(device())
    frames = make_tracks(options.frames, options.tracks)
    half_a_second = max(round(options.rate / 2), 1)
    steps = {"commit every 0.5 s": half_a_second, "as the write stage": 8, "commit each frame": 1}
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        with_writer(folder / "warm.h5", frames[:100], 8)
        for label, step in steps.items():
            rows.append(show({"what": label} | compare(folder, frames, step, options.repeats)))
        for label, step in steps.items():
            rows.append(show({"what": f"paced, {label}"} | paced(folder, frames, step, options.rate)))
    if options.json is not None:
        save(options.json, rows)


if __name__ == "__main__":
    main()
