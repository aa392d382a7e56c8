"""What a recalibration gains: computed optics whose focal lines have moved, with the old model and the new one.

python benchmarks/recalibration.py [--json FILE]    about two minutes
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from acquisition.physics.optics import OpticsModel
from calibration.psf_model import PsfModel
from calibration.recalibration.estimate import Recalibrated, recalibrate
from calibration.recalibration.image_fit import LocalModels, Z, fit_windows, weights_of
from calibration.recalibration.sightings import Recorded, cut_windows
from calibration.synthesis.from_optics import model_from_optics

SHAPE = (640, 960)
FRAMES = 12
SNR = 12.0
CASES = (
    ("nothing", 150.0, 2.0),
    ("lines 5 % closer", 142.5, 2.0),
    ("lines 3 % further apart", 154.5, 2.0),
    ("particles 10 % larger", 150.0, 2.2),
    ("lines 5 % closer, particles 10 % larger", 142.5, 2.2),
)


def main() -> None:
    """Run all cases for both polarities and print a row each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="file for the rows")
    rows = [case(polarity, *one) for polarity in ("dark", "bright") for one in CASES]
    given = parser.parse_args()
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


def case(
    polarity: Literal["dark", "bright"], name: str, separation_um: float, diameter_um: float
) -> dict[str, Any]:
    """One change of the optics: recalibrate on one run, and measure the depths of another one."""
    old = model_from_optics(OpticsModel(polarity=polarity))
    optics = OpticsModel(
        polarity=polarity, focal_line_separation_um=separation_um, particle_diameter_um=diameter_um
    )
    true = model_from_optics(optics)
    recorded, images, _ = run_of(true, 0)
    found = recalibrate(old, recorded, SHAPE, images)
    test = run_of(true, 1)
    before, after = depth_errors(old, *test), depth_errors(found.model, *test, doubt_um=found.doubt_um)
    row = {
        "polarity": polarity,
        "case": name,
        "change_um": separation_um - 150.0,
        "found_um": lines_change(found),
        "chi_square": list(found.chi_square),
        "rms_z_um": [before[0], after[0]],
        "true_over_stated": [before[1], after[1]],
    }
    print(
        f"{polarity:6} {name:40} lines {row['change_um']:+.1f} found {row['found_um']:+.2f} um; chi-square "
        f"{found.chi_square[0]:.3f} -> {found.chi_square[1]:.3f}; rms z {before[0]:.2f} -> {after[0]:.2f} um; "
        f"true over stated {before[1]:.2f} -> {after[1]:.2f}"
    )
    return row


def lines_change(found: Recalibrated) -> float:
    """By how much the new model has its focal lines further apart, um."""
    return sum(
        term.after[0] - term.before[0] for term in found.changed if term.unit == "um" and len(term.after) == 1
    )


def run_of(true: PsfModel, seed: int) -> tuple[Recorded, Any, npt.NDArray[np.float64]]:
    """A run of lone particles, its images, and their true depths."""
    rng = np.random.default_rng(seed)
    half = true.half_px
    grid = [
        (x, y)
        for y in range(half + 8, SHAPE[0] - half - 8, 2 * half + 22)
        for x in range(half + 8, SHAPE[1] - half - 8, 2 * half + 22)
    ]
    noise = float(true.images(np.linspace(-150, 150, 61)).max(axis=(1, 2)).mean()) / SNR
    pictures, rows = {}, []
    for number in range(FRAMES):
        image = rng.normal(0, noise, SHAPE)
        for track, (column, row) in enumerate(grid):
            x, y = rng.uniform(-0.5, 0.5, 2)
            z, brightness = rng.uniform(-150, 150), 1 + 0.08 * np.sin(track)
            one = true.images(z, x, y)[0]
            image[row - half : row + half + 1, column - half : column + half + 1] += brightness * one
            rows.append((track, number, column + x, row + y, z))
        pictures[number] = image.astype(np.float32)
    track, frame, x, y, z = np.array(rows).T
    count = len(track)

    def images(numbers: list[int]) -> Iterable[tuple[int, npt.NDArray[np.float32], float, float]]:
        return ((n, pictures[n], noise**2, 0.0) for n in numbers)

    recorded = Recorded(
        track.astype(np.int64),
        frame.astype(np.int64),
        x + rng.normal(0, 0.1, count),
        y + rng.normal(0, 0.1, count),
        z + rng.normal(0, 1.0, count),
        np.full(count, 0.1),
        np.full(count, 1.0),
        np.full(count, np.nan),
        np.ones(count, np.bool_),
    )
    return recorded, images, z


def depth_errors(
    model: PsfModel, recorded: Recorded, images: Any, z_um: npt.NDArray[np.float64], doubt_um: float = 0.0
) -> tuple[float, float]:
    """Root mean square error of depth, um, and true over stated errors, of freely fitted lone particles."""
    models = LocalModels(model, SHAPE)
    windows, start = cut_windows(recorded, model, images)
    fitted = fit_windows(windows, models, weights_of(windows, models, start), start)
    error = (fitted.theta[:, Z] - z_um)[fitted.good]
    stated = np.hypot(fitted.sigma[fitted.good, Z], doubt_um)
    return float(np.sqrt(np.mean(error**2))), float(np.sqrt(np.mean((error / stated) ** 2)))


if __name__ == "__main__":
    main()
