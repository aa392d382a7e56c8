"""What is in a trajectory file after its writer was killed, and what others read while it is written.

`kill -9` at random moments of a process that commits every frame: what the file has, opened as it is and after
`liveptv recover`, against the last frame that the process had acknowledged. Then some readers that poll a file
while frames are committed as fast as they go; a bad read is a row that is not what was written. Last, the time
of one append with its commit, and the size of a finished file of tracked particles before and after packing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from reporting import save

from stream.errors import SourceError
from stream.messages import Detections
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker
from tracking.trajectories.compression import pack
from tracking.trajectories.file import TrajectoryWriter, read_trajectories
from tracking.trajectories.recovery import recover

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "tracking"))
from flows import channel_flow
from trajectory_files import tracks

ROOT = Path(__file__).resolve().parents[1]
HELPERS = ROOT / "tests" / "tracking"

KILLS, KILLED_ROWS, LATEST_S = 50, 700, 1.5
READERS, READ_FRAMES, READ_ROWS = 4, 10_000, 200
APPENDED_ROWS, APPENDS = 2000, 400
REAL_PARTICLES, REAL_FRAMES = 2000, 120

READER = """
import sys
import time
from pathlib import Path
import numpy as np
from tracking.trajectories.file import TrajectoryFile
path, frames, rows = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
deadline_s = time.monotonic() + 500
with TrajectoryFile(path) as file:
    print("open", flush=True)
    seen, checked, bad, polls = len(file.frames), 0, 0, 0
    while seen < frames and time.monotonic() < deadline_s:
        seen += file.refresh()
        polls += 1
        piece = file.rows(checked, file.row_count)
        bad += int(((piece["x_um"] != piece["frame"]) | (piece["z_um"] != piece["frame"])).sum())
        bad += int((piece["frame"] != (checked + np.arange(len(piece))) // rows).sum())
        checked += len(piece)
        time.sleep(0.002)
print(seen, checked, bad, polls)
"""


def start(*command: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *map(str, command)], stdout=subprocess.PIPE, text=True, env=environment
    )


def kill(folder: Path, kills: int) -> dict[str, Any]:
    """Kill writers; count what opened, what was recovered and what was lost."""
    rng = np.random.default_rng(0)
    opened = recovered = lost = wrong = torn = 0
    for number in range(kills):
        path = folder / f"{number}.h5"
        process = start(HELPERS / "trajectory_files.py", path, 1_000_000, KILLED_ROWS)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0, LATEST_S))
        process.kill()
        said = process.communicate()[0].rpartition("\n")[0].split()
        acknowledged = int(said[-1]) if said else 0
        try:
            opened += len(read_trajectories(path).frames) > acknowledged
            report = recover(path)
            found = read_trajectories(path)
        except SourceError as error:
            print(error, file=sys.stderr)
            continue
        recovered += 1
        torn += report.frames_cut > 0 or report.rows_cut > 0
        lost += max(acknowledged + 1 - len(found.frames), 0)
        wrong += int((found.x_um != found.frame).sum())
        path.unlink()
    return {
        "case": "kill -9", "kills": kills, "opened_as_they_were": opened, "recovered": recovered,
        "torn": torn, "acknowledged_frames_lost": lost, "wrong_rows": wrong,
    }  # fmt: skip


def read_live(folder: Path, readers: int, frames: int) -> dict[str, Any]:
    """Readers beside a writer."""
    path, script = folder / "live.h5", folder / "reader.py"
    script.write_text(READER)
    with TrajectoryWriter(path, run_id="run", attributes={}) as writer:
        writer.append(tracks(0, READ_ROWS, z_um=0.0))
        writer.commit()
        others = [start(script, path, frames, READ_ROWS) for _ in range(readers)]
        for other in others:
            assert other.stdout is not None
            other.stdout.readline()
        began_s = time.perf_counter()
        for frame in range(1, frames):
            writer.append(tracks(frame, READ_ROWS, z_um=float(frame)))
            writer.commit()
        took_s = time.perf_counter() - began_s
        writer.finalize({}, "done")
    results = [list(map(int, other.communicate()[0].split())) for other in others]
    path.unlink()
    return {
        "case": "live readers", "readers": readers, "frames": frames, "frames_per_s": frames / took_s,
        "frames_seen": min(r[0] for r in results), "bad_reads": sum(r[2] for r in results),
        "polls": sum(r[3] for r in results),
    }  # fmt: skip


def append(folder: Path) -> dict[str, Any]:
    """Time of one append and its commit."""
    times = []
    with TrajectoryWriter(folder / "append.h5", run_id="run", attributes={}) as writer:
        for frame in range(APPENDS):
            rows = tracks(frame, APPENDED_ROWS, z_um=1.5)
            start_s = time.perf_counter()
            writer.append(rows)
            writer.commit()
            times.append(1e3 * (time.perf_counter() - start_s))
    p50, p99 = np.percentile(times, (50, 99))
    return {"case": "append and commit", "rows": APPENDED_ROWS, "p50_ms": float(p50), "p99_ms": float(p99)}


def size(folder: Path) -> dict[str, Any]:
    """Bytes a row of tracked particles, every detection with errors, brightness and confidence of its own."""
    rng = np.random.default_rng(0)
    tracker, path = OnlineTracker(TrackerSettings()), folder / "size.h5"
    with TrajectoryWriter(path, run_id="run", attributes={"frame_rate_hz": 50.0}) as writer:
        for found in channel_flow(REAL_PARTICLES, 0.15, REAL_FRAMES, seed=1).detections:
            table, n = found.table.copy(), len(found)
            table[3:6] *= rng.lognormal(0, 0.3, (3, n))
            table[6:] = rng.lognormal(3, 0.5, n), rng.uniform(0.5, 1, n)
            writer.append(tracker.step(Detections(found.info, table)))
            writer.commit()
        writer.finalize({}, "done")
        rows = writer.rows
    before = path.stat().st_size
    start_s = time.perf_counter()
    after = pack(path)
    took_s = time.perf_counter() - start_s
    return {
        "case": "finished file", "rows": rows, "bytes_a_row": before / rows, "packed_bytes_a_row": after / rows,
        "packed_mb_per_s": before / took_s / 1e6,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--frames", type=int, default=READ_FRAMES, help="frames written beside the readers")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for measured in (
            kill(folder, options.kills), read_live(folder, READERS, options.frames), append(folder), size(folder)
        ):  # fmt: skip
            rows.append(measured)
            print(
                "  ".join(f"{n} {v:.4g}" if isinstance(v, float) else f"{n} {v}" for n, v in measured.items())
            )
    if options.json is not None:
        save(options.json, rows)


if __name__ == "__main__":
    main()
