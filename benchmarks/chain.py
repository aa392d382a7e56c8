"""Scan, calibrate, train, detect, through the command line, with optics that the shipped model was not made for.

A focus scan of 50 particles is simulated at the conditions of Franchini & Krevor (2020), SNR 5.6, 4 images a plane,
without references. What comes out is measured as `detection.py` does, beside the bound of these optics.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import depth_labels
from depth_labels import write_scan

from acquisition.physics.optics import OpticsModel

SHAPE = (720, 1280)
BEYOND = 1.25
CASES = {  # optics, and the step of the scan, um
    "rings": (depth_labels.OPTICS["rings"], 3.0),
    "wide": (
        OpticsModel(
            numerical_aperture=0.2,
            condenser_na=0.15,
            pixel_size_um=0.6,
            particle_diameter_um=2.5,
            medium_index=1.33,
            focal_line_separation_um=90.0,
            visible_um=110.0,
            range_um=130.0,
        ),
        2.0,
    ),
    "bright": (
        OpticsModel(
            polarity="bright",
            numerical_aperture=0.25,
            condenser_na=0.2,
            pixel_size_um=0.5,
            particle_diameter_um=1.0,
            medium_index=1.33,
            wavelengths_um=(0.61,),
            focal_line_separation_um=40.0,
            visible_um=60.0,
            range_um=75.0,
        ),
        1.0,
    ),
}


def run(*command: str) -> float:
    """Run a command; returns seconds."""
    print("$", *command, flush=True)
    start_s = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - start_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--processes", type=int)
    parser.add_argument("--seed", type=int, default=7, help="of the scan")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--folder", type=Path, default=Path("runs/chain"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    optics, step_um = CASES[args.case]
    folder = args.folder / args.case
    folder.mkdir(parents=True, exist_ok=True)
    depth_labels.STEP_UM = step_um
    planes = round(2 * BEYOND * optics.range_um / step_um)
    write_scan(folder / "scan.ome.tif", optics, args.seed, SHAPE, planes)
    (folder / "optics.json").write_text(optics.model_dump_json(indent=1), encoding="utf-8")
    scan, calibration, model = (
        str(folder / name) for name in ("scan.ome.tif", "calibration.h5", "model.onnx")
    )
    liveptv = (sys.executable, "-m", "liveptv")
    run(*liveptv, "calibrate", scan, "-o", calibration, "--overwrite")
    processes = () if args.processes is None else ("--processes", str(args.processes))
    run(
        *liveptv, "train", calibration, "-o", model, "--minutes", str(args.minutes), *processes, "--overwrite"
    )
    detection = (sys.executable, str(Path(__file__).with_name("detection.py")), "--calibrated")
    wanted = ("--json", str(args.json)) if args.json else ()
    run(
        *detection,
        *("--model", model, "--optics", str(folder / "optics.json")),
        *("--frames", str(args.frames)),
        *wanted,
    )


if __name__ == "__main__":
    main()
