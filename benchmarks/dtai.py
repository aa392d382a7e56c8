"""A network trained on particle images of five ray-traced frames, tested on the other five.

The frames of shared data's `dtai-astigmatic` have two kinds of particles and no scan. A PSF model of each kind is
made of the particles of frames 1 to 5 and their true places (`dtai_kinds.py`); training images are pasted from
these particles and drawn with the models. The network tells the kind as well, and what it finds is fitted with the
PSF of its kind.
"""

from __future__ import annotations

import argparse
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from dtai_kinds import DEPTH_UM, alone, frames_of, image, psf_models, truth
from reporting import save

from calibration.evaluation import evaluate
from calibration.matching import match, nearest_neighbour
from calibration.synthesis import CutAndPaste, Cutouts, Distribution, Layout, NoiseModel, Rendered
from calibration.synthesis.rendered_source import Kind
from calibration.training.export import export, make_card, measure_scales, read_weights
from calibration.training.material import KNEE, Material
from calibration.training.settings import TrainingSettings
from calibration.training.train import train
from engines.factory import open_engine
from engines.settings import DetectorSettings
from liveptv.models import SHIPPED_MODEL
from stream.messages import Detections, Frame, FrameInfo

TRAINED_ON, TESTED_ON = range(1, 6), range(6, 11)
DENSITY_PER_PX = 80 / 1024**2
LEVELS_A_SIGMA = 8.0
BRIGHTNESS = Distribution.uniform(0.93, 1.07)
"""Brightness of the particles over their mean: that of lone ones scatters by 3 %."""
NEAR_VARIANCE_PX2 = 150.0
"""Half of the particles of a third of the training images have a neighbour about this near."""
GATE_UM = 15.0


def material() -> Material:
    """The particles of the first frames as cut-outs, and what their PSF models draw."""
    frames = frames_of(TRAINED_ON)
    models = psf_models(frames)
    images, chosen = alone(frames, models)
    variance = float(np.mean([np.mean(one[one < 0] ** 2) for one in frames.contrast]))
    cut, labels = [], []
    for one, n in zip(images, chosen, strict=True):
        for flip_y in (1, -1):
            for flip_x in (1, -1):
                cut.append(one[::flip_y, ::flip_x])
                offset = flip_x * frames.dx_px[n], flip_y * frames.dy_px[n]
                labels.append((frames.z_um[n], *offset, len(labels), frames.kind[n]))
    stack = np.array(cut)[:, None]
    z, dx, dy, trace, kind = np.array(labels).T
    scale = max(np.abs(stack).max() / np.iinfo(np.int16).max, np.sqrt(variance) / LEVELS_A_SIGMA)
    cutouts = Cutouts(
        np.rint(stack / scale).astype(np.int16),
        float(scale),
        z,
        dx,
        dy,
        trace.astype(np.int64),
        np.ones(len(z)),
        1.0,
        "bright",
        kind=kind.astype(np.int64),
    )
    peaks = [float(model.images(np.linspace(*DEPTH_UM, 101)).max(axis=(1, 2)).mean()) for model in models]
    unit = peaks[1] / peaks[0]
    cutouts = replace(cutouts, brightness=np.where(cutouts.kind == 1, unit, 1.0))
    camera = NoiseModel.steady(variance, 0.0, 1.0)
    layout = Layout((0.5 * DENSITY_PER_PX, 4 * DENSITY_PER_PX))
    pasted = CutAndPaste(cutouts, camera, None, layout)
    others = [Kind(models[1], BRIGHTNESS, unit)]
    near = Layout(layout.density_per_px, near_variance_px2=NEAR_VARIANCE_PX2, uniform_part=0.5)
    drawn, close = (
        Rendered(models[0], camera, None, where, brightness=BRIGHTNESS, others=others)
        for where in (layout, near)
    )
    scoring = Rendered(
        models[0],
        camera,
        None,
        Layout((DENSITY_PER_PX, DENSITY_PER_PX)),
        brightness=BRIGHTNESS,
        others=others,
    )
    measured = {"read": variance, "shot": 0.0, "brightness_sd": 0.04}
    return Material(
        (pasted, drawn, close),
        scoring,
        pixel_size_um=1.0,
        polarity="bright",
        middle_um=0.5 * sum(DEPTH_UM),
        half_range_um=0.5 * (DEPTH_UM[1] - DEPTH_UM[0]),
        noise_contrast=float(np.sqrt(variance)),
        peak_contrast=peaks[0],
        made_from="dtai frames 1 to 5",
        particle=models[0].for_fit(**measured),
        knee=KNEE,
        kinds=2,
        others=(models[1].for_fit(**measured),),
    )


