"""Full frames from the simulated camera behind the real core, through the ring, to a receiver in its own process.

camera thread -> frame queue -> MicroscopeStream -> AcquireStage -> shared-memory ring -> receiver. The camera
keeps an absolute schedule; frames lost in it, in its buffer or on the link are counted. The receiver reads one byte
of every memory page. `memcpy_frames_per_s` is what one core copies in the same run.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from reporting import device, save
from transport import memcpy_frames_per_s

from acquisition.microscope.live import MicroscopeStream
from acquisition.microscope.microscope import Microscope
from acquisition.settings import MicroscopeSettings
from acquisition.stage import AcquireStage
from stream.links import open_receiver, open_sender
from stream.messages import Frame

WARM_UP = 30


def consume(address: str, results: Any) -> None:
    """Take every frame; puts (numbers, latencies in ms)."""
    numbers: list[int] = []
    latencies_ms: list[float] = []
    with closing(open_receiver(address)) as receiver:
        while not receiver.ended:
            delivery = receiver.receive(0.5)
            if delivery is None:
                continue
            if isinstance(delivery.message, Frame):
                delivery.message.image.reshape(-1)[::4096].sum()
                numbers.append(delivery.message.info.frame)
                latencies_ms.append((time.perf_counter_ns() - delivery.message.info.monotonic_ns) / 1e6)
            delivery.done()
    results.put((numbers, latencies_ms))


def measure(rate_hz: float, seconds: float) -> dict[str, Any]:
    """Run the camera at a rate; returns one row."""
    settings = MicroscopeSettings(config="paper", properties={"Camera.FrameRate": rate_hz})
    spawn = multiprocessing.get_context("spawn")
    results: Any = spawn.SimpleQueue()
    microscope = Microscope(settings)
    try:
        source = MicroscopeStream(microscope, settings, run_id="bench")
        nbytes = source.info.height * source.info.width
        with closing(
            open_sender("shm://127.0.0.1:0", run_id="bench", source="bench", slot_bytes=nbytes)
        ) as sender:
            consumer = spawn.Process(target=consume, args=(sender.address, results), daemon=True)
            consumer.start()
            while sender.peer != "connected":
                time.sleep(0.01)
            source.start()
            stage = AcquireStage(source, [sender], seconds=seconds)
            cpu_s, began_s = time.process_time(), time.perf_counter()
            while stage.step(0.05):
                pass
            elapsed_s = time.perf_counter() - began_s
            cpu_s = time.process_time() - cpu_s
            numbers, latencies_ms = results.get()
            consumer.join()
            counts, account = stage.counts(), sender.account
            stage.close()
    finally:
        microscope.close()
    settled = np.array(latencies_ms[WARM_UP:])
    return {
        "rate_hz": rate_hz,
        "frames_per_s": round(len(numbers) / elapsed_s, 2),
        "frames": counts["received"],
        "received": len(numbers),
        "lost_in_camera": counts["lost_in_camera"],
        "dropped": account.dropped,
        "missing": counts["received"] - len(set(numbers)),
        "p50_ms": round(float(np.percentile(settled, 50)), 2),
        "p99_ms": round(float(np.percentile(settled, 99)), 2),
        "cpu_ms_per_frame": round(1e3 * cpu_s / max(len(numbers), 1), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="duration of each rate")
    parser.add_argument("--rates", nargs="+", type=float, default=[24.0, 60.0, 100.0])
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    print(device())
    copying = memcpy_frames_per_s(64, 1.0)
    rows = []
    for rate_hz in options.rates:
        row = measure(rate_hz, options.seconds) | {"memcpy_frames_per_s": round(copying, 1)}
        rows.append(row)
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    if options.json is not None:
        save(options.json, rows)


if __name__ == "__main__":
    main()
