"""Receives a run's card, messages and event log for a page, in threads for which the run never waits."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil

from liveptv.monitor.run_view import SERIES_PERIOD_S, RunView
from liveptv.session.run_card import RunCard, cards_folder, read_card
from stream.errors import LivePTVError, SourceError
from stream.monitor import MonitorSubscriber
from stream.safe_text import one_line
from stream.sockets import Security

RECEIVE_S = 0.2  # wait for one message; only delays the end of a thread
READ_S = 0.3  # between looks at card and event log: how late an event may be shown
LAST_EVENTS_S = 1.0  # for the events that a session writes just before its process ends


def newest_run() -> Path:
    """The card of the newest run on this computer whose session is alive; cards of dead sessions are removed.

    Raises `SourceError` if there is none.
    """
    living: list[tuple[float, Path]] = []
    for path in cards_folder().glob("*.json"):
        try:
            card = read_card(path)
        except SourceError:
            continue
        if psutil.pid_exists(card.pid):
            living.append((card.began_s, path))
        else:
            path.unlink(missing_ok=True)
    if not living:
        raise SourceError("no run is active on this computer; start one, or give the address of its monitor")
    return max(living)[1]


def security_of(address: str) -> Security | None:
    """The keys of a detector's monitor on this computer, from the card of its run; None if no card names it."""
    for path in cards_folder().glob("*.json"):
        with contextlib.suppress(SourceError):
            card = read_card(path)
            if card.detect == address:
                return card.watching.security()
    return None


class Listener:
    """Feeds a `RunView` from a run until `close`; an error in a stream is reported to `say`, once."""

    def __init__(self, view: RunView, say: Callable[[str], None]) -> None:
        self._view = view
        self._say = say
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._subscribed: dict[str, MonitorSubscriber] = {}
        self.command_address = ""
        self.steering: Security | None = None

    def follow(self, path: Path) -> None:
        """Follow the run of a card; its addresses may be added to the card later."""
        card = read_card(path)
        self._introduce(card)
        self._start(lambda: self._read_card(path, card))
        self._start(lambda: self._read_events(Path(card.events)))
        self._start(self._sample)

    def watch(self, address: str, security: Security | None = None) -> None:
        """Follow a single detector: images and detections, no tracks and no status of a run."""
        self._subscribe(address, security)
        self._start(self._sample)

    def _introduce(self, card: RunCard) -> None:
        self._view.introduce(card)
        self.command_address, self.steering = card.commands, card.steering.security()
        streams = ((card.session, card.listening), (card.detect, card.watching), (card.track, card.listening))
        for address, keys in streams:
            if address and address not in self._subscribed:
                self._subscribe(address, keys.security())

    def _start(self, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except (LivePTVError, OSError) as error:
                self._say(str(error))

        thread = threading.Thread(target=guarded, daemon=True, name="liveptv-page-listener")
        self._threads.append(thread)
        thread.start()

    def _subscribe(self, address: str, security: Security | None) -> None:
        subscriber = MonitorSubscriber(address, security=security)
        self._subscribed[address] = subscriber

        def listen() -> None:
            try:
                while not self._stop.is_set():
                    message = subscriber.receive(RECEIVE_S)
                    if message is not None:
                        self._view.take(message)
                    self._view.gaps = sum(other.gaps for other in self._subscribed.values())
            finally:
                subscriber.close()

        self._start(listen)

    def _read_card(self, path: Path, card: RunCard) -> None:
        """Read the card until it is complete, and note when the session's process has ended."""
        while not self._stop.wait(READ_S):
            if not psutil.pid_exists(card.pid):
                self._stop.wait(LAST_EVENTS_S)
                self._view.gone()
                return
            if not card.complete:
                with contextlib.suppress(SourceError):  # removed: the run ended while it was starting
                    card = read_card(path)
                self._introduce(card)

    def _read_events(self, path: Path) -> None:
        """Follow the event log as it grows; an incomplete last line is read again later."""
        with path.open("rb") as file:
            rest = b""
            while not self._stop.is_set():
                rest += file.read()
                *lines, rest = rest.split(b"\n")
                for line in lines:
                    try:
                        self._view.happened(msgspec.json.decode(line, type=dict[str, Any]))
                    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
                        start = one_line(line[:80].decode(errors="replace"))
                        self._say(f"{path.name} has a line that is not an event: {start!r}")
                self._stop.wait(READ_S)

    def _sample(self) -> None:
        due_s = time.monotonic()
        while not self._stop.wait(max(0.0, due_s - time.monotonic())):
            due_s = time.monotonic() + SERIES_PERIOD_S
            self._view.sample()

    def close(self) -> None:
        """End the threads. Idempotent."""
        self._stop.set()
        for thread in self._threads:
            thread.join(2.0)
        self._threads.clear()
