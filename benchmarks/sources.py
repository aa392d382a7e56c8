"""Do frames of another program and files of a folder arrive whole, once and in order, whatever happens around them?

Three attacks on the sources, without a detector behind them: a flood of garbage beside a sender of 200 frames/s;
a sender that is killed (SIGKILL) at random moments and starts again; a folder in which 200 files/s appear, each
half-written first, some missing, with other files between. Every pixel is compared. Each row tells what was taken,
lost, refused, and torn (an image with pixels of another).

    python benchmarks/sources.py --json benchmarks/results/sources.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zmq
from reporting import save

from acquisition.listened.listened import open_listened
from acquisition.source_settings import SourceSettings
from acquisition.watched_folder.watched import open_watched

SENDER = """
import json, sys, time, numpy, zmq
address, height, width, rate, count = sys.argv[1], *map(int, sys.argv[2:])
socket = zmq.Context().socket(zmq.PUSH); socket.sndhwm = 50; socket.connect(address)
began = time.monotonic()
for n in range(count):
    header = {"htype": "array-1.0", "type": "uint16", "shape": [height, width], "frame": n}
    socket.send_multipart([json.dumps(header).encode(), numpy.full((height, width), n % 65536, "u2").tobytes()])
    if rate: time.sleep(max(0, began + (n + 1) / rate - time.monotonic()))
socket.send_multipart([b'{"htype":"array-1.0","type":"uint8","shape":[0]}', b""])
socket.close(30000)
"""


def sender(address: str, *numbers: int) -> subprocess.Popen[bytes]:
    """A program that sends frames of height, width at a rate (0: as fast as it can), so many."""
    return subprocess.Popen([sys.executable, "-c", SENDER, address, *map(str, numbers)])


def flood(address: str, stop: threading.Event, sent: list[int]) -> None:
    """Send garbage of many kinds until `stop`."""
    chance = random.Random(1)
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.linger = 0
        socket.sndhwm = 50
        socket.connect(address)
        frame = json.dumps({"htype": "array-1.0", "type": "uint16", "shape": [480, 640], "frame": 3}).encode()
        kinds = [
            lambda: [os.urandom(chance.randrange(2000)) for _ in range(chance.randrange(1, 6))],
            lambda: [frame, bytes(480 * 640 * 2)],
            lambda: [b'{"htype":"array-1.0","type":"uint8","shape":[0]}', b""],
            lambda: [b"{" * 60_000, b""],
            lambda: [b"x" * 100] * 2000,
            lambda: [frame.replace(b"480", str(chance.randrange(10**9)).encode()), b"abc"],
        ]
        while not stop.is_set():
            try:
                socket.send_multipart(chance.choice(kinds)(), zmq.NOBLOCK)
                sent[0] += 1
            except zmq.Again:
                time.sleep(0.001)


def garbage(frames: int) -> dict[str, Any]:
    """A flood of garbage beside frames of 640 x 480 at 200/s."""
    address = "tcp://127.0.0.1:5603"
    program, stop, sent = sender(address, 480, 640, 200, frames), threading.Event(), [0]
    source = open_listened(SourceSettings(listen=address), run_id="run", say=print, keeps_early=True)
    source.start()
    flooder = threading.Thread(target=flood, args=(address, stop, sent))
    flooder.start()
    torn = 0
    while not source.ended:
        frame = source.read(0.05)
        torn += frame is not None and not (frame.image == frame.info.camera_frame % 65536).all()
    stop.set()
    flooder.join()
    source.close()
    program.wait()
    return {"case": "garbage", "sent": frames, "garbage": sent[0], "torn": torn, **source.counts()}


def kills(times: int) -> dict[str, Any]:
    """A sender of full frames (2560 x 1440) that is killed and started again."""
    address, chance = "tcp://127.0.0.1:5604", random.Random(3)
    program = sender(address, 1440, 2560, 0, 10**6)
    source = open_listened(SourceSettings(listen=address), run_id="run", say=print, keeps_early=True)
    source.start()
    torn = out_of_order = killed = since = 0
    last, due_s = -1, time.monotonic() + 0.5
    while killed < times:
        frame = source.read(0.05)
        if frame is not None:
            torn += not (frame.image == frame.image[0, 0]).all()
            out_of_order += frame.info.camera_frame <= last
            last, since = frame.info.camera_frame, since + 1
        if time.monotonic() > due_s and since > 2:
            program.kill()
            program.wait()
            program = sender(address, 1440, 2560, 0, 10**6)
            killed, since, due_s = killed + 1, 0, time.monotonic() + chance.uniform(0.4, 1.2)
    program.kill()
    program.wait()
    source.close()
    return {"case": "kills", "kills": times, "torn": torn, "out_of_order": out_of_order, **source.counts()}


def folder(files: int) -> dict[str, Any]:
    """Files that appear at 200/s, each half-written first; one in 500 never comes."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        image = np.random.default_rng(0).integers(0, 4000, (128, 160)).astype(np.uint16)

        def write() -> None:
            began_s = time.monotonic()
            for number in range(files):
                if number % 500 == 7:
                    continue
                image[0, :2] = number % 4000, number // 4000
                whole = place / ".whole"
                tifffile.imwrite(whole, image)
                content = whole.read_bytes()
                path = place / f"img_{number:06d}.tif"
                path.write_bytes(content[: len(content) // 2])
                if number % 10 == 0:
                    (place / f"log{number}.txt").touch()
                path.write_bytes(content)
                time.sleep(max(0.0, began_s + (number + 1) / 200 - time.monotonic()))
            (place / "liveptv.end").touch()

        writer = threading.Thread(target=write)
        writer.start()
        source = open_watched(SourceSettings(watch=place, missing_s=2), run_id="run", say=print)
        source.start()
        torn = 0
        while not source.ended:
            frame = source.read(0.05)
            if frame is not None:
                number = int(frame.image[0, 0]) + 4000 * int(frame.image[0, 1])
                torn += number != frame.info.camera_frame or not (frame.image[1:] == image[1:]).all()
        writer.join()
        source.close()
    return {"case": "folder", "files": files - len(range(7, files, 500)), "torn": torn, **source.counts()}


def main() -> None:
    """Run the three cases and print, and save, a row each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=3000)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--files", type=int, default=3000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for row in (garbage(arguments.frames), kills(arguments.kills), folder(arguments.files)):
        print(row)
        rows.append(row)
    if arguments.json is not None:
        save(arguments.json, rows)


if __name__ == "__main__":
    main()
