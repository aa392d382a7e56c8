"""Trains the networks of Spilger et al. on the stand-in scene of volumes, from seeds that no test uses.

    python benchmarks/volume_networks.py train dm-detnet3d --hours 2 --folder runs/dm-detnet3d
    python benchmarks/volume_networks.py export runs/dm-detnet3d dm-detnet3d.onnx

Cut off, a training goes on when the same command is given again; the best weights so far can be exported at any
time. The paper's SNRs and densities are mixed, as it mixes them; what it calls random crops are drawn here with
their surroundings and cut out.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from volume_scene import DENSITIES, SHAPE, SIGMA, SNRS, Scene, draw

from engines.comparison.volumes.export import export
from engines.comparison.volumes.kinds import DENSITY, MASK
from engines.comparison.volumes.training import Course, Crop, Settings, kept, train

CROP = 64
MARGIN = 6
"""Voxels drawn around a crop, from which light falls into it."""
TRAINING_SEEDS = 1_000_000_000
"""Seeds of the scenes from here on are those of training; the benchmarks use small ones."""


@dataclass(frozen=True, slots=True)
class Crops:
    """Crops of the stand-in scene: every SNR and density as often.

    `denser` multiplies the published densities: particles are what is learned from, and a crop costs what it costs.
    """

    denser: float = 2.0
    sigma: tuple[float, float, float] = SIGMA

    def __call__(self, rng: np.random.Generator) -> Crop:
        side = CROP + 2 * MARGIN
        area = side**2 / (SHAPE[1] * SHAPE[2])
        count = rng.poisson(self.denser * float(rng.choice(DENSITIES)) * area)
        seed = TRAINING_SEEDS + int(rng.integers(1 << 31))
        scene = Scene(float(rng.choice(SNRS)), int(count), seed, (SHAPE[0], side, side), self.sigma)
        volume = draw(scene)
        inner = slice(MARGIN, MARGIN + CROP)
        return volume.image[:, inner, inner], volume.truth - [0, MARGIN, MARGIN]


def report(course: Course) -> None:
    step, trained, held = course.losses[-1]
    now = time.strftime("%H:%M:%S")
    print(f"{now} step {step} loss {trained:.5f} held out {held:.5f} best {course.best:.5f}", flush=True)


def trained(given: argparse.Namespace) -> None:
    torch.set_num_threads(given.threads)
    settings = Settings(seed=given.seed, bfloat16=given.bfloat16)
    course = train(given.kind, Crops(), given.folder, settings, seconds=3600 * given.hours, report=report)
    print(f"{course.steps} steps, best at {course.best_step}: {course.best:.5f}")


def exported(given: argparse.Namespace) -> None:
    kind, settings, course = kept(given.folder)
    made_from = (
        f"stand-in scene: {SHAPE[1]} x {SHAPE[2]} x {SHAPE[0]}, sigma {SIGMA[0]} voxels, SNR {SNRS}, "
        f"{Crops().denser:g} times {DENSITIES} particles"
    )
    training = {"settings": settings, "steps": course.best_step, "seconds": round(course.trained_s)}
    export(
        given.output, kind, course.weights, threshold=given.threshold, made_from=made_from, training=training
    )
    print(f"{given.output}: {kind} after {course.best_step} steps, held-out loss {course.best:.5f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("train")
    training.add_argument("kind", choices=(DENSITY, MASK))
    training.add_argument("--folder", type=Path, required=True)
    training.add_argument("--hours", type=float, default=2.0)
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--threads", type=int, default=1)
    training.add_argument("--bfloat16", action="store_true", help="twice as fast where the processor has it")
    training.set_defaults(run=trained)
    exporting = commands.add_parser("export")
    exporting.add_argument("folder", type=Path)
    exporting.add_argument("output", type=Path)
    exporting.add_argument("--threshold", type=float, default=0.3, help="benchmarks/volumes.py chooses it")
    exporting.set_defaults(run=exported)
    given = parser.parse_args()
    given.run(given)


if __name__ == "__main__":
    main()
