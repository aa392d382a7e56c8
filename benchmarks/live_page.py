"""What open pages cost a run, and how old the image is that they show.

A detector and a tracker of 1440 x 2560, 24 frames/s, 400 particles publish to a page in its own process, with
no visitor, one, ten, ten beside one that reads nothing, and a headless Chromium; every case in turn, some
rounds, so that a busy machine shows in all of them alike. Visitors acknowledge at once; only Chromium draws the
images, in software.

    python benchmarks/live_page.py --json benchmarks/results/live_page.json
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import shutil
import tempfile
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import connect

from liveptv.monitor.packets import unpack
from liveptv.monitor.process import PageProcess
from liveptv.session.run_card import RunCard
from stream.messages import Detections, Frame, FrameInfo, Tracks
from stream.monitor import MonitorPublisher

SHAPE = (1440, 2560)
PARTICLES = 400
RATE_HZ = 24.0
START_S = 1.5
CASES = {
    "no page": (0, 0),
    "page, no visitor": (0, 0),
    "1 visitor": (1, 0),
    "10 visitors": (10, 0),
    "10 and 1 silent": (10, 1),
    "Chromium": (1, 0),
}


def publish(seconds, detect, track):
    """Publish like a run; the time that each frame cost, ms, and the frames a second."""
    rng = np.random.default_rng(1)
    image = rng.integers(100, 220, SHAPE, np.uint8)
    place = {
        "x_um": rng.uniform(0, 1600, PARTICLES),
        "y_um": rng.uniform(0, 900, PARTICLES),
        "z_um": rng.uniform(-50, 50, PARTICLES),
    }
    cost_ms, began_s = [], time.perf_counter()
    for number in range(int(seconds * RATE_HZ)):
        time.sleep(max(0.0, began_s + number / RATE_HZ - time.perf_counter()))
        info = FrameInfo(
            "r",
            number,
            number,
            number / RATE_HZ,
            time.perf_counter_ns(),
            time.time(),
            focus_um=100.0,
            flow_ul_s=0.02,
            pixel_size_um=0.65,
        )
        tracks = Tracks.from_columns(info, track=np.arange(PARTICLES), **place, vx_um_s=1.0, flags=0.0)
        at_ns = time.perf_counter_ns()
        detect.publish(Frame(info, image))
        detect.publish(Detections.from_columns(info, **place))
        track.publish(tracks)
        cost_ms.append((time.perf_counter_ns() - at_ns) / 1e6)
    return cost_ms, len(cost_ms) / (time.perf_counter() - began_s)


def connected(place, until_s):
    """Connect, and try again like the page's own script where a crowd is in front."""
    while True:
        try:
            return connect(place)
        except (WebSocketException, OSError):
            if time.monotonic() > until_s:
                raise
            time.sleep(random.uniform(0.1, 0.9))


def visit(url, seconds, silent, ages):
    """Visit as a browser would; in its own process."""
    place = url.replace("http://", "ws://").replace("/?", "/live?")
    shown, until_s = 0, time.monotonic() + seconds
    with connected(place, until_s) as socket:
        if silent:
            time.sleep(seconds)
            return
        with contextlib.suppress(TimeoutError, ConnectionClosed):
            while (left_s := until_s - time.monotonic()) > 0:
                header, _ = unpack(socket.recv(timeout=left_s))
                shown += 1
                socket.send(json.dumps({"shown": shown}))
                if "age_ms" in header:
                    ages.append(header["age_ms"] + 1e3 * time.time() - header["sent_ms"])


def browse(url, seconds, pipe):
    """Visit with a browser, which tells how old its images were when they were drawn."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(url)
        page.wait_for_timeout(1e3 * seconds)
        pipe.send([page.evaluate("window.liveptv.measured.ages")])
        browser.close()


def visitors(url, seconds, count, silent, pipe):
    ages = [[] for _ in range(count + silent)]
    threads = [
        threading.Thread(target=visit, args=(url, seconds, i >= count, ages[i]))
        for i in range(count + silent)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pipe.send([np.round(each, 2).tolist() for each in ages[:count]])


def measure(case, seconds, folder):
    count, silent = CASES[case]
    detect = MonitorPublisher("tcp://127.0.0.1:0", run_id="r", source="liveptv/detect")
    track = MonitorPublisher("tcp://127.0.0.1:0", run_id="r", source="liveptv/track")
    session = MonitorPublisher("tcp://127.0.0.1:0", run_id="r", source="liveptv/session")
    (folder / "events.jsonl").write_text("")
    card = RunCard(
        "r",
        os.getpid(),
        time.time(),
        "tracks.h5",
        str(folder / "events.jsonl"),
        session.address,
        "",
        detect.address,
        track.address,
        image_shape=SHAPE,
    )
    (folder / "card.json").write_bytes(msgspec.json.encode(card))
    ages = []
    with PageProcess(folder / "card.json") if case != "no page" else contextlib.nullcontext() as page:
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        if page is not None:
            url = page.wait_for_url()
        if count + silent:
            browser = case == "Chromium"
            arguments = (url, seconds + 2, theirs) if browser else (url, seconds + 2, count, silent, theirs)
            process = multiprocessing.get_context("spawn").Process(
                target=browse if browser else visitors, args=arguments
            )
            process.start()
            time.sleep(START_S)
        cost_ms, rate = publish(seconds, detect, track)
        if count + silent:
            ages = ours.recv()
            process.join()
    for publisher in (detect, track, session):
        publisher.close()
    return cost_ms, rate, ages


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = {case: ([], [], [], []) for case in CASES}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for case, (costs, rates, ages, pictures) in found.items():
                cost_ms, rate, seen = measure(case, options.seconds, Path(folder))
                costs.extend(cost_ms)
                rates.append(rate)
                ages.extend(age for each in seen for age in each)
                pictures.extend(len(each) / options.seconds for each in seen)
    rows = []
    for case, (costs, rates, ages, pictures) in found.items():
        row = {
            "case": case,
            "frames_per_s": round(float(np.mean(rates)), 2),
            "publish_p50_ms": round(float(np.median(costs)), 3),
            "publish_p99_ms": round(float(np.percentile(costs, 99)), 2),
        }
        if ages:
            row |= {
                "age_p50_ms": round(float(np.median(ages)), 1),
                "age_p95_ms": round(float(np.percentile(ages, 95)), 1),
                "pictures_per_s": round(float(np.median(pictures)), 1),
            }
        rows.append(row)
        print(row)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
