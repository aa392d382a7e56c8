"""The command `warmup`: compiles everything, so that no later command waits for it."""

from __future__ import annotations

import typer
from rich.markup import escape
from rich.status import Status

from liveptv.cli.console import console
from liveptv.cli.exiting import exiting


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(rich_help_panel="This computer")(exiting(warmup))


def warmup() -> int:
    """Compile what live runs and detection need, once per installation, for all its users."""
    from liveptv.workflows.warmup import warm_up

    moving = console.is_terminal and not console.is_dumb_terminal
    status = Status("", console=console)
    said: list[str] = []

    def show(parts: list[str], seconds: float) -> None:
        text = f"compiling {', '.join(parts)}"
        if moving:
            status.update(escape(f"{text} ({seconds:.0f} s)"))
        elif text not in said:
            said.append(text)
            console.print(escape(f"{text} ({seconds:.0f} s)"), soft_wrap=True)

    if moving:
        status.start()
    try:
        warmed = warm_up(show)
    finally:
        status.stop()
    what = f"compiled in {warmed.seconds:.0f} s" if warmed.compiled else "everything was compiled already"
    console.print(f"{what}; the machine code is in", soft_wrap=True)
    for folder in warmed.folders:
        console.print(escape(f"  {folder}"), soft_wrap=True)
    return 0
