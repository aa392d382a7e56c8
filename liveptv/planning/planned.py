"""Makes the plan of an experiment: slices, frames and expected errors, as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from liveptv.config import Experiment
from liveptv.planning.inputs import Inputs, given_foci, inputs_of
from stream.errors import ConfigurationError
from tracking.physics.channel.derived import flow_rate_ul_s, pressure_gradient_pa_m, wall_shear
from tracking.physics.channel.model import flow_of
from tracking.physics.channel.parameters import DEPTH, FLOOR, PARAMETERS, VELOCITY
from tracking.physics.planning.camera import Finding, findings
from tracking.physics.planning.diffusion import relative_error_of_d
from tracking.physics.planning.precision import QUANTITIES, RELATIVE, Outcome, Plan, errors_of, outcome
from tracking.physics.planning.proposal import (
    MORE_SLICES,
    best_slices,
    causes,
    covering,
    excess,
    fewest_slices,
    helps,
    with_frames,
)
from tracking.physics.planning.view import Slices

LEAST_RELATIVE = 0.005
"""Depths of a real detector are not right to less, over the range."""
HEIGHT = 2
NEAR_WALLS = 0.05  # of the depth of the channel
OF_WALLS = ("wall_shear", "pressure_gradient", "floor_um", "ceiling_um", "depth_um")
CANDIDATES = 4
"""Times the slices that cover the channel among which the best ones are looked for."""


def plan_of(experiment: Experiment) -> dict[str, Any]:
    """The plan, by name. Raises `ConfigurationError` if a setting is missing or no number of frames suffices."""
    given = inputs_of(experiment)

    def predict(plan: Plan) -> Mapping[str, float] | None:
        found = outcome(plan)
        return None if found is None else _errors(found, plan, given)

    plan = _chosen(given, predict)
    found = outcome(plan)
    if found is None:
        raise ConfigurationError(
            "no particle is seen in at least 5 frames at any slice; a higher plan.frame_rate_hz or a larger image "
            "would help, or slices inside the channel"
        )
    errors = _errors(found, plan, given)
    ratio, hardest = excess(errors, given.wanted)
    seconds = plan.slices.total_frames / plan.view.frame_rate_hz
    pauses = given.settings.settle_s * (len(plan.slices.focus_um) - 1)
    speed = flow_of(plan.section, plan.theta)
    y, z = np.array([0.0]), np.array([plan.section.depth_um / 2.0])
    fastest = abs(float(plan.theta[VELOCITY])) * float(speed.at(y, z)[0])
    depth = min(plan.view.depth_factor * float(np.ptp(plan.view.localisation.z_um)), plan.section.depth_um)
    looked_at = findings(
        plan.view, given.camera, fastest, plan.slices.total_frames, "diffusion" in given.wanted, depth
    )
    looked_at += _calibration(given) + _bounces(found, errors)
    result: dict[str, Any] = {
        "slices": [
            {"focus_um": focus, "frames": frames, "tracks": float(tracks)}
            for focus, frames, tracks in zip(
                plan.slices.focus_um, plan.slices.frames, found.tracks, strict=True
            )
        ],
        "frames": plan.slices.total_frames,
        "seconds": seconds + pauses,
        "measuring_s": seconds,
        "tracks": float(found.tracks.sum()),
        "detections_a_track": found.mean_detections,
        "reached": ratio <= 1.005,
        "hardest": hardest,
        "wanted": given.wanted,
        "errors": {name: error for name, error in errors.items() if math.isfinite(error)},
        "values": _values(found, given),
        "causes": [asdict(one) for one in causes(plan, hardest, predict)],
        "helps": [{"change": words, "time": time} for words, time in helps(plan, given.wanted, predict)],
        "findings": [asdict(one) for one in looked_at],
        "velocity_um_s": float(plan.theta[VELOCITY]),
        "fastest_um_s": fastest,
        "diffusion_um2_s": plan.view.diffusion_um2_s,
        "particles_per_ml": plan.view.particles_per_um3 * 1e12,
        "frame_rate_hz": plan.view.frame_rate_hz,
        "settle_s": given.settings.settle_s,
        "flow_ul_s": given.flow_ul_s,
    }
    others = _other_slices(plan, given, predict, hardest)
    if others is not None:
        result["helps"].append(others)
    return result


def _bounces(found: Outcome, errors: Mapping[str, float]) -> list[Finding]:
    """Says where particles near the walls diffuse farther than their mean heights are uncertain.

    They bounce off the walls, and scatter about the flow more than the plan's, whose paths know no walls.
    """
    tracks, theta = found.fit.tracks, found.fit.theta
    share = (tracks.position_um[HEIGHT] - theta[FLOOR]) / theta[DEPTH]
    near = np.minimum(share, 1.0 - share) < NEAR_WALLS
    if not near.any() or not any(math.isfinite(errors.get(name, math.nan)) for name in OF_WALLS):
        return []
    weight = found.count[near]
    spread_um = float(np.average(np.sqrt(tracks.spread_um2[HEIGHT, near]), weights=weight))
    known_um = float(np.average(tracks.position_sigma_um[HEIGHT, near], weights=weight))
    if spread_um < known_um:
        return []
    text = (
        f"heights near them spread by {spread_um:.2g} µm along a track, more than the {known_um:.2g} µm to which "
        "its mean is known: paths bounce off, and errors of shear, pressure and walls may be a fifth larger"
    )
    return [Finding("walls", "caution", text)]


def _calibration(given: Inputs) -> list[Finding]:
    """Says where the errors that are wanted are smaller than those that all particles have in common."""
    small = [name for name, error in given.wanted.items() if name in RELATIVE and error < LEAST_RELATIVE]
    if not small:
        return []
    text = (
        f"below {100 * LEAST_RELATIVE:g} % errors that all particles share decide, which are not in the plan: "
        "pixel size, depth scale, refraction factor"
    )
    return [Finding("calibration", "caution", text)]


def _errors(found: Outcome, plan: Plan, given: Inputs) -> dict[str, float]:
    wanted = tuple(given.wanted)
    told = [name for name in QUANTITIES if name in wanted or _is_fitted(name, plan)]
    if not set(wanted) - {"diffusion"}:
        told = []
    errors = errors_of(found.fit, tuple(told), given.consistency_error)
    errors["diffusion"] = relative_error_of_d(plan.view, found.fit, found.count, given.camera.exposure_s)
    return errors


def _is_fitted(name: str, plan: Plan) -> bool:
    """Whether a quantity is more than what was known before."""
    return name not in PARAMETERS or plan.prior.sigma[PARAMETERS.index(name)] > 0


def _chosen(given: Inputs, predict: Any) -> Plan:
    """The slices that are asked for, or the number of them that takes the least time."""
    plan = Plan(given.view, given.section, given.theta, given.prior, Slices((0.0,), (100.0,)))
    settings = given.settings
    floor, depth = float(given.theta[FLOOR]), given.section.depth_um
    foci = given_foci(settings.slices)
    count = fewest_slices(given.view, depth)
    if foci is not None:
        tried = [Slices(tuple(foci), (100.0,) * len(foci))]
    elif settings.slices == "best":
        many = covering(given.view, floor, depth, CANDIDATES * count + 1, given.reach_um)
        first = with_frames(replace(plan, slices=many), given.wanted, predict)
        start = replace(plan, slices=many) if first is None else first
        errors = predict(start)
        hardest = excess(errors, given.wanted)[1] if errors else next(iter(given.wanted))
        if hardest == "diffusion":
            tried = [covering(given.view, floor, depth, count, given.reach_um)]
        else:
            tried = [best_slices(start, given.wanted, hardest)]
    else:
        numbers = sorted({count + more for more in range(MORE_SLICES + 1)} | {2 * count})
        tried = [covering(given.view, floor, depth, number, given.reach_um) for number in numbers]
    if settings.frames is not None:
        fixed = tried[0]
        return replace(plan, slices=Slices(fixed.focus_um, (float(settings.frames),) * len(fixed.focus_um)))
    best, least = None, math.inf
    for slices in tried:
        found = with_frames(replace(plan, slices=slices), given.wanted, predict)
        if found is None:
            continue
        pauses = settings.settle_s * len(slices.focus_um)
        lasts = found.slices.total_frames / given.view.frame_rate_hz + pauses
        if lasts < least:
            best, least = found, lasts
    if best is None:
        raise ConfigurationError(_unreachable(replace(plan, slices=tried[0]), given, predict))
    return best


def _unreachable(plan: Plan, given: Inputs, predict: Any) -> str:
    """Why no number of frames gives the wanted errors."""
    errors = predict(replace(plan, slices=plan.slices.times(1e5)))
    if errors is None:
        return (
            "no particle is seen in at least 5 frames at any slice; raise plan.frame_rate_hz, enlarge the image, "
            "or look whether channel.floor_um and limits are right"
        )
    ratio, name = excess(errors, given.wanted)
    limit = given.wanted[name] * ratio
    because = ""
    if name in ("wall_shear", "pressure_gradient") and given.consistency_error >= given.wanted[name]:
        because = f": the viscosity alone is uncertain by {given.consistency_error:.2g}"
    return (
        f"plan.wanted.{name} = {given.wanted[name]:g} cannot be reached with 10 million frames a slice, which give "
        f"{limit:.2g}{because}; ask for less, or give more particles or smaller localisation errors"
    )


def _other_slices(plan: Plan, given: Inputs, predict: Any, hardest: str) -> dict[str, Any] | None:
    """What the best slices would save, where others were chosen."""
    if given.settings.slices == "best" or hardest == "diffusion" or given.settings.frames is not None:
        return None
    count = CANDIDATES * fewest_slices(given.view, given.section.depth_um) + 1
    many = covering(given.view, float(given.theta[FLOOR]), given.section.depth_um, count, given.reach_um)
    share = plan.slices.total_frames / len(many.focus_um)
    start = replace(plan, slices=Slices(many.focus_um, (share,) * len(many.focus_um)))
    if outcome(start) is None:
        return None
    better = with_frames(
        replace(plan, slices=best_slices(start, given.wanted, hardest)), given.wanted, predict
    )
    if better is None or better.slices.total_frames > 0.9 * plan.slices.total_frames:
        return None
    where = ", ".join(f"{focus:.4g}" for focus in better.slices.focus_um)
    return {
        "change": f'plan.slices = "best": at {where} µm only',
        "time": better.slices.total_frames / plan.slices.total_frames,
    }


def _values(found: Outcome, given: Inputs) -> dict[str, float]:
    """The expected values of what has a relative error."""
    values = {"flow_rate": flow_rate_ul_s(found.fit).value, "diffusion": given.view.diffusion_um2_s}
    if given.viscosity_pa_s is not None:
        values["wall_shear"] = wall_shear(found.fit, given.viscosity_pa_s).mean.value
        values["pressure_gradient"] = pressure_gradient_pa_m(found.fit, given.viscosity_pa_s).value
    return values
