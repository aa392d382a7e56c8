"""The command `recalibrate`: a new version of a model, from recorded particles and their images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from liveptv.cli.console import console
from liveptv.cli.exiting import exiting
from liveptv.cli.options import Bright, Dark, Overwrite


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(rich_help_panel="Calibration")(exiting(recalibrate))


def recalibrate(
    tracks: Annotated[Path, typer.Argument(help="trajectory file of a run whose images were recorded, .h5")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="file for the new version of the model, .onnx")
    ],
    images: Annotated[
        Path | None, typer.Option(help="the recorded images; if left out, those that the file names")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option("-m", "--model", help="network to update, .onnx; if left out, that of the run"),
    ] = None,
    bright: Bright = None,
    dark: Dark = None,
    wall_distance: Annotated[
        float | None,
        typer.Option(
            help="distance, um, of two walls with particles at rest on both: tells the depth scale",
            min=1e-3,
            max=1e6,
        ),
    ] = None,
    wall_focus: Annotated[
        float | None,
        typer.Option(
            help="focus position, um, at which particles at rest on a wall are in focus", min=-1e6, max=1e6
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> int:
    """Update a model from a run: focal lines, depth scale, focal surface, walk with depth."""
    from liveptv.workflows.recalibrate import Inputs, recalibrate_model

    recalibrate_model(
        Inputs(tracks, images, model, bright, dark),
        output,
        wall_distance_um=wall_distance,
        wall_focus_um=wall_focus,
        overwrite=overwrite,
        say=lambda text: console.print(escape(text), soft_wrap=True),
    )
    console.print(f"new version of the model written to {escape(str(output))}", soft_wrap=True)
    return 0
