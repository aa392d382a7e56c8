"""The shipped network beside the classical detector, on the very same frames of the simulated microscope.

Times are of one core, flat field none, decoding included. Particles lie anywhere within a depth range, also
beyond the edges of the picture; which overlap is left to chance.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from reporting import save

from acquisition.simulated.bank import load_bank
from acquisition.simulated.optics import OpticsModel
from acquisition.simulated.render import Renderer, in_sight
from calibration.evaluation import Evaluation, evaluate
from calibration.width_curve import width_curve_from_optics
from engines.classical.detector import SpotDetector
from engines.network.answers import to_table
from engines.network.decode import decode
from engines.network.model import OnnxModel
from engines.network.preparation import Preparation
from engines.settings import DetectorSettings
from liveptv.models import SHIPPED_MODEL
from stream.messages import Detections

OPTICS = OpticsModel()
MARGIN_UM = 36.0
Detect = Callable[[np.ndarray], np.ndarray]
CASES = {  # name: shape, particles a frame, SNR, depths within um, frames
    "demo": ((512, 768), 60, 8.0, 150.0, 240),
    "paper's conditions": ((1440, 2560), 200, 5.6, 204.0, 30),
    "dense": ((512, 768), 150, 5.6, 204.0, 40),
}


def network(model: Path, shape: tuple[int, int]) -> Detect:
    opened = OnnxModel(model)
    card = opened.card
    preparation = Preparation(shape, card.sign, card.noise_contrast, None)
    least = DetectorSettings().min_confidence

    def detect(image: np.ndarray) -> np.ndarray:
        background = preparation.fill(image)
        found = decode(opened(preparation.input)[0])
        x, y = found[:, 0], found[:, 1]
        inside = (x >= -0.5) & (x < shape[1] - 0.5) & (y >= -0.5) & (y < shape[0] - 0.5)
        return to_table(found[inside & (found[:, -1] >= least)], card, background)

    return detect


def classical(shape: tuple[int, int]) -> Detect:
    detector = SpotDetector(*shape, DetectorSettings(), 0.8, width_curve_from_optics(OPTICS))
    return lambda image: detector.detect(image, -1.0)[0]


def row(case: str, name: str, score: Evaluation, ms: float) -> dict[str, Any]:
    found: dict[str, Any] = {
        "case": case,
        "detector": name,
        "particles": score.true_particles,
        "missed": round(score.missed, 4),
        "false": round(score.false, 4),
        "lone_missed": round(score.lone.missed, 4),
    }
    for which, errors in (("lone", score.lone.errors), ("all", score.errors)):
        found |= {f"{which}_rms_{axis}_um": round(errors[axis].rms_um, 3) for axis in "xyz"}
    found |= {f"lone_median_{axis}_um": round(score.lone.errors[axis].median_um, 3) for axis in "xyz"}
    found |= {f"error_over_stated_{axis}": round(score.errors[axis].calibration, 2) for axis in "xyz"}
    close = score.by_distance[0]
    return found | {
        "within_2_um": close.particles,
        "within_2_um_missed": round(close.missed, 3),
        "ms": round(ms, 1),
    }


def run(case: str, model: Path, seed: int) -> list[dict[str, Any]]:
    shape, particles, snr, depth_um, frames = CASES[case]
    rng = np.random.default_rng(seed)
    renderer = Renderer(load_bank(OPTICS), shape, np.uint8, snr=snr, seed=seed)
    height_um, width_um = (OPTICS.pixel_size_um * size for size in shape)
    grown = (height_um + 2 * MARGIN_UM) * (width_um + 2 * MARGIN_UM)
    count = round(particles * grown / (height_um * width_um))
    detectors = {"classical": classical(shape), "network": network(model, shape)}
    truth: list[np.ndarray] = []
    found: dict[str, list[np.ndarray]] = {name: [] for name in detectors}
    ms: dict[str, list[float]] = {name: [] for name in detectors}
    for frame in range(frames):
        x = rng.uniform(-MARGIN_UM, width_um + MARGIN_UM, count)
        y = rng.uniform(-MARGIN_UM, height_um + MARGIN_UM, count)
        z = rng.uniform(-depth_um, depth_um, count)
        image = np.empty(shape, np.uint8)
        renderer.render(x, y, z, image)
        seen = in_sight(x, y, z, shape, OPTICS)
        truth.append(np.stack([np.full(seen.sum(), frame), x[seen], y[seen], z[seen]]))
        for name, detect in detectors.items():
            start_s = time.perf_counter()
            table = detect(image)
            ms[name].append(1e3 * (time.perf_counter() - start_s))
            found[name].append(np.vstack([np.full(table.shape[1], frame), table]))
    true = dict(zip(("frame", "x_um", "y_um", "z_um"), np.hstack(truth), strict=True))
    scores = {
        name: evaluate(true, dict(zip(("frame", *Detections.COLUMNS), np.hstack(rows), strict=True)))
        for name, rows in found.items()
    }
    return [row(case, name, score, float(np.median(ms[name]))) for name, score in scores.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=SHIPPED_MODEL)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = [row for case in CASES for row in run(case, arguments.model, arguments.seed)]
    for one in rows:
        print(one)
    if arguments.json:
        save(arguments.json, rows)


if __name__ == "__main__":
    main()
