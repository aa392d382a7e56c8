"""What is lost where there is no time to fit all particles: accuracy of the reduced ones, and what the fit costs.

Frames of 512 x 768 pixels, each with particles of its own, from the simulated optics at several noises, densities
and brightnesses; the shipped network was trained at SNR 5.6. The engine may fit a part of each frame. Of the
reduced detections after the first `--settle` frames: errors over the standard errors that they state, as rms
without those beyond five of them and as the 68 % quantile, lone and overlapped (a neighbour within 16 px), and by
depth; beside that the same for what the network states itself. Missed and false particles are those of all.

Costs are processor time of one thread: the network with preparation and decoding, and the fit, for each particle.
"""

from __future__ import annotations

import argparse
import math
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from reporting import save

from acquisition.physics.optics import OpticsModel
from calibration.matching import GATE_XY_UM, GATE_Z_UM, match
from calibration.psf_model import PsfModel
from calibration.synthesis.from_optics import background_for, model_from_optics, noise_for_snr
from calibration.synthesis.inputs import Distribution
from calibration.synthesis.layout import Layout
from calibration.synthesis.rendered_source import Rendered
from engines.network.engine import NetworkEngine
from engines.settings import DetectorSettings
from liveptv.models import SHIPPED_MODEL
from stream.messages import Frame, FrameInfo

SHAPE = (512, 768)
CASES: tuple[dict[str, Any], ...] = (
    {"case": "as trained", "snr": 5.6, "particles": 60},
    {"case": "fields behind", "snr": 5.6, "particles": 60, "fields": True},
    {"case": "demo", "snr": 8.0, "particles": 60},
    {"case": "noisy", "snr": 4.0, "particles": 60},
    {"case": "little noise", "snr": 12.0, "particles": 60},
    {"case": "brightness 15 %", "snr": 8.0, "particles": 60, "brightness_sd": 0.15},
    {"case": "crowded", "snr": 5.6, "particles": 150},
)
SHARES = (0.6, 0.3, 0.1)
AT_ONCE = 12
NEAR_PX = 16.0
TYPICAL = 5.0
DEPTHS = 6
FEWEST = 30


def source_of(case: dict[str, Any], model: PsfModel) -> Rendered:
    """Draws the images of a case."""
    brightness = None
    if "brightness_sd" in case:
        drawn = np.random.default_rng(1).normal(1.0, case["brightness_sd"], 501)
        brightness = Distribution(tuple(np.sort(np.clip(drawn, 0.3, None))))
    density = case["particles"] / (SHAPE[0] * SHAPE[1])
    fields = background_for(model) if case.get("fields") else None
    return Rendered(
        model, noise_for_snr(model, case["snr"]), fields, Layout((density, density)), brightness=brightness
    )


def ratios(error: np.ndarray, sigma: np.ndarray) -> dict[str, Any]:
    """Errors (N, 3) over standard errors (N, 3)."""
    pull = error / sigma
    typical = (np.abs(pull) < TYPICAL).all(axis=1)
    return {
        "rms": [round(float(v), 3) for v in np.sqrt((pull[typical] ** 2).mean(axis=0))],
        "quantile_68": [round(float(v), 3) for v in np.quantile(np.abs(pull), 0.6827, axis=0)],
        "outliers": round(float(1 - typical.mean()), 4),
        "particles": len(pull),
    }


