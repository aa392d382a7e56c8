"""Recall, depth error and measured depth together over the source density: the yardstick of defocusing PTV.

After Barnkob & Rossi (2020), "General defocusing particle tracking: fundamentals and uncertainty assessment", Exp.
Fluids 61, 110: how many of the particles are measured, how well their depth is, and over which depth, are only
worth something together, and all depend on how much images overlap. The source density is

    Ns = number of particles x mean area of a particle's image / area of the field

where an image's area is that of the pixels above a tenth of its own peak, averaged over the depth measured in. A
particle counts as measured if its depth is right to a tenth of the depth range and its place to 4 um.

Images are those of `ray_images`: what is scored shares no renderer with what was trained on. `scan` draws a focus
scan, from which `liveptv calibrate` and `liveptv train` make the model; `measure` scores:

    python benchmarks/source_density.py scan scan.tif
    liveptv calibrate scan.tif -o calibration.h5 --z-step 2 --repeats 2 --pixel-size 0.65
    liveptv train calibration.h5 -o model.onnx --minutes 30 --processes 1
    python benchmarks/paper_detector.py --calibration calibration.h5 --minutes 25 --runs runs
    python benchmarks/source_density.py measure calibration.h5 model.onnx --paper runs/seed0/paper.pt

Zero of depth is the calibration's own, so the median difference of depths at the lowest density is taken off.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import tifffile
from ray_images import Microscope
from reporting import save

from calibration.evaluation import Evaluation, evaluate
from engines.engine import Engine
from engines.factory import open_engine
from engines.settings import DetectorSettings
from stream.messages import Frame, FrameInfo

SHAPE = (512, 512)
MIDDLE_UM, RANGE_UM = -43.0, 86.0
"""Depths measured in: 86 um, as in data sets made by MicroSIG for this yardstick; focal lines half of it apart."""
STEP_UM, MARGIN_UM, REPEATS = 2.0, 12.0, 2
BEADS_PX, SCATTER_PX = 85.0, 5.0
EDGE = 0.1
DENSITIES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
LEAST_PARTICLES = 300
GATE_XY_UM, GATE_PART = 4.0, 0.1
SEED = 2020
ASKED = {0.1: (97.0, 99.0), 0.3: (90.0, 95.0), 0.5: (75.0, 85.0)}
ASKED_DEPTH = 2.0
TRACKER_AI = (0.1, 0.4)
"""Errors in the plane, px, of DefocusTrackerAI up to a source density of 0.5, from its abstract (arXiv, 2026)."""
RATZ = 1.0
"""Depth error, % of the range, below which Ratz et al. (Meas. Sci. Technol., 2023) are at all their densities."""
COLOURS = {
    "network and fit": "#0072b2",
    "network": "#56b4e9",
    "classical": "#8a8a8a",
    "Franchini & Krevor": "#d55e00",
}

Table = dict[str, npt.NDArray[Any]]
Detector = Callable[[npt.NDArray[Any]], Table]


def write_scan(path: Path, microscope: Microscope) -> None:
    """A focus scan of beads at rest, a little beyond the depths that are measured in."""
    rng = np.random.default_rng(11)
    places = np.arange(BEADS_PX / 2, SHAPE[0] - BEADS_PX / 4, BEADS_PX)
    x, y = (
        axis.ravel() + rng.uniform(-SCATTER_PX, SCATTER_PX, axis.size) for axis in np.meshgrid(places, places)
    )
    reach = RANGE_UM / 2 + MARGIN_UM - 1.0
    focus = np.repeat(np.arange(-reach, reach + STEP_UM / 2, STEP_UM), REPEATS)
    images = [microscope.draw(x, y, np.full(x.size, MIDDLE_UM - at), SHAPE, rng) for at in focus]
    tifffile.imwrite(path, np.stack(images), imagej=True, metadata={"axes": "ZYX"})


def mean_area_px(microscope: Microscope) -> float:
    """Mean area of a particle's image over the depths."""
    depths = MIDDLE_UM + np.linspace(-0.5, 0.5, 44) * RANGE_UM
    rng = np.random.default_rng(0)
    return float(np.mean([microscope.area_px(depth, EDGE, rng) for depth in depths]))


