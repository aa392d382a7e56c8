"""How near the fit of the particle image comes to the Cramer-Rao bound, and how long it takes.

Images are drawn from the optics (SNR 5.6, |z| <= 204 um, 8-bit grey values). Errors are those of the same
particles before and after; the bound, of the same particles and in the same run, has x, y, z and brightness of
each and of all its neighbours, and the background, unknown. The bound leaves out the rounding to grey values.
Outliers are refined particles off by more than five of their standard errors on any axis, most of them two
particles that the detector took for one; `usual` and `error_over_sigma` are of the others. Times are of one core.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from reporting import save

from acquisition.physics.optics import OpticsModel
from calibration.matching import GATE_XY_UM, GATE_Z_UM, match
from calibration.psf_model import PsfModel
from calibration.synthesis.from_optics import model_from_optics, noise_for_snr
from calibration.synthesis.inputs import NoiseModel
from calibration.synthesis.layout import PAPER_DENSITY, Layout
from calibration.synthesis.rendered_source import Rendered
from calibration.synthesis.scene import Particles, Scene
from calibration.width_curve import width_curve_from_optics
from engines.classical.detector import SpotDetector
from engines.refine.refiner import Refiner
from engines.settings import DetectorSettings
from stream.messages import Detections

SHAPE = (1440, 2560)
SNR = 5.6
BINS_PX = (0.0, 1.5, 4.0, 8.0, 16.0, 35.0, np.inf)
NEIGHBOUR_PX = 70
BOUND_HALF_PX = 75
START_PX, START_UM = 0.5, 12.0
START_GATE_UM = 4.0
OUTLIER_SIGMAS = 5.0


def bounds(model: PsfModel, noise: NoiseModel, all_of: Particles, chosen: np.ndarray) -> np.ndarray:
    """Cramer-Rao bound (N, 3), in px, px, um, of the `chosen` particles of one frame."""
    sign = -1.0 if model.polarity == "dark" else 1.0
    out = np.empty((len(chosen), 3))
    for row, i in enumerate(chosen):
        dx, dy = all_of.x_px - all_of.x_px[i], all_of.y_px - all_of.y_px[i]
        near = np.flatnonzero((np.abs(dx) < NEIGHBOUR_PX) & (np.abs(dy) < NEIGHBOUR_PX))
        near = np.r_[i, near[near != i]]
        images = model.images_and_gradients(
            all_of.z_um[near], dx[near], dy[near], half_px=BOUND_HALF_PX
        ).astype(np.float64)
        bright = all_of.brightness[near]
        contrast = np.tensordot(bright, images[:, 0], 1)
        images[:, 1:] *= bright[:, None, None, None]
        jacobian = np.vstack([images[:, (1, 2, 3, 0)].reshape(4 * near.size, -1), np.ones(contrast.size)])
        weight = 1.0 / (noise.read + noise.shot * np.maximum(1.0 + sign * contrast, 0.05)).ravel()
        information = (jacobian * weight) @ jacobian.T
        scale = np.sqrt(np.diag(information)) + 1e-12
        information = information / np.outer(scale, scale) + 1e-10 * np.eye(scale.size)
        out[row] = np.sqrt(np.diag(np.linalg.inv(information))[:3]) / scale[:3]
    return out


def measure(
    case: str, model: PsfModel, noise: NoiseModel, source: Callable[[], Scene], frames: int, start: str
) -> list[dict[str, Any]]:
    """Rows for the neighbour distances of one case; `start` is "detector" or "truth + noise"."""
    pixel_um = model.pixel_size_um
    refiner = Refiner(model.for_fit(), pixel_um)
    detector = None
    if start == "detector":
        detector = SpotDetector(*SHAPE, DetectorSettings(), pixel_um, width_curve_from_optics(OpticsModel()))
    rng = np.random.default_rng(7)
    refiner.warmup(*SHAPE)
    scale = np.array([pixel_um, pixel_um, 1.0])
    parts: dict[str, list[np.ndarray]] = {
        k: [] for k in ("before", "after", "sigma", "bound", "near", "done")
    }
    times, fitted, true = [], 0, 0
    for _ in range(frames):
        scene = source()
        image, truth = scene.images[0], scene.particles
        true += len(truth)
        xyz = np.column_stack([truth.x_px, truth.y_px, truth.z_um]) * scale
        if detector is None:
            table = np.full((len(Detections.COLUMNS), len(truth)), np.nan)
            table[:3] = (xyz + rng.normal(size=xyz.shape) * [START_PX * pixel_um] * [1, 1, 0]).T
            table[2] += rng.normal(0, START_UM, len(truth))
            table[5] = START_UM
        else:
            table, _ = detector.detect(image, -1.0)
        best = np.inf
        for _ in range(3):
            began_s = time.perf_counter()
            out = refiner.refine(image, table)
            best = min(best, time.perf_counter() - began_s)
        times.append(1e3 * best)
        fitted += table.shape[1]
        if detector is None:
            i = j = np.arange(len(truth))
        else:
            i, j = match(xyz, out[:3].T, GATE_XY_UM, GATE_Z_UM)
        before = np.full_like(xyz, np.nan)
        rows, columns = match(xyz, table[:3].T, START_GATE_UM, None)
        before[rows] = table[:3, columns].T - xyz[rows]
        everyone = Particles.joined([truth, scene.outside])
        parts["before"].append(before[i])
        parts["after"].append(out[:3, j].T - xyz[i])
        parts["sigma"].append(out[3:6, j].T)
        parts["bound"].append(bounds(model, noise, everyone, i) * scale)
        parts["near"].append(truth.nearest_px[i])
        parts["done"].append(~np.isin(out[2, j], table[2]))
    joined = {k: np.concatenate(v) for k, v in parts.items()}
    common = {
        "case": case,
        "start": start,
        "ms_per_200": round(200 * sum(times) / fitted, 1),
        "particles_a_frame": round(true / frames),
    }
    rows = []
    for low, high in pairwise(BINS_PX):
        chosen = (joined["near"] >= low) & (joined["near"] < high)
        if chosen.sum() >= 20:
            far = "lone" if np.isinf(high) else f"{low:g}-{high:g}"
            rows.append(common | {"nearest_px": far} | summary({k: v[chosen] for k, v in joined.items()}))
    return rows


def summary(of: dict[str, np.ndarray]) -> dict[str, Any]:
    """What is said of the particles in one range of distances."""
    done = of["done"]
    after, sigma, bound = of["after"][done], of["sigma"][done], of["bound"][done]
    pull = after / sigma
    usual = (np.abs(pull) < OUTLIER_SIGMAS).all(axis=1)

    def rms(values: np.ndarray) -> np.ndarray:
        return np.sqrt(np.nanmean(values**2, axis=0))

    def rounded(values: np.ndarray, digits: int = 3) -> list[float]:
        return [round(float(v), digits) for v in values]

    return {
        "particles": len(done),
        "refined": round(float(done.mean()), 3),
        "before_rms_um": rounded(rms(of["before"])),
        "after_rms_um": rounded(rms(of["after"])),
        "refined_rms_um": rounded(rms(after)),
        "bound_rms_um": rounded(rms(bound)),
        "refined_over_bound": rounded(rms(after) / rms(bound), 2),
        "outliers": round(float(1 - usual.mean()), 4),
        "usual_over_bound": rounded(rms(after[usual]) / rms(bound[usual]), 2),
        "error_over_sigma": rounded(rms(pull[usual]), 2),
        "within_1_sigma": rounded((np.abs(pull) < 1).mean(axis=0), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--frames", type=int, default=12, help="frames a case")
    arguments = parser.parse_args()
    model = model_from_optics(OpticsModel())
    noise = noise_for_snr(model, SNR)
    rows = []
    for name, factor, frames in (
        ("paper", 1.0, arguments.frames),
        ("5 x", 5.0, max(1, arguments.frames // 5)),
    ):
        density = factor * PAPER_DENSITY
        for start in ("truth + noise", "detector"):
            rng = np.random.default_rng(1)
            layout = Layout(density_per_px=(density, density), near_variance_px2=25.0)
            source = Rendered(model, noise, layout=layout)
            found = measure(
                name, model, noise, lambda s=source, r=rng: s.draw(r, SHAPE, dtype=np.uint8), frames, start
            )
            for line in found:
                print("  ".join(f"{k} {v}" for k, v in line.items()), flush=True)
            rows += found
    if arguments.json:
        save(arguments.json, rows)


if __name__ == "__main__":
    main()
