"""What few images of a DeepTrack pipeline teach, as drawn, and turned and mirrored: recall of each kind of object.

    python benchmarks/deeptrack_turned.py NOTEBOOK.ipynb:NAME --learn radius --json rows.json

The same images, of which none is replaced, for the same number of steps; scores on fresh images of the pipeline, by
the network alone. Needs the extras `train` and `deeptrack`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from reporting import save

from calibration.deeptrack.contrast import contrast_of
from calibration.deeptrack.labels import objects_of
from calibration.deeptrack.loading import load_pipeline, split_name
from calibration.deeptrack.material import material_of
from calibration.deeptrack.recording import Recorder, Symmetry, random_seed
from calibration.deeptrack.survey import Units, survey
from calibration.matching import match
from calibration.training.export import read_weights
from calibration.training.settings import TrainingSettings
from calibration.training.trainer import Trainer
from engines.network.decode import ROW, decode
from liveptv.models import SHIPPED_MODEL

GATE_PX = 3.0
SEED, SCORED_SEED = 7, 99
NEVER = 1 << 40
"""Crops for each of which an image is drawn: none but the first."""
WAYS = ("as drawn", "turned", "turned, from the shipped network")
Row = dict[str, Any]


class Truth(NamedTuple):
    """A fresh image as the network gets it, contrast (H, W), its objects' places (N, 3) in px, z = 0, and kinds."""

    contrast: np.ndarray
    place: np.ndarray
    kind: np.ndarray


def fresh_image(recorder: Recorder, units: Units, seed: int) -> Truth:
    """Draw one, with the objects that are in it."""
    drawn = recorder.draw(seed)
    contrast = contrast_of(drawn.image, units.normalisation, units.sign)
    found = objects_of(drawn, units.terms, units.angles)
    place = np.column_stack([found.x_px, found.y_px, np.zeros(found.x_px.size)])
    kind = np.array(units.sources)[found.source]
    high = np.array([contrast.shape[1], contrast.shape[0]]) - 0.5
    seen = ((place[:, :2] >= -0.5) & (place[:, :2] < high)).all(axis=1) & (kind >= 0)
    return Truth(contrast, place[seen], kind[seen])


def scores(network: Any, images: Sequence[Truth], units: Units, learnt: int) -> Row:
    """Recall of all and of each kind, precision, part of right kinds and their mean probability."""
    hits, detections, right, stated = [], 0, [], []
    for image in images:
        given = torch.from_numpy(image.contrast)[None, None] / units.noise_contrast
        with torch.no_grad():
            found = decode(network(given).numpy()[0], learnt)
        place = np.column_stack([found[:, :2], np.zeros(len(found))])
        mine, theirs = match(image.place, place, GATE_PX, None)
        hits.append(np.isin(np.arange(len(image.place)), mine))
        detections += len(found)
        classes = found[theirs, len(ROW) : found.shape[1] - 2 * learnt]
        if classes.size:
            right.append(classes.argmax(axis=1) == image.kind[mine])
            stated.append(classes.max(axis=1))
    hit, kind = np.concatenate(hits), np.concatenate([image.kind for image in images])
    row: Row = {
        "objects": hit.size,
        "recall": float(hit.mean()),
        "recall_of_kinds": [float(hit[kind == k].mean()) for k in sorted(set(kind.tolist()))],
        "precision": float(hit.sum() / max(1, detections)),
    }
    if right:
        row["kind_right"] = float(np.concatenate(right).mean())
        row["kind_stated"] = float(np.concatenate(stated).mean())
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pipeline", help="notebook.ipynb:NAME or pipeline.py[:NAME]")
    parser.add_argument("--learn", default="", help="properties to learn too")
    parser.add_argument("--images", type=int, default=60, help="images to train on")
    parser.add_argument("--scored", type=int, default=16, help="fresh images to score on")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=8, help="crops of a step")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path, name = split_name(options.pipeline)
    recorder = Recorder(load_pipeline(path, name))
    units = survey(recorder, [term for term in options.learn.split(",") if term], images=20)
    rng = np.random.default_rng(SCORED_SEED)
    fresh = [fresh_image(recorder, units, random_seed(rng)) for _ in range(options.scored)]
    rows = []
    for way in options.ways:
        symmetry = units.symmetry if "turned" in way else Symmetry.NONE
        kept = replace(units, first=options.images, every=NEVER, symmetry=symmetry)
        material = material_of(recorder, kept, options.pipeline)
        began_s = time.process_time()
        material.training[0].draw(np.random.default_rng(SEED), (32, 32))
        draw_s = (time.process_time() - began_s) / options.images
        settings = TrainingSettings(batch=options.batch, steps=options.steps, minutes=1e4)
        trainer = Trainer(settings, material)
        if "shipped" in way:
            trainer.start_from(read_weights(SHIPPED_MODEL, "small"))
        began_s, losses = time.process_time(), []
        for step in range(options.steps):
            losses.append(float(trainer.step(step / options.steps)[0].total.detach()))
        row: Row = {
            "pipeline": f"{path.name}:{name}", "way": way, "images": options.images, "steps": options.steps,
            "batch": options.batch, "draw_s": draw_s, "training_cpu_s": time.process_time() - began_s,
            "loss": float(np.mean(losses[-50:])),
        }  # fmt: skip
        rows.append(row | scores(trainer.averaged, fresh, units, material.learnt))
        print(json.dumps(rows[-1], indent=1), flush=True)
    if options.json is not None:
        save(options.json, rows)


if __name__ == "__main__":
    main()
