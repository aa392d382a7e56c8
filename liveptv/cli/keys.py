"""The command `keys`: CURVE keys for a run whose images are watched from another machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from liveptv.cli.console import console
from liveptv.cli.exiting import exiting

keys = typer.Typer(help="CURVE keys, for a monitor that other machines reach.", no_args_is_help=False)


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    keys.command()(exiting(make))
    app.add_typer(keys, name="keys")


def make(
    folder: Annotated[Path, typer.Argument(help="a new folder for the keys")],
) -> int:
    """Make a key for the computer that runs the experiment and one for those who watch from elsewhere."""
    from stream.security import generate_keys

    generate_keys(folder)
    for line in (
        f"keys are in {folder}; in the experiment file, under [session]: keys = {folder.as_posix()!r}",
        f"copy {folder / 'server.key'} and {folder / 'client.key_secret'} to the computer that watches, "
        "and nothing else; there: liveptv monitor tcp://HOST:PORT --keys FOLDER",
        "whoever has client.key_secret can watch; server.key_secret must not leave this computer",
    ):
        console.print(escape(line), soft_wrap=True)
    return 0
