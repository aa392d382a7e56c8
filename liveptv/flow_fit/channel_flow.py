"""The flow in a straight channel from the trajectories of a file, with all that follows from it, as plain
numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from liveptv.reports.profile import channel_of, steady_flow_ul_s
from stream.errors import ConfigurationError
from tracking.physics.channel.derived import Estimate, flow_rate_ul_s, pressure_gradient_pa_m, wall_shear
from tracking.physics.channel.extended import with_one_more
from tracking.physics.channel.fit import ChannelFit, fit_channel
from tracking.physics.channel.misfit import misfit
from tracking.physics.channel.over_time import over_time
from tracking.physics.channel.parameters import PARAMETERS, UNKNOWN, Known, prior_of
from tracking.physics.sections.shapes import Rectangle, Section
from tracking.physics.tracks.from_trajectories import velocities_of
from tracking.trajectories.file import Trajectories, read_trajectories

BLOCK_S = 1.0
"""Blocks of time in which a variation of the flow is looked for."""


@dataclass(frozen=True, slots=True, eq=False)
class FileFlow:
    """The flow fitted to a trajectory file. Viscosity in Pa s and diffusion in um^2/s are None where not given."""

    trajectories: Trajectories
    fit: ChannelFit
    viscosity_pa_s: float | None
    diffusion_um2_s: float | None


def flow_of_file(
    path: Path,
    section: Section | None = None,
    *,
    unknown: Sequence[str] = (),
    viscosity_pa_s: float | None = None,
    diffusion_um2_s: float | None = None,
) -> FileFlow:
    """Fit the flow to a trajectory file.

    Without a `section`, that of the run's settings (`[channel]`). `unknown` parameters are fitted too
    (`PARAMETERS`, such as `depth_um`). Wall shear and pressure gradient need the viscosity.

    Raises `SourceError` or `ConfigurationError` if the file cannot be read, has no depths or too few trajectories,
    or no section is known.
    """
    trajectories = read_trajectories(path)
    section = section or _section_of(trajectories)
    tracks = velocities_of(trajectories, diffusion_um2_s)
    begin = {"slip_um": 0.0, "flow_index": 1.0, "width_um": section.width_um, "depth_um": section.depth_um}
    known = {name: Known(begin.get(name, math.nan), UNKNOWN) for name in unknown}
    fit = fit_channel(tracks, section, prior_of(section, known))
    return FileFlow(trajectories, fit, viscosity_pa_s, diffusion_um2_s)


def channel_flow(flow: FileFlow) -> dict[str, Any]:
    """All that follows from the fit: parameters, flow rate, shear and pressure, changes over time, misfit."""
    fit, trajectories = flow.fit, flow.trajectories
    found = {
        "trajectories": len(fit.tracks),
        "settled": fit.settled,
        "reference_x_um": fit.reference_x_um,
        "parameters": _parameters(fit),
    }
    found["flow_rate_ul_s"] = asdict(flow_rate_ul_s(fit)) | {"set_point": steady_flow_ul_s(trajectories)}
    if flow.viscosity_pa_s is not None:
        shear = wall_shear(fit, flow.viscosity_pa_s)
        found["wall_shear_pa"] = {"mean": asdict(shear.mean), "maximum": asdict(shear.maximum)}
        found["pressure_gradient_pa_m"] = asdict(pressure_gradient_pa_m(fit, flow.viscosity_pa_s))
    shares = fit.classes.shares.tolist()
    found["classes"] = dict(zip(("follow", "stuck", "wrong"), shares, strict=True))
    pieces = velocities_of(trajectories, flow.diffusion_um2_s, longest_s=BLOCK_S)
    varies = over_time(fit, pieces, BLOCK_S)
    found["memory_s"] = None if varies is None or varies.steady else varies.memory_s
    tests = misfit(fit)
    found["misfit"] = {
        "told": list(tests.told),
        "tests": {name: asdict(t) for name, t in tests.tests.items()},
    }
    found["better_with"] = [_compared(fit, name) for name in ("slip_um", "flow_index") if name in tests.told]
    return found


def _section_of(trajectories: Trajectories) -> Section:
    channel = channel_of(trajectories.attributes)
    if channel is None:
        raise ConfigurationError(
            "the file does not say what the channel is like; give it, such as --channel rectangle:400x100"
        )
    return Rectangle(channel.width_um, channel.depth_um)


def _parameters(fit: ChannelFit) -> dict[str, dict[str, Any]]:
    return {
        name: asdict(Estimate(fit.value(name), fit.standard_error(name))) | {"told": fit.told(name)}
        for name in PARAMETERS
    }


def _compared(fit: ChannelFit, name: str) -> dict[str, Any]:
    more = with_one_more(fit, name)
    return {
        "parameter": name,
        **asdict(Estimate(more.fit.value(name), more.fit.standard_error(name))),
        "log_likelihood_ratio": more.log_likelihood_ratio,
        "p": more.p,
    }
