"""The flow fitted to the tracks of a constriction, against the truth: actual and stated errors, and binning.

Tracks are simulated (no images) in a channel of 400 x 100 um with a constriction of 100 um, 2 % of them stuck and
2 % wrong. The liquid comes from a side channel outside the image, so that it is not developed where the image cuts
it; its flow is solved in all of the channel with another mesh than the fit's. Binning gets the same tracks, in
cells of the size that suits it best.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from reporting import save

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "tracking" / "physics"))
from region_tracks import SEEN, WHOLE, anywhere, detections, liquid_through

from tracking.physics.region.derived import inflows_ul_s, velocity_at
from tracking.physics.region.fit import fit_region
from tracking.physics.region.inflow import region_flows
from tracking.physics.region.misfit import cell_residuals
from tracking.physics.region.pieces import Pieces, pieces_of
from tracking.physics.region.stokes import domain_of

CELLS_UM = (20.0, 30.0, 45.0, 70.0)


def binned_rms(pieces: Pieces, places: np.ndarray, true: np.ndarray) -> float:
    """Least rms error, um/s, of the median velocity in cells, over the cell sizes, where there are tracks."""
    tracks = pieces.velocities
    found = []
    for size in CELLS_UM:
        cells: dict[tuple[int, ...], list[int]] = {}
        for number, key in enumerate(zip(*np.floor(tracks.position_um / size).astype(int), strict=True)):
            cells.setdefault(key, []).append(number)
        middle = {key: np.median(tracks.velocity_um_s[:, own], axis=1) for key, own in cells.items()}
        keys = list(zip(*np.floor(places / size).astype(int), strict=True))
        off = [middle[key] - true[:, i] for i, key in enumerate(keys) if key in middle]
        found.append(float(np.sqrt(np.mean(np.square(off).sum(axis=1)))))
    return min(found)


def main() -> None:
    """Run and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--tracks", type=int, default=500)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    liquid = liquid_through(WHOLE, 200.0, most_triangles=2500, functions=8)
    begun = time.process_time()
    flows = region_flows(domain_of(SEEN))
    solve_s = time.process_time() - begun
    places = anywhere(SEEN, 2000, np.random.default_rng(5))
    true = liquid.at(places)
    fastest = float(np.linalg.norm(true, axis=0).max())
    off, stated, binned, rates, fit_s, told = [], [], [], [], [], 0
    for seed in range(arguments.seeds):
        seen = detections(liquid, SEEN, arguments.tracks, seed)
        begun = time.process_time()
        pieces = pieces_of(SEEN, **seen, diffusion_um2_s=0.2)
        fit = fit_region(pieces, flows)
        velocity, error = velocity_at(fit, places)
        fit_s.append(time.process_time() - begun)
        off.append(velocity - true)
        stated.append(error)
        binned.append(binned_rms(pieces, places, true))
        rate = inflows_ul_s(fit)["in"]
        rates.append((rate.value - liquid.inflow_ul_s, rate.standard_error))
        told += int(cell_residuals(fit).told.any())
    errors, claims, flow = np.array(off), np.array(stated), np.array(rates)
    rms = float(np.sqrt((errors**2).sum(axis=1).mean()))
    mean_off = float(np.sqrt((errors.mean(axis=0) ** 2).sum(axis=0).mean()))
    row: dict[str, Any] = {
        "case": "constriction", "seeds": arguments.seeds, "tracks": arguments.tracks, "fastest_um_s": fastest,
        "rms_over_fastest": rms / fastest, "same_in_all_seeds_over_fastest": mean_off / fastest,
        "binned_rms_over_fastest": float(np.sqrt(np.mean(np.square(binned)))) / fastest,
        "actual_over_stated": float(np.sqrt((errors**2).mean() / (claims**2).mean())),
        "scatter_over_stated": float(np.sqrt(errors.var(axis=0, ddof=1).mean() / (claims**2).mean())),
        "flow_rate_rms_over_true": float(np.sqrt(np.mean(flow[:, 0] ** 2))) / liquid.inflow_ul_s,
        "flow_rate_actual_over_stated": float(np.sqrt(np.mean(flow[:, 0] ** 2) / np.mean(flow[:, 1] ** 2))),
        "runs_with_cells_told": told, "solve_cpu_s": solve_s, "fit_cpu_s": float(np.median(fit_s)),
    }  # fmt: skip
    for name, one in row.items():
        print(f"{name:>32}  {one}")
    if arguments.json is not None:
        save(arguments.json, [row])


if __name__ == "__main__":
    main()
