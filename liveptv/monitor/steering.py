"""Makes commands of the page's requests, sends them to the run and returns its answers."""

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
    CommandKind.RECORD,
}
WITH_NUMBER = {CommandKind.MOVE_FOCUS, CommandKind.NEXT_SLICE, CommandKind.SET_FLOW, CommandKind.SET_EXPOSURE}
ANSWER_S = 35.0  # longer than the acquisition waits for a device (30 s), so that its own answer comes first
MOST_WAITING = 32  # commands not yet sent; a person needs one, more means that the run does not answer
SENDER = "page"
POLL_S = 0.02  # for the next command; how long an answer may lie before it is handed out

log = logging.getLogger(__name__)


class RefusedCommandError(LivePTVError):
    """A page sent something that is not a command, or not one that pages may send."""


def command_from(request: dict[str, Any]) -> Command:
    """Make the command of a request, `{"kind": "set_flow", "value": 0.03}`; raises `RefusedCommandError`.

    For a controller the value is an entry of `[controller]`, `{"stop_when": {"frames": 900}}`, `{}` for none; for
    `record` it is why the frames are kept.
    """
    try:
        kind = CommandKind(request.get("kind"))  # type: ignore[arg-type]
    except ValueError:
        raise RefusedCommandError(f"{str(request.get('kind'))[:40]!r} is not a command") from None
    if kind not in ALLOWED:
        raise RefusedCommandError(
            f"{kind} cannot be sent from the page; use an experiment file or a controller"
        )
    value = request.get("value")
    if kind in WITH_NUMBER:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RefusedCommandError(f"{kind} needs a number")
        try:
            value = float(value)
        except OverflowError:
            raise RefusedCommandError(f"{kind} needs a number of fewer digits") from None
    elif kind is CommandKind.CONTROL:
        if not isinstance(value, dict):
            raise RefusedCommandError("a controller needs its name and settings")
        value = json.dumps(value)
    elif kind is CommandKind.MARK:
        value = one_line(str(value or ""))
    elif kind is CommandKind.RECORD:
        value = one_line(str(value or "")) or None
    elif kind is CommandKind.STOP:
        value = "stopped from the page"
    else:
        value = "commanded from the page" if kind is CommandKind.MAKE_SAFE else None
    command = fitted(Command(kind, value, sender=SENDER))
    why = why_refused(command)
    if why:
        raise RefusedCommandError(why)
    return command


class Steering:
    """Sends commands to a run from its own thread; `send` may be called from any thread.

    `stop` and `make_safe` are sent before commands that wait, and are never refused because of them.
    """

    def __init__(self, address_of: Callable[[], tuple[str, Security | None]]) -> None:
        """`address_of` returns where the run takes commands, "" where it does not, and the keys for it."""
        self._address_of = address_of
        self._queue: queue.PriorityQueue[tuple[bool, int, Command, Future[CommandReply]]] = (
            queue.PriorityQueue()
        )
        self._number = itertools.count()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="liveptv-page-steering")
        self._thread.start()

    def send(self, command: Command) -> Future[CommandReply]:
        """Send a command; the future gets its answer, or a `LinkError`."""
        future: Future[CommandReply] = Future()
        can_wait = command.kind not in URGENT
        if can_wait and self.waiting >= MOST_WAITING:
            future.set_exception(
                LinkError(f"{MOST_WAITING} commands wait to be sent; wait for their answers")
            )
        else:
            self._queue.put((can_wait, next(self._number), command, future))
        return future

    @property
    def waiting(self) -> int:
        """How many commands wait to be sent."""
        return self._queue.qsize()

    def _work(self) -> None:
        run = _Connection(self._address_of)
        while not self._stop.is_set():
            try:
                run.take_answers()
                with contextlib.suppress(queue.Empty):
                    _, _, command, future = self._queue.get(timeout=POLL_S)
                    run.send(command, future)
            except Exception as error:  # noqa: BLE001 - one command must not end the steering for all viewers
                log.warning("error while steering: %s: %s", type(error).__name__, one_line(str(error)))
                self._stop.wait(POLL_S)
        run.close()

    def close(self) -> None:
        """End the thread. Idempotent."""
        self._stop.set()
        self._thread.join(2.0)


class _Connection:
    """The connection to the run, for one thread. A viewer may have gone before its answer comes."""

    def __init__(self, address_of: Callable[[], tuple[str, Security | None]]) -> None:
        self._address_of = address_of
        self._client: CommandClient | None = None
        self._waiting: dict[str, tuple[Future[CommandReply], float]] = {}

    def send(self, command: Command, future: Future[CommandReply]) -> None:
        """Send a command; if that fails, its future gets the error."""
        try:
            address, security = self._address_of()
            if not address:
                raise LinkError(
                    "this page only watches; to send commands, open the run with `liveptv monitor`"
                )
            self._client = self._client or CommandClient(address, security)
            self._client.send(command)
        except Exception as error:  # noqa: BLE001 - reported to the sender
            unknown = LinkError(f"the command could not be sent: {error}")
            _settle(future, error if isinstance(error, LivePTVError) else unknown)
        else:
            self._waiting[command.command_id] = (future, time.monotonic() + ANSWER_S)

    def take_answers(self) -> None:
        """Hand out the answers that have come; report commands that were not answered in time."""
        for ack in self._client.replies() if self._client is not None else ():
            if ack.command_id in self._waiting:
                _settle(self._waiting.pop(ack.command_id)[0], ack)
        now_s = time.monotonic()
        for name in [name for name, (_, until_s) in self._waiting.items() if now_s > until_s]:
            late = LinkError(f"the run did not answer within {ANSWER_S:g} s; it may have ended")
            _settle(self._waiting.pop(name)[0], late)

    def close(self) -> None:
        """Fail the commands that still wait, and close the connection."""
        for future, _ in self._waiting.values():
            _settle(future, LinkError("the page is closing"))
        if self._client is not None:
            self._client.close()


def _settle(future: Future[CommandReply], outcome: CommandReply | LivePTVError) -> None:
    """Give a future its outcome; that of a viewer who has gone is cancelled and needs none."""
    with contextlib.suppress(InvalidStateError):
        if isinstance(outcome, CommandReply):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)
