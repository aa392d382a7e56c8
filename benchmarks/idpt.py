"""A real focus scan: calibrated and trained on its odd planes, detected in its even planes.

Fluorescent beads of 2 um on a tilted plane, seen without a cylindrical lens (shared data, `idpt-zscan`). The truth
is where the beads with labels must be: their place, and the depth at which they are at each even plane's focus.
What is false cannot be said, since beads without a label are there too. Without a cylindrical lens images before
and behind focus are nearly alike: depths within 5 um are called those on the right side of the focus.
"""

from __future__ import annotations

import argparse
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from chain import run
from reporting import save

from calibration.calibration_file import read_calibration
from calibration.matching import nearest_neighbour
from engines.factory import open_engine
from engines.settings import DetectorSettings
from stream.messages import Frame, FrameInfo

SCAN = Path(__file__).parents[2] / "shared" / "data" / "idpt-zscan" / "scan.ome.tif"
PIXEL_UM = 1.6
FIRST_UM = -50.0
GATE_UM = 4.8
LONE_UM = 56.0
RIGHT_UM = 5.0
FOCUS_BINS_UM = (-60.0, -30.0, -10.0, 10.0, 30.0, 60.0)


def write_odd(path: Path, planes: np.ndarray, focus_um: np.ndarray) -> None:
    """The odd planes (K, R, H, W) as a scan."""
    at = [float(f) for f in np.repeat(focus_um, planes.shape[1])]
    metadata = {
        "axes": "ZTYX",
        "PhysicalSizeX": PIXEL_UM,
        "PhysicalSizeY": PIXEL_UM,
        "PhysicalSizeXUnit": "um",
        "PhysicalSizeYUnit": "um",
        "Plane": {"PositionZ": at, "PositionZUnit": ["um"] * len(at)},
    }
    tifffile.imwrite(path, planes, metadata=metadata)


def compare(calibration: Path, model: Path, planes: np.ndarray, focus_um: np.ndarray) -> list[dict[str, Any]]:
    """Rows for all labelled beads, for those that stand alone, and by how far from focus they are."""
    found = read_calibration(calibration)
    used = found.particles.used
    table = found.particles
    bead = np.column_stack([table.x_um, table.y_um, found.height_um()])[used]
    alone = nearest_neighbour(np.column_stack([table.x_um, table.y_um]))[used] > LONE_UM
    rows = []
    settings = DetectorSettings(workers=1, backend="onnxruntime")
    with closing(open_engine(settings, model=model, pixel_size_um=PIXEL_UM)) as engine:
        for images, focus in zip(planes, focus_um, strict=True):
            depth, local = bead[:, 2] - focus, table.z_um[used] - focus
            inside = (local > found.model.z_min_um) & (local < found.model.z_max_um)
            for image in images:
                info = FrameInfo("run", 0, 0, 0.0, 0, 0.0, pixel_size_um=PIXEL_UM)
                engine.submit(Frame(info, image))
                detections = engine.results(60.0)[0].table
                for k in np.flatnonzero(inside):
                    apart = np.hypot(detections[0] - bead[k, 0], detections[1] - bead[k, 1])
                    near = apart < GATE_UM
                    j = (
                        int(np.argmin(np.where(near, np.abs(detections[2] - depth[k]), np.inf)))
                        if near.any()
                        else -1
                    )
                    row = (depth[k], alone[k], j >= 0, np.nan, np.nan, np.nan, np.nan)
                    if j >= 0:
                        error = detections[:3, j] - [bead[k, 0], bead[k, 1], depth[k]]
                        row = (depth[k], alone[k], True, *error, detections[5, j])
                    rows.append(row)
        print(engine.info.details["refine"])
    seen = np.array(rows, np.float64)
    groups = {"all": np.ones(len(seen), bool), "alone": seen[:, 1] == 1}
    for low, high in pairwise(FOCUS_BINS_UM):
        groups[f"{low:g} to {high:g} um"] = (seen[:, 0] >= low) & (seen[:, 0] < high)
    return [{"beads": name} | said_of(seen[some]) for name, some in groups.items() if some.any()]


def said_of(some: np.ndarray) -> dict[str, Any]:
    error = some[:, 3:6]
    depth = np.abs(error[:, 2])
    right = depth <= RIGHT_UM
    return {
        "places": len(some),
        "found": round(float(some[:, 2].mean()), 4),
        "rms_um": [round(float(v), 3) for v in np.sqrt(np.nanmean(error**2, axis=0))],
        "median_z_um": round(float(np.nanmedian(depth)), 3),
        "rms_z_um_of_95_percent": round(
            float(np.sqrt(np.nanmean(error[depth <= np.nanquantile(depth, 0.95), 2] ** 2))), 3
        ),
        "right_side": round(float(right.sum() / np.isfinite(depth).sum()), 4),
        "rms_z_um_of_right_side": round(float(np.sqrt(np.mean(error[right, 2] ** 2))), 3),
        "bias_z_um": round(float(np.nanmedian(error[:, 2])), 3),
        "stated_z_um": round(float(np.nanmedian(some[:, 6])), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0, help="0: a model that is there is measured")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--folder", type=Path, default=Path("runs/idpt"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    scan, calibration, model = (
        args.folder / name for name in ("odd.ome.tif", "calibration.h5", "model.onnx")
    )
    planes = tifffile.imread(SCAN)
    focus_um = FIRST_UM + np.arange(len(planes))
    if args.minutes > 0:
        write_odd(scan, planes[1::2], focus_um[1::2])
        run("liveptv", "calibrate", str(scan), "-o", str(calibration), "--overwrite")
        minutes, processes = str(args.minutes), str(args.processes)
        command = ("--minutes", minutes, "--processes", processes, "--overwrite")
        run("liveptv", "train", str(calibration), "-o", str(model), *command)
    rows = compare(calibration, model, planes[::2], focus_um[::2])
    for row in rows:
        print(row)
    if args.json:
        save(args.json, [row | {"minutes": args.minutes} for row in rows])


if __name__ == "__main__":
    main()
