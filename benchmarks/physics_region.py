"""The flow fitted to the tracks of a bend, a junction and a constriction: actual and stated errors, and binning.

Tracks are simulated (no images), 2 % of them stuck and 2 % wrong. The image shows a part of a channel with two
inlets and two outlets, whose shares are others in each seed, so that the flow is nowhere developed where the image
cuts it. It is solved in all of the channel with quartic elements; the fit has cubic ones. Binning gets the same
tracks, in cells of the size that suits it best.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from region_cases import CASES, VISCOSITY_PA_S, Truth, amplitudes, truth_of, velocities, whole_flows
from reporting import save

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "tracking" / "physics"))
from region_tracks import Liquid, anywhere, detections

from tracking.physics.region.derived import inflows_ul_s, pressures_pa, velocity_at, wall_shear
from tracking.physics.region.fit import RegionFit, fit_region
from tracking.physics.region.inflow import region_flows
from tracking.physics.region.misfit import cell_residuals
from tracking.physics.region.pieces import Pieces, pieces_of
from tracking.physics.region.stokes import coarser_of, domain_of

CELLS_UM = (20.0, 30.0, 45.0, 70.0)
PLACES = 1000
"""Places anywhere in the region, at which fit and binning are compared."""


def binned(pieces: Pieces, places: np.ndarray, true: np.ndarray) -> float:
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


def compared(fit: RegionFit, truth: Truth, amplitude: np.ndarray) -> dict[str, np.ndarray]:
    """Errors and stated errors (2, N) of each quantity, over the largest true one; those of the shear on
    walls by area, not beside corners that stand out into the flow."""
    speed, speed_error = velocity_at(fit, truth.places_um)
    true = truth.velocity @ amplitude
    fastest = np.linalg.norm(true, axis=0).max()
    rate, pressure = inflows_ul_s(fit).values(), list(pressures_pa(fit, VISCOSITY_PA_S).values())[:-1]
    true_rate, true_pressure = truth.inflow_ul_s @ amplitude, (truth.pressure_pa @ amplitude)[:-1]
    shear = wall_shear(fit, VISCOSITY_PA_S)
    stress = np.linalg.norm(truth.slopes @ amplitude, axis=0) * VISCOSITY_PA_S
    mean, most = float(np.average(stress, weights=truth.walls.area_um2)), float(stress[truth.far].max())
    share = np.sqrt(truth.walls.area_um2[truth.far] / truth.walls.area_um2[truth.far].mean())
    return {
        "velocity": np.stack([speed - true, speed_error]).reshape(2, -1) / fastest,
        "flow_rate": np.array(
            [[one.value - t, one.standard_error] for one, t in zip(rate, true_rate, strict=True)]
        ).T / np.abs(true_rate).max(),
        "pressure": np.array(
            [[one.value - t, one.standard_error] for one, t in zip(pressure, true_pressure, strict=True)]
        ).T / np.abs(true_pressure).max(),
        "shear": np.stack([shear.stress_pa - stress, shear.standard_error_pa])[:, truth.far] * share / most,
        "mean_shear": np.array([[shear.mean.value - mean], [shear.mean.standard_error]]) / mean,
        "maximum_shear": np.array([[shear.maximum.value - most], [shear.maximum.standard_error]]) / most,
    }  # fmt: skip


def _ratio(errors: np.ndarray, stated: np.ndarray) -> tuple[float, float]:
    """Actual over stated rms error of (seeds, N), and its standard error (jackknife over the seeds)."""
    actual, claimed = (np.square(both).reshape(len(both), -1).mean(axis=1) for both in (errors, stated))
    without = np.sqrt((actual.sum() - actual) / (claimed.sum() - claimed))
    unsure = np.sqrt(np.square(without - without.mean()).sum() * (len(without) - 1) / len(without))
    return float(np.sqrt(actual.sum() / claimed.sum())), float(unsure)


def rows_of(name: str, seeds: int, tracks: int) -> list[dict[str, Any]]:
    """A row for each quantity of a case, and one for all of it."""
    case = CASES[name]
    whole = whole_flows(case)
    begun = time.process_time()
    flows, coarser = (region_flows(domain) for domain in (domain_of(case.seen), coarser_of(case.seen)))
    solve_s = time.process_time() - begun
    truth = truth_of(case, whole, flows.flows.domain)
    places = anywhere(case.seen, PLACES, np.random.default_rng(5))
    everywhere = velocities(whole, places)
    found: dict[str, list[np.ndarray]] = {}
    fits, bins, fit_s, told = [], [], [], 0
    for seed in range(seeds):
        amplitude = amplitudes(whole, seed)
        liquid = Liquid(whole.flows.domain, whole.flows.velocity @ amplitude, 0.0)
        seen = detections(liquid, case.seen, tracks, seed, substeps=8)
        begun = time.process_time()
        pieces = pieces_of(case.seen, **seen, diffusion_um2_s=0.2)
        fit = fit_region(pieces, flows, coarser)
        fit_s.append(time.process_time() - begun)
        true = everywhere @ amplitude
        fastest = np.linalg.norm(true, axis=0).max()
        off = velocity_at(fit, places)[0] - true
        fits.append(float(np.sqrt((off**2).sum(axis=0).mean())) / fastest)
        bins.append(binned(pieces, places, true) / fastest)
        for quantity, both in compared(fit, truth, amplitude).items():
            found.setdefault(quantity, []).append(both)
        told += int(cell_residuals(fit).told.any())
    rows = []
    for quantity, every in found.items():
        errors, stated = np.moveaxis(np.array(every), 1, 0)
        rms, claimed = np.sqrt((errors**2).mean()), np.sqrt((stated**2).mean())
        same = np.sqrt((errors.mean(axis=0) ** 2).mean())
        over, unsure = _ratio(errors, stated)
        rows.append(
            {"case": name, "quantity": quantity, "seeds": seeds, "tracks": tracks, "rms_error": float(rms),
             "stated": float(claimed), "actual_over_stated": over, "known_to": unsure,
             "same_in_all_seeds": float(same)}
        )  # fmt: skip
    rows.append(
        {"case": name, "quantity": "anywhere", "seeds": seeds, "tracks": tracks,
         "rms_error": float(np.sqrt(np.mean(np.square(fits)))), "binned": float(np.sqrt(np.mean(np.square(bins)))),
         "runs_with_cells_told": told, "solve_cpu_s": solve_s, "fit_cpu_s": float(np.median(fit_s))}
    )  # fmt: skip
    return rows


def main() -> None:
    """Run and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=list(CASES), action="append")
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--tracks", type=int, default=500)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for name in arguments.only or CASES:
        for row in rows_of(name, arguments.seeds, arguments.tracks):
            print("  ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()))
            rows.append(row)
    if arguments.json is not None:
        save(arguments.json, rows)


if __name__ == "__main__":
    main()
