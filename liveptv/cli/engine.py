"""The commands `engine ...`: what can run a network here, and faster forms of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from liveptv.cli.console import console
from liveptv.cli.exiting import exiting
from liveptv.cli.options import Bright, Dark
from liveptv.models import SHIPPED_MODEL

engine = typer.Typer(help="What runs a network here, and faster forms of one.", no_args_is_help=True)

Network = Annotated[
    Path | None, typer.Argument(help="the network, .onnx; left out: the one for the simulated microscope")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    engine.command("list")(exiting(list_back_ends))
    engine.command()(exiting(quantise))
    app.add_typer(engine, name="engine")


def list_back_ends(model: Network = None) -> int:
    """Say which back ends can run a network here, in the order in which they are chosen, and why others cannot."""
    from engines.backends.registry import BACK_ENDS
    from engines.factory import check_model
    from engines.settings import DetectorSettings

    model = model or SHIPPED_MODEL
    check_model(model)
    table = Table(box=None, pad_edge=False)
    for name in ("back end", "device", "chosen", "why not"):
        table.add_column(name)
    taken = False
    for back_end in BACK_ENDS:
        reason = back_end.why_not(DetectorSettings(), model)
        chosen = back_end.automatic and not reason and not taken
        taken = taken or chosen
        how = "yes" if chosen else "by name" if not reason else ""
        table.add_row(back_end.name, back_end.device, how, escape(reason))
    console.print(table)
    return 0


def quantise(
    model: Annotated[Path, typer.Argument(help="the network, .onnx")],
    images: Annotated[Path, typer.Argument(help="recorded images such as the experiment has")],
    bright: Bright = None,
    dark: Dark = None,
) -> int:
    """Make the 8-bit form of a network for OpenVINO; it is kept, beside the network, only if it is as accurate."""
    from liveptv.quantising import quantise_model

    kept = quantise_model(
        model, images, bright, dark, lambda text: console.print(escape(text), soft_wrap=True)
    )
    console.print(f"written to {escape(str(kept.path))}", soft_wrap=True)
    return 0
