"""A microscope whose optics vary over the field: its focus scan, its images with their truth, and what was found.

    python benchmarks/field_optics.py scan beads.ome.tif --beads 60
    liveptv calibrate beads.ome.tif -o calibration.h5 && liveptv train calibration.h5 -o model.onnx
    python benchmarks/field_optics.py images test.ome.tif --frames 100
    python benchmarks/field_optics.py compare test.truth.csv --model model.onnx --images test.ome.tif

Optics: `varying_optics.py`; `--still` takes all variation away, with the same particles and the same noise. Beads
of the scan lie on a slide (+-1 um); particles of the images are anywhere. `x_um, y_um, z_um` of the truth are in
the sample: z is the height less the focus, 0 at the mid-plane in the middle of the field, x and y are where the
particle is seen at its own mid-plane; `seen_x_um, seen_y_um, local_um` is where its image is, and the depth that it
shows. `bound_*` is the Cramer-Rao bound of a lone particle with these optics (x, y, z, brightness, background
unknown, the rounding to grey values left out), empty for others. Images and truth depend on the seed only.
"""

from __future__ import annotations

import argparse
import csv
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from reporting import save
from varying_optics import Drawn, Field, VaryingOptics, load

from acquisition.physics.optics import OpticsModel
from calibration.matching import GATE_XY_UM, GATE_Z_UM, match
from calibration.synthesis.layout import PAPER_DENSITY
from engines.factory import open_engine
from engines.refine.psf import load_fit_model
from engines.refine.refiner import NETWORK_SEARCH_UM, Refiner
from engines.refine.sample import to_sample
from engines.settings import DetectorSettings
from stream.messages import Detections, Frame, FrameInfo

OPTICS = {
    "paper": OpticsModel(range_um=276.0),
    "fluorescent": OpticsModel(
        polarity="bright",
        numerical_aperture=0.25,
        condenser_na=0.2,
        pixel_size_um=0.5,
        particle_diameter_um=1.0,
        medium_index=1.33,
        wavelengths_um=(0.61,),
        focal_line_separation_um=40.0,
        visible_um=60.0,
        range_um=85.0,
    ),
}
START_UM = (0.3, 0.3, 5.0)
"""Standard deviations of the starts of a fit without a network, x, y, z: about those of a network's answers."""
SLIDE_UM = 1.0
SIZE_SPREAD = 0.15
BRIGHTNESS_SD = 0.1
LONE_PX = 70.0
NEIGHBOURS_PX = (0.0, 8.0, 35.0, LONE_PX, np.inf)
REGIONS = 3
DEPTHS = 7
BEYOND_PX = 62
REACH = 0.98
"""Part of the visible depth in which particles must be found."""
COLUMNS = (
    *("frame", "x_um", "y_um", "z_um", "seen_x_um", "seen_y_um", "local_um", "size", "brightness"),
    *("nearest_px", "bound_x_um", "bound_y_um", "bound_z_um"),
)


def opened(args: argparse.Namespace) -> VaryingOptics:
    """The optics of the options."""
    optics = OPTICS[args.optics]
    of = Field(tuple(args.shape), 2 * optics.visible_um)
    return load(optics, of.still() if args.still else of, args.cache)


def scattered(
    shape: tuple[int, int], count: int, apart_px: float, beyond_px: float, rng: np.random.Generator
) -> np.ndarray:
    """Places (N, 2: x, y) at random, none nearer to another than `apart_px`; fewer than `count` where full."""
    low, high = np.full(2, -beyond_px), np.array(shape[::-1]) - 1 + beyond_px
    if apart_px <= 0:
        return np.asarray(rng.uniform(low, high, (count, 2)))
    places = np.empty((0, 2))
    for _ in range(200 * count):
        new = rng.uniform(low, high)
        if len(places) == count:
            break
        if not len(places) or np.hypot(*(places - new).T).min() >= apart_px:
            places = np.vstack([places, new])
    return places


