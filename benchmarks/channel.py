"""The paper's flow experiment on the simulated microscope: 21 depths, 452 frames each, profile and errors.

Franchini & Krevor (2020, section 3.2, Figs. 10 to 12): pictures of 1440 x 2560 pixels with 200 particles, SNR 5.6,
rendered, found by the classical detector with the width curve of the optics, and tracked as one run, with the
learnt flow and with the paper's own method, plain Hungarian. `deviation_rms` is the root mean square over depth of
measured less analytical velocity, as a part of the maximum. `residual_over_stated` compares the scatter of
displacements with the errors that the detector states, `true_over_stated` the increments of its true errors with
the same: the first can only be as near to 1 as the second.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from reporting import save

from acquisition.physics.optics import OpticsModel
from calibration.matching import match
from calibration.width_curve import width_curve_from_optics
from liveptv.files import RunFiles
from liveptv.reports.flow_results import location_errors, section_field
from liveptv.reports.page import write_report
from liveptv.reports.profile import flow_profile
from tracking.settings import TrackerSettings
from tracking.trajectories.file import read_trajectories

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "liveptv"))
from channel_slices import Slice, detect_slice, track_slices

SHAPE, PARTICLES = (1440, 2560), 200.0
DEPTHS, SPACING_UM, FRAMES = 21, 150.0, 452
GATE_XY_UM, GATE_Z_UM = 4.0, 30.0
METHODS = {
    "learnt flow": TrackerSettings(),
    "plain Hungarian": TrackerSettings(mode="hungarian", max_distance_um=15.0),
}


def true_over_stated(slices: list[Slice]) -> np.ndarray:
    """Increments of the true errors of successive detections of a particle over what is stated, (3,)."""
    square, stated = np.zeros(3), np.zeros(3)
    for depth in slices:
        last: dict[int, np.ndarray] = {}
        for frame in range(depth.frames):
            found = depth.found[1:, depth.found[0] == frame]
            truth = depth.truth[:, depth.truth[0] == frame]
            i, j = match(truth[2:5].T, found[:3].T, GATE_XY_UM, GATE_Z_UM)
            now = {
                int(name): np.concatenate([found[:3, b] - truth[2:5, a], found[3:6, b] ** 2])
                for name, a, b in zip(truth[1, i], i, j, strict=True)
            }
            for name in now.keys() & last.keys():
                square += (now[name][:3] - last[name][:3]) ** 2
                stated += now[name][3:] + last[name][3:]
            last = now
    return np.sqrt(square / stated)


def measure(case: str, slices: list[Slice], folder: Path) -> dict[str, Any]:
    path = track_slices(folder / f"{case.replace(' ', '-')}.h5", slices, SHAPE, METHODS[case])
    trajectories = read_trajectories(path)
    profile = flow_profile(trajectories)
    section, errors = section_field(trajectories, profile), location_errors(trajectories)
    write_report(RunFiles.beside(path))
    lengths = np.unique(trajectories.track, return_counts=True)[1]
    row: dict[str, Any] = {
        "case": case,
        "frames": len(trajectories.frames),
        "rows": len(trajectories),
        "trajectories": lengths.size,
        "of_100_frames_and_more": int((lengths >= 100).sum()),
        "deviation_rms": profile.deviation_rms,
        "deviation_max": profile.deviation,
        "bytes_a_row": path.stat().st_size / trajectories.attributes["statistics"]["rows"],
    }
    if section is not None:
        row["field_deviation_rms"] = section.deviation_rms
    if errors is not None:
        row["residual_over_stated"] = dict(zip("xyz", errors.residuals.ratio.round(3).tolist(), strict=True))
        medians = np.median(errors.residuals.error_um, axis=1)
        row["median_error_um"] = dict(zip("xyz", medians.round(3).tolist(), strict=True))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="keep trajectory files and reports here")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    curve = width_curve_from_optics(OpticsModel())
    work = partial(detect_slice, curve, frames=options.frames, shape=SHAPE, particles=PARTICLES)
    with ProcessPoolExecutor(options.workers) as pool:
        jobs = [pool.submit(work, k * SPACING_UM, seed=k + 1) for k in range(DEPTHS)]
        slices = [job.result() for job in jobs]
    truth = dict(zip("xyz", true_over_stated(slices).round(3).tolist(), strict=True))
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        rows = [measure(case, slices, folder) | {"true_over_stated": truth} for case in METHODS]
    for row in rows:
        print("\n".join(f"{name:>24}  {value}" for name, value in row.items()), end="\n\n", flush=True)
    if options.json is not None:
        save(options.json, rows)


if __name__ == "__main__":
    main()
