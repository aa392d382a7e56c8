"""Objects learnt from five crops, against the best other detectors and against the truth.

    python benchmarks/one_shot.py CASE [--way matched] [--steps 3000] [--model FILE] [--json FILE]

CASE is one of

- `bulk-water`: the reference is what both trackpy (as its walk-through filters it) and the classical detector of
  this project find. No network was trained for these images, as there is no scan.
- `colloids`, slices of `small_confocal_image.tif`: what trackpy finds in a slice and in the next one, where the
  noise is another. The classical detector finds less than a tenth of these balls in dense slices.
- `dtai`: the true places of frames 6 to 10 (the crops are of frames 1 to 5); the network of `dtai.py`, trained on
  1,772 labelled cut-outs and PSF models, finds 99.2 % of them.
- `simulated`: Gaussian spots with exact places, and the Cramer-Rao bound.
- `packed`: balls in contact, as in `colloids`, in slices of a drawn volume of which 30 % are balls; exact places.
- `centres`: no network, only the centre by symmetry of each lone particle of dtai's frames 1 to 3, as `--at` finds
  it, against its true place.

With two references each of the three has errors of its own, which follow from the three differences as far as they
are independent (three-cornered hat): the noise of an image that all three see is not in them.

`--way` is `matched` (the image model of the examples, matched filters and the fit; where the examples differ too
much for a fit, their symmetry measures; `filters`: without the fit) or `network` (trained with so many steps; its
detections are fitted where the examples have an image model; `unfitted`: never). Both are made of the places in
`PLACES` (of `packed`: where five balls stand most apart) as `liveptv train --examples` does it, a network only
where the file of `--model` is not there yet; the processor time is that of making it.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from reporting import save
from scipy import ndimage

from calibration.matching import match
from engines.factory import open_engine
from engines.settings import DetectorSettings
from liveptv.workflows.examples import Examples, parse_at
from stream.messages import Detections, Frame, FrameInfo

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
GATE_PX = 3.0
SAME_PX, EDGE_PX = 1.5, 6.0
PLACES = {
    # from faint to dark, standing alone
    "bulk-water": ("343,43", "615,351", "320,133", "521,274", "357,155"),
    # from in focus to far out of it, along both axes
    "dtai": ("875,844,1", "411,180,2", "604,891,2", "728,803,4", "902,239,0"),
    "colloids": ("18,20,24", "39,32,24", "24,52,24", "34,48,14", "12,44,12"),
    "simulated": ("60,60", "140,60", "60,140", "140,140", "220,60"),
}
LONE_PX, LONE_EDGE_PX = 30.0, 75.0
SPOT_PX, SPOT_PEAK, SPOT_NOISE = 1.7, 0.3, 0.03
SIDE_PX, PITCH_PX, IMAGES = 400, 40, 12
BOX_PX, BALL_PX, PACKED_PART = (48, 128, 128), 5.8, 0.3
BALL_BLUR_PX, BALL_GREY, BALL_NOISE = (2.0, 1.2, 1.2), (70.0, 130.0), 4.3
"""Light in a ball and what the fluid adds, and the noise, much as in the stack of `colloids`."""
IN_SLICE_PX, PACKED_SLICES = 1.5, range(8, 40, 4)
"""Balls whose middle is at most so far from a slice count."""


class Case(NamedTuple):
    """Images (K, H, W) for crops, those to test on, and places (N, 2) per test image, by each reference's name.

    `at` are the crops' places, where `PLACES` has none.
    """

    examples: np.ndarray
    tested: list[np.ndarray]
    references: list[dict[str, np.ndarray]]
    background: bool = False
    gate_px: float = GATE_PX
    at: tuple[str, ...] = ()


def bulk_water() -> Case:
    from engines.classical.detector import SpotDetector

    video = tifffile.imread(DATA / "bulk-water" / "video.ome.tif")
    tested = [video[number] for number in (20, 60, 100, 140, 180)]
    detector = SpotDetector(*video.shape[1:], DetectorSettings(), 1.0)
    references = [
        both(
            image,
            "trackpy",
            located(image, 20, walk_through=True),
            "classical",
            detector.detect(image, -1.0)[0][:2].T,
        )
        for image in tested
    ]
    return Case(video, tested, references, background=True)


def colloids() -> Case:
    stack = tifffile.imread(DATA / "volumes" / "small_confocal_image.tif")
    numbers = (10, 13, 15, 17, 19, 21, 23, 26)
    references = [
        both(stack[n], "trackpy", located(stack[n], 100), "next slice", located(stack[n + 1], 100))
        for n in numbers
    ]
    return Case(stack, [stack[n] for n in numbers], references)


def located(image: np.ndarray, mass: float, *, walk_through: bool = False) -> np.ndarray:
    """Places (N, 2) of dark objects by trackpy, of those that its walk-through keeps."""
    import trackpy

    trackpy.quiet()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = trackpy.locate(image, 11, invert=True, minmass=mass)
    if walk_through:
        found = found[(found["mass"] > 50) & (found["size"] < 2.6) & (found["ecc"] < 0.3)]
    places: np.ndarray = found[["x", "y"]].to_numpy()
    return places


def both(
    image: np.ndarray, name: str, one: np.ndarray, other_name: str, other: np.ndarray
) -> dict[str, np.ndarray]:
    """Places (N, 2) of objects away from the edge that are in both tables, as each says."""
    mine, theirs = pairs(one, other, SAME_PX)
    inside = (np.minimum(one, np.array(image.shape[::-1]) - 1 - one) > EDGE_PX).all(axis=1)[mine]
    return {name: one[mine][inside], other_name: other[theirs][inside]}


def dtai() -> Case:
    folder = DATA / "dtai-astigmatic"
    with (folder / "ground_truth.csv").open() as file:
        rows = [{k: float(v) for k, v in line.items()} for line in csv.DictReader(file)]
    stack = np.stack([tifffile.imread(folder / f"B{number:05d}.tif") for number in range(1, 11)])
    truth = [
        np.array([[row["x0"], row["y0"]] for row in rows if row["fr"] == number]) for number in range(6, 11)
    ]
    return Case(stack[:5], list(stack[5:]), [{"truth": places} for places in truth], gate_px=8.0)


def simulated() -> Case:
    rng = np.random.default_rng(0)
    lattice = np.arange(PITCH_PX / 2, SIDE_PX, PITCH_PX)
    grid = np.stack(np.meshgrid(lattice, lattice), axis=-1).reshape(-1, 2)
    rows, columns = np.indices((SIDE_PX, SIDE_PX))
    images, truth = [], []
    for _ in range(IMAGES):
        places = grid + rng.uniform(-0.5, 0.5, grid.shape)
        image = np.zeros((SIDE_PX, SIDE_PX))
        for x, y in places:
            image += np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * SPOT_PX**2))
        images.append(
            np.rint(1000 * (1 + SPOT_PEAK * image + rng.normal(0, SPOT_NOISE, image.shape))).astype(np.uint16)
        )
        truth.append({"truth": places})
    return Case(np.array(images[:1]), images[1:], truth[1:])


def packed() -> Case:
    rng = np.random.default_rng(0)
    box = np.array(BOX_PX)
    balls = rng.uniform(0, 1, (round(PACKED_PART * box.prod() / (4 / 3 * np.pi * BALL_PX**3)), 3)) * box
    for _ in range(1500):  # pushed apart until they only touch
        apart = balls[:, None] - balls[None]
        apart -= box * np.rint(apart / box)
        distance = np.sqrt((apart**2).sum(axis=-1)) + 1e9 * np.eye(len(balls))
        overlap = np.clip(2 * BALL_PX - distance, 0, None)
        balls = (balls + 0.4 * ((overlap / distance)[..., None] * apart).sum(axis=1)) % box
    light = np.ones(BOX_PX)
    for ball in balls:
        axes = [np.arange(int(middle - BALL_PX) - 1, int(middle + BALL_PX) + 3) for middle in ball]
        grid = np.meshgrid(*axes, indexing="ij")
        distance = np.sqrt(sum((axis - middle) ** 2 for axis, middle in zip(grid, ball, strict=True)))
        where = np.ix_(*[axis % side for axis, side in zip(axes, box, strict=True)])
        light[where] -= np.clip(BALL_PX - distance + 0.5, 0, 1)
    light = ndimage.gaussian_filter(np.clip(light, 0, 1), BALL_BLUR_PX, mode="wrap")
    grey = BALL_GREY[0] + BALL_GREY[1] * light + rng.normal(0, BALL_NOISE, light.shape)
    stack = np.rint(np.clip(grey, 0, 255)).astype(np.uint8)
    z, places = balls[:, 0], balls[:, :0:-1]
    flat = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1))
    beside = (np.abs(z[:, None] - z[None]) < BALL_PX) & ~np.eye(len(z), dtype=bool)
    alone = np.where(beside, flat, np.inf).min(axis=1)
    well = (np.minimum(places, 127 - places).min(axis=1) > 12) & (np.abs(z - np.rint(z)) < 0.3) & (z < 47)
    chosen = np.flatnonzero(well)[np.argsort(-alone[well])[: len(PLACES["colloids"])]]
    inside = np.minimum(places, 127 - places).min(axis=1) > EDGE_PX
    references = [{"truth": places[inside & (np.abs(z - n) < IN_SLICE_PX)]} for n in PACKED_SLICES]
    at = tuple(f"{places[n, 0]:.0f},{places[n, 1]:.0f},{z[n]:.0f}" for n in chosen)
    return Case(stack, [stack[n] for n in PACKED_SLICES], references, at=at)


CASES: dict[str, Callable[[], Case]] = {
    "bulk-water": bulk_water,
    "dtai": dtai,
    "colloids": colloids,
    "packed": packed,
    "simulated": simulated,
}


def trained(name: str, case: Case, steps: int, model: Path) -> dict[str, Any]:
    """Train on the case's crops; says what that took."""
    from calibration.training.settings import TrainingSettings
    from liveptv.models import SHIPPED_MODEL
    from liveptv.workflows.examples import recipe_of
    from liveptv.workflows.train import train_model

    with given_examples(name, case) as given:
        recipe, digest = recipe_of(given, print)
    settings = TrainingSettings(minutes=1e4, steps=steps, start_from=SHIPPED_MODEL, score_every_s=1e7)
    begun_s = time.process_time()
    found = train_model(model, recipe, digest, settings, lambda _progress: None)
    took_s = time.process_time() - begun_s
    assert found is not None
    scores = found.scores
    return {
        "steps": steps,
        "processor_s": round(took_s),
        "own_missed": round(scores.missed, 4),
        "own_false": round(scores.false, 4),
        "sigma_scale": [round(value, 3) for value in found.card.sigma_scale[:2]],
    }