def particles_at(places: np.ndarray, z_um: np.ndarray, rng: np.random.Generator) -> Drawn:
    count = len(places)
    size = 1 + SIZE_SPREAD * rng.uniform(-1, 1, count)
    brightness = np.exp(BRIGHTNESS_SD * rng.standard_normal(count))
    return Drawn(places[:, 0], places[:, 1], z_um, size, brightness)


def rows_of(optics: VaryingOptics, drawn: Drawn, frame: int, snr: float, *, bounds: bool) -> list[list[Any]]:
    """Truth of one frame, for those whose image has its middle in it."""
    pixel_um = optics.optics.pixel_size_um
    x, y, local = optics.field.seen(*drawn[:3], pixel_um)
    height, width = optics.field.shape
    apart = np.hypot(x[:, None] - x, y[:, None] - y) + np.where(np.eye(len(x)), np.inf, 0)
    nearest = apart.min(axis=1, initial=np.inf)
    inside = (np.abs(x - (width - 1) / 2) <= width / 2) & (np.abs(y - (height - 1) / 2) <= height / 2)
    rows = []
    for n in np.flatnonzero(inside):
        lone = bounds and nearest[n] >= LONE_PX
        bound = optics.bound(drawn, n, snr) if lone else np.full(3, np.nan)
        place = (drawn.x_px[n] * pixel_um, drawn.y_px[n] * pixel_um, drawn.z_um[n])
        seen = (x[n] * pixel_um, y[n] * pixel_um, local[n])
        rows.append([frame, *place, *seen, drawn.size[n], drawn.brightness[n], nearest[n], *bound])
    return rows


