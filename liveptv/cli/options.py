"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="override a setting; may be given many times"),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace existing outputs")]
Model = Annotated[
    Path | None,
    typer.Option("-m", "--model", help="model or width curve that gives depth; without one: 2D"),
]
Bright = Annotated[Path | None, typer.Option(help="flat field: image of the background without particles")]
Dark = Annotated[Path | None, typer.Option(help="flat field: image without light")]
FrameRate = Annotated[
    float | None, typer.Option(help="frames/s, in place of what the file says", min=1e-6, max=1e7)
]
PixelSize = Annotated[
    float | None, typer.Option(help="um in object space, in place of what the file says", min=1e-6, max=1e7)
]
Axes = Annotated[
    str | None,
    typer.Option(
        metavar="TYX|ZYX|TZYX...",
        help="what the axes of the file are, slowest first, where it says it wrongly: T time, Z focus, C channel",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
Monitor = Annotated[bool, typer.Option("--monitor", help="show it live in the browser")]
Port = Annotated[
    int, typer.Option(help="the page's port on 127.0.0.1; 0: any free one", min=0, max=65535, metavar="PORT")
]