def detected(model: Path) -> dict[str, np.ndarray]:
    """What the engine finds in all frames."""
    tables = []
    engine = open_engine(DetectorSettings(workers=1, backend="onnxruntime"), model=model, pixel_size_um=1.0)
    with closing(engine):
        for number in range(1, 11):
            info = FrameInfo("run", number, number, 0.0, 0, 0.0, pixel_size_um=1.0)
            engine.submit(Frame(info, image(number)))
            results = []
            while not results:
                results = engine.results(60.0)
            table = results[0].table
            tables.append(np.vstack([np.full(table.shape[1], number), table]))
    return dict(zip(("frame", *Detections.COLUMNS), np.hstack(tables), strict=True))


def kinds_right(true: dict[str, np.ndarray], found: dict[str, np.ndarray], frames: range) -> dict[str, Any]:
    """The part of the particles found, whose kind the ground truth tells, that have the right kind."""
    right, lone, stated = [], [], []
    for number in frames:
        mine = np.flatnonzero(true["fr"] == number)
        theirs = np.flatnonzero((found["frame"] == number) & np.isfinite(found["kind"]))
        at = np.column_stack([true[c][mine] for c in ("x0", "y0", "Z")])
        seen = np.column_stack([found[f"{axis}_um"][theirs] for axis in "xyz"])
        rows, columns = match(at, seen, 10.0, None)
        apart = nearest_neighbour(at[:, :2])[rows]
        known = true["kind"][mine[rows]] >= 0
        same = true["kind"][mine[rows]] == found["kind"][theirs[columns]]
        right += same[known].tolist()
        lone += same[known & (apart > 35.0)].tolist()
        stated += found["p_kind"][theirs[columns]][known].tolist()
    return {
        "class_known": len(right),
        "class_right": round(float(np.mean(right)), 4),
        "lone_class_right": round(float(np.mean(lone)), 4),
        "mean_p_kind": round(float(np.mean(stated)), 4),
    }


def score(model: Path) -> list[dict[str, Any]]:
    true, found = truth(), detected(model)
    rows = []
    for name, frames in (("trained on", TRAINED_ON), ("tested on", TESTED_ON)):
        chosen, theirs = np.isin(true["fr"], list(frames)), np.isin(found["frame"], list(frames))
        columns = {"frame": "fr", "x_um": "x0", "y_um": "y0", "z_um": "Z"}
        wanted = {name: true[column][chosen] for name, column in columns.items()}
        some = {name: column[theirs] for name, column in found.items()}
        for gate_z_um in (None, GATE_UM):
            result = evaluate(wanted, some, gate_xy_um=10.0, gate_z_um=gate_z_um, lone_um=35.0)
            sizes = result.lone.errors
            rows.append(
                {"frames": name, "gate_z_um": gate_z_um, "particles": result.true_particles}
                | {"missed": round(result.missed, 4), "false": round(result.false, 4)}
                | kinds_right(true, found, frames)
                | {"lone_missed": round(result.lone.missed, 4)}
                | {f"lone_rms_{a}": round(sizes[a].rms_um, 3) for a in "xyz"}
                | {f"lone_median_{a}": round(sizes[a].median_um, 3) for a in "xyz"}
                | {f"lone_true_over_stated_{a}": round(sizes[a].calibration, 2) for a in "xyz"}
                | {f"rms_{a}": round(result.errors[a].rms_um, 3) for a in "xyz"}
            )
    return rows


def trained(args: argparse.Namespace) -> None:
    """Train and export."""
    settings = TrainingSettings(
        minutes=args.minutes, processes=args.processes, start_from=args.start_from, seed=0, patience=9.0
    )
    weights = read_weights(args.start_from, "small")
    course = train(partial(material), settings, weights, lambda p: print(p.part, p.scores, end="\r"))
    made = material()
    scale = measure_scales(made, settings, course.weights)
    args.model.parent.mkdir(exist_ok=True)
    export(
        args.model, course.weights, make_card(made, settings, course, "", scale), made.particle, made.others
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--model", type=Path, default=Path("runs/dtai.onnx"), help="is written")
    parser.add_argument("--start-from", type=Path, default=SHIPPED_MODEL)
    parser.add_argument("--score-only", action="store_true", help="of a model that is there")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if not args.score_only:
        trained(args)
    rows = score(args.model)
    for row in rows:
        print(row | {"minutes": args.minutes, "processes": args.processes})
    if args.json:
        save(args.json, rows)


if __name__ == "__main__":
    main()
