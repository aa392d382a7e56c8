"""Viewer in the terminal: prints a line per second about what the detector of a run publishes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from stream.errors import LinkError
from stream.messages import Detections, Frame, StreamEnd, StreamStart
from stream.monitor import MonitorSubscriber
from stream.sockets import Security

PERIOD_S = 1.0  # s between two lines
SILENCE_S = 10.0  # s without a message until the run counts as over; longer only delays that message


def watch(
    address: str, seconds: float | None, say: Callable[[str], None], security: Security | None = None
) -> None:
    """Print what is published at `address` until the stream ends, or for `seconds`.

    Raises `LinkError` after ten seconds of silence.
    """
    subscriber = MonitorSubscriber(address, security=security)
    began_s = heard_s = due_s = time.monotonic()
    frames = particles = images = 0
    try:
        while seconds is None or time.monotonic() - began_s < seconds:
            message = subscriber.receive(0.2)
            now_s = time.monotonic()
            if message is None:
                if now_s - heard_s > SILENCE_S:
                    raise LinkError(f"nothing is published at {address}; the run may be over")
                continue
            heard_s = now_s
            if isinstance(message, Detections):
                frames, particles = frames + 1, particles + len(message)
                if now_s >= due_s:
                    rate = frames / (now_s - due_s + PERIOD_S) if frames > 1 else math.nan
                    mean = particles / frames
                    say(
                        f"frame {message.info.frame}  {rate:.1f} frames/s  particles {mean:.1f}  "
                        f"images {images}  missed {subscriber.gaps}"
                    )
                    due_s, frames, particles = now_s + PERIOD_S, 0, 0
            elif isinstance(message, Frame):
                images += 1
            elif isinstance(message, StreamStart):
                say(f"run {message.run_id}")
            elif isinstance(message, StreamEnd):
                say(f"the run has ended: {message.reason}")
                return
    finally:
        subscriber.close()