def modelled(name: str, case: Case, model: Path) -> dict[str, Any]:
    """Make the image model of the case's crops; says what that took."""
    from liveptv.workflows.examples import make_model_of_examples

    begun_s = time.process_time()
    with given_examples(name, case) as given:
        make_model_of_examples(model, given, print)
    return {"processor_s": round(time.process_time() - begun_s, 1)}


@contextmanager
def given_examples(name: str, case: Case) -> Iterator[Examples]:
    """The case's crops, as a user gives them."""
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder) / "examples.tif"
        tifffile.imwrite(recording, case.examples, metadata={"axes": "TYX"})
        yield Examples(
            (recording,), parse_at(case.at or PLACES[name]), recording if case.background else None, 1.0
        )


def detected(model: Path, images: list[np.ndarray], *, refine: bool) -> list[dict[str, np.ndarray]]:
    """What the engine finds in each image, in px."""
    tables = []
    backend: Any = "onnxruntime" if model.suffix == ".onnx" else "auto"
    settings = DetectorSettings(workers=1, backend=backend, refine=refine)
    with closing(open_engine(settings, model=model, pixel_size_um=1.0)) as engine:
        for number, image in enumerate(images):
            info = FrameInfo("run", number, number, 0.0, 0, 0.0, pixel_size_um=1.0)
            engine.submit(Frame(info, image))
            results: list[Detections] = []
            while not results:
                results = engine.results(600.0)
            tables.append(dict(zip(Detections.COLUMNS, results[0].table, strict=True)))
    return tables