def write_truth(path: Path, rows: list[list[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([["" if np.isnan(v) else round(float(v), 5) for v in row] for row in rows])


def truth_of(path: Path) -> Path:
    return path.with_name(path.name.split(".")[0] + ".truth.csv")


def write_scan(args: argparse.Namespace) -> None:
    """A focus scan of beads on a slide, and their places."""
    optics = opened(args)
    rng = np.random.default_rng(args.seed)
    area = optics.field.shape[0] * optics.field.shape[1]
    apart_px = min(LONE_PX, 0.6 * np.sqrt(area / args.beads))
    places = scattered(optics.field.shape, args.beads, apart_px, 0.0, rng)
    beads = particles_at(places, rng.uniform(-SLIDE_UM, SLIDE_UM, len(places)), rng)
    reach = 1.15 * optics.optics.visible_um
    focus_um = np.linspace(-reach, reach, args.planes) if args.planes > 1 else np.zeros(1)
    drift_px = args.drift / optics.optics.pixel_size_um * np.linspace(-0.5, 0.5, args.planes)
    stacks = [
        optics.stack(x, y, s, -2 * optics.z_um[-1], 2 * optics.z_um[-1])
        for x, y, s in zip(beads.x_px, beads.y_px, beads.size, strict=True)
    ]
    metadata = {
        "axes": "ZTYX",
        **{f"PhysicalSize{axis}": optics.optics.pixel_size_um for axis in "XY"},
        **{f"PhysicalSize{axis}Unit": "um" for axis in "XY"},
        "Plane": {
            "PositionZ": [float(f) for f in np.repeat(focus_um, args.repeats)],
            "PositionZUnit": ["um"] * (args.planes * args.repeats),
        },
    }
    images = np.empty((args.planes, args.repeats, *optics.field.shape), np.uint8)
    for n, focus in enumerate(focus_um):
        now = beads._replace(z_um=beads.z_um - focus, x_px=beads.x_px + drift_px[n])
        contrast = optics.contrast(now, stacks)
        for image in images[n]:
            image[:] = optics.exposed(contrast, args.snr, rng)
    tifffile.imwrite(args.output, images, metadata=metadata, photometric="minisblack")
    write_truth(truth_of(args.output), rows_of(optics, beads, 0, args.snr, bounds=False))
    print(f"{args.output}: {len(places)} beads at least {apart_px:.0f} px apart, {args.planes} planes")


def write_images(args: argparse.Namespace) -> None:
    """Images of particles anywhere, and their truth."""
    optics = opened(args)
    rng = np.random.default_rng(args.seed)
    height, width = optics.field.shape
    area = (height + 2 * BEYOND_PX) * (width + 2 * BEYOND_PX)
    rows: list[list[Any]] = []
    metadata = {"axes": "TYX"} | {f"PhysicalSize{axis}": optics.optics.pixel_size_um for axis in "XY"}
    metadata |= {f"PhysicalSize{axis}Unit": "um" for axis in "XY"}

    def draw() -> Any:
        for frame in range(args.frames):
            count = rng.poisson(args.density * PAPER_DENSITY * area)
            places = scattered(optics.field.shape, count, args.apart, BEYOND_PX, rng)
            local = rng.uniform(-1, 1, len(places)) * optics.optics.visible_um
            surface = optics.field.surface_um(places[:, 0], places[:, 1])
            drawn = particles_at(places, local - surface, rng)
            rows.extend(rows_of(optics, drawn, frame, args.snr, bounds=frame < args.bounds))
            yield optics.exposed(optics.contrast(drawn), args.snr, rng)

    shape = (args.frames, height, width)
    tifffile.imwrite(args.output, draw(), shape=shape, dtype=np.uint8, metadata=metadata)
    write_truth(truth_of(args.output), rows)
    print(f"{args.output}: {len(rows)} particles in {args.frames} images, truth in {truth_of(args.output)}")


def read(path: Path) -> dict[str, np.ndarray]:
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(line for line in file if not line.startswith("#")))
    table = np.array([[float(v) if v else np.nan for v in line] for line in lines[1:]]).reshape(
        -1, len(lines[0])
    )
    return dict(zip(lines[0], table.T, strict=True))


def detected(model: Path, images: Path, pixel_um: float, workers: int) -> dict[str, np.ndarray]:
    """What the engine of a model finds, as the table of `liveptv detect`."""
    stack = tifffile.imread(images)
    names = ("x_um", "y_um", "z_um", "sigma_x_um", "sigma_y_um", "sigma_z_um")
    parts: list[np.ndarray] = []
    settings = DetectorSettings(workers=workers, backend="onnxruntime")
    with closing(open_engine(settings, model=model, pixel_size_um=pixel_um)) as engine:
        for n, image in enumerate(stack):
            engine.submit(Frame(FrameInfo("run", n, n, 0.0, 0, 0.0, pixel_size_um=pixel_um), image))
            while engine.pending:
                parts += [
                    np.vstack([np.full(d.table.shape[1], d.info.frame), d.table[:6]])
                    for d in engine.results(60.0)
                ]
    return dict(zip(("frame", *names), np.concatenate(parts, axis=1), strict=True))


def fitted(
    calibration: Path, images: Path, truth: dict[str, np.ndarray], pixel_um: float
) -> dict[str, np.ndarray]:
    """What the fit makes of starts that are off by a network's errors: the PSF model by itself, without a training.

    Nothing is missed, and false ones are those that the fit adds.
    """
    model = load_fit_model(calibration)
    if model is None:
        raise SystemExit(f"{calibration} has no PSF model")
    refiner, rng = Refiner(model, pixel_um, NETWORK_SEARCH_UM), np.random.default_rng(0)
    found: list[np.ndarray] = []
    for index, image in enumerate(tifffile.imread(images)):
        some = truth["frame"] == index
        table = np.full((len(Detections.COLUMNS), int(some.sum())), np.nan)
        for row, name in enumerate(("seen_x_um", "seen_y_um", "local_um")):
            table[row] = truth[name][some] + rng.normal(0, START_UM[row], table.shape[1])
            table[3 + row] = START_UM[row]
        table[Detections.COLUMNS.index("brightness")] = 1.0
        table[Detections.COLUMNS.index("confidence")] = 1.0
        table[Detections.COLUMNS.index("flags")] = 0.0
        table = to_sample(refiner.refine(image, table, frame=index), model, pixel_um, image.shape)
        found.append(np.vstack([np.full(table.shape[1], index), table]))
    print(refiner.counts())
    every = np.hstack(found)
    return {"frame": every[0]} | {name: every[1 + k] for k, name in enumerate(Detections.COLUMNS)}


def matched(
    truth: dict[str, np.ndarray], found: dict[str, np.ndarray], offset_um: float | None
) -> tuple[np.ndarray, np.ndarray, int, float]:
    """Errors (N, 3) and stated errors (N, 3) of each true particle, NaN where missed; false ones; the offset."""
    axes = ("x_um", "y_um", "z_um")
    true = np.column_stack([truth[a] for a in axes])
    seen = np.column_stack([found[a] for a in axes])
    stated = np.column_stack([found[f"sigma_{a}"] for a in axes])
    if offset_um is None:
        offset_um = 0.0
        offset_um = float(np.nanmedian(matched(truth, found, 0.0)[0][:, 2]))
    seen = seen - [0.0, 0.0, offset_um]
    error, sigma, false = np.full_like(true, np.nan), np.full_like(true, np.nan), 0
    for frame in np.unique(np.r_[truth["frame"], found["frame"]]):
        mine, theirs = np.flatnonzero(truth["frame"] == frame), np.flatnonzero(found["frame"] == frame)
        i, j = match(true[mine], seen[theirs], GATE_XY_UM, GATE_Z_UM)
        error[mine[i]] = seen[theirs[j]] - true[mine[i]]
        sigma[mine[i]] = stated[theirs[j]]
        false += len(theirs) - len(j)
    return error, sigma, false, offset_um


def rms(values: np.ndarray) -> list[float]:
    kept = values[np.isfinite(values).all(axis=1)]
    return [round(float(v), 3) for v in np.sqrt(np.mean(kept**2, axis=0))] if len(kept) else []


def said_of(some: np.ndarray, error: np.ndarray, sigma: np.ndarray, bound: np.ndarray) -> dict[str, Any]:
    """What is said of a group of true particles."""
    got = some & np.isfinite(error[:, 2])
    bounded = got & np.isfinite(bound).all(axis=1)
    over = np.array(rms(error[bounded])) / np.array(rms(bound[bounded])) if bounded.any() else np.empty(0)
    pull = error[got] / sigma[got]
    return {
        "particles": int(some.sum()),
        "missed": round(float(1 - got.sum() / max(some.sum(), 1)), 4),
        "rms_um": rms(error[got]),
        "bias_um": [round(float(v), 3) for v in np.mean(error[got], axis=0)] if got.any() else [],
        "over_bound": [round(float(v), 2) for v in over],
        "true_over_stated": rms(pull),
        "middle_true_over_stated": [round(float(1.4826 * v), 2) for v in np.median(np.abs(pull), axis=0)]
        if got.any()
        else [],
    }


def compare(args: argparse.Namespace) -> None:
    """Missed, false and errors: all, by neighbours, and of lone particles by region and depth."""
    optics = OPTICS[args.optics]
    truth = read(args.truth)
    if args.found:
        found = read(args.found)
    elif args.calibration:
        found = fitted(args.calibration, args.images, truth, optics.pixel_size_um)
    else:
        found = detected(args.model, args.images, optics.pixel_size_um, args.workers)
    error, sigma, false, offset_um = matched(truth, found, args.offset)
    bound = np.column_stack([truth[f"bound_{axis}_um"] for axis in "xyz"])
    reach = REACH * optics.visible_um
    inside = np.abs(truth["local_um"]) <= reach
    lone = inside & (truth["nearest_px"] >= LONE_PX)
    detections = len(found["frame"])
    height, width = (size * optics.pixel_size_um for size in args.shape)
    row = np.clip(truth["seen_y_um"] / height * REGIONS, 0, REGIONS - 1).astype(int)
    column = np.clip(truth["seen_x_um"] / width * REGIONS, 0, REGIONS - 1).astype(int)
    groups = {"all": inside}
    for low, high in pairwise(NEIGHBOURS_PX):
        name = f"nearest {low:g} to {high:g} px" if np.isfinite(high) else f"lone, nearest over {low:g} px"
        groups[name] = inside & (truth["nearest_px"] >= low) & (truth["nearest_px"] < high)
    for r in range(REGIONS):
        for c in range(REGIONS):
            groups[f"lone, region {r} {c}"] = lone & (row == r) & (column == c)
    for low, high in pairwise(np.linspace(-reach, reach, DEPTHS + 1)):
        groups[f"lone, {low:.0f} to {high:.0f} um"] = (
            lone & (truth["local_um"] >= low) & (truth["local_um"] < high)
        )
    print(
        f"{detections} detections, false {100 * false / max(detections, 1):.2f} %, offset {offset_um:.2f} um"
    )
    rows = [{"detections": detections, "false": false / max(detections, 1), "offset_um": offset_um}]
    for name, some in groups.items():
        rows.append({"group": name} | said_of(some, error, sigma, bound))
        print(f"{name:<28}", *(f"{k} {v}" for k, v in rows[-1].items() if k != "group"), flush=True)
    if args.json:
        save(args.json, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--optics", choices=OPTICS, default="paper")
    common.add_argument("--shape", type=int, nargs=2, default=(768, 1024), help="height and width, px")
    drawing = argparse.ArgumentParser(add_help=False)
    drawing.add_argument("output", type=Path, help=".ome.tif; the truth is written beside it")
    drawing.add_argument("--still", action="store_true", help="nothing varies over the field")
    drawing.add_argument("--snr", type=float, default=5.6)
    drawing.add_argument("--cache", type=Path, help="folder of the computed images (200 MB)")
    commands = parser.add_subparsers(required=True)
    scan = commands.add_parser("scan", parents=[common, drawing], help="a focus scan of beads on a slide")
    scan.add_argument("--beads", type=int, default=60)
    scan.add_argument("--planes", type=int, default=80)
    scan.add_argument("--repeats", type=int, default=4)
    scan.add_argument("--drift", type=float, default=0.0, help="of the stage along x over the scan, um")
    scan.add_argument("--seed", type=int, default=1)
    scan.set_defaults(what=write_scan)
    images = commands.add_parser("images", parents=[common, drawing], help="images of particles anywhere")
    images.add_argument("--frames", type=int, default=100)
    images.add_argument("--density", type=float, default=1.0, help="times the paper's")
    images.add_argument("--apart", type=float, default=0.0, help="least distance of two particles, px")
    images.add_argument("--bounds", type=int, default=10**9, help="frames with bounds")
    images.add_argument("--seed", type=int, default=1_000_001)
    images.set_defaults(what=write_images)
    against = commands.add_parser("compare", parents=[common], help="what was found with the truth")
    against.add_argument("truth", type=Path)
    against.add_argument("--found", type=Path, help="table of `liveptv detect`, .csv")
    against.add_argument("--model", type=Path, help="detect with this model, in --images")
    against.add_argument(
        "--calibration", type=Path, help="fit with this calibration's PSF in --images, from near the truth"
    )
    against.add_argument("--images", type=Path)
    against.add_argument("--offset", type=float, help="of the depths found, um; default: its median")
    against.add_argument("--workers", type=int, default=1)
    against.add_argument("--json", type=Path)
    against.set_defaults(what=compare)
    args = parser.parse_args()
    if args.what is compare:
        ways = [args.found, args.model, args.calibration]
        if sum(way is not None for way in ways) != 1 or (args.found is None and args.images is None):
            parser.error(
                "compare needs one of --found, --model and --calibration, the last two with --images"
            )
    args.what(args)


if __name__ == "__main__":
    main()
