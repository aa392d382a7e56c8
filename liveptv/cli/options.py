"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="override a setting; may be repeated"),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace existing files")]
Model = Annotated[
    Path | None,
    typer.Option(
        "-m", "--model", help="network (.onnx) or width curve (.h5), for depth; without one, 2D only"
    ),
]
Bright = Annotated[
    Path | None, typer.Option(help="flat-field reference: the lit background, without particles")
]
Dark = Annotated[Path | None, typer.Option(help="flat-field reference: an image without light")]
FrameRate = Annotated[
    float | None, typer.Option(help="frames per second; overrides the file", min=1e-6, max=1e7)
]
PixelSize = Annotated[
    float | None,
    typer.Option(help="size of a pixel in object space, um; overrides the file", min=1e-6, max=1e7),
]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="x=NAME[um],...",
        help="which columns of another program's table to read, with their units: "
        r"x=X\[um],y=Y\[px],frame=F\[1] (frames counted from 1)",
    ),
]
TablePixelSize = Annotated[
    float | None,
    typer.Option(
        "--pixel-size", help="size of a pixel in object space, um, for tables in pixels", min=1e-6, max=1e7
    ),
]
ImportedPixelSize = Annotated[
    float | None,
    typer.Option(
        "--pixel-size",
        help="size of a pixel in object space, um, for files of other programs in pixels",
        min=1e-6,
        max=1e7,
    ),
]
ImportedFrameRate = Annotated[
    float | None,
    typer.Option(
        "--frame-rate",
        help="frames per second, for files of other programs that do not state it",
        min=1e-6,
        max=1e7,
    ),
]
LengthUnit = Annotated[
    str | None,
    typer.Option(
        "--length-unit",
        metavar="um|nm|mm|m",
        help="unit of length, for files of other programs that do not state it",
    ),
]
Axes = Annotated[
    str | None,
    typer.Option(
        metavar="TYX|ZYX|TZYX...",
        help="order of the file's axes, slowest first, if the file has it wrong: T time, Z focus, C channel",
    ),
]
ZStep = Annotated[
    float | None,
    typer.Option(
        "--z-step",
        help="distance between the slices of a volume, um; overrides the file, and reads the z planes of each time "
        "as one volume",
        min=1e-4,
        max=1e4,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
Monitor = Annotated[bool, typer.Option("--monitor", help="show the run live in the browser")]
Port = Annotated[
    int,
    typer.Option(
        help="port of the live page on 127.0.0.1; 0: any free port", min=0, max=65535, metavar="PORT"
    ),
]
