"""How true the standard errors are that an image model of five examples states, of objects in the shade of others.

    python benchmarks/one_shot_errors.py [--json FILE]

Drawn objects of four shapes, 2 images of 180 x 180 pixels each, with and without as many others beyond focus
(blurred by 3 px, 0.4 times as bright) where they fall; drawn balls in contact (`packed`) and single spots
(`simulated`) of `one_shot.py`; and objects planted in frames of the recording `bulk-water`, with the images and
brightnesses that the model has of it, at places where nothing was found within 5 px: what else is there moves them
as it moves real ones.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from one_shot import GATE_PX, bulk_water, detected, modelled, packed, pairs, simulated, spread
from reporting import save
from scipy import ndimage

from calibration.examples.crops import Crop
from calibration.examples.image_model import model_of
from calibration.examples.objects import free
from engines.matched.object_model import load_object_model, write_object_model
from engines.refine.rendering import put

LIGHT, NOISE, SIDE_PX, CROP_PX, IMAGES = 500.0, 4.0, 180, 41, 2
BRIGHTNESS, EDGE_PX = (0.5, 1.2), 14.0
SHADE, SHADE_BLUR_PX = 0.4, 3.0
FRAMES, PLANTED, AWAY_PX, APART_PX = 3, 80, 5.0, 25.0
CASES = ((65, 9.5), (45, 14.0))
"""Objects in an image, and px between any two at least."""


def drawn(shape: str, u: np.ndarray, v: np.ndarray, look: float) -> np.ndarray:
    """An object of peak about 1, some 12 px across, at distances from its centre."""
    far = np.hypot(u, v)
    if shape == "disc":
        return np.asarray(1 / (1 + np.exp((far - 6) / 0.8)))
    if shape == "ball":
        return np.sqrt(np.clip(1 - (far / 6) ** 2, 0, None))
    if shape == "ring":
        return np.asarray(np.exp(-(((far - 5) / 1.5) ** 2) / 2))
    wide, high = 1.6 + 0.5 * look, 2.1 - 0.5 * look
    return np.asarray(np.exp(-((u / wide) ** 2) / 2 - (v / high) ** 2 / 2))


def picture(
    shape: str, objects: np.ndarray, shade: np.ndarray, side: int, rng: np.random.Generator
) -> np.ndarray:
    """An image of objects (N, 4: x, y, brightness, look) in the shade of others."""
    rows, columns = np.indices((side, side)).astype(float)
    parts = []
    for some in (objects, shade):
        part = np.zeros((side, side))
        for x, y, bright, look in some:
            part += bright * drawn(shape, columns - x, rows - y, look)
        parts.append(part)
    light = 1 + parts[0] + SHADE * ndimage.gaussian_filter(parts[1], SHADE_BLUR_PX)
    return np.rint(LIGHT * light + rng.normal(0, NOISE, light.shape)).astype(np.uint16)


def packed_objects(shape: str, count: int, apart_px: float, rng: np.random.Generator) -> np.ndarray:
    """Objects (count, 4) of `picture`, no two nearer than so much."""
    places: list[np.ndarray] = []
    while len(places) < count:
        place = rng.uniform(EDGE_PX, SIDE_PX - EDGE_PX, 2)
        if all(np.hypot(*(place - other)) > apart_px for other in places):
            places.append(place)
    return np.column_stack([places, rng.uniform(*BRIGHTNESS, count), rng.uniform(0, 1, count)])


def shapes(folder: Path) -> list[dict[str, Any]]:
    """Drawn objects of four shapes, in shade and out of it."""
    rows = []
    for shape in ("disc", "ball", "ring", "astigmatic spot"):
        for count, apart_px in CASES:
            for shaded in (False, True):
                rng = np.random.default_rng(1)
                crops = []
                for look in np.linspace(0, 1, 5):
                    one = np.array([[*rng.uniform(19.5, 20.5, 2), 1.0, look]])
                    grey = picture(shape, one, one[:0], CROP_PX, rng)
                    crops.append(Crop(grey.astype(float), f"example {look}"))
                found = model_of(free(crops), 1.0)
                if found.model is None or found.is_rough:
                    raise RuntimeError(f"{shape}: {found.words}")
                images, truth = [], []
                for _ in range(IMAGES):
                    objects = packed_objects(shape, count, apart_px, rng)
                    beyond = np.column_stack(
                        [
                            rng.uniform(0, SIDE_PX, (count, 2)),
                            rng.uniform(*BRIGHTNESS, count),
                            rng.uniform(0, 1, count),
                        ]
                    )
                    images.append(picture(shape, objects, beyond if shaded else beyond[:0], SIDE_PX, rng))
                    truth.append(objects[:, :2])
                model = folder / "shape.h5"
                write_object_model(model, found.model, shape, overwrite=True)
                rows.append(
                    {"case": shape, "apart_px": apart_px, "shade": shaded} | pulls(model, images, truth)
                )
    return rows


def planted(model_file: Path, tested: list[np.ndarray]) -> dict[str, Any]:
    """Objects of the model in frames of the recording."""
    model, rng = load_object_model(model_file), np.random.default_rng(0)
    sign = -1 if model.polarity == "dark" else 1
    images, truth = [], []
    for frame, table in zip(tested, detected(model_file, tested, refine=True), strict=True):
        height, width = frame.shape
        there = np.column_stack([table["x_um"], table["y_um"]])[table["confidence"] > 0.5]
        bright = table["brightness"][table["confidence"] > 0.9] / np.median(frame)
        places: list[np.ndarray] = []
        while len(places) < PLANTED:
            place = rng.uniform(15, np.array([width, height]) - 15)
            alone = all(np.hypot(*(place - other)) > APART_PX for other in places)
            if alone and np.hypot(*(there - place).T).min() > AWAY_PX:
                places.append(place)
        psf, more = model.for_kernels(frame.shape), np.zeros(frame.shape, np.float32)
        for place in places:
            depth = rng.uniform(0.6 * model.z_min_um, 0.6 * model.z_max_um)
            put(more, np.array([*place, depth, rng.choice(bright) / model.peak_at(depth)]), 1.0, psf)
        grey = np.clip(np.rint(frame + sign * np.median(frame) * more), 0, np.iinfo(frame.dtype).max)
        images.append(grey.astype(frame.dtype))
        truth.append(np.array(places))
    return pulls(model_file, images, truth)


def pulls(model: Path, images: list[np.ndarray], truth: list[np.ndarray]) -> dict[str, Any]:
    """Errors of what is found, over the stated standard errors."""
    errors, stated = [], []
    for table, places in zip(detected(model, images, refine=True), truth, strict=True):
        ours = np.column_stack([table["x_um"], table["y_um"]])
        mine, theirs = pairs(places, ours, GATE_PX)
        errors.append(ours[theirs] - places[mine])
        stated.append(np.column_stack([table["sigma_x_um"], table["sigma_y_um"]])[theirs])
    error, sigma = np.concatenate(errors), np.concatenate(stated)
    return {
        "objects": sum(map(len, truth)),
        "found": len(error),
        "error_px": spread(error).round(4).tolist(),
        "stated_px": np.median(sigma, axis=0).round(4).tolist(),
        "error_over_stated": spread(error / sigma).round(2).tolist(),
        "within_1": round(float((np.abs(error / sigma) < 1).mean()), 3),
        "within_2": round(float((np.abs(error / sigma) < 2).mean()), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = shapes(folder)
        for case_name, case in (("packed", packed()), ("simulated", simulated())):
            model = folder / f"{case_name}.h5"
            modelled(case_name, case, model)
            truth = [each["truth"] for each in case.references]
            rows.append({"case": case_name} | pulls(model, case.tested, truth))
        case, model = bulk_water(), folder / "bulk-water.h5"
        modelled("bulk-water", case, model)
        rows.append({"case": "planted in bulk-water"} | planted(model, case.tested[:FRAMES]))
    for row in rows:
        print(row)
    if given.json is not None:
        save(given.json, rows)


if __name__ == "__main__":
    main()
