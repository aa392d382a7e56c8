"""The command that measures diffusion in a trajectory file: `diffusion`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from liveptv.cli.console import console
from liveptv.cli.exiting import exiting
from liveptv.cli.options import Json, Overwrite
from liveptv.files import refuse_to_replace, writable
from liveptv.terminal import is_unicode
from stream.errors import ConfigurationError


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(rich_help_panel="Files")(exiting(diffusion))


def diffusion(
    tracks: Annotated[Path, typer.Argument(help="trajectory file, .h5")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="table of D by track, .csv", metavar="FILE")
    ] = None,
    msd: Annotated[
        Path | None,
        typer.Option(help="table of mean squared displacements, .csv; also shows exponents", metavar="FILE"),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="temperature of the liquid, degrees Celsius")
    ] = None,
    diameter: Annotated[float | None, typer.Option(help="diameter of the particles, um")] = None,
    viscosity: Annotated[float | None, typer.Option(help="viscosity of the liquid, mPa s")] = None,
    water: Annotated[
        bool | None,
        typer.Option(
            "--water/--not-water", help="the liquid is water: its viscosity follows from its temperature"
        ),
    ] = None,
    exposure: Annotated[
        float | None, typer.Option(help="exposure time, ms; left out: that of the frames", min=0, max=1e9)
    ] = None,
    localisation: Annotated[
        float | None, typer.Option(help="localisation error, um; left out: from the tracks")
    ] = None,
    as_json: Json = False,
    overwrite: Overwrite = False,
) -> int:
    """Show diffusion: D with standard errors, kinds of particles, and what D says of liquid or particles."""
    from liveptv.workflows.diffusion import diffusion_of_file, exponents, msd_table, track_table, write_csv

    for path in (output, msd):
        if path is None:
            continue
        if path.suffix.lower() != ".csv":
            raise ConfigurationError(f"{path} is not .csv; tables of diffusion are written as .csv")
        refuse_to_replace(path, tracks)
        writable(path, overwrite)
    if output is not None and msd is not None and output == msd:
        raise ConfigurationError(f"--output and --msd are both {msd}; give them different names")
    given = {
        "temperature_c": temperature,
        "particle_diameter_um": diameter,
        "viscosity_mpa_s": viscosity,
        "water": water,
        "localisation_um": localisation,
    }
    found = diffusion_of_file(tracks, given, exposure_ms=exposure)
    numbers, lines = found.findings.to_dict(), found.findings.lines()
    if output is not None:
        write_csv(track_table(found.findings), output, overwrite=overwrite)
    if msd is not None:
        curves = found.msd()
        write_csv(msd_table(curves), msd, overwrite=overwrite)
        alphas = exponents(curves)
        numbers["exponents"] = {axis: asdict(one) for axis, one in alphas.items()}
        lines.append(
            (
                "exponent",
                ", ".join(
                    f"{axis} {one.alpha:.3f} ± {one.standard_error_alpha:.3f}" for axis, one in alphas.items()
                ),
            )
        )
    if as_json:
        typer.echo(json.dumps(numbers, indent=2, ensure_ascii=not is_unicode()))
        return 0
    for name, text in lines:
        console.print(f"[dim]{name:>14}[/]  {escape(text)}", soft_wrap=True)
    for path in (output, msd):
        if path is not None:
            console.print(escape(str(path)), soft_wrap=True)
    return 0
