"""From a button to a command: what a page may ask for, and the way to the run and back."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Any

from stream.commands import URGENT, CommandClient
from stream.errors import LinkError, LivePTVError
from stream.limits import fitted, why_refused
from stream.messages import Command, CommandKind, CommandReply
from stream.safe_text import one_line
from stream.sockets import Security

ALLOWED = {
    CommandKind.MOVE_FOCUS,
    CommandKind.NEXT_SLICE,
    CommandKind.SET_FLOW,
    CommandKind.SET_EXPOSURE,
    CommandKind.TRIGGER,
    CommandKind.PAUSE,
    CommandKind.RESUME,
    CommandKind.STOP,
    CommandKind.MAKE_SAFE,
    CommandKind.MARK,
    CommandKind.CONTROL,
}
WITH_NUMBER = {CommandKind.MOVE_FOCUS, CommandKind.NEXT_SLICE, CommandKind.SET_FLOW, CommandKind.SET_EXPOSURE}
ANSWER_S = 35.0
MOST_WAITING = 32
SENDER = "page"
POLL_S = 0.02

log = logging.getLogger(__name__)


class RefusedCommandError(LivePTVError):
    """A page asked for something that pages cannot ask for."""


def command_from(wish: dict[str, Any]) -> Command:
    """Make the command of a wish, `{"kind": "set_flow", "value": 0.03}`; raises `RefusedCommandError`.

    For a controller the value is an entry of `[controller]`, `{"stop_when": {"frames": 900}}`, `{}` for none.
    """
    try:
        kind = CommandKind(wish.get("kind"))  # type: ignore[arg-type]
    except ValueError:
        raise RefusedCommandError(f"{str(wish.get('kind'))[:40]!r} is no command") from None
    if kind not in ALLOWED:
        raise RefusedCommandError(f"{kind} is not for the page; use an experiment file or a controller")
    value = wish.get("value")
    if kind in WITH_NUMBER:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RefusedCommandError(f"{kind} needs a number")
        try:
            value = float(value)
        except OverflowError:
            raise RefusedCommandError(f"{kind} needs a number of fewer digits") from None
    elif kind is CommandKind.CONTROL:
        if not isinstance(value, dict):
            raise RefusedCommandError("a controller is asked for by its name and settings")
        value = json.dumps(value)
    elif kind is CommandKind.MARK:
        value = one_line(str(value or ""))
    elif kind is CommandKind.STOP:
        value = "stopped from the page"
    else:
        value = "asked for on the page" if kind is CommandKind.MAKE_SAFE else None
    command = fitted(Command(kind, value, sender=SENDER))
    why = why_refused(command)
    if why:
        raise RefusedCommandError(why)
    return command


class Steering:
    """Sends commands to a run from a thread of its own; `ask` may be called from any thread.

    `stop` and `make_safe` are never refused for others that wait, and are sent before them.
    """

    def __init__(self, address_of: Callable[[], tuple[str, Security | None]]) -> None:
        """`address_of` tells where the run takes wishes, "" where it does not, and what opens it."""
        self._address_of = address_of
        self._asked: queue.PriorityQueue[tuple[bool, int, Command, Future[CommandReply]]] = (
            queue.PriorityQueue()
        )
        self._number = itertools.count()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="liveptv-page-steering")
        self._thread.start()

    def ask(self, command: Command) -> Future[CommandReply]:
        """Send a command; the future gets its answer, or a `LinkError`."""
        future: Future[CommandReply] = Future()
        can_wait = command.kind not in URGENT
        if can_wait and self.waiting >= MOST_WAITING:
            future.set_exception(
                LinkError(f"{MOST_WAITING} commands wait to be sent; wait for their answers")
            )
        else:
            self._asked.put((can_wait, next(self._number), command, future))
        return future

    @property
    def waiting(self) -> int:
        """How many commands wait to be sent."""
        return self._asked.qsize()

    def _work(self) -> None:
        way = _Way(self._address_of)
        while not self._stop.is_set():
            try:
                way.take_answers()
                with contextlib.suppress(queue.Empty):
                    _, _, command, future = self._asked.get(timeout=POLL_S)
                    way.send(command, future)
            except Exception as error:  # noqa: BLE001 - nothing may end the steering of all visitors
                log.warning("a fault while steering: %s: %s", type(error).__name__, one_line(str(error)))
                self._stop.wait(POLL_S)
        way.close()

    def close(self) -> None:
        """End the thread. Idempotent."""
        self._stop.set()
        self._thread.join(2.0)


class _Way:
    """The way to the run and back, for one thread. A visitor may have gone before the answer comes."""

    def __init__(self, address_of: Callable[[], tuple[str, Security | None]]) -> None:
        self._address_of = address_of
        self._client: CommandClient | None = None
        self._waiting: dict[str, tuple[Future[CommandReply], float]] = {}

    def send(self, command: Command, future: Future[CommandReply]) -> None:
        """Send a command; if that fails, its future says why."""
        try:
            address, security = self._address_of()
            if not address:
                raise LinkError("this page only watches; open it with the run's own `--monitor`")
            self._client = self._client or CommandClient(address, security)
            self._client.send(command)
        except Exception as error:  # noqa: BLE001 - it is told to the one who asked
            known = error if isinstance(error, LivePTVError) else LinkError(f"it could not be sent: {error}")
            _settle(future, known)
        else:
            self._waiting[command.command_id] = (future, time.monotonic() + ANSWER_S)

    def take_answers(self) -> None:
        """Hand out what has come, and give up on what has not come in time."""
        for ack in self._client.replies() if self._client is not None else ():
            if ack.command_id in self._waiting:
                _settle(self._waiting.pop(ack.command_id)[0], ack)
        now_s = time.monotonic()
        for name in [name for name, (_, until_s) in self._waiting.items() if now_s > until_s]:
            late = LinkError(f"no answer within {ANSWER_S:g} s; is the run over?")
            _settle(self._waiting.pop(name)[0], late)

    def close(self) -> None:
        """Tell those who still wait, and close the connection."""
        for future, _ in self._waiting.values():
            _settle(future, LinkError("the page is closing"))
        if self._client is not None:
            self._client.close()


def _settle(future: Future[CommandReply], outcome: CommandReply | LivePTVError) -> None:
    """Give a future its outcome; one whose visitor has gone is cancelled and needs none."""
    with contextlib.suppress(InvalidStateError):
        if isinstance(outcome, CommandReply):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)