def pairs(one: np.ndarray, other: np.ndarray, gate_px: float) -> tuple[np.ndarray, np.ndarray]:
    """Which of `one` (N, 2) are which of `other` (M, 2)."""
    flat = [np.column_stack([places, np.zeros(len(places))]) for places in (one, other)]
    return match(*flat, gate_px, None)


def spread(values: np.ndarray) -> np.ndarray:
    """Standard deviation along each axis, from the median deviation."""
    found: np.ndarray = 1.4826 * np.median(np.abs(values - np.median(values, axis=0)), axis=0)
    return found


def scored(case: Case, tables: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    """How much of the reference is found, and how far from it."""
    names = list(case.references[0])
    wanted = seen = reported = 0
    apart: dict[str, list[np.ndarray]] = {name: [] for name in names}
    between, stated = [], []
    for places, table in zip(case.references, tables, strict=True):
        ours = np.column_stack([table["x_um"], table["y_um"]])
        mine, theirs = pairs(places[names[0]], ours, case.gate_px)
        wanted, seen, reported = wanted + len(places[names[0]]), seen + len(mine), reported + len(ours)
        for name in names:
            apart[name].append(ours[theirs] - places[name][mine])
        if len(names) > 1:
            between.append((places[names[0]] - places[names[1]])[mine])
        stated.append(np.column_stack([table["sigma_x_um"], table["sigma_y_um"]])[theirs])
    row: dict[str, Any] = {
        "reference": wanted,
        "found": seen,
        "recall": round(seen / wanted, 4),
        "detections": reported,
    }
    sigma = np.concatenate(stated)
    row["stated_px"] = np.median(sigma, axis=0).round(4).tolist()
    differences = {name: np.concatenate(some) for name, some in apart.items()}
    for name, off in differences.items():
        row[f"from_{name}"] = {
            "bias_px": np.median(off, axis=0).round(4).tolist(),
            "spread_px": spread(off).round(4).tolist(),
            "rms_px": np.sqrt((off**2).mean(axis=0)).round(4).tolist(),
            "median_apart_px": round(float(np.median(np.hypot(*off.T))), 4),
        }
    if len(names) > 1:
        first, second = (spread(differences[name]) ** 2 for name in names)
        third = spread(np.concatenate(between)) ** 2
        parts = {
            "ours": 0.5 * (first + second - third),
            names[0]: 0.5 * (first + third - second),
            names[1]: 0.5 * (second + third - first),
        }
        row["error_px"] = {
            name: np.sqrt(np.maximum(part, 0)).round(4).tolist() for name, part in parts.items()
        }
    else:
        row["error_over_stated"] = spread(differences[names[0]] / sigma).round(3).tolist()
    return row


def centres() -> dict[str, Any]:
    """The error of the centres that symmetry gives for single crops."""
    from calibration.errors import CalibrationError
    from calibration.examples.crops import At
    from calibration.examples.objects import crops_at, free

    folder = DATA / "dtai-astigmatic"
    with (folder / "ground_truth.csv").open() as file:
        rows = [{k: float(v) for k, v in line.items()} for line in csv.DictReader(file)]
    off, failed = [], 0
    for number in (1, 2, 3):
        true = np.array([[r["x0"], r["y0"], max(r["W"], r["H"])] for r in rows if r["fr"] == number])
        places, across = true[:, :2], true[:, 2]
        apart = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1)) + 1e9 * np.eye(len(true))
        inside = np.minimum(places, 1023 - places).min(axis=1) > LONE_EDGE_PX
        for x, y in places[(apart.min(axis=1) > 0.75 * across + LONE_PX) & inside]:
            try:
                (crop,) = crops_at(folder / f"B{number:05d}.tif", [At(round(x), round(y))])
                (found,) = free([crop])
            except CalibrationError:
                failed += 1
            else:
                off.append((found.centre_px[1] + crop.left - x, found.centre_px[0] + crop.top - y))
    errors = np.array(off)
    distance = np.hypot(*errors.T)
    return {
        "case": "centres",
        "particles": len(off) + failed,
        "failed": failed,
        "bias_px": np.median(errors, axis=0).round(4).tolist(),
        "spread_px": spread(errors).round(4).tolist(),
        "median_apart_px": round(float(np.median(distance)), 4),
        "within_0.1_px": round(float((distance < 0.1).mean()), 4),
        "largest_px": round(float(distance.max()), 3),
    }


