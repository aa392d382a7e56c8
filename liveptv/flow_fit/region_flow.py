"""The flow in a region with given walls from the trajectories of a file, as plain numbers."""

from __future__ import annotations

import math
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from liveptv.flow_fit.run_settings import PA_S_PER_MPA_S, flow_settings_of, last_change_s, viscosity_of
from stream.errors import ConfigurationError
from tracking.physics.region.derived import inflows_ul_s, pressures_pa, wall_shear
from tracking.physics.region.fit import RegionFit, fit_region
from tracking.physics.region.geometry import Region, region_from
from tracking.physics.region.inflow import region_flows
from tracking.physics.region.misfit import cell_residuals
from tracking.physics.region.pieces import pieces_of
from tracking.physics.region.stokes import coarser_of, domain_of
from tracking.physics.tracks.from_trajectories import detections_of
from tracking.trajectories.file import Trajectories, read_trajectories


def read_region(path: Path) -> Region:
    """The region of a file. Raises `ConfigurationError` if it cannot be read or is none."""
    try:
        return region_from(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(
            f"the region in {path} cannot be read ({error}); "
            "give a TOML file with corners_um, depth_um and [openings]"
        ) from None


def region_flow(
    path: Path, region: Region, *, viscosity_pa_s: float | None = None, diffusion_um2_s: float | None = None
) -> dict[str, Any]:
    """Fit the flow in a region to a trajectory file; see `region_flow_in`."""
    return region_flow_in(
        read_trajectories(path), region, viscosity_pa_s=viscosity_pa_s, diffusion_um2_s=diffusion_um2_s
    )[1]


def region_flow_in(
    trajectories: Trajectories,
    region: Region,
    *,
    viscosity_pa_s: float | None = None,
    diffusion_um2_s: float | None = None,
) -> tuple[RegionFit, dict[str, Any]]:
    """Fit the flow in a region to trajectories, those since the last change of the pump, and what follows from it.

    Wall shear and pressures need the viscosity: the given one, or that of the run's settings. Raises
    `ConfigurationError` without depths or with too few trajectories in the region.
    """
    if viscosity_pa_s is None and (known := viscosity_of(trajectories.attributes)) is not None:
        viscosity_pa_s = PA_S_PER_MPA_S * known
    settled_s = last_change_s(trajectories) + flow_settings_of(trajectories.attributes).settle_s
    track, time_s, position, sigma = detections_of(trajectories)
    pieces = pieces_of(region, track, time_s, position, sigma, diffusion_um2_s)
    begun = pieces.velocities.time_s - pieces.velocities.duration_s / 2.0
    flows, coarser = (region_flows(domain) for domain in (domain_of(region), coarser_of(region)))
    fit = fit_region(pieces.chosen(begun >= settled_s), flows, coarser)
    found: dict[str, Any] = {
        "trajectories": int(np.unique(fit.tracks.track).size),
        "pieces": len(fit.tracks),
        "from_s": settled_s if math.isfinite(settled_s) else None,
        "settled": fit.settled,
        "inflow_ul_s": {name: asdict(one) for name, one in inflows_ul_s(fit).items()},
        "inflow_detail_um_s": fit.undeveloped_um_s,
    }
    if viscosity_pa_s is not None:
        shear = wall_shear(fit, viscosity_pa_s)
        found["wall_shear_pa"] = {
            "mean": asdict(shear.mean),
            "maximum": asdict(shear.maximum),
            "maximum_at_um": shear.maximum_at_um.tolist(),
        }
        pressures = pressures_pa(fit, viscosity_pa_s)
        found["pressure_pa"] = {name: asdict(one) for name, one in pressures.items()}
    shares = fit.classes.shares.tolist()
    found["classes"] = dict(zip(("follow", "stuck", "wrong"), shares, strict=True))
    cells = cell_residuals(fit)
    found["cells"] = [
        {
            "low_um": cells.low_um[:, i].tolist(),
            "high_um": cells.high_um[:, i].tolist(),
            "pieces": int(cells.tracks[i]),
            "residual_um_s": cells.residual_um_s[:, i].tolist(),
            "standard_error_um_s": cells.standard_error_um_s[:, i].tolist(),
            "chi_square": float(cells.chi_square[i]),
            "told": bool(cells.told[i]),
        }
        for i in range(cells.tracks.size)
    ]
    return fit, found
