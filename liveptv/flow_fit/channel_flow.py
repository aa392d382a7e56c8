"""The flow in a straight channel from the trajectories of a file, with all that follows from it, as plain
numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from liveptv.flow_fit.over_run import BLOCK_S, over_run
from liveptv.flow_fit.run_settings import (
    PA_S_PER_MPA_S,
    channel_of,
    flow_settings_of,
    last_change_s,
    steady_flow_ul_s,
    viscosity_of,
)
from stream.errors import ConfigurationError
from tracking.physics.channel.derived import Estimate, flow_rate_ul_s, pressure_gradient_pa_m, wall_shear
from tracking.physics.channel.extended import Comparison, explanation
from tracking.physics.channel.fit import ChannelFit, fit_channel
from tracking.physics.channel.misfit import misfit
from tracking.physics.channel.parameters import PARAMETERS
from tracking.physics.sections.shapes import Section
from tracking.physics.tracks.from_trajectories import velocities_of
from tracking.physics.tracks.velocities import TrackVelocities
from tracking.trajectories.file import Trajectories, read_trajectories
from tracking.trajectories.heights import factor_of


@dataclass(frozen=True, slots=True, eq=False)
class FlowResult:
    """The `fit`, and all that follows from it in plain numbers (`found`)."""

    fit: ChannelFit
    found: dict[str, Any]


def channel_flow(
    path: Path,
    section: Section | None = None,
    *,
    unknown: Sequence[str] = (),
    viscosity_pa_s: float | None = None,
    diffusion_um2_s: float | None = None,
) -> dict[str, Any]:
    """Fit the flow to a trajectory file; see `flow_in`. Raises `SourceError` too, if it cannot be read."""
    return flow_in(
        read_trajectories(path),
        section,
        unknown=unknown,
        viscosity_pa_s=viscosity_pa_s,
        diffusion_um2_s=diffusion_um2_s,
    ).found


def flow_in(
    trajectories: Trajectories,
    section: Section | None = None,
    *,
    unknown: Sequence[str] = (),
    viscosity_pa_s: float | None = None,
    diffusion_um2_s: float | None = None,
) -> FlowResult:
    """Fit the flow to trajectories, those since the last change of the pump.

    Without a `section` or a viscosity, those of the run's settings (`[channel]`, `[flow]`, `[diffusion]`).
    `unknown` parameters are fitted too (`PARAMETERS`, such as `depth_um`), beside those of `[flow]`. Wall shear and
    pressure gradient need the viscosity.

    Raises `ConfigurationError` without depths, with too few trajectories, or if no section is known.
    """
    attributes = trajectories.attributes
    settings = flow_settings_of(attributes)
    channel = channel_of(attributes)
    if section is None:
        if channel is None:
            raise ConfigurationError(
                "the file does not say what the channel is like; give it, such as --channel rectangle:400x100"
            )
        section = settings.section_or(channel.width_um, channel.depth_um)
    if viscosity_pa_s is None and (known := viscosity_of(attributes)) is not None:
        viscosity_pa_s = PA_S_PER_MPA_S * known
    names = dict.fromkeys([*settings.unknown, *unknown])
    floor_um = 0.0 if channel is None else factor_of(attributes) * channel.floor_um
    prior = settings.prior(section, floor_um, None if channel is None else channel.center_y_um, names)
    changed_s = last_change_s(trajectories)
    settled_s = changed_s + settings.settle_s
    tracks = _since(velocities_of(trajectories, diffusion_um2_s), settled_s)
    fit = fit_channel(tracks, section, prior)
    found: dict[str, Any] = {
        "trajectories": len(fit.tracks),
        "from_s": settled_s if math.isfinite(settled_s) else None,
        "settled": fit.settled,
        "reference_x_um": fit.reference_x_um,
        "parameters": _parameters(fit),
    }
    set_point = steady_flow_ul_s(trajectories, changed_s)
    found["flow_rate_ul_s"] = asdict(flow_rate_ul_s(fit)) | {"set_point": set_point}
    if viscosity_pa_s is not None:
        shear = wall_shear(fit, viscosity_pa_s)
        found["wall_shear_pa"] = {"mean": asdict(shear.mean), "maximum": asdict(shear.maximum)}
        found["pressure_gradient_pa_m"] = asdict(pressure_gradient_pa_m(fit, viscosity_pa_s))
    shares = fit.classes.shares.tolist()
    found["classes"] = dict(zip(("follow", "stuck", "wrong"), shares, strict=True))
    pieces = _since(velocities_of(trajectories, diffusion_um2_s, longest_s=BLOCK_S), settled_s)
    frames = {name: trajectories.frames[name] for name in ("time_s", "flow_ul_s")}
    since = frames["time_s"] >= settled_s
    found["over_time"] = asdict(over_run(fit, pieces, frames["time_s"][since], frames["flow_ul_s"][since]))
    tests = misfit(fit)
    found["misfit"] = {
        "told": list(tests.told),
        "tests": {name: asdict(t) for name, t in tests.tests.items()},
    }
    why = explanation(fit, tests)
    found["explained_by"] = None if why is None else why.reason
    found["better_with"] = [] if why is None else [_compared(one) for one in why.comparisons]
    return FlowResult(fit, found)


def _since(tracks: TrackVelocities, time_s: float) -> TrackVelocities:
    return tracks.chosen(tracks.time_s - tracks.duration_s / 2.0 >= time_s)


def _parameters(fit: ChannelFit) -> dict[str, dict[str, Any]]:
    return {
        name: asdict(Estimate(fit.value(name), fit.standard_error(name))) | {"told": fit.told(name)}
        for name in PARAMETERS
    }


def _compared(more: Comparison) -> dict[str, Any]:
    return {
        "parameter": more.name,
        **asdict(Estimate(more.fit.value(more.name), more.fit.standard_error(more.name))),
        "log_likelihood_ratio": more.log_likelihood_ratio,
        "p": more.p,
    }
