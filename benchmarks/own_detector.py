"""What a detector of one's own costs a frame beside its own time: the checks of its answer, a copy of the image.

    python benchmarks/own_detector.py

Prints processor time in ms a frame, and that of trackpy's `locate` (examples/detectors/with_trackpy.py).
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from engines.own.answers import table_of
from engines.own.loading import load_detector

EXAMPLE = Path(__file__).parents[1] / "examples" / "detectors" / "with_trackpy.py"
SHAPE = (1440, 2560)
WIDTH_PX, HEIGHT, NOISE = 2.0, 200.0, 2.0


def cost_ms(work: Callable[[], object], times: int) -> float:
    """Mean processor time of `work`, after a first call."""
    work()
    begun_s = time.process_time()
    for _ in range(times):
        work()
    return 1e3 * (time.process_time() - begun_s) / times


def image_of(shape: tuple[int, int], count: int, rng: np.random.Generator) -> np.ndarray:
    """An image with so many bright spots."""
    image = rng.normal(20.0, NOISE, shape)
    near = np.arange(-10, 11)
    spot = HEIGHT * np.exp(-(near[:, None] ** 2 + near**2) / (2 * WIDTH_PX**2))
    for row, column in rng.integers(10, np.array(shape) - 11, (count, 2)):
        image[row - 10 : row + 11, column - 10 : column + 11] += spot
    return np.clip(image, 0, 65535).astype(np.uint16)


def main() -> None:
    rng = np.random.default_rng(0)
    for count in (200, 2000):
        answer = {
            "x_px": rng.uniform(0, SHAPE[1] - 1, count),
            "y_px": rng.uniform(0, SHAPE[0] - 1, count),
            "z_um": rng.normal(size=count),
            "sigma_x_px": np.ones(count),
            "brightness": np.ones(count),
            "confidence": np.ones(count),
        }
        ms = cost_ms(lambda answer=answer: table_of(answer, SHAPE, 0.5, 0.5), 200)
        print(f"checks of {count} particles: {ms:.2f} ms")
    empty = np.zeros(SHAPE, np.uint16)
    print(f"copy of an image of {SHAPE[0]} x {SHAPE[1]}: {cost_ms(empty.copy, 50):.2f} ms")
    find = load_detector(EXAMPLE, {"diameter_px": 11, "minmass": 500.0}).make().find
    warnings.simplefilter("ignore")
    for shape, count in (((512, 512), 60), (SHAPE, 200)):
        image = image_of(shape, count, rng)
        ms = cost_ms(lambda image=image: find(image, None), 5)
        found = len(find(image, None)["x_px"])
        print(f"trackpy, {shape[0]} x {shape[1]}, {found} of {count} particles: {ms:.0f} ms")


if __name__ == "__main__":
    main()
