"""Web server of the page: its files, and a websocket per browser that sends what the browser has time for."""

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

from liveptv.monitor.access import HEADERS, why_refused
from liveptv.monitor.controller_forms import UNITS, controller_forms
from liveptv.monitor.packets import image_packet, packet
from liveptv.monitor.run_view import RunView
from liveptv.monitor.steering import RefusedCommandError, Steering, command_from
from stream.errors import LivePTVError

FOLDER = Path(__file__).with_name("page")
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FILES = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.suffix in TYPES}
CREDITS = (
    2  # packets a browser may have unshown: one on its way while one is drawn. More only shows older images
)
MAX_IMAGES_PER_S = (
    20.0  # more than the detector publishes (15); bounds the load of a detector that publishes all
)
POLL_S = 0.01  # between looks for a new image; adds at most this to the image's age
SUMMARY_S = 0.5  # as often as the series gets a point
SILENT_S = 30.0  # without an acknowledgement before a browser is disconnected; the page sends one every 10 s
MAX_VIEWERS = 50  # each costs as much network as the first, not processor time: packets are made once for all
REPORT_S = 5.0  # between reports of refused connections; all are counted

Say = Callable[[str], None]


@dataclass(slots=True)
class Viewer:
    """One browser: what it has been sent, and what it has shown."""

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
    """The page of one run. `refused` counts connections that were not allowed."""

    def __init__(self, view: RunView, steering: Steering, token: str, say: Say) -> None:
        self._view = view
        self._steering = steering
        self._token = token
        self._say = say
        self._viewers = 0
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

    def refuse(self, why: str) -> None:
        """Count a refused connection, and report why, at most every five seconds."""
        self.refused += 1
        now_s = time.monotonic()
        if now_s - self._said_s > REPORT_S:
            self._said_s = now_s
            self._say(f"the page refused a connection: {why} ({self.refused} in all)")

    async def _page(self, request: Request) -> Response:
        why = why_refused(self._token, request.headers, request.query_params)
        if why:
            self.refuse(why)
            text = f"{why}; open the address that the run printed, with its token\n"
            return PlainTextResponse(text, 403, HEADERS)
        return _file("index.html")

    async def _file(self, request: Request) -> Response:
        """The page's scripts and styles; they contain no secret."""
        return _file(request.path_params["name"])

    async def _live(self, socket: WebSocket) -> None:
        why = why_refused(self._token, socket.headers, socket.query_params)
        if not why and self._viewers >= MAX_VIEWERS:
            why = f"{MAX_VIEWERS} pages are open already"
        if why:
            self.refuse(why)
            await socket.close(4403, why)
            return
        self._viewers += 1
        try:
            await socket.accept()
            await self._serve(Viewer(socket))
        finally:
            self._viewers -= 1

    async def _serve(self, viewer: Viewer) -> None:
        tasks = [asyncio.create_task(work(viewer)) for work in (self._receive, self._send_updates)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*tasks, *viewer.steering):
                task.cancel()
            for task in tasks:
                with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError, OSError):
                    await task
            with contextlib.suppress(RuntimeError, OSError):
                await viewer.socket.close()

    async def _receive(self, viewer: Viewer) -> None:
        while True:
            message = await viewer.socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            viewer.heard_s = time.monotonic()
            try:
                said = json.loads(message.get("text") or "")
                if not isinstance(said, dict):
                    raise ValueError
                if "shown" in said:
                    viewer.shown = min(max(viewer.shown, int(said["shown"])), viewer.sent)
            except (ValueError, TypeError, OverflowError, RecursionError):
                self.refuse("it sent an unreadable message")
                return
            if "wish" in said:  # the field's name in this protocol; its value is a command
                task = asyncio.create_task(self._command(viewer, said))
                viewer.steering.add(task)
                task.add_done_callback(viewer.steering.discard)

    async def _command(self, viewer: Viewer, said: dict[str, Any]) -> None:
        request = said["wish"] if isinstance(said["wish"], dict) else {}
        number = said.get("id")
        fits = isinstance(number, int) and not isinstance(number, bool) and abs(number) < 2**53
        answer: dict[str, Any] = {"to": number if fits else None, "accepted": False}
        try:
            ack = await asyncio.wrap_future(self._steering.send(command_from(request)))
            answer |= {"accepted": ack.accepted, "reason": ack.reason, "first_frame": ack.first_frame}
        except RefusedCommandError as error:
            self.refuse(str(error))
            answer["reason"] = str(error)
        except LivePTVError as error:
            answer["reason"] = str(error)
        await self._send(viewer, packet({"answer": answer}))

    async def _send_updates(self, viewer: Viewer) -> None:
        """Send the newest image and summary whenever the browser has shown the earlier ones."""
        period_s = 1.0 / MAX_IMAGES_PER_S
        while True:
            now_s = time.monotonic()
            if viewer.sent - viewer.shown >= CREDITS:
                if now_s - viewer.heard_s > SILENT_S:
                    return
                await asyncio.sleep(POLL_S)
                continue
            shown = self._view.shown
            fresh = shown is not None and shown.number != viewer.number
            if not fresh and now_s < viewer.summary_due_s:
                await asyncio.sleep(POLL_S)
                continue
            if fresh and shown is not None:
                viewer.number = shown.number
                if self._packed is None or self._packed[0] != shown.number:
                    self._packed = (shown.number, image_packet(self._view, shown))
                viewer.sent += 1
                await self._send(viewer, self._packed[1])
            if now_s >= viewer.summary_due_s:
                viewer.summary_due_s = now_s + SUMMARY_S
                viewer.events, events = self._view.events_after(viewer.events)
                viewer.sent += 1
                header = {"summary": self._summary_now(now_s), "events": events}
                if not viewer.introduced:
                    viewer.introduced = True
                    header |= {"forms": self._forms(), "units": UNITS}
                await self._send(viewer, packet(header))
            await asyncio.sleep(max(POLL_S, period_s - (time.monotonic() - now_s)))

    def _summary_now(self, now_s: float) -> dict[str, Any]:
        if now_s - self._summary[0] > SUMMARY_S / 2:
            self._summary = (now_s, self._view.summary())
        return self._summary[1]

    def _forms(self) -> list[dict[str, Any]]:
        card = self._view.card
        return [] if card is None else controller_forms(card.configuration)

    async def _send(self, viewer: Viewer, data: bytes) -> None:
        async with viewer.lock:
            await viewer.socket.send_bytes(data)


def _file(name: str) -> Response:
    if name not in FILES:
        return PlainTextResponse("no such file\n", 404, HEADERS)
    path = FOLDER / name
    return Response(path.read_bytes(), 200, HEADERS, TYPES[path.suffix])
