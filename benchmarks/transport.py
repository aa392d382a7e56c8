"""How fast and how promptly full frames pass over the lossless link, beside what one core copies in that run.

A frame is stamped with the time at which it was due: a sender that falls behind shows in the latency. The
consumer reads one byte of every memory page in place; `shm-copied` copies every frame out. `memcpy` copies
into a ring of as many targets as the link has slots, `memcpy-cached` into one that stays in the cache.
"""

from __future__ import annotations

import argparse
import multiprocessing
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from reporting import save

from stream.link import Sender
from stream.links import open_receiver, open_sender
from stream.messages import Frame, FrameInfo

SHAPE = (1440, 2560)
FRAME_BYTES = SHAPE[0] * SHAPE[1]
PAGE_BYTES = 4096
SOURCES = 8
SLOTS = 64
WARM_UP = 30
CASES = ("inproc", "shm", "shm-copied", "tcp")
RATES_HZ = (0.0, 200.0, 800.0)
SHARES = ("share_of_memcpy", "share_of_cached")
COLUMNS = ("case", "rate_hz", "frames_per_s", *SHARES, "p50_ms", "p99_ms", "max_ms", "dropped", "lost")


def memcpy_frames_per_s(slots: int, seconds: float) -> float:
    """Frames per second that one core copies into `slots` targets that were touched before."""
    sources = np.ones((SOURCES, FRAME_BYTES), np.uint8)
    targets = np.empty((slots, FRAME_BYTES), np.uint8)
    targets.fill(0)
    count, start_s = 0, time.perf_counter()
    while (elapsed_s := time.perf_counter() - start_s) < seconds:
        np.copyto(targets[count % slots], sources[count % SOURCES])
        count += 1
    return count / elapsed_s


def consume(address: str, copies: bool, results: Any) -> None:
    """Consume a stream to its end; puts (latencies in ms, frames received, frames damaged)."""
    latencies_ms: list[float] = []
    damaged = 0
    own = np.zeros(SHAPE, np.uint8)
    with closing(open_receiver(address)) as receiver:
        while not receiver.ended:
            delivery = receiver.receive(0.5)
            if delivery is None:
                continue
            message = delivery.message
            if isinstance(message, Frame):
                latencies_ms.append((time.perf_counter_ns() - message.info.monotonic_ns) / 1e6)
                image: npt.NDArray[Any] = message.image
                if copies:
                    np.copyto(own, image)
                    image = own
                bytes_read = image.reshape(-1)[::PAGE_BYTES]
                damaged += bool((bytes_read != message.info.camera_frame).any())
            delivery.done()
    results.put((latencies_ms, damaged))


def produce(sender: Sender, rate_hz: float, seconds: float) -> tuple[int, float]:
    """Send frames at a rate (0: as fast as they go); returns how many and for how long."""
    images = [np.full(SHAPE, value, np.uint8) for value in range(SOURCES)]

    def send(number: int, due_s: float) -> None:
        value = number % SOURCES
        info = FrameInfo("bench", number, value, due_s, int(due_s * 1e9), 0.0)
        sender.send(Frame(info, images[value]))

    for number in range(WARM_UP):
        send(number, time.perf_counter())
    sender.flush(60)
    number, start_s = WARM_UP, time.perf_counter()
    while (now_s := time.perf_counter()) - start_s < seconds:
        due_s = start_s + (number - WARM_UP) / rate_hz if rate_hz else now_s
        if due_s > now_s:
            time.sleep(due_s - now_s)
        send(number, due_s)
        number += 1
    sender.flush(60)
    return number, time.perf_counter() - start_s


def measure(case: str, rate_hz: float, seconds: float) -> dict[str, Any]:
    """One row of the table: one transport at one rate."""
    scheme, _, copied = case.partition("-")
    address = f"inproc://bench-{time.monotonic_ns()}" if scheme == "inproc" else f"{scheme}://127.0.0.1:0"
    spawn = multiprocessing.get_context("spawn")
    results: Any = spawn.SimpleQueue()
    with closing(
        open_sender(address, run_id="bench", source="bench", slot_bytes=FRAME_BYTES, slots=SLOTS)
    ) as sender:
        starter = threading.Thread if scheme == "inproc" else spawn.Process
        consumer = starter(target=consume, args=(sender.address, bool(copied), results), daemon=True)
        consumer.start()
        offered, elapsed_s = produce(sender, rate_hz, seconds)
        sender.end()
        latencies_ms, damaged = results.get()
        consumer.join()
        sender.flush(10)
        account = sender.close()
    measured = np.array(latencies_ms[WARM_UP:])
    return {
        "case": case,
        "rate_hz": rate_hz or "max",
        "frames_per_s": round((offered - WARM_UP) / elapsed_s, 1),
        "p50_ms": round(float(np.percentile(measured, 50)), 3),
        "p99_ms": round(float(np.percentile(measured, 99)), 3),
        "max_ms": round(float(measured.max()), 3),
        "offered": offered,
        "received": len(latencies_ms),
        "dropped": account.dropped,
        "lost": offered - len(latencies_ms) - account.dropped,
        "damaged": damaged,
    }


def run(
    seconds: float = 3.0, cases: tuple[str, ...] = CASES, rates_hz: tuple[float, ...] = RATES_HZ
) -> list[dict[str, Any]]:
    """Measure every case at every rate; the first two rows are what one core copies."""
    copying = {
        "memcpy": memcpy_frames_per_s(SLOTS, min(seconds, 1.0)),
        "memcpy-cached": memcpy_frames_per_s(1, min(seconds, 1.0)),
    }
    rows: list[dict[str, Any]] = [
        {"case": case, "rate_hz": "max", "frames_per_s": round(rate, 1)} for case, rate in copying.items()
    ]
    rows += [measure(case, rate_hz, seconds) for case in cases for rate_hz in rates_hz]
    for row in rows:
        row["share_of_memcpy"] = round(row["frames_per_s"] / copying["memcpy"], 3)
        row["share_of_cached"] = round(row["frames_per_s"] / copying["memcpy-cached"], 3)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="duration of each case")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    rows = run(options.seconds, tuple(options.cases))
    print("".join(f"{name:>17}" for name in COLUMNS))
    for row in rows:
        print("".join(f"{row.get(name, ''):>17}" for name in COLUMNS))
    if options.json is not None:
        save(options.json, rows)


if __name__ == "__main__":
    main()
