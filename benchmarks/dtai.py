"""A network trained on labelled particle images of five ray-traced frames, tested on the other five.

The frames of shared data's `dtai-astigmatic` have two kinds of particles and no scan: the lone particles of frames
1 to 5, and their mirror images, are the cut-outs that training images are pasted from, with their true places
and depths. There is no particle image over depth to fit, so what is measured is the network alone.
"""

from __future__ import annotations

import argparse
import csv
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from reporting import save

from calibration.evaluation import evaluate
from calibration.matching import nearest_neighbour
from calibration.synthesis import CutAndPaste, Cutouts, Layout, NoiseModel
from calibration.training.export import export, make_card, measure_sigma_scale, read_weights
from calibration.training.material import KNEE, Material
from calibration.training.settings import TrainingSettings
from calibration.training.train import train
from engines.factory import open_engine
from engines.settings import DetectorSettings
from liveptv.models import SHIPPED_MODEL
from stream.messages import Detections, Frame, FrameInfo

DATA = Path(__file__).parents[2] / "shared" / "data" / "dtai-astigmatic"
HALF_PX = 56
LONE_PX = 45.0
TRAINED_ON = range(1, 6)
DENSITY_PER_PX = 80 / 1024**2
LEVELS_A_SIGMA = 8.0


def truth() -> dict[str, np.ndarray]:
    with (DATA / "ground_truth.csv").open() as file:
        rows = [{k: float(v) for k, v in line.items()} for line in csv.DictReader(file)]
    return {k: np.array([line[k] for line in rows]) for k in rows[0]}


def image(number: int) -> np.ndarray:
    return tifffile.imread(DATA / f"B{number:05d}.tif")


def material() -> Material:
    """The particles of the first frames as cut-outs; contrast is relative to the frames' median."""
    true = truth()
    cut, labels = [], []
    variance = []
    for number in TRAINED_ON:
        frame = image(number).astype(np.float64)
        background = np.median(frame)
        contrast = frame / background - 1.0
        low = contrast[contrast < 0]
        variance.append(np.mean(low**2))
        there = np.flatnonzero(true["fr"] == number)
        points = np.column_stack([true["x0"], true["y0"]])[there]
        for k, (x, y), apart in zip(there, points, nearest_neighbour(points), strict=True):
            row, column = round(y), round(x)
            inside = HALF_PX <= row < 1024 - HALF_PX and HALF_PX <= column < 1024 - HALF_PX
            if apart < LONE_PX or not inside:
                continue
            part = contrast[row - HALF_PX : row + HALF_PX + 1, column - HALF_PX : column + HALF_PX + 1]
            for flip_y in (1, -1):
                for flip_x in (1, -1):
                    cut.append(part[::flip_y, ::flip_x])
                    labels.append((true["Z"][k], flip_x * (x - column), flip_y * (y - row), len(labels)))
    images = np.array(cut)[:, None]
    z, dx, dy, trace = np.array(labels).T
    noise = float(np.mean(variance))
    scale = max(np.abs(images).max() / np.iinfo(np.int16).max, np.sqrt(noise) / LEVELS_A_SIGMA)
    cutouts = Cutouts(
        np.rint(images / scale).astype(np.int16),
        float(scale),
        z,
        np.clip(dx, -0.5, 0.5),
        np.clip(dy, -0.5, 0.5),
        trace.astype(np.int64),
        np.ones(len(z)),
        1.0,
        "bright",
    )
    camera = NoiseModel.steady(noise, 0.0, float(background))
    source = CutAndPaste(cutouts, camera, None, Layout((0.5 * DENSITY_PER_PX, 4 * DENSITY_PER_PX)))
    scoring = CutAndPaste(cutouts, camera, None, Layout((DENSITY_PER_PX, DENSITY_PER_PX)))
    middle, half = 0.5 * (z.min() + z.max()), 0.5 * (z.max() - z.min())
    peak = float(images.max(axis=(1, 2, 3)).mean())
    return Material(
        (source,),
        scoring,
        pixel_size_um=1.0,
        polarity="bright",
        middle_um=middle,
        half_range_um=half,
        noise_contrast=float(np.sqrt(noise)),
        peak_contrast=peak,
        made_from="dtai frames 1 to 5",
        particle=None,
        knee=KNEE,
    )


def score(model: Path) -> list[dict[str, Any]]:
    true = truth()
    tables = []
    engine = open_engine(DetectorSettings(workers=1, backend="onnxruntime"), model=model, pixel_size_um=1.0)
    with closing(engine):
        for number in range(1, 11):
            engine.submit(
                Frame(FrameInfo("run", number, number, 0.0, 0, 0.0, pixel_size_um=1.0), image(number))
            )
            tables += [engine.results(60.0)[0].table]
    rows = []
    for name, frames in (("trained on", TRAINED_ON), ("tested on", range(6, 11))):
        chosen = np.isin(true["fr"], list(frames))
        columns = {"frame": "fr", "x_um": "x0", "y_um": "y0", "z_um": "Z"}
        wanted = {name: true[column][chosen] for name, column in columns.items()}
        table = np.hstack([np.vstack([np.full(tables[f - 1].shape[1], f), tables[f - 1]]) for f in frames])
        found = dict(zip(("frame", *Detections.COLUMNS), table, strict=True))
        for gate_z_um in (None, 15.0):
            result = evaluate(wanted, found, gate_xy_um=10.0, gate_z_um=gate_z_um, lone_um=35.0)
            rows.append(
                {"frames": name, "gate_z_um": gate_z_um, "particles": result.true_particles}
                | {"missed": round(result.missed, 4), "false": round(result.false, 4)}
                | {"lone_missed": round(result.lone.missed, 4)}
                | {f"lone_rms_{a}": round(result.lone.errors[a].rms_um, 3) for a in "xyz"}
                | {f"lone_median_{a}": round(result.lone.errors[a].median_um, 3) for a in "xyz"}
                | {f"rms_{a}": round(result.errors[a].rms_um, 3) for a in "xyz"}
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--model", type=Path, default=Path("runs/dtai.onnx"), help="is written")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    settings = TrainingSettings(
        minutes=args.minutes, processes=args.processes, start_from=SHIPPED_MODEL, seed=0, patience=9.0
    )
    weights = read_weights(SHIPPED_MODEL, "small")
    course = train(partial(material), settings, weights, lambda p: print(p.part, p.scores, end="\r"))
    made = material()
    scale = measure_sigma_scale(made, settings, course.weights)
    args.model.parent.mkdir(exist_ok=True)
    export(args.model, course.weights, make_card(made, settings, course, "", scale))
    rows = score(args.model)
    for row in rows:
        print(row | {"minutes": args.minutes, "processes": args.processes})
    if args.json:
        save(args.json, rows)


if __name__ == "__main__":
    main()
