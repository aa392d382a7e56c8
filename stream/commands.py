"""Commands to the microscope and their answers, on their own sockets and ZeroMQ context."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial

import zmq

from stream import clock
from stream.channel import LINGER_MS, MAX_SMALL_BYTES, PARTS, decode_parts, open_channel, wait_readable
from stream.errors import LinkError, WireError
from stream.limits import fitted, is_id, why_refused
from stream.messages import Command, CommandKind, CommandReply, Message, Status
from stream.sockets import Endpoint, Security, read_parts
from stream.waker import Waker, waiter
from stream.wire import encode

HWM = 256  # messages queued in a socket: many seconds of commands at the default limit of 20 a second
REQUESTS_PER_POLL = 64  # messages read between two frames: some milliseconds at most, also under a flood
PENDING_LIMIT = 256  # commands without an answer; more mean that the microscope does not keep up
REMEMBERED = 1024  # answers kept for clients that ask again: four times as many as can be open
URGENT = frozenset({CommandKind.STOP, CommandKind.MAKE_SAFE})
NEVER_REFUSED = URGENT | {CommandKind.HEARTBEAT}


class Request:
    """A command that waits for its answer."""

    __slots__ = ("_server", "command")

    def __init__(self, server: CommandServer, command: Command) -> None:
        self._server = server
        self.command = command

    def reply(self, reply: CommandReply) -> None:
        """Send the answer, once; raises `LinkError` if it is for another command or was sent before."""
        if reply.command_id != self.command.command_id:
            raise LinkError(f"command {self.command.command_id} got the answer to {reply.command_id}")
        self._server._answer(reply)


class CommandServer:
    """Receives commands from any number of clients, each command once.

    A command whose texts or numbers are outside the limits (`stream.limits`) is refused. A command whose id was
    seen before is not handed out again: its client gets the same answer, now or once it is known. While 256
    commands are unanswered, further ones are refused. Counted are `malformed` messages, `repeated` and `refused`
    commands, and `undelivered` answers (the client was gone). All methods must be called from one thread.
    """

    def __init__(self, address: str, security: Security | None = None) -> None:
        self._endpoint = open_channel(
            zmq.ROUTER, address, security, bind=True, hwm=HWM, max_bytes=MAX_SMALL_BYTES
        )
        self._endpoint.socket.router_mandatory = 1
        self._pending: dict[str, bytes] = {}
        self._answers: OrderedDict[str, CommandReply] = OrderedDict()
        self._closed = False
        self.malformed = 0
        self.repeated = 0
        self.refused = 0
        self.undelivered = 0

    @property
    def address(self) -> str:
        """Where clients connect to."""
        return self._endpoint.address

    def poll(self) -> list[Request]:
        """Return the commands that have arrived, without waiting; reads at most 64 messages."""
        requests: list[Request] = []
        for _ in range(REQUESTS_PER_POLL):
            parts = read_parts(self._endpoint.socket, PARTS + 1)
            if parts is None:
                break
            client = bytes(parts[0].buffer)
            try:
                message = decode_parts(parts[1:]).message
            except WireError:
                self.malformed += 1
                continue
            if isinstance(message, Command) and is_id(message.command_id):
                # a reason that is too long must not prevent a stop or the safe state
                command = fitted(message)
                if self._is_acceptable(client, command) and self._is_new(client, command):
                    requests.append(Request(self, command))
            elif isinstance(message, Status) and clock.is_probe(message):
                now_ns = time.perf_counter_ns()
                self._send(client, clock.answer(message, now_ns, time.perf_counter_ns()))
            else:
                self.malformed += 1
        requests.sort(key=lambda request: request.command.kind not in URGENT)
        return requests

    def waiter(self, waker: Waker) -> Callable[[float], None]:
        """A function that waits for something to `poll`, until `waker` is woken, or for so many seconds."""
        return waiter(waker, self._endpoint.socket)

    def _is_acceptable(self, client: bytes, command: Command) -> bool:
        why = why_refused(command)
        if why:
            self.refused += 1
            self._send(
                client,
                CommandReply(command.command_id, False, reason=why, monotonic_ns=time.perf_counter_ns()),
            )
        return not why

    def _is_new(self, client: bytes, command: Command) -> bool:
        key = command.command_id
        if key in self._answers:
            self.repeated += 1
            self._send(client, self._answers[key])
            return False
        if key in self._pending:
            self.repeated += 1
            self._pending[key] = client
            return False
        if len(self._pending) >= PENDING_LIMIT and command.kind not in NEVER_REFUSED:
            self.refused += 1
            reason = f"{PENDING_LIMIT} commands wait for an answer; send fewer, or wait"
            self._send(client, CommandReply(key, False, reason=reason, monotonic_ns=time.perf_counter_ns()))
            return False
        self._pending[key] = client
        return True

    def _answer(self, reply: CommandReply) -> None:
        client = self._pending.pop(reply.command_id, None)
        if client is None:
            raise LinkError(f"command {reply.command_id} was answered before; answer each request once")
        self._answers[reply.command_id] = reply
        if len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)
        if not self._closed:
            self._send(client, reply)

    def _send(self, client: bytes, message: Message) -> None:
        try:
            self._endpoint.socket.send_multipart((client, *encode(message)), zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in {zmq.EHOSTUNREACH, zmq.EAGAIN}:
                raise LinkError(f"{self.address} cannot send an answer: {error.strerror}") from error
            self.undelivered += 1

    def close(self) -> None:
        """Close, waiting at most half a second until the last answers are sent. Idempotent."""
        if not self._closed:
            self._closed = True
            self._endpoint.close(LINGER_MS)


class CommandClient:
    """Sends commands and collects the answers. All methods must be called from one thread.

    `stop` and `make_safe` use a separate connection, opened with the first of them: they are sent however many
    commands are queued or unanswered.

    `malformed` counts invalid messages, `unexpected` answers that no command waits for (also the second answer to a
    command that was sent twice).
    """

    def __init__(self, address: str, security: Security | None = None) -> None:
        self._open = partial(
            open_channel, zmq.DEALER, address, security, bind=False, hwm=HWM, max_bytes=MAX_SMALL_BYTES
        )
        self._endpoint = self._open()
        self._urgent: Endpoint | None = None
        self._outstanding: OrderedDict[str, None] = OrderedDict()
        self._replies: deque[CommandReply] = deque()
        self._closed = False
        self.malformed = 0
        self.unexpected = 0

    def send(self, command: Command) -> None:
        """Send without waiting for the answer.

        Raises `LinkError` if 256 commands are queued (the other end is gone or hangs) or 1024 are unanswered;
        neither applies to `stop` and `make_safe`, of which 256 may be queued. Raises `WireError` for a command
        that is outside the limits.
        """
        command = fitted(command)
        why = why_refused(command)
        if why:
            raise WireError(f"not sent: {why}")
        is_urgent = command.kind in URGENT
        is_repeated = command.command_id in self._outstanding
        if len(self._outstanding) >= REMEMBERED and not (is_repeated or is_urgent):
            raise LinkError(
                f"{len(self._outstanding)} commands to {self._endpoint.address} are unanswered; wait for answers"
            )
        self._send(command, self._lane(command))
        self._outstanding[command.command_id] = None

    def _lane(self, command: Command) -> Endpoint:
        if command.kind not in URGENT:
            return self._endpoint
        if self._urgent is None:
            self._urgent = self._open()
        return self._urgent

    @property
    def socket(self) -> zmq.Socket[bytes]:
        """The socket on which answers come, for whoever waits for several things; only `replies` reads it."""
        return self._endpoint.socket

    def replies(self) -> list[CommandReply]:
        """Return the answers that have arrived since the last call, without waiting."""
        self._collect()
        replies = list(self._replies)
        self._replies.clear()
        return replies

    def request(self, command: Command, timeout_s: float) -> CommandReply:
        """Send a command and wait for its answer; other answers are kept for `replies`.

        Raises `LinkError` if no answer came within `timeout_s`. The command may or may not have been
        executed then: send it again with the same `command_id`, which is executed once at most.
        """
        deadline_s = time.monotonic() + timeout_s
        self.send(command)
        while True:
            self._collect()
            for reply in self._replies:
                if reply.command_id == command.command_id:
                    self._replies.remove(reply)
                    return reply
            if not wait_readable(self._lane(command).socket, deadline_s):
                raise LinkError(
                    f"no answer to {command.kind} from {self._endpoint.address} within {timeout_s:g} s; "
                    "check that the acquisition runs"
                )

    def clock_sample(self, timeout_s: float) -> clock.ClockSample:
        """Exchange time stamps with the server, which answers when it polls.

        Use the best of several (`clock.best_sample`). Raises `LinkError` if no answer came in time.
        """
        deadline_s = time.monotonic() + timeout_s
        sent_ns = time.perf_counter_ns()
        self._send(clock.probe(sent_ns))
        while True:
            exchange = self._collect(sent_ns)
            if exchange is not None:
                return exchange
            if not wait_readable(self._endpoint.socket, deadline_s):
                raise LinkError(
                    f"{self._endpoint.address} did not answer the request for its clock within {timeout_s:g} s"
                )

    def _send(self, message: Message, endpoint: Endpoint | None = None) -> None:
        parts = encode(message)
        try:
            (endpoint or self._endpoint).socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.Again as error:
            raise LinkError(
                f"too many commands to {self._endpoint.address} are queued; check that the acquisition runs"
            ) from error

    def _collect(self, sent_ns: int | None = None) -> clock.ClockSample | None:
        if self._urgent is not None:
            self._collect_from(self._urgent, None)
        return self._collect_from(self._endpoint, sent_ns)

    def _collect_from(self, endpoint: Endpoint, sent_ns: int | None) -> clock.ClockSample | None:
        for _ in range(HWM):
            parts = read_parts(endpoint.socket, PARTS)
            if parts is None:
                break
            returned_ns = time.perf_counter_ns()
            try:
                message = decode_parts(parts).message
            except WireError:
                self.malformed += 1
                continue
            if isinstance(message, CommandReply) and message.command_id in self._outstanding:
                del self._outstanding[message.command_id]
                self._replies.append(message)
                continue
            exchange = clock.sample(message, returned_ns) if isinstance(message, Status) else None
            if exchange is not None and exchange.sent_ns == sent_ns:
                return exchange
            self.unexpected += 1
        return None

    def close(self) -> None:
        """Close, waiting at most half a second until the last commands are sent. Idempotent."""
        if not self._closed:
            self._closed = True
            self._endpoint.close(LINGER_MS)
            if self._urgent is not None:
                self._urgent.close(LINGER_MS)
