"""What the tests of the live page share: messages of a made-up run, and a page served on this computer."""

import json
import threading
import time
from contextlib import contextmanager

import msgspec
import numpy as np
from websockets.sync.client import connect

from liveptv.files import RunFiles
from liveptv.monitor.packets import unpack
from liveptv.monitor.process import Page
from liveptv.monitor.run_view import RunView
from liveptv.session.events import read_events
from liveptv.session.run_card import RunCard
from liveptv.workflows.run import run_experiment
from stream.messages import Detections, Frame, FrameInfo, Tracks

WAIT_S = 240.0


def info_of(number, *, flow_ul_s=0.02, focus_um=150.0):
    return FrameInfo(
        run_id="r", frame=number, camera_frame=number, time_s=number / 50, monotonic_ns=time.perf_counter_ns(),
        wall_s=time.time(), focus_um=focus_um, flow_ul_s=flow_ul_s, pixel_size_um=0.8,
    )  # fmt: skip


def messages_of(number, *, particles=8, speed_um_s=100.0, flow_ul_s=0.02, shape=(128, 160)):
    """A frame with its detections and tracks; particle i is at height 100 + 10 i um and moves along x."""
    info = info_of(number, flow_ul_s=flow_ul_s)
    index = np.arange(particles, dtype=float)
    place = {"x_um": 5 + index + speed_um_s * info.time_s, "y_um": 10 * index, "z_um": 10 * index - 50}
    image = np.full(shape, 200, np.uint8)
    image[::7, ::5] = 40
    velocities = {"vx_um_s": speed_um_s, "vy_um_s": 0.0, "vz_um_s": 0.0}
    tracks = Tracks.from_columns(info, track=index, **place, **velocities, detection=index, flags=0.0 * index)
    return Frame(info, image), Detections.from_columns(info, **place), tracks


def card_of(**changes):
    card = RunCard(
        run_id="20260101-000000-abcdef", pid=1, began_s=time.time(), output="tracks.h5", events="events.jsonl",
        session="", commands="", detect="tcp://d", track="tcp://t", image_shape=(128, 160), pixel_size_um=0.8,
        configuration={
            "microscope": {"config": "simulated"},
            "channel": {"width_um": 1000.0, "depth_um": 300.0, "floor_um": 0.0, "center_y_um": None},
        },
    )  # fmt: skip
    return msgspec.structs.replace(card, **changes)


def view_of(frames, **options):
    view = RunView()
    view.introduce(card_of())
    for number in range(frames):
        for message in messages_of(number, **options):
            view.take(message)
    return view


@contextmanager
def browser(page, *, token=None, origin=None, host=None):
    """A websocket to a page, as a browser opens one."""
    address, _, own = page.url.partition("/?token=")
    place = address.removeprefix("http://")
    given = own if token is None else token
    url = f"ws://{place}/live" + (f"?token={given}" if given else "")
    headers = {"Host": host} if host else None
    with connect(url, origin=origin, additional_headers=headers, open_timeout=WAIT_S) as socket:
        yield socket


def packets(socket, seconds=WAIT_S):
    """What a page is sent, each packet acknowledged as a browser that has shown it does."""
    shown, until_s = 0, time.monotonic() + seconds
    while (left_s := until_s - time.monotonic()) > 0:
        header, blobs = unpack(socket.recv(timeout=left_s))
        if "answer" not in header:
            shown += 1
            socket.send(json.dumps({"shown": shown}))
        yield header, blobs


@contextmanager
def serving(page):
    thread = threading.Thread(target=page.serve, daemon=True)
    thread.start()
    try:
        yield page
    finally:
        page.end()
        thread.join(WAIT_S)


class Visited:
    """A run with a page beside it, while `visit(page)` is at work in a thread of its own."""

    def __init__(self, experiment, visit):
        self.files = RunFiles.beside(experiment.run.output)
        self._visit = visit
        self._faults = []
        self.outcome = run_experiment(
            experiment, self.files, on_update=lambda _: None, on_note=lambda _: None, beside=self._beside
        )
        assert not self._faults, self._faults
        self.events = read_events(self.files.events)

    @contextmanager
    def _beside(self, card):
        thread = threading.Thread(target=self._look, args=(card,))
        thread.start()
        yield
        thread.join(WAIT_S)

    def _look(self, card):
        try:
            with serving(Page(card, 0, print)) as page:
                self._visit(page)
        except Exception as error:  # noqa: BLE001 - told in the test's own thread
            self._faults.append(error)

    def texts(self, kind):
        return [event["text"] for event in self.events if event["kind"] == kind]
