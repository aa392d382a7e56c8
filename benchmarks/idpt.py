"""A real focus scan: calibrated and trained on its odd planes, detected in its even planes.

Fluorescent beads of 2 um on a tilted plane, seen without a cylindrical lens (shared data, `idpt-zscan`). The truth
is where the beads with labels must be: their place, and the depth at which they are at each even plane's focus.
What is false cannot be said, since beads without a label are there too. Without a cylindrical lens images before
and behind focus are nearly alike: depths within 5 um are called those on the right side of the focus. A bead is
measured by the detection that is nearest in the plane; it is `cut_in_two` where there are several within 4.8 um.
With motion simulated, the even planes are taken for a film of beads that sink by 2 um a frame, as if the focus had
not moved, and the tracker decides between the sides (`tracking/sides`).
"""

from __future__ import annotations

import argparse
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from chain import run
from reporting import save

from calibration.calibration_file import read_calibration
from calibration.matching import nearest_neighbour
from engines.factory import open_engine
from engines.settings import DetectorSettings
from stream.messages import Detections, Frame, FrameInfo
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker

SCAN = Path(__file__).parents[2] / "shared" / "data" / "idpt-zscan" / "scan.ome.tif"
PIXEL_UM = 1.6
FIRST_UM = -50.0
GATE_UM = 4.8
LONE_UM = 56.0
RIGHT_UM = 5.0
WARM = 4
"""Detections of a track from which it counts: a shorter one has not shown its motion."""
MIDDLE = 1.4826
"""Standard deviation over median absolute deviation of normal errors."""
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


class Beads(NamedTuple):
    """The labelled beads (N): x, y, height in um, `local_um` (N,) as they are seen, and which stand alone."""

    place: np.ndarray
    local_um: np.ndarray
    alone: np.ndarray
    range_um: tuple[float, float]

    def seen_at(self, focus_um: float) -> np.ndarray:
        """Which are within the calibrated depths."""
        local = self.local_um - focus_um
        return np.flatnonzero((local > self.range_um[0]) & (local < self.range_um[1]))


def labelled(calibration: Path) -> Beads:
    """The beads that the calibration has used."""
    found = read_calibration(calibration)
    table, used = found.particles, found.particles.used
    place = np.column_stack([table.x_um, table.y_um, found.height_um()])[used]
    alone = nearest_neighbour(np.column_stack([table.x_um, table.y_um]))[used] > LONE_UM
    return Beads(place, table.z_um[used], alone, (found.model.z_min_um, found.model.z_max_um))


def detected(model: Path, planes: np.ndarray) -> list[list[Detections]]:
    """Detections in each image of each plane (K, R, H, W)."""
    settings = DetectorSettings(workers=1, backend="onnxruntime")
    with closing(open_engine(settings, model=model, pixel_size_um=PIXEL_UM)) as engine:
        all_of = []
        for k, images in enumerate(planes):
            found = []
            for image in images:
                engine.submit(Frame(FrameInfo("run", k, k, float(k), 0, 0.0, pixel_size_um=PIXEL_UM), image))
                found += engine.results(60.0)
            all_of.append(found)
        print(engine.info.details["refine"])
    return all_of


def compare(beads: Beads, planes: list[list[Detections]], focus_um: np.ndarray) -> list[dict[str, Any]]:
    """Rows for all labelled beads, for those that stand alone, and by how far from focus they are."""
    rows = []
    for images, focus in zip(planes, focus_um, strict=True):
        for table in images:
            places = np.column_stack([table.x_um, table.y_um])
            for k in beads.seen_at(focus):
                true = beads.place[k] - [0.0, 0.0, focus]
                near = np.hypot(*(places - true[:2]).T) < GATE_UM
                row = [true[2], beads.alone[k], near.sum(), *[np.nan] * 7]
                if near.any():
                    j = int(np.argmin(np.hypot(*(places - true[:2]).T)))
                    row[3:6] = table.table[:3, j] - true
                    row[6:9] = table.table[3:6, j]
                    row[9] = table.z_other_um[j] - true[2]
                rows.append(row)
    seen = np.array(rows, np.float64)
    groups = {"all": np.ones(len(seen), bool), "alone": seen[:, 1] == 1}
    for low, high in pairwise(FOCUS_BINS_UM):
        groups[f"{low:g} to {high:g} um"] = (seen[:, 0] >= low) & (seen[:, 0] < high)
    return [{"beads": name} | said_of(seen[some]) for name, some in groups.items() if some.any()]


