"""A small video whose every value is known: six bright particles that move 1.5 px a frame along x.

0.5 um a pixel and 20 frames/s make 15 um/s. Everything is computed; nothing is read from disk.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

FRAMES, HEIGHT, WIDTH = 12, 64, 80
STEP_PX, PIXEL_UM, RATE_HZ = 1.5, 0.5, 20.0
SPEED_UM_S = STEP_PX * PIXEL_UM * RATE_HZ
X_PX = np.array([10.0, 40.0, 20.0, 52.0, 12.0, 36.0])
Y_PX = np.array([8.0, 18.0, 28.0, 37.0, 47.0, 56.0])


@cache
def video(frames=FRAMES, seed=1):
    """The frames (T, H, W), uint16, below 1,000 counts; no two are equal. Not to be written to."""
    random = np.random.default_rng(seed)
    yy, xx = np.mgrid[:HEIGHT, :WIDTH]
    stack = 200 + random.normal(0, 5, (frames, HEIGHT, WIDTH))
    for k in range(frames):
        for y, x in zip(Y_PX, X_PX + STEP_PX * k, strict=True):
            stack[k] += 150 * np.exp(-((yy - y) ** 2 + (xx - x) ** 2) / 8)
    whole = stack.astype(np.uint16)
    whole.flags.writeable = False
    return whole


@dataclass(frozen=True, eq=False)
class Truth:
    """What a file holds, whoever reads it.

    `order`: which image of `stack` each frame is. `times_s` and `focus_um` are of the images of `stack`;
    the focus is None where it does not move. `alike`: how like (a correlation) a frame is to the image it shows.
    """

    stack: Sequence[np.ndarray] = field(default_factory=video)
    order: tuple[int, ...] = tuple(range(FRAMES))
    times_s: np.ndarray = field(default_factory=lambda: np.arange(FRAMES) / RATE_HZ)
    pixel_um: float = PIXEL_UM
    focus_um: np.ndarray | None = None
    alike: float = 0.999


def frames_of(count, *, rate_hz=RATE_HZ, order=None, stack=None, focus_um=None):
    """The truth of a video of `count` frames, or of those of its images that `order` names."""
    return Truth(
        stack=video(count) if stack is None else stack,
        order=tuple(range(count)) if order is None else tuple(order),
        times_s=np.arange(count) / rate_hz,
        focus_um=focus_um,
    )
