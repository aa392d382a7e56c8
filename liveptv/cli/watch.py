"""The command `monitor`, and the live page that opens with a run."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from liveptv.cli.console import console, warn
from liveptv.cli.exiting import exiting
from liveptv.cli.options import Port
from liveptv.config import Experiment, revised
from stream.errors import ConfigurationError, LinkError

if TYPE_CHECKING:
    from liveptv.monitor.process import PageProcess
    from stream.sockets import Security

MONITOR_HZ = (
    15.0  # images/s on the page: motion looks smooth; each 1440 x 2560 image costs a few ms of one core
)
ADDRESS = re.compile(r"(tcp|ipc)://.+")


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(rich_help_panel="Live runs")(exiting(monitor))


def monitor(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[ADDRESS]",
            help="name of a run, or the monitor address of its detector (tcp://...), which has only images and "
            "detections; if left out, the newest run on this computer",
        ),
    ] = None,
    as_text: Annotated[
        bool, typer.Option("--text", help="print one line per second instead of showing a page")
    ] = False,
    seconds: Annotated[float | None, typer.Option(help="stop watching after this time, s", min=0.1)] = None,
    keys: Annotated[
        Path | None,
        typer.Option(help="folder with keys, to watch another computer (see liveptv keys make)"),
    ] = None,
    port: Port = 0,
    browser: Annotated[bool, typer.Option(help="open the page in the browser")] = True,
) -> int:
    """Watch and steer a run in the browser."""
    from liveptv.monitor.listening import newest_run, security_of
    from liveptv.session.run_card import cards_folder, read_card
    from stream.security import load_keys

    is_address = run is not None and ADDRESS.fullmatch(run) is not None
    if run is not None and not is_address and not re.fullmatch(r"[\w-]+", run):
        raise ConfigurationError(
            f"{run!r} is neither a run's name nor an address such as tcp://127.0.0.1:5555"
        )
    target: Path | str = cards_folder() / f"{run}.json"
    if run is None:
        target = newest_run()
    elif is_address:
        target = run
    if keys is not None and not is_address:
        raise ConfigurationError("--keys needs the address of a monitor: tcp://HOST:PORT")
    security = None
    if isinstance(target, str):
        security = security_of(target) if keys is None else load_keys(keys)
    if as_text:
        from liveptv.workflows.watch import watch

        address, door = _detector(target)
        watch(address, seconds, _say, security or door)
        return 0
    if isinstance(target, Path):
        read_card(target)
    from liveptv.monitor.process import Page

    page = Page(target, port, _say, security)
    _say(f"live page: {page.url}")
    _say("Ctrl-C closes the page; the run continues")
    if browser:
        _open(page.url)
    if seconds is not None:
        timer = threading.Timer(seconds, page.end)
        timer.daemon = True
        timer.start()
    page.serve()
    return 0


def _detector(target: Path | str) -> tuple[str, Security | None]:
    """The address of a detector's monitor, and the password that the run's card has for it."""
    from liveptv.session.run_card import read_card

    if isinstance(target, str):
        return target, None
    card = read_card(target)
    if not card.detect:
        raise LinkError(f"the run {target.stem} is still starting; try again in a moment")
    return card.detect, card.watching.security()


def with_live_images(experiment: Experiment) -> Experiment:
    """The same experiment with 15 images per second for viewers, unless it sets `session.monitor_hz`."""
    if "monitor_hz" in experiment.session.model_fields_set:
        return experiment
    return revised(experiment, session={"monitor_hz": MONITOR_HZ})


def page_beside(port: int) -> Callable[[Path], AbstractContextManager[None]]:
    """A page for the duration of a run; its address is printed, and opened if there is a display."""

    @contextmanager
    def beside(card: Path) -> Iterator[None]:
        from liveptv.monitor.process import PageProcess

        with PageProcess(card, port) as page:
            thread = threading.Thread(target=_introduce, args=(page,), daemon=True)
            thread.start()
            try:
                yield
            finally:
                thread.join()

    def _introduce(page: PageProcess) -> None:
        try:
            url = page.wait_for_url()
        except LinkError as error:
            warn(str(error))
            return
        _say(f"live page: {url}")
        _open(url)

    return beside


def _open(url: str) -> None:
    from liveptv.monitor.process import has_display, open_browser

    if console.is_terminal and has_display():
        open_browser(url)


def _say(text: str) -> None:
    console.print(escape(text), soft_wrap=True)
