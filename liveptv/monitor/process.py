"""Starts the page's server: in this process for `liveptv monitor`, in a separate one beside a run."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self

import uvicorn

from liveptv.monitor.access import new_token
from liveptv.monitor.connection_limit import gate
from liveptv.monitor.listening import Listener
from liveptv.monitor.run_view import RunView
from liveptv.monitor.server import PageServer
from liveptv.monitor.steering import SENDER, Steering
from liveptv.session.process_end import end_process
from stream.errors import ConfigurationError, LinkError
from stream.messages import Command, CommandKind
from stream.sockets import Security

START_S = 120.0  # for the page's process to start: 1 to 2 s; beside busy programs more than 30 s were seen
PATIENCE_S = 5.0  # for the process to end before it is killed
LAST_UPDATE_S = 1.0  # after the run, so that browsers get its last summary (one is sent every 0.5 s)
MAX_MESSAGE_BYTES = 4096  # from a browser; a controller's settings take some hundred


class Page:
    """The server with everything that feeds it; `url` is its address for a browser, token included."""

    def __init__(
        self, target: Path | str, port: int, say: Callable[[str], None], security: Security | None = None
    ) -> None:
        """`target` is a run's card, or the address of a detector's monitor, with its keys in `security`.

        Raises `ConfigurationError` if the port is taken.
        """
        self._socket = _listen(port)
        token = new_token()
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/?token={token}"
        view = RunView()
        self._listener = Listener(view, say)
        self._steering = Steering(lambda: (self._listener.command_address, self._listener.steering))
        self._say = say

        def refused(text: str) -> None:
            say(text)
            if self._listener.command_address:
                self._steering.send(Command(CommandKind.MARK, text, sender=SENDER))

        server = PageServer(view, self._steering, token, refused)
        if isinstance(target, Path):
            self._listener.follow(target)
        else:
            self._listener.watch(target, security)
        config = uvicorn.Config(
            server.app,
            log_level="critical",
            access_log=False,
            lifespan="off",
            http=gate(server.refuse),
            ws_max_size=MAX_MESSAGE_BYTES,
            ws_ping_interval=20.0,
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=2,
            server_header=False,
        )
        self._server = uvicorn.Server(config)

    def serve(self) -> None:
        """Serve until `end`, or Ctrl-C in the main thread."""
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._steering.close()
            self._listener.close()
            self._socket.close()

    def end(self) -> None:
        """End `serve`; may be called from any thread."""
        self._server.should_exit = True


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if sys.platform != "win32":  # there it would let two programs share the port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigurationError(
            f"port {port} on 127.0.0.1 is not available ({error}); choose another"
        ) from error
    return listener


class PageProcess:
    """A page in a separate process, beside the run that it shows; it ends with the `with` block."""

    def __init__(self, card: Path, port: int = 0) -> None:
        """Start it; raises `LinkError` if it does not come up."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve_beside_a_run, args=(card, port, theirs), name="liveptv-page", daemon=True
        )
        self._process.start()
        theirs.close()
        self.url = ""

    def wait_for_url(self, timeout_s: float = START_S) -> str:
        """The page's address; raises `LinkError` if it does not come up in time."""
        if not self.url:
            why = f"no answer within {timeout_s:g} s"
            with contextlib.suppress(EOFError, OSError):
                if self._pipe.poll(timeout_s):
                    self.url, why = self._pipe.recv()
            if not self.url:
                raise LinkError(f"the page could not be opened: {why}; the run continues without it")
        return self.url

    def close(self) -> None:
        """Let browsers get the last summary, then end the process. Idempotent."""
        self._pipe.close()
        end_process(self._process, PATIENCE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _serve_beside_a_run(card: Path, port: int, pipe: Connection) -> None:
    """Main function of the page's process, which ends soon after the run has closed its end of the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        page = Page(card, port, lambda _text: None)
    except (ConfigurationError, LinkError, OSError) as error:
        pipe.send(("", str(error)))
        return
    pipe.send((page.url, ""))

    def wait_for_the_run() -> None:
        with contextlib.suppress(EOFError, OSError):
            pipe.recv()
        threading.Event().wait(LAST_UPDATE_S)
        page.end()

    threading.Thread(target=wait_for_the_run, daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        _serve_without_signals(page)


def _serve_without_signals(page: Page) -> None:
    """Serve from a thread, where uvicorn installs no signal handlers: signals belong to the run."""
    thread = threading.Thread(target=page.serve)
    thread.start()
    thread.join()


def has_display() -> bool:
    """Whether a browser window can open here."""
    if sys.platform in {"win32", "darwin"}:
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def open_browser(url: str) -> None:
    """Open the page in the user's browser; if none can be started, the printed address remains."""
    with contextlib.suppress(webbrowser.Error):
        webbrowser.open(url)
