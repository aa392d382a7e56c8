"""The commands `engine list`, `quantise` and `build`: back ends for networks, and faster forms of a network."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import Progress, TaskID
from rich.table import Table

from liveptv.cli.console import console
from liveptv.cli.exiting import exiting
from liveptv.cli.options import Bright, Dark
from liveptv.models import SHIPPED_MODEL
from stream.errors import ConfigurationError

engine = typer.Typer(
    help="List the back ends for networks and make faster forms of a network.", no_args_is_help=True
)

Network = Annotated[
    Path | None, typer.Argument(help="network, .onnx; if left out, the one for the simulated microscope")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    engine.command("list")(exiting(list_back_ends))
    engine.command()(exiting(quantise))
    engine.command()(exiting(build))
    app.add_typer(engine, name="engine", rich_help_panel="This computer")


def list_back_ends(model: Network = None) -> int:
    """List the back ends in the order of preference, and why some cannot run the network here."""
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
    model: Annotated[Path, typer.Argument(help="network, .onnx")],
    images: Annotated[Path, typer.Argument(help="recorded images that are typical of the experiment")],
    bright: Bright = None,
    dark: Dark = None,
) -> int:
    """Make an 8-bit form of a network for OpenVINO; it is kept, next to the network, only if it is as accurate."""
    from liveptv.workflows.quantise import quantise_model

    kept = quantise_model(
        model, images, bright, dark, lambda text: console.print(escape(text), soft_wrap=True)
    )
    console.print(f"written to {escape(str(kept.path))}", soft_wrap=True)
    return 0


def build(
    model: Annotated[Path, typer.Argument(help="network, .onnx")],
    height: Annotated[int, typer.Option(help="of the images, px", min=16, max=16384)],
    width: Annotated[int, typer.Option(help="of the images, px", min=16, max=16384)],
    bits: Annotated[int, typer.Option(help="bits per pixel, 8 or 16", min=8, max=16)] = 8,
    flat_field: Annotated[bool, typer.Option(help="the experiment uses flat-field references")] = False,
    precision: Annotated[
        str, typer.Option(help="`reduced`: half precision; `full`: single precision")
    ] = "reduced",
) -> int:
    """Build a TensorRT engine of a network and keep it.

    With TensorRT for RTX: in seconds, on any Linux computer, for every GPU of the series RTX 30 and newer; a run
    does it by itself. With full TensorRT: in minutes, on the GPU that will run it.
    """
    if bits not in (8, 16):
        raise ConfigurationError(f"pixels of {bits} bits are stored in 16: pass --bits 16")
    if precision not in ("full", "reduced"):
        raise ConfigurationError(f"--precision must be full or reduced, not {precision}")
    from engines.cuda.layout import MOST_PARTICLES, FrameFormat
    from engines.factory import check_model
    from engines.network.model import OnnxModel
    from engines.tensorrt.build_and_check import make_engine
    from engines.tensorrt.opening import open_to_build

    check_model(model)
    card = OnnxModel(model).card
    if card.processor_only:
        raise ConfigurationError(f"TensorRT {card.processor_only}; {model} runs on the processor")
    plans, back_end, reason = open_to_build(half=precision == "reduced", say=_say)
    frame = FrameFormat(height, width, bits // 8, flat_field, MOST_PARTICLES, card.kinds)
    with ExitStack() as stack:
        if back_end is not None:
            stack.callback(back_end.device.close)
        bars = stack.enter_context(Progress(console=console, transient=True))
        tasks: dict[str, TaskID] = {}

        def tell(phase: str, done: int, of: int) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(escape(phase), total=of)
            bars.update(tasks[phase], completed=done)

        path, found = make_engine(model, frame, plans, back_end, tell)
    _say(
        f"compared with ONNX Runtime on a simulated frame: {found}"
        if found is not None
        else f"not run here ({reason}); it is compared with ONNX Runtime before its first frame"
    )
    _say(f"written to {path}")
    if plans.loaded.library.is_portable:
        _say(
            f"to use it on another computer with {plans.loaded}: copy {path.name} and {model.name} there, into one "
            "folder"
        )
    return 0


def _say(text: str) -> None:
    console.print(escape(text), soft_wrap=True)
