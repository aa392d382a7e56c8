"""The command `record`: asks a run that is on to keep the frames around now."""

from __future__ import annotations

import re
from typing import Annotated

import typer
from rich.markup import escape

from liveptv.cli.console import console
from liveptv.cli.exiting import exiting
from stream.errors import ConfigurationError, LinkError

ANSWER_S = 10.0
"""How long to wait for the run's answer, s. It comes within tens of ms; a busy computer takes some seconds."""
SENDER = "command line"


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(rich_help_panel="Live runs")(exiting(record))


def record(
    run: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="name of a run; if left out, the newest one on this computer"),
    ] = None,
    why: Annotated[str, typer.Option(help="why the frames are kept, for the frame table and the log")] = "",
    after: Annotated[
        float | None,
        typer.Option(
            help="for how long what follows is kept, s; if left out, record.after_s", min=0.0, max=1e6
        ),
    ] = None,
) -> int:
    """Keep the frames around now of a run with record.mode events; with all, mark them."""
    from liveptv.monitor.listening import newest_run
    from liveptv.session.run_card import cards_folder, read_card
    from stream.commands import CommandClient
    from stream.limits import NAME_LENGTH
    from stream.messages import Command, CommandKind
    from stream.safe_text import one_line

    if run is not None and not re.fullmatch(r"[\w-]+", run):
        raise ConfigurationError(f"{run!r} is not a run's name; `liveptv record` takes the newest run")
    card = read_card(newest_run() if run is None else cards_folder() / f"{run}.json")
    reason = one_line(why, NAME_LENGTH)
    command = Command(CommandKind.RECORD, after, property=reason, sender=SENDER)
    client = CommandClient(card.commands, card.steering.security())
    try:
        reply = client.request(command, ANSWER_S)
    finally:
        client.close()
    if not reply.accepted:
        raise LinkError(f"the run {card.run_id} refused it: {reply.reason}")
    kept = f"kept from frame {reply.first_frame} on" if reply.first_frame >= 0 else "frames are kept"
    console.print(escape(f"run {card.run_id}: {kept}"), soft_wrap=True)
    return 0