def said_of(some: np.ndarray) -> dict[str, Any]:
    found = some[some[:, 2] > 0]
    error, stated = found[:, 3:6], found[:, 6:9]
    depth = np.abs(error[:, 2])
    right = depth <= RIGHT_UM
    either = np.fmin(depth, np.abs(found[:, 9])) <= RIGHT_UM
    over = error[right] / stated[right]
    return {
        "places": len(some),
        "found": round(float((some[:, 2] > 0).mean()), 4),
        "cut_in_two": round(float((found[:, 2] > 1).mean()), 4),
        "right_side": round(float(right.mean()), 4),
        "either_side_right": round(float(either.mean()), 4),
        "rms_um_of_right_side": [round(float(v), 3) for v in np.sqrt(np.mean(error[right] ** 2, axis=0))],
        "median_z_um": round(float(np.median(depth)), 3),
        "bias_z_um": round(float(np.median(error[:, 2])), 3),
        "stated_um": [round(float(v), 3) for v in np.median(stated, axis=0)],
        "true_over_stated": [round(float(v), 2) for v in np.sqrt(np.mean(over**2, axis=0))],
        "middle_true_over_stated": [round(float(v), 2) for v in MIDDLE * np.median(np.abs(over), axis=0)],
    }


def with_motion(beads: Beads, planes: list[list[Detections]], focus_um: np.ndarray) -> dict[str, Any]:
    """How often the tracker has beads that sink on the right side, after `WARM` frames of a track."""
    tracker = OnlineTracker(TrackerSettings())
    rows: dict[int, list[list[float]]] = {}
    for k, images in enumerate(planes):
        tracks = tracker.step(images[0])
        for i in np.flatnonzero(tracks.detection >= 0):
            mine = rows.setdefault(int(tracks.track[i]), [])
            back = 0 if np.isnan(tracks.revised[i]) else int(tracks.revised[i])
            for earlier in mine:
                if k - back <= earlier[0] and np.isfinite(earlier[4]):
                    earlier[3], earlier[4] = earlier[4], earlier[3]
            mine.append([k, tracks.x_um[i], tracks.y_um[i], tracks.z_um[i], tracks.z_other_um[i], len(mine)])
    kept = np.array([row for track in rows.values() if len(track) > WARM for row in track])
    right = []
    for k, focus in enumerate(focus_um):
        now = kept[kept[:, 0] == k]
        for b in beads.seen_at(focus) if len(now) else ():
            apart = np.hypot(now[:, 1] - beads.place[b, 0], now[:, 2] - beads.place[b, 1])
            if apart.min() < GATE_UM:
                right.append(now[int(apart.argmin()), 3] - (beads.place[b, 2] - focus))
    error = np.array(right)
    side = np.abs(error) <= RIGHT_UM
    return {
        "beads": "with motion simulated",
        "places": len(error),
        "right_side": round(float(side.mean()), 4),
        "rms_um_of_right_side": [None, None, round(float(np.sqrt(np.mean(error[side] ** 2))), 3)],
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
    found, beads = detected(model, planes[::2]), labelled(calibration)
    rows = [*compare(beads, found, focus_um[::2]), with_motion(beads, found, focus_um[::2])]
    for row in rows:
        print(row)
    if args.json:
        save(args.json, [row | {"minutes": args.minutes} for row in rows])


if __name__ == "__main__":
    main()