def measure(case: dict[str, Any], model: PsfModel, share: float, frames: int, settle: int) -> dict[str, Any]:
    """One row: a case with a part of the fit."""
    pixel = model.pixel_size_um
    engine = NetworkEngine(DetectorSettings(workers=1, backend="onnxruntime"), pixel, SHIPPED_MODEL)
    engine.warmup(*SHAPE, np.dtype(np.uint8))
    engine.allow_fit(share, math.inf)
    source, rng = source_of(case, model), np.random.default_rng(11)
    rows, true, found, matched = [], 0, 0, 0
    for start in range(0, frames, AT_ONCE):
        scene = source.draw(rng, SHAPE, AT_ONCE, np.uint8)
        for n, image in enumerate(scene.images):
            number = start + n
            engine.submit(Frame(FrameInfo("run", number, number, 0.0, 0, 0.0, pixel_size_um=pixel), image))
            table = engine.results(60.0)[0].table
            if number < settle:
                continue
            truth = scene.particles.where(scene.particles.frame == n)
            xyz = np.column_stack([truth.x_px * pixel, truth.y_px * pixel, truth.z_um])
            i, j = match(xyz, table[:3].T, GATE_XY_UM, GATE_Z_UM)
            columns = (
                table[:3, j].T - xyz[i],
                table[3:6, j].T,
                truth.nearest_px[i],
                truth.z_um[i],
                table[8, j],
            )
            rows.append(np.column_stack(columns))
            true, found, matched = true + len(xyz), found + table.shape[1], matched + len(j)
    costs = engine.costs()
    stated = engine.info.details["stated_errors"]
    engine.close()
    all_of = np.concatenate(rows)
    reduced = all_of[all_of[:, 8] > 0]
    row: dict[str, Any] = case | {
        "share": share,
        "reduced": round(len(reduced) / len(all_of), 3),
        "missed": round(1 - matched / true, 4),
        "false": round(1 - matched / found, 4),
        "network_ms": round(float(np.median([cost.network_ms for cost in costs])), 2),
        "fit_ms": round(float(np.mean([cost.fit_ms for cost in costs])), 2),
        "factors": stated,
    }
    kinds = {
        "all": np.ones(len(reduced), bool),
        "lone": reduced[:, 6] >= NEAR_PX,
        "overlapped": reduced[:, 6] < NEAR_PX,
    }
    for name, mine in kinds.items():
        if mine.sum() >= FEWEST:
            row[name] = ratios(reduced[mine, :3], reduced[mine, 3:6])
    edges = np.linspace(model.z_min_um, model.z_max_um, DEPTHS + 1)
    row["by_depth"] = [
        {"z_um": [round(float(low)), round(float(high))]} | ratios(reduced[mine, :3], reduced[mine, 3:6])
        for low, high in pairwise(edges)
        if (mine := (reduced[:, 7] >= low) & (reduced[:, 7] < high)).sum() >= FEWEST
    ]
    row["within_15_percent"] = all(
        abs(value - 1) <= 0.15 for name in kinds if name in row for value in row[name]["quantile_68"]
    )
    return row


def costs_of(model: PsfModel, frames: int) -> list[dict[str, Any]]:
    """Processor time of one thread, ms a frame, without any fit and with all of it."""
    rows = []
    for particles in (12, 60, 150):
        source = source_of({"particles": particles, "snr": 8.0}, model)
        images = source.draw(np.random.default_rng(2), SHAPE, frames, np.uint8).images
        engine = NetworkEngine(
            DetectorSettings(workers=1, backend="onnxruntime"), model.pixel_size_um, SHIPPED_MODEL
        )
        engine.warmup(*SHAPE, np.dtype(np.uint8))
        row: dict[str, Any] = {"particles": particles}
        for share in (0.0, 0.3, 0.6, 1.0):
            took, count = [], 0
            engine.allow_fit(share, math.inf)
            for n, image in enumerate(images):
                frame = Frame(FrameInfo("run", n, n, 0.0, 0, 0.0, pixel_size_um=model.pixel_size_um), image)
                begun_s = time.process_time()
                engine.submit(frame)
                count += len(engine.results(60.0)[0])
                took.append(1e3 * (time.process_time() - begun_s))
            row[f"ms_at_{share:g}"] = round(float(np.mean(took)), 2)
            row["detections"] = round(count / frames, 1)
        row["fit_ms_a_particle"] = round((row["ms_at_1"] - row["ms_at_0"]) / row["detections"], 3)
        engine.close()
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--frames", type=int, default=144, help="frames a case")
    parser.add_argument("--settle", type=int, default=24, help="first frames that are left out")
    parser.add_argument("--costs-only", action="store_true", help="only what the fit costs")
    arguments = parser.parse_args()
    model = model_from_optics(OpticsModel())
    costs = costs_of(model, 24)
    for line in costs:
        print("  ".join(f"{key} {value}" for key, value in line.items()), flush=True)
    rows = []
    for case in () if arguments.costs_only else CASES:
        for share in SHARES:
            row = measure(case, model, share, arguments.frames, arguments.settle)
            rows.append(row)
            shown = {key: row[key] for key in ("case", "share", "reduced", "missed", "false", "fit_ms")}
            parts = {k: row[k]["quantile_68"] for k in ("all", "lone", "overlapped") if k in row}
            print(
                "  ".join(f"{k} {v}" for k, v in (shown | parts).items()),
                row["within_15_percent"],
                flush=True,
            )
    if arguments.json:
        save(arguments.json, {"costs": costs, "accuracy": rows})


if __name__ == "__main__":
    main()
