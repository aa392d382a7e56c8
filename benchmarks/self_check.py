"""Whether the self-check tells what has changed, how soon, and nothing in runs without a change.

Runs of 30 simulated seconds at the paper's particle density (Franchini & Krevor 2020: SNR 5.6, 200 particles in
1440 x 2560 px; here a quarter of that), five frames a second, all of which are looked at. Particles move with the
parabola of a channel and diffuse. Images go through the shipped network, the fit, the tracker and both parts of the
self-check, with the simulated time. Changes are there from the start (optics, dust) or begin after ten seconds.
"""

from __future__ import annotations

import argparse
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detection import SHIPPED_MODEL
from reporting import save
from scipy.ndimage import gaussian_filter

from acquisition.physics.image_table import load_bank
from acquisition.physics.optics import OpticsModel
from acquisition.physics.rendering import Renderer
from engines.factory import open_engine
from engines.network.model import OnnxModel
from engines.selfcheck.inspector import Inspector
from engines.settings import DetectorSettings
from stream.messages import Frame, FrameInfo
from tracking.run_check.check import RunCheck
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker

SHAPE = (720, 1280)
SNR, RATE_HZ, SECONDS, LATER_S = 5.6, 5.0, 30.0, 10.0
DENSITY = 200 / (1440 * 2560)
DEEP_UM, FASTEST_UM_S, DIFFUSION_UM2_S = 360.0, 60.0, 0.05
DUST = (slice(300, 305), slice(700, 704))
OPTICS = OpticsModel()


@dataclass(frozen=True)
class Change:
    """What is different in a run; `expected` is in what must be told, "" for nothing."""

    expected: str
    separation: float = 1.0
    smear_px: float = 0.0
    dust: float = 0.0
    lamp: float = 1.0
    drift_um: float = 0.0


CHANGES = {
    "astigmatism weaker by 5 %": Change("closer together", separation=0.95),
    "astigmatism stronger by 5 %": Change("apart", separation=1.05),
    "one corner smeared by 1.5 px": Change("at the top right", smear_px=1.5),
    "dust on the sensor": Change("dust", dust=0.12),
    "light down by 20 %": Change("light is down", lamp=0.8),
    "focus drifts by 3 um": Change("focus has risen", drift_um=3.0),
    "focus drifts by -3 um": Change("focus has sunk", drift_um=-3.0),
}


class Scene:
    """Particles in a channel, and their images."""

    def __init__(self, change: Change, seed: int) -> None:
        self.change, self.rng = change, np.random.default_rng(seed)
        apart_um = OPTICS.focal_line_separation_um * change.separation
        bank = load_bank(OPTICS.model_copy(update={"focal_line_separation_um": apart_um}))
        peak = load_bank(OPTICS).mean_peak
        self.renderer = Renderer(bank, SHAPE, snr=SNR * bank.mean_peak / peak, seed=seed)
        self.smooth = Renderer(bank, SHAPE, np.uint16, snr=1e9) if change.smear_px else None
        height, width = (size * OPTICS.pixel_size_um for size in SHAPE)
        self.size_um = np.array([width + 90, height + 90, DEEP_UM])
        count = int(DENSITY * self.size_um[0] * self.size_um[1] / OPTICS.pixel_size_um**2)
        self.place = self.rng.uniform(0, 1, (count, 3)) * self.size_um

    def move(self, seconds: float) -> None:
        height = self.place[:, 2]
        self.place[:, 0] += 4 * FASTEST_UM_S * height * (DEEP_UM - height) / DEEP_UM**2 * seconds
        self.place += np.sqrt(2 * DIFFUSION_UM2_S * seconds) * self.rng.standard_normal(self.place.shape)
        out = (self.place[:, 0] > self.size_um[0]) | (self.place[:, 2] < 0) | (self.place[:, 2] > DEEP_UM)
        self.place[out] = self.rng.uniform(0, 1, (int(out.sum()), 3)) * self.size_um
        entered = out & (self.rng.random(out.size) < 0.7)
        self.place[entered, 0] = 0.0

    def image(self, now_s: float) -> np.ndarray:
        change = self.change
        later = float(np.clip((now_s - LATER_S) / 15.0, 0, 1))
        x, y = self.place[:, 0] - 45, self.place[:, 1] - 45
        z = self.place[:, 2] - DEEP_UM / 2 - change.drift_um * later
        self.renderer.lamp = change.lamp if now_s > LATER_S else 1.0
        image = np.empty(SHAPE, np.uint8)
        self.renderer.render(x, y, z, image)
        if self.smooth is not None:
            sharp = np.empty(SHAPE, np.uint16)
            self.smooth.render(x, y, z, sharp)
            corner = slice(0, SHAPE[0] // 3), slice(2 * SHAPE[1] // 3, SHAPE[1])
            clean = sharp[corner].astype(np.float64) * 255 / 65535
            off = gaussian_filter(clean, change.smear_px) - clean
            image[corner] = np.clip(np.rint(image[corner] + off), 0, 255)
        if change.dust:
            image[DUST] = np.rint(image[DUST] * (1 - change.dust))
        return image


def told(
    model: Path, change: Change, seed: int, detector: Any
) -> tuple[list[tuple[float, str]], dict[str, Any]]:
    """What is told in a run, with the time, and the last measurements."""
    psf = OnnxModel(model).psf()
    if psf is None:
        raise SystemExit(f"{model} has no PSF model")
    scene, inspector = Scene(change, seed), Inspector(psf, OPTICS.pixel_size_um)
    tracker, check = OnlineTracker(TrackerSettings()), RunCheck()
    said: list[tuple[float, str]] = []
    for number in range(int(SECONDS * RATE_HZ)):
        now_s = number / RATE_HZ
        image = scene.image(now_s)
        info = FrameInfo(
            "run", number, number, now_s, 0, now_s, exposure_ms=2.0, pixel_size_um=OPTICS.pixel_size_um
        )
        detector.submit(Frame(info, image))
        found = []
        while detector.pending:
            found += detector.results(60.0)
        said += [(now_s, text) for text in inspector.look(image, found[0], now_s)]
        said += [(now_s, text) for text in check.look(tracker.step(check.widened(found[0])))]
        scene.move(1 / RATE_HZ)
    return said, inspector.facts() | check.facts()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=SHIPPED_MODEL)
    parser.add_argument("--clean", type=int, default=10, help="runs without a change")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    cases: list[tuple[str, Change]] = [*CHANGES.items()] + [("nothing", Change(""))] * args.clean
    settings = DetectorSettings(workers=args.workers, backend="onnxruntime", self_check=False)
    engine = open_engine(settings, model=args.model, pixel_size_um=OPTICS.pixel_size_um)
    with closing(engine) as detector:
        detector.warmup(*SHAPE, np.dtype(np.uint8))
        for k, (name, change) in enumerate(cases):
            said, facts = told(args.model, change, args.seed + k, detector)
            right = [s for s, text in said if change.expected and change.expected in text]
            row = {
                "change": name,
                "told_after_s": right[0] if right else None,
                "told_else": [text for _, text in said if not (change.expected and change.expected in text)],
                "measured": facts,
            }
            rows.append(row)
            print(f"{name}: told after {row['told_after_s']} s; else {row['told_else']}", flush=True)
            for _, text in said:
                print("   ", text, flush=True)
    if args.json:
        save(args.json, rows)


if __name__ == "__main__":
    main()
