"""The web server of the page: its files, and a websocket a browser that gets the newest state it has credit for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from liveptv.monitor.controller_forms import controller_forms
from liveptv.monitor.packets import packet, picture_packet
from liveptv.monitor.run_view import RunView
from liveptv.monitor.steering import RefusedCommandError, Steering, command_from
from liveptv.monitor.visitors import HEADERS, why_refused
from stream.errors import LivePTVError

FOLDER = Path(__file__).with_name("page")
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FILES = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.suffix in TYPES}
CREDITS = 2
MOST_PICTURES_PER_S = 20.0
LOOK_S = 0.01
SUMMARY_S = 0.5
SILENT_S = 30.0
MOST_VISITORS = 50

Say = Callable[[str], None]


@dataclass(slots=True)
class Visitor:
    """One browser: what it has been sent and has shown."""

    socket: WebSocket
    sent: int = 0
    shown: int = 0
    number: int = 0
    events: int = 0
    introduced: bool = False
    heard_s: float = field(default_factory=time.monotonic)
    summary_due_s: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    steering: set[asyncio.Task[None]] = field(default_factory=set)


class PageServer:
    """The page of one run. `refused` counts visitors without the right to be there."""

    def __init__(self, view: RunView, steering: Steering, token: str, say: Say) -> None:
        self._view = view
        self._steering = steering
        self._token = token
        self._say = say
        self._visitors = 0
        self._said_s = -1e9
        self._packed: tuple[int, bytes] | None = None
        self._summary: tuple[float, dict[str, Any]] = (-1e9, {})
        self.refused = 0
        self.app = Starlette(
            routes=[
                Route("/", self._page),
                Route("/{name:path}", self._file),
                WebSocketRoute("/live", self._live),
            ]
        )

    def turn_away(self, why: str) -> None:
        """Count a visitor who was refused, and say why; what comes thick and fast is said every five seconds."""
        self.refused += 1
        now_s = time.monotonic()
        if now_s - self._said_s > 5.0:
            self._said_s = now_s
            self._say(f"the page turned a visitor away: {why} ({self.refused} in all)")

    async def _page(self, request: Request) -> Response:
        why = why_refused(self._token, request.headers, request.query_params)
        if why:
            self.turn_away(why)
            text = f"{why}; open the address that the run printed, with its token\n"
            return PlainTextResponse(text, 403, HEADERS)
        return _file("index.html")

    async def _file(self, request: Request) -> Response:
        """The page's own scripts and styles; they hold no secret."""
        return _file(request.path_params["name"])

    async def _live(self, socket: WebSocket) -> None:
        why = why_refused(self._token, socket.headers, socket.query_params)
        if not why and self._visitors >= MOST_VISITORS:
            why = f"{MOST_VISITORS} pages are open already"
        if why:
            self.turn_away(why)
            await socket.close(4403, why)
            return
        self._visitors += 1
        try:
            await socket.accept()
            await self._serve(Visitor(socket))
        finally:
            self._visitors -= 1

    async def _serve(self, visitor: Visitor) -> None:
        tasks = [asyncio.create_task(work(visitor)) for work in (self._hear, self._tell)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*tasks, *visitor.steering):
                task.cancel()
            for task in tasks:
                with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError, OSError):
                    await task
            with contextlib.suppress(RuntimeError, OSError):
                await visitor.socket.close()

    async def _hear(self, visitor: Visitor) -> None:
        while True:
            message = await visitor.socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            visitor.heard_s = time.monotonic()
            try:
                said = json.loads(message.get("text") or "")
                if not isinstance(said, dict):
                    raise ValueError
                if "shown" in said:
                    visitor.shown = min(max(visitor.shown, int(said["shown"])), visitor.sent)
            except (ValueError, TypeError, OverflowError, RecursionError):
                self.turn_away("it sent what is no message of the page")
                return
            if "wish" in said:
                task = asyncio.create_task(self._wish(visitor, said))
                visitor.steering.add(task)
                task.add_done_callback(visitor.steering.discard)

    async def _wish(self, visitor: Visitor, said: dict[str, Any]) -> None:
        wish = said["wish"] if isinstance(said["wish"], dict) else {}
        number = said.get("id")
        fits = isinstance(number, int) and not isinstance(number, bool) and abs(number) < 2**53
        answer: dict[str, Any] = {"to": number if fits else None, "accepted": False}
        try:
            ack = await asyncio.wrap_future(self._steering.ask(command_from(wish)))
            answer |= {"accepted": ack.accepted, "reason": ack.reason, "first_frame": ack.first_frame}
        except RefusedCommandError as error:
            self.turn_away(str(error))
            answer["reason"] = str(error)
        except LivePTVError as error:
            answer["reason"] = str(error)
        await self._send(visitor, packet({"answer": answer}))

    async def _tell(self, visitor: Visitor) -> None:
        """Send the newest picture and summary whenever both sides have time for it."""
        period_s = 1.0 / MOST_PICTURES_PER_S
        while True:
            now_s = time.monotonic()
            if visitor.sent - visitor.shown >= CREDITS:
                if now_s - visitor.heard_s > SILENT_S:
                    return
                await asyncio.sleep(LOOK_S)
                continue
            shown = self._view.shown
            fresh = shown is not None and shown.number != visitor.number
            if not fresh and now_s < visitor.summary_due_s:
                await asyncio.sleep(LOOK_S)
                continue
            if fresh and shown is not None:
                visitor.number = shown.number
                if self._packed is None or self._packed[0] != shown.number:
                    self._packed = (shown.number, picture_packet(self._view, shown))
                visitor.sent += 1
                await self._send(visitor, self._packed[1])
            if now_s >= visitor.summary_due_s:
                visitor.summary_due_s = now_s + SUMMARY_S
                visitor.events, events = self._view.events_after(visitor.events)
                visitor.sent += 1
                header = {"summary": self._summary_now(now_s), "events": events}
                if not visitor.introduced:
                    visitor.introduced = True
                    header["forms"] = self._forms()
                await self._send(visitor, packet(header))
            await asyncio.sleep(max(LOOK_S, period_s - (time.monotonic() - now_s)))

    def _summary_now(self, now_s: float) -> dict[str, Any]:
        if now_s - self._summary[0] > SUMMARY_S / 2:
            self._summary = (now_s, self._view.summary())
        return self._summary[1]

    def _forms(self) -> list[dict[str, Any]]:
        card = self._view.card
        return [] if card is None else controller_forms(card.configuration)

    async def _send(self, visitor: Visitor, data: bytes) -> None:
        async with visitor.lock:
            await visitor.socket.send_bytes(data)


def _file(name: str) -> Response:
    if name not in FILES:
        return PlainTextResponse("there is no such file\n", 404, HEADERS)
    path = FOLDER / name
    return Response(path.read_bytes(), 200, HEADERS, TYPES[path.suffix])
