"""How long a focus scan takes beside what cannot be avoided: moves, settling time and exposures.

120 planes of 4 full frames (1440 x 2560) on the simulated microscope `paper`, as `liveptv scan` does it, into
OME-TIFF and OME-Zarr. Floor of a plane: the ramp of the drive, the time in which its lag dies away to 0.05 um, the
settling time of the settings, and four frame periods. `disk_mb_per_s` is what a plain write of planes reaches.
"""

from __future__ import annotations

import argparse
import math
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from reporting import device, save

from acquisition.microscope.microscope import STILL_UM
from acquisition.recording import open_stack
from acquisition.scan.paths import ScanPaths
from acquisition.settings import MicroscopeSettings, ScanSettings
from liveptv.config import Experiment
from liveptv.workflows.scan import run_scan

FRAME_RATE_HZ, SPEED_UM_S, LAG_S = 24.0, 1000.0, 0.005


def measure(folder: Path, name: str, planes: int) -> dict[str, Any]:
    """Take a scan; returns one row."""
    scan = ScanSettings(start_um=1500.0, stop_um=1500.0 + 3.0 * (planes - 1), references=())
    still = {"Pump.FlowRate": 0, "Camera.Diffusion_um2_s": 0}
    experiment = Experiment(
        microscope=MicroscopeSettings(config="paper", properties=still),
        scan=scan,
    )
    paths = ScanPaths(folder / name)
    run_scan(experiment, paths, ask=None, on_progress=lambda _: None, on_note=print)
    stack = open_stack(paths.whole)
    try:
        places = np.arange(stack.info.planes).reshape(stack.info.lead)
        by_plane = places if stack.info.axes == "ZT" else places.T
        first_s = np.array([stack.read(int(row[0])).time_s for row in by_plane])
        focus_um = np.array([stack.read(int(row[0])).focus_um for row in by_plane])
    finally:
        stack.close()
    ramp_s = scan.step_um / SPEED_UM_S
    behind_um = SPEED_UM_S * LAG_S * (1 - math.exp(-ramp_s / LAG_S))
    exposures_s = scan.images / FRAME_RATE_HZ
    floor_s = ramp_s + LAG_S * math.log(behind_um / STILL_UM) + scan.settle_s + exposures_s
    plane_s = (first_s[-1] - first_s[0]) / (planes - 1)
    off_um = np.abs(focus_um - 1500.0 - 3.0 * np.arange(planes))
    return {
        "file": name,
        "planes": planes,
        "images": scan.images,
        "plane_ms": round(1e3 * plane_s, 1),
        "floor_ms": round(1e3 * floor_s, 1),
        "exposures_ms": round(1e3 * exposures_s, 1),
        "overhead": round(plane_s / floor_s - 1, 3),
        "scan_s": round(planes * plane_s, 2),
        "farthest_off_um": round(float(off_um.max()), 4),
        "file_mb": round(sum(path.stat().st_size for path in _files(paths.whole)) / 1e6, 1),
        "rss_mb": round(psutil.Process().memory_info().rss / 1e6),
    }


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


def disk_mb_per_s(folder: Path) -> float:
    """A plain write of 15 MB at a time, 0.5 GB in all, without waiting for the disk."""
    block = np.random.default_rng(0).integers(0, 256, 4 * 1440 * 2560, np.uint8).tobytes()
    began_s = time.perf_counter()
    with (folder / "plain").open("wb", buffering=0) as file:
        for _ in range(33):
            file.write(block)
    return 33 * len(block) / 1e6 / (time.perf_counter() - began_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--planes", type=int, default=120)
    parser.add_argument("--folder", type=Path, help="where to write; left out: the system's temporary folder")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    print(device())
    rows = []
    for name in ("scan.ome.tif", "scan.ome.zarr"):
        folder = Path(tempfile.mkdtemp(dir=options.folder))
        try:
            row = {"disk_mb_per_s": round(disk_mb_per_s(folder))} | measure(folder, name, options.planes)
        finally:
            shutil.rmtree(folder)
        rows.append(row)
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    if options.json is not None:
        save(options.json, rows)


if __name__ == "__main__":
    main()