def draw(
    microscope: Microscope, density: float, area_px: float
) -> tuple[list[npt.NDArray[np.uint16]], Table]:
    """Images with that source density, and where the particles are; anywhere in the field and the depths."""
    rng = np.random.default_rng([SEED, round(1000 * density)])
    count = max(1, round(density * SHAPE[0] * SHAPE[1] / area_px))
    frames = max(2, -(-LEAST_PARTICLES // count))
    images, rows = [], []
    for frame in range(frames):
        y, x = rng.uniform(-0.5, np.array(SHAPE) - 0.5, (count, 2)).T
        z = MIDDLE_UM + rng.uniform(-0.5, 0.5, count) * RANGE_UM
        images.append(microscope.draw(x, y, z, SHAPE, rng))
        rows.append(np.stack([np.full(count, frame), x, y, z]))
    frame, x, y, z = np.concatenate(rows, axis=1)
    pixel = microscope.pixel_size_um
    return images, {
        "frame": frame.astype(np.int64),
        "x_um": x * pixel,
        "y_um": y * pixel,
        "z_um": z - MIDDLE_UM,
    }


def of_engine(engine: Engine, pixel_um: float) -> Detector:
    """A detector of ours as a function of an image."""

    def detect(image: npt.NDArray[Any]) -> Table:
        engine.submit(Frame(FrameInfo("run", 0, 0, 0.0, 0, 0.0, pixel_size_um=pixel_um), image))
        found = []
        while engine.pending:
            found += engine.results(120.0)
        names = ("x_um", "y_um", "z_um", "sigma_x_um", "sigma_y_um", "sigma_z_um")
        return {name: np.asarray(getattr(found[0], name)) for name in names}

    return detect


def detectors(args: argparse.Namespace, pixel_um: float) -> dict[str, Detector]:
    """The detectors that are wanted, ours as the command line opens them."""

    def ours(path: Path, *, refine: bool) -> Detector:
        settings = DetectorSettings(
            workers=1, refine=refine, backend="auto" if path == args.calibration else "onnxruntime"
        )
        return of_engine(open_engine(settings, model=path, pixel_size_um=pixel_um), pixel_um)

    def theirs() -> Detector:
        from engines.comparison.detector import PaperDetector

        return PaperDetector(args.paper).detect

    ways: dict[str, Callable[[], Detector]] = {
        "network and fit": lambda: ours(args.model, refine=True),
        "network": lambda: ours(args.model, refine=False),
        "classical": lambda: ours(args.calibration, refine=True),
    }
    if args.paper is not None:
        ways["Franchini & Krevor"] = theirs
    return {name: way() for name, way in ways.items() if not args.only or name in args.only}


def run(detect: Detector, images: list[npt.NDArray[np.uint16]]) -> tuple[Table, float]:
    """The detections of all images, and seconds of processor time for an image."""
    start = time.process_time()
    parts = [detect(image) for image in images]
    spent_s = (time.process_time() - start) / len(images)
    table = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    table["frame"] = np.repeat(np.arange(len(images)), [len(part["x_um"]) for part in parts])
    return table, spent_s


def scores(truth: Table, found: Table) -> Evaluation:
    """Matched within 4 um and a tenth of the depth range."""
    return evaluate(truth, found, gate_xy_um=GATE_XY_UM, gate_z_um=GATE_PART * RANGE_UM)


def summary(density: float, truth: Table, found: Table, spent_s: float) -> dict[str, Any]:
    """The three numbers of the yardstick, and what else is worth knowing. Parts are per cent."""
    result = scores(truth, found)
    anywhere = evaluate(truth, found, gate_xy_um=GATE_XY_UM, gate_z_um=None)
    plane = [result.errors[axis].rms_um for axis in "xy"] if result.matched else [np.nan, np.nan]
    z = result.errors["z"] if result.matched else None
    return {
        "source_density": density,
        "particles": result.true_particles,
        "frames": result.frames,
        "recall": round(100 * (1 - result.missed), 2),
        "recall_at_any_depth": round(100 * (1 - anywhere.missed), 2),
        "false": round(100 * result.false, 2) if result.detections else None,
        "depth_rms_um": None if z is None else round(z.rms_um, 3),
        "depth_rms_of_range": None if z is None else round(100 * z.rms_um / RANGE_UM, 3),
        "depth_typical_um": None if z is None else round(z.median_um, 3),
        "depth_measured": round(100 * result.depth_covered, 1),
        "plane_rms_px": [round(value / Microscope().pixel_size_um, 3) for value in plane],
        "processor_s_per_image": round(spent_s, 2),
    }


def measure(args: argparse.Namespace) -> None:
    microscope = Microscope()
    area_px = mean_area_px(microscope)
    print(f"mean area of an image {area_px:.0f} px")
    opened = detectors(args, microscope.pixel_size_um)
    warm, _ = draw(microscope, min(args.densities), area_px)
    for detect in opened.values():
        detect(warm[-1])  # compiles
    offset_um: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    for density in args.densities:
        images, truth = draw(microscope, density, area_px)
        for name, detect in opened.items():
            found, spent_s = run(detect, images)
            if name not in offset_um:
                first = scores(truth, found)
                offset_um[name] = first.errors["z"].bias_um if first.matched else 0.0
            found["z_um"] = found["z_um"] - offset_um[name]
            rows.append({"detector": name} | summary(density, truth, found, spent_s))
            print(rows[-1], flush=True)
    if args.json and args.json.exists():  # what is not measured again is kept
        known = json.loads(args.json.read_text(encoding="utf-8"))["rows"][1:]
        rows = [row for row in known if row["detector"] not in opened] + rows
    about = {
        "mean_area_px": round(area_px, 1),
        "range_um": RANGE_UM,
        "shape": SHAPE,
        "offset_um": {name: round(value, 3) for name, value in offset_um.items()},
        "asked": [{"source_density": n, "recall": a, "hoped": h} for n, (a, h) in ASKED.items()],
        "training": args.training,
    }
    if args.json:
        save(args.json, [about, *rows])
    if args.figure:
        figure(rows, area_px, args.figure)


def figure(rows: list[dict[str, Any]], area_px: float, path: Path) -> None:
    """Recall, errors and measured depth over the source density, and what such images look like."""
    drawn, all_axes = plt.subplots(2, 3, figsize=(13.5, 8.0), layout="constrained")
    recall, depth, plane, measured, some, dense = all_axes.ravel()
    columns = {
        "recall": recall,
        "depth_rms_of_range": depth,
        "plane_rms_px": plane,
        "depth_measured": measured,
    }
    for name, colour in COLOURS.items():
        mine = [row for row in rows if row["detector"] == name]
        for column, axes in columns.items():
            values = [np.nan if row[column] is None else np.mean(row[column]) for row in mine]
            across = [row["source_density"] for row in mine]
            axes.plot(across, values, "o-", ms=4, color=colour, label=name if mine else None)
    for density, (asked, hoped) in ASKED.items():
        first = density == min(ASKED)
        recall.plot(density, asked, "_", ms=16, mew=2, color="k", label="asked" if first else None)
        recall.plot(
            density, hoped, "_", ms=16, mew=1, color="k", alpha=0.5, label="hoped for" if first else None
        )
    depth.axhline(ASKED_DEPTH, color="k", lw=1, ls="--", label="asked")
    depth.axhline(RATZ, color="k", lw=1, ls=":", label="Ratz et al. (2023): below this")
    plane.axhspan(*TRACKER_AI, color="k", alpha=0.1, lw=0, label="DefocusTrackerAI (2026)")
    recall.set(ylabel="measured particles (%)", ylim=(0, 103))
    depth.set(ylabel="rms error of depth (% of the range)", ylim=(0, 4))
    plane.set(ylabel="rms error of x and y (px)", ylim=(0, 1.4))
    measured.set(ylabel="depth range measured (%)", ylim=(0, 103))
    for axes in columns.values():
        axes.set_xlabel("source density $N_s$")
        axes.grid(visible=True, alpha=0.25)
    for axes in (recall, depth, plane):
        axes.legend(frameon=False, fontsize=9, loc="lower left" if axes is recall else "upper left")
    for axes, density in ((some, 0.1), (dense, 0.5)):
        axes.imshow(draw(Microscope(), density, area_px)[0][0], cmap="gray", vmin=280, vmax=900)
        axes.set(title=f"$N_s$ = {density:g}", xticks=[], yticks=[])
    drawn.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    scan = commands.add_parser("scan")
    scan.add_argument("output", type=Path)
    scoring = commands.add_parser("measure")
    scoring.add_argument("calibration", type=Path)
    scoring.add_argument("model", type=Path)
    scoring.add_argument("--paper", type=Path, help="weights of the detector of Franchini & Krevor")
    scoring.add_argument("--densities", type=float, nargs="+", default=list(DENSITIES))
    scoring.add_argument("--only", nargs="+", help="of the detectors, by their names in the results")
    scoring.add_argument("--training", default="", help="what to say of the training in the results")
    scoring.add_argument("--json", type=Path)
    scoring.add_argument("--figure", type=Path)
    again = commands.add_parser("figure", help="from results")
    again.add_argument("json", type=Path)
    again.add_argument("output", type=Path)
    args = parser.parse_args()
    if args.command == "scan":
        write_scan(args.output, Microscope())
    elif args.command == "figure":
        about, *rows = json.loads(args.json.read_text(encoding="utf-8"))["rows"]
        figure(rows, about["mean_area_px"], args.output)
    else:
        measure(args)


if __name__ == "__main__":
    main()
