"""Time, size and memory of exports and imports of a long trajectory file, each in a process of its own.

python benchmarks/interchange.py [--rows 10000000] [--formats geff,xml,vtp,flowtracks,zarr,csv,parquet]
    [--no-import]

Prints a line a case: seconds of CPU, MB of the result, and the largest memory (resident, MB) of the process.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from stream.messages import FrameInfo, Tracks
from tracking.export import export
from tracking.imports import Assumed, read_foreign, recognise, write_foreign
from tracking.trajectories.compression import pack
from tracking.trajectories.file import TrajectoryWriter

A_FRAME, LIFE = 2000, 100  # particles in a frame, and frames for which each of them is tracked
NAMES = {"zarr": ("out.zarr", "flowtracks"), "flowtracks": ("out.h5", "flowtracks")}


def write(path: Path, rows: int) -> None:
    """A file of particles that drift, with everything known that a detector with depth knows."""
    random = np.random.default_rng(1)
    place = random.uniform(0, 500, (3, A_FRAME))
    number = np.arange(A_FRAME)
    with TrajectoryWriter(path, run_id="long", attributes={"pixel_size_um": 0.65}) as writer:
        for frame in range(rows // A_FRAME):
            new = (number + frame) % LIFE == 0
            number = np.where(new, number.max() + 1 + np.cumsum(new), number)
            place = place + random.normal(0, 0.1, place.shape)
            v, s = random.normal(0, 10, (3, A_FRAME)), random.uniform(0.05, 0.5, (3, A_FRAME))
            columns = {f"{axis}_um": place[i] for i, axis in enumerate("xyz")}
            columns |= {f"v{axis}_um_s": v[i] for i, axis in enumerate("xyz")}
            columns |= {f"sigma_{axis}_um": s[i] for i, axis in enumerate("xyz")}
            info = FrameInfo("long", frame, frame, frame / 60, 0, float("nan"))
            writer.append(
                Tracks.from_columns(
                    info,
                    track=number,
                    detection=np.arange(A_FRAME),
                    brightness=200 * s[0],
                    confidence=s[1],
                    **columns,
                )
            )
            if frame % 50 == 49:
                writer.commit()
        writer.finalize({}, "done")
    pack(path)


def size_mb(path: Path) -> float:
    """Size of a file or folder, MB."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def one(what: str, source: Path, output: Path, to: str | None) -> None:
    """One case, in this process."""
    begin = time.process_time()
    if what == "export":
        export(source, output, to=to)
    elif what == "import":
        assumed = Assumed(frame_rate_hz=60.0)
        found = read_foreign(source, recognise(source), assumed)
        write_foreign(found, source, output, run_id="again", assumed=assumed)
    used_s = time.process_time() - begin
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = size_mb(output) if output.exists() else 0.0
    print(f"{what:8} {to or source.suffix if what != 'export' else to or output.suffix:12} ", end="")
    print(f"{used_s:7.1f} s CPU {size:8.0f} MB  peak {peak_mb:6.0f} MB", flush=True)


def main() -> None:
    """Run all cases."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--formats", default="geff,xml,vtp,flowtracks,zarr,csv,parquet")
    parser.add_argument("--no-import", action="store_true")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        what, source, output, to = given.one
        one(what, Path(source), Path(output), to if to != "-" else None)
        return
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "tracks.h5"
        write(source, given.rows)
        print(
            f"{given.rows} rows, {size_mb(source):.0f} MB; of the memory, some 250 MB are the program",
            flush=True,
        )
        for name in given.formats.split(","):
            file, to = NAMES.get(name, (f"out.{name}", None))
            output, back = Path(folder) / file, Path(folder) / "back.h5"
            case = [sys.executable, __file__, "--one"]
            subprocess.run([*case, "export", str(source), str(output), to or "-"], check=True)
            if not given.no_import and name not in {"csv", "parquet"}:
                subprocess.run([*case, "import", str(output), str(back), "-"], check=True)
                back.unlink(missing_ok=True)
            shutil.rmtree(output) if output.is_dir() else output.unlink()


if __name__ == "__main__":
    main()
