"""Prediction on against off where optics vary over the field: cost, detections, tracks, with a network for them.

    python benchmarks/field_optics.py scan beads.ome.tif --beads 60
    liveptv calibrate beads.ome.tif -o calibration.h5 && liveptv train calibration.h5 -o model.onnx
    python benchmarks/prediction_field.py model.onnx --json benchmarks/results/prediction_field.json

Images are those of `varying_optics.py` (the test instrument, which knows nothing of the field model), of particles
that flow through the field along x, the fastest in the middle of the depths, 0.02 and 0.15 mean distances between
neighbours a frame on average. Engine and tracker run as in `prediction.py`, both ways alternating frame by frame.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from field_optics import BEYOND_PX, OPTICS, particles_at
from moving_particles import RATE_HZ, Truth
from prediction import LAG, SETTLE, WAYS, Way
from prediction_scores import detection_scores, pair, track_scores
from reporting import save
from varying_optics import Drawn, Field, VaryingOptics, load

from calibration.synthesis.layout import PAPER_DENSITY
from stream.messages import Frame, FrameInfo

SPACINGS = (0.02, 0.15)
DENSITIES = (1.0, 4.0)


def flowing(
    optics: VaryingOptics, density: float, spacings: float, frames: int, seed: int
) -> Iterator[Drawn]:
    """Particles in each frame, `density` times the paper's; what leaves on one side comes in on the other."""
    rng = np.random.default_rng([seed, 0])
    height, width = optics.field.shape
    box = np.array([width, height]) + 2.0 * BEYOND_PX
    count = round(density * PAPER_DENSITY * box.prod())
    places, reach = rng.uniform(0, box, (count, 2)), 1.1 * optics.optics.visible_um
    some = particles_at(places, rng.uniform(-reach, reach, count), rng)
    profile = 1.5 * (1 - (some.z_um / reach) ** 2)
    step_px = spacings * np.sqrt(box.prod() / count) * profile
    for number in range(frames):
        x = (places[:, 0] + number * step_px) % box[0] - BEYOND_PX
        yield some._replace(x_px=x, y_px=places[:, 1] - BEYOND_PX)


def truth_of(optics: VaryingOptics, drawn: Drawn, frame: int) -> Truth:
    """What is seen of a frame, in the coordinates of the sample."""
    pixel_um = optics.optics.pixel_size_um
    x, y, local = optics.field.seen(*drawn[:3], pixel_um)
    height, width = optics.field.shape
    seen = (np.abs(x - (width - 1) / 2) <= width / 2) & (np.abs(y - (height - 1) / 2) <= height / 2)
    seen &= np.abs(local) < optics.optics.visible_um
    apart = np.hypot(x[:, None] - x, y[:, None] - y) + np.where(np.eye(len(x)), np.inf, 0)
    nobody = np.full(len(x), np.nan)
    nearest = apart.min(axis=1, initial=np.inf)
    where = drawn.x_px * pixel_um, drawn.y_px * pixel_um, drawn.z_um
    who, when = np.arange(len(x)), np.full(len(x), frame)
    return Truth(when, who, *where, drawn.brightness, seen, nearest, nobody)


def row_of(
    optics: VaryingOptics, model: Path, density: float, spacings: float, args: argparse.Namespace
) -> dict[str, Any]:
    """Costs and scores of one flow."""
    ways = {name: Way.opened(name, optics.field.shape, model=model) for name in WAYS}
    rng = np.random.default_rng([args.seed, 1])
    truths = []
    for number, drawn in enumerate(flowing(optics, density, spacings, args.frames, args.seed)):
        image = optics.exposed(optics.contrast(drawn), args.snr, rng)
        pixel_um = optics.optics.pixel_size_um
        info = FrameInfo(
            "field", number, number, number / RATE_HZ, 0, 0.0, focus_um=0.0, pixel_size_um=pixel_um
        )
        truths.append(truth_of(optics, drawn, number))
        for name in WAYS if number % 2 else reversed(WAYS):
            ways[name].look(number, Frame(info, image))
    truth = Truth(*(np.concatenate(column) for column in zip(*truths, strict=True)))
    row: dict[str, Any] = {
        "shape": list(optics.field.shape),
        "density": density,
        "spacings": spacings,
        "frames": args.frames,
        "lag": LAG,
    }
    for name, way in ways.items():
        paired = pair(truth, way.detections, way.tracks)
        scores = detection_scores(paired, np.empty((0, 3)), SETTLE)
        row[name] = way.costs() | {key: scores[key] for key in scores if not key.startswith("crossing")}
        row[name] |= {
            key: value
            for key, value in track_scores(paired, way.tracks, SETTLE).items()
            if "flips" not in key
        }
        way.engine.close()
    row["cpu_ratio"] = round(row["off"]["cpu_ms"] / row["on"]["cpu_ms"], 2)
    return row


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--snr", type=float, default=5.6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cache", type=Path, help="folder of the computed images of particles")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    optics = load(OPTICS["paper"], Field((768, 1024), 2 * OPTICS["paper"].visible_um), args.cache)
    rows = []
    for density in DENSITIES:
        for spacings in SPACINGS:
            rows.append(row_of(optics, args.model, density, spacings, args))
            print(rows[-1], flush=True)
    if args.json:
        save(args.json, rows)


if __name__ == "__main__":
    main()
