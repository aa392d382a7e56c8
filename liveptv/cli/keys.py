"""The command `keys`: makes the CURVE keys with which another computer may watch a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from liveptv.cli.console import console
from liveptv.cli.exiting import exiting

keys = typer.Typer(help="Make keys for watching a run from another computer.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    keys.command()(exiting(make))
    app.add_typer(keys, name="keys", rich_help_panel="This computer")


def make(
    folder: Annotated[Path, typer.Argument(help="new folder for the keys")],
) -> int:
    """Make a key pair for the computer that runs the experiment and one for those who watch."""
    from stream.security import generate_keys

    generate_keys(folder)
    for line in (
        f"the keys are in {folder}; in the experiment file, under [session], set keys = {folder.as_posix()!r}",
        f"copy {folder / 'server.key'} and {folder / 'client.key_secret'}, and nothing else, to the computer that "
        "watches, and run there: liveptv monitor tcp://HOST:PORT --keys FOLDER",
        "whoever has client.key_secret can watch; server.key_secret must never leave this computer",
    ):
        console.print(escape(line), soft_wrap=True)
    return 0
