"""Planned against actual standard errors: experiments simulated as the plan says, over seeds.

Two slices of a channel of 400 x 100 um of unknown depth, localisation errors that grow off the focus, 5 % of the
detections missed; for longer; and four slices with slower diffusion. Tracks are simulated (no images).
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from reporting import save

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "tracking" / "physics"))
from planned_tracks import planned_velocities
from test_planning import PLAN, SECTION

from tracking.physics.channel.derived import flow_rate_ul_s, pressure_gradient_pa_m, wall_shear
from tracking.physics.channel.fit import ChannelFit, fit_channel
from tracking.physics.planning.precision import Plan, errors_of, outcome
from tracking.physics.planning.view import Slices

VISCOSITY_PA_S = 1e-3
CASES = {
    "2 slices of 30 frames": replace(PLAN, slices=Slices((42.0, 82.0), (30.0, 30.0))),
    "2 slices of 100 frames": replace(PLAN, slices=Slices((42.0, 82.0), (100.0, 100.0))),
    "4 slices of 40 frames, slow diffusion": replace(
        PLAN,
        slices=Slices((42.0, 55.0, 69.0, 82.0), (40.0,) * 4),
        view=replace(PLAN.view, diffusion_um2_s=0.01),
    ),
}


def quantities(fit: ChannelFit) -> dict[str, float]:
    """Those of which a plan tells the error."""
    return {
        "flow_rate": flow_rate_ul_s(fit).value,
        "wall_shear": wall_shear(fit, VISCOSITY_PA_S).mean.value,
        "pressure_gradient": pressure_gradient_pa_m(fit, VISCOSITY_PA_S).value,
        "floor_um": fit.value("floor_um"),
        "ceiling_um": fit.value("floor_um") + fit.value("depth_um"),
        "depth_um": fit.value("depth_um"),
        "center_y_um": fit.value("center_y_um"),
    }


def case_of(name: str, plan: Plan, seeds: range) -> list[dict[str, Any]]:
    """A row for each quantity: planned error over the scatter of the results."""
    found = outcome(plan)
    assert found is not None
    truth = quantities(found.fit)
    planned = errors_of(found.fit, tuple(truth))
    rows: list[dict[str, float]] = []
    numbers = []
    for seed in seeds:
        tracks = planned_velocities(plan, seed)
        numbers.append(len(tracks))
        rows.append(quantities(fit_channel(tracks, SECTION, plan.prior, reference_x_um=0.0)))
    result = []
    for quantity, true in truth.items():
        scale = 1.0 if quantity.endswith("_um") else true
        off = np.array([row[quantity] - true for row in rows]) / scale
        actual = float(np.sqrt(np.mean(off**2)))
        result.append(
            {
                "case": name, "quantity": quantity, "first_seed": seeds.start, "seeds": len(seeds),
                "planned": planned[quantity], "actual": actual,
                "planned_over_actual": planned[quantity] / actual, "tracks_planned": float(found.tracks.sum()),
                "tracks": float(np.mean(numbers)),
            }
        )  # fmt: skip
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--only", choices=list(CASES), action="append")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    rows = [row for name in options.only or CASES for row in case_of(name, CASES[name], seeds)]
    for row in rows:
        print(
            f"{row['case']}, {row['quantity']}: planned {row['planned']:.3g}, actual {row['actual']:.3g}, "
            f"ratio {row['planned_over_actual']:.2f}; {row['tracks_planned']:.0f} / {row['tracks']:.0f} tracks"
        )
    if options.json is not None:
        save(options.json, rows)


if __name__ == "__main__":
    main()