def bound_px() -> float:
    """Cramer-Rao bound of the simulated spots' x; that of brightness and light is independent of it."""
    rows, columns = np.indices((41, 41)) - 20.0
    shape = SPOT_PEAK * np.exp(-(columns**2 + rows**2) / (2 * SPOT_PX**2))
    return float(SPOT_NOISE / np.sqrt(((shape * columns / SPOT_PX**2) ** 2).sum()))


def measured(name: str, way: str, steps: int, kept: Path | None) -> dict[str, Any]:
    """Learn a case's crops, or take a kept network, and score it."""
    case = CASES[name]()
    row: dict[str, Any] = {"case": name, "way": way, "crops": len(case.at or PLACES[name])}
    with tempfile.TemporaryDirectory() as folder:
        if way in ("matched", "filters"):
            model = Path(folder) / "objects.h5"
            row |= modelled(name, case, model)
        else:
            model = kept or Path(folder) / "model.onnx"
            if not model.is_file():
                row |= trained(name, case, steps, model)
        row |= scored(case, detected(model, case.tested, refine=way in ("matched", "network")))
    return row | ({"bound_px": round(bound_px(), 4)} if name == "simulated" else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("case", choices=(*CASES, "centres"))
    parser.add_argument("--way", choices=("matched", "filters", "network", "unfitted"), default="matched")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--model", type=Path, help="a network that was trained before, or where to keep it")
    parser.add_argument("--json", type=Path, help="file for the results; those of other cases in it stay")
    given = parser.parse_args()
    single = given.case == "centres"
    row = centres() if single else measured(given.case, given.way, given.steps, given.model)
    print(json.dumps(row, indent=1))
    if given.json is not None:
        rows = json.loads(given.json.read_text(encoding="utf-8"))["rows"] if given.json.is_file() else []
        this = row["case"], row.get("way")
        save(given.json, [one for one in rows if (one["case"], one.get("way")) != this] + [row])


if __name__ == "__main__":
    main()
