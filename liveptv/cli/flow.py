"""The command that fits the flow in a channel to a trajectory file: `flow`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from liveptv.cli.console import console
from liveptv.cli.exiting import exiting
from liveptv.cli.options import Json
from liveptv.terminal import is_unicode


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(rich_help_panel="Files")(exiting(flow))


def flow(
    file: Annotated[Path, typer.Argument(help="trajectory file, .h5, with depths")],
    channel: Annotated[
        str | None,
        typer.Option(
            help="section of the channel: rectangle:WIDTHxDEPTH, circle:DIAMETER, ellipse:WIDTHxDEPTH or "
            "polygon:Y,Z;Y,Z;..., um; left out: that of the run's settings"
        ),
    ] = None,
    unknown: Annotated[
        list[str] | None,
        typer.Option(help="fit this too: width_um, depth_um, slip_um or flow_index; may be repeated"),
    ] = None,
    region: Annotated[
        Path | None,
        typer.Option(
            help="walls of a bend, step, constriction or junction, .toml, instead of a straight channel"
        ),
    ] = None,
    viscosity: Annotated[
        float | None,
        typer.Option(help="of the liquid, mPa s, for wall shear and pressure", min=1e-6, max=1e12),
    ] = None,
    diffusion: Annotated[
        float | None, typer.Option(help="of the particles, um²/s; left out: from the tracks", min=0, max=1e9)
    ] = None,
    as_json: Json = False,
) -> int:
    """Fit the flow in a channel, or in a region, to all trajectories: velocity, walls, flow rate, wall shear."""
    from liveptv.flow_fit.channel_flow import channel_flow
    from liveptv.flow_fit.region_flow import read_region, region_flow
    from liveptv.flow_fit.words import in_words, region_words
    from stream.errors import ConfigurationError
    from tracking.physics.sections.section_text import section_from

    pascal_s = None if viscosity is None else 1e-3 * viscosity
    if region is not None:
        if channel is not None or unknown:
            raise ConfigurationError(
                "--region is for walls that are known; leave out --channel and --unknown, or --region"
            )
        found = region_flow(file, read_region(region), viscosity_pa_s=pascal_s, diffusion_um2_s=diffusion)
        lines = region_words(found)
    else:
        section = None if channel is None else section_from(channel)
        found = channel_flow(
            file, section, unknown=unknown or (), viscosity_pa_s=pascal_s, diffusion_um2_s=diffusion
        )
        lines = in_words(found)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=not is_unicode(), default=str))
        return 0
    for name, text in lines:
        console.print(f"[dim]{name:>17}[/]  {escape(text)}", soft_wrap=True)
    return 0
