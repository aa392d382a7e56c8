"""Trains the detector of Franchini & Krevor (2020) as ours is trained, and scores both on the same images.

The images are those of `liveptv train`: drawn on the fly from a calibration or from the optics alone, the
held-out ones to score with drawn once, from seeds that no training uses. Cut off, the training goes on when the
same command is given again. Where --minutes 0 is given, a detector that was trained before is only scored.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reporting import save
from torch.utils.flop_counter import FlopCounterMode

from acquisition.physics.optics import OpticsModel
from calibration.evaluation import evaluate
from calibration.training.material import Material, Recipe, from_calibration, from_optics
from calibration.training.paper import PAPER
from calibration.training.scoring import SCORING_SEED, Decode, HeldOut, Network
from calibration.training.settings import TrainingSettings
from calibration.training.train import TrainingProgress, train
from engines.comparison.detector import PaperDetector, Units, save_detector
from engines.comparison.tensorbox import PaperNet
from engines.network.architecture import ParticleNet
from engines.network.decode import decode
from engines.network.model import OnnxModel

FRAME = (1, 1, 1440, 2560)
LEARNING_RATE = 1e-3
SCORE_EVERY_S = 240.0
REPORT_S = 30.0
# the paper does not tell how far from a particle a detection may be; this gate has no depth
WIDE_UM = 8.0
RUNS = Path("runs/paper_detector")


def recipe_of(calibration: Path | None) -> Recipe:
    if calibration is None:
        return from_optics(OpticsModel())
    return from_calibration(calibration, f"calibration {calibration.name}")


def units_of(material: Material) -> Units:
    return Units(
        material.pixel_size_um,
        material.polarity,
        material.middle_um,
        material.half_range_um,
        material.noise_contrast,
        material.made_from,
    )


def reporter() -> tuple[Callable[[TrainingProgress], None], list[dict[str, Any]]]:
    """What prints a training's progress, and the curve of its loss that it keeps."""
    curve: list[dict[str, Any]] = []
    start_s = time.monotonic()

    def report(progress: TrainingProgress) -> None:
        at_s = time.monotonic() - start_s
        if curve and at_s < curve[-1]["s"] + REPORT_S and progress.part < 1:
            return
        curve.append({"s": round(at_s, 1), "steps": progress.steps, "loss": round(progress.loss, 4)})
        print(curve[-1], progress.scores, flush=True)

    return report, curve


def train_detector(
    path: Path, recipe: Recipe, settings: TrainingSettings
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Train, write the detector, and return its loss curve and how it was trained."""
    report, curve = reporter()
    course = train(recipe, settings, on_progress=report, method=PAPER)
    save_detector(path, course.weights, units_of(recipe()))
    steps = course.scores[-1]["steps"]
    crops = steps * settings.batch * settings.processes
    trained = {
        "trained_s": round(course.trained_s),
        "steps": steps,
        "crops": crops,
        "crops_per_s": round(crops / course.trained_s, 1),
        "kept_at_s": round(course.best_at_s),
        "settings": settings.model_dump(mode="json", exclude={"checkpoint", "size"}),
        "scores": course.scores,
    }
    return curve, trained


def scored(held_out: HeldOut, network: Network, read: Decode, at_once: int) -> dict[str, Any]:
    truth, table = held_out.scene.table(), held_out.detect(network, at_once, read=read)
    found = evaluate(truth, table)
    wide = evaluate(truth, table, gate_xy_um=WIDE_UM, gate_z_um=None)
    return {
        "particles": found.true_particles,
        "missed": number(found.missed),
        "false": number(found.false),
        "missed_wide": number(wide.missed),
        "false_wide": number(wide.false),
        "lone_particles": found.lone.particles,
        "lone_missed": number(found.lone.missed),
        **{f"lone_rms_{axis}_um": number(errors.rms_um) for axis, errors in found.lone.errors.items()},
        "by_distance": [
            {
                "from_um": group.from_um,
                "to_um": number(group.to_um),
                "particles": group.particles,
                "missed": number(group.missed),
                "missed_wide": number(without.missed),
            }
            for group, without in zip(found.by_distance, wide.by_distance, strict=True)
        ],
    }


def number(value: float) -> float | None:
    """The number for JSON, None where it is none."""
    return round(value, 4) if np.isfinite(value) else None


def cost(network: torch.nn.Module) -> dict[str, Any]:
    """Parameters, and work for a frame of 1440 x 2560; what is multiplied and added counts as two."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(FRAME))
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "gflop_per_frame": round(counter.get_total_flops() / 1e9, 1),
    }


def ms_per_frame(network: Network, read: Decode, image: np.ndarray, repeats: int = 3) -> float:
    """The least time for a frame on one thread, decoding included."""
    times = []
    for _ in range(repeats):
        start_s = time.perf_counter()
        read(network(image)[0])
        times.append(1e3 * (time.perf_counter() - start_s))
    return round(min(times), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1, help="of one thread each")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--crop", type=int, default=256, help="px, a multiple of 32")
    parser.add_argument("--calibration", type=Path, help="left out: the simulated microscope's optics")
    parser.add_argument("--beside", type=Path, help="a model (.onnx) of ours to score on the same images")
    parser.add_argument("--images", type=int, default=192, help="held-out images of 256 x 256 to score with")
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1 if arguments.device == "cpu" else os.cpu_count() or 1)
    recipe = recipe_of(arguments.calibration)
    folder = arguments.runs / f"seed{arguments.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "paper.pt"
    rows: list[dict[str, Any]] = []
    paper: dict[str, Any] = {"detector": "Franchini & Krevor (2020)"}
    if arguments.minutes > 0:
        settings = TrainingSettings(
            minutes=arguments.minutes,
            seed=arguments.seed,
            processes=arguments.processes,
            device=arguments.device,
            batch=arguments.batch,
            crop_px=arguments.crop,
            learning_rate=LEARNING_RATE,
            score_every_s=SCORE_EVERY_S,
            patience=1.0,
            checkpoint=folder,
        )
        paper["loss_curve"], paper["training"] = train_detector(path, recipe, settings)
    torch.set_num_threads(1)
    material = recipe()
    held_out = HeldOut(material, arguments.images, SCORING_SEED + 1)
    detector = PaperDetector(path)
    frame = np.random.default_rng(0).standard_normal(FRAME).astype(np.float32)
    rows.append(
        paper
        | scored(held_out, detector.answers, PAPER.decode, 8)
        | cost(PaperNet())
        | {"ms_per_frame": ms_per_frame(detector.answers, PAPER.decode, frame)}
    )
    if arguments.beside is not None:
        model = OnnxModel(arguments.beside)
        rows.append(
            {
                "detector": "ours",
                "model": arguments.beside.name,
                "training": {"settings": model.card.training, "scores": model.card.scores},
            }
            | scored(held_out, model, decode, 1)
            | cost(ParticleNet(model.card.size))  # type: ignore[arg-type]
            | {"ms_per_frame": ms_per_frame(model, decode, frame)}
        )
    for one in rows:
        print({key: value for key, value in one.items() if key not in ("loss_curve", "training")})
    if arguments.json:
        save(arguments.json, rows)


if __name__ == "__main__":
    main()
