"""How well particles are found and measured: missed, false, errors over the Cramer-Rao bound, by neighbour.

Test images as in section 3 of Franchini & Krevor (2020): 1440 x 2560 pixels, 8 bit, SNR 5.6, 200 particles, half of
the first batch overlapped by the second, depths even over the range, with far out-of-focus fields (--plain: none);
seeds that no training uses. Detections are those of the engines, as `liveptv detect` has them. The bound is that
of the same images' own optics, of the first frames' particles, with x, y, z and brightness of each and of its
neighbours, and a constant background, unknown; it knows nothing of the fields and of the rounding to grey values.
"Same centre" is a nearest neighbour within 1.5 px. Where the model comes from a calibration, whose zero of depth is
its own, the median offset of the first frames is taken off.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from refine import bounds
from reporting import save

from acquisition.physics.optics import OpticsModel
from calibration.matching import GATE_XY_UM, GATE_Z_UM, match
from calibration.synthesis.from_optics import background_for, model_from_optics, noise_for_snr
from calibration.synthesis.layout import PAPER_DENSITY, Layout
from calibration.synthesis.rendered_source import Rendered
from calibration.synthesis.scene import Particles, Scene
from calibration.width_curve import width_curve_from_optics
from engines.engine import Engine
from engines.factory import open_engine
from engines.settings import DetectorSettings
from liveptv.models import SHIPPED_MODEL
from liveptv.workflows.train import read_optics
from stream.messages import Frame, FrameInfo

SHAPE = (1440, 2560)
BINS_PX = (0.0, 1.5, 4.0, 8.0, 16.0, 35.0, np.inf)
NAMES = ("same centre", "1.5-4 px", "4-8 px", "8-16 px", "16-35 px", "lone")
PAPER = {"missed": 0.026, "false": 0.027, "lone": (0.65, 0.57, 6.34), "same_centre_missed": 0.207}
DEPTH_BINS = 34
AT_ONCE = 6
COLUMNS = ("frame", "x", "y", "z", "nearest_px", "found", "dx", "dy", "dz", "sx", "sy", "sz")


def engines(model: Path, optics: OpticsModel, workers: int) -> dict[str, Engine]:
    """The detectors that are compared, each as the command line opens it."""
    pixel = optics.pixel_size_um

    def network(refine: bool) -> Engine:
        settings = DetectorSettings(refine=refine, workers=workers, backend="onnxruntime")
        return open_engine(settings, model=model, pixel_size_um=pixel)

    with tempfile.TemporaryDirectory() as folder:
        curve = Path(folder) / "curve.h5"
        width_curve_from_optics(optics).save(curve)
        classical = open_engine(DetectorSettings(workers=workers), model=curve, pixel_size_um=pixel)
    return {"network": network(False), "network and fit": network(True), "classical": classical}


def measure(args: argparse.Namespace, optics: OpticsModel) -> tuple[dict[str, dict[str, Any]], np.ndarray]:
    """Each detector's particles (N, 12), columns `COLUMNS`, and number of false ones; the bounds (M, 4)."""
    model = model_from_optics(optics)
    noise = noise_for_snr(model, args.snr)
    density = args.density * PAPER_DENSITY
    source = Rendered(model, noise, None if args.plain else background_for(model), Layout((density, density)))
    rng = np.random.default_rng(args.seed)
    pixel = optics.pixel_size_um
    scale = np.array([pixel, pixel, 1.0])
    opened = engines(args.model, optics, args.workers)
    found: dict[str, dict[str, Any]] = {name: {"rows": [], "false": 0, "detections": 0} for name in opened}
    bound = []
    offset_um = None if args.calibrated else 0.0
    for start in range(0, args.frames, AT_ONCE):
        count = min(AT_ONCE, args.frames - start)
        scene = source.draw(rng, SHAPE, count, np.uint8)
        tables = {}
        for name, engine in opened.items():
            if name == "classical" and start >= args.classical:
                continue
            for n, image in enumerate(scene.images):
                engine.submit(Frame(FrameInfo("run", n, n, 0.0, 0, 0.0, pixel_size_um=pixel), image))
            tables[name] = []
            while engine.pending:
                tables[name] += [detections.table for detections in engine.results(60.0)]
        if offset_um is None:
            offset_um = offset_of(scene, tables["network and fit"], scale)
            print(f"offset of the depths: {offset_um:.2f} um")
        for n in range(count):
            truth = scene.particles.where(scene.particles.frame == n)
            xyz = np.column_stack([truth.x_px, truth.y_px, truth.z_um]) * scale
            if start + n < args.bounds:
                everyone = Particles.joined([truth, scene.outside.where(scene.outside.frame == n)])
                of_frame = bounds(model, noise, everyone, np.arange(len(truth))) * scale
                bound.append(np.column_stack([truth.nearest_px, of_frame]))
            for name, some in tables.items():
                table = some[n].copy()
                table[2] -= offset_um
                i, j = match(xyz, table[:3].T, GATE_XY_UM, GATE_Z_UM)
                rows = np.full((len(xyz), len(COLUMNS)), np.nan)
                rows[:, 0], rows[:, 1:4], rows[:, 4], rows[:, 5] = start + n, xyz, truth.nearest_px, 0
                rows[i, 5] = 1
                rows[i, 6:9] = table[:3, j].T - xyz[i]
                rows[i, 9:12] = table[3:6, j].T
                found[name]["rows"].append(rows)
                found[name]["detections"] += table.shape[1]
                found[name]["false"] += table.shape[1] - len(j)
    for engine in opened.values():
        engine.close()
    found = {name: one | {"rows": np.concatenate(one["rows"])} for name, one in found.items() if one["rows"]}
    return found, np.concatenate(bound)


def offset_of(scene: Scene, tables: list[np.ndarray], scale: np.ndarray) -> float:
    """Median of found less true depth, um."""
    off = []
    for n, table in enumerate(tables):
        truth = scene.particles.where(scene.particles.frame == n)
        xyz = np.column_stack([truth.x_px, truth.y_px, truth.z_um]) * scale
        i, j = match(xyz, table[:3].T, GATE_XY_UM, GATE_Z_UM)
        off.append(table[2, j] - xyz[i, 2])
    return float(np.median(np.concatenate(off)))


def rms(values: np.ndarray) -> np.ndarray:
    return np.sqrt(np.nanmean(values**2, axis=0))


def rounded(values: np.ndarray, digits: int = 3) -> list[float]:
    return [round(float(value), digits) for value in values]


def summary(name: str, found: dict[str, Any], bound: np.ndarray, optics: OpticsModel) -> dict[str, Any]:
    """What is said of one detector."""
    rows = found["rows"]
    depths = np.linspace(-optics.visible_um, optics.visible_um, DEPTH_BINS + 1)
    recall = recall_over(rows, depths)
    result: dict[str, Any] = {
        "detector": name,
        "frames": len(np.unique(rows[:, 0])),
        "particles": len(rows),
        "missed": round(float(1 - rows[:, 5].mean()), 4),
        "false": round(found["false"] / found["detections"], 4),
        "depth_covered": round(float((recall >= 0.5 * recall.max()).mean()), 3),
        "groups": [],
    }
    for label, (low, high) in zip(NAMES, pairwise(BINS_PX), strict=True):
        some = rows[(rows[:, 4] >= low) & (rows[:, 4] < high)]
        limit = rms(bound[(bound[:, 0] >= low) & (bound[:, 0] < high), 1:])
        error, pull = some[:, 6:9], some[:, 6:9] / some[:, 9:12]
        result["groups"].append(
            {
                "nearest": label,
                "particles": len(some),
                "missed": round(float(1 - some[:, 5].mean()), 4),
                "rms_um": rounded(rms(error)),
                "median_um": rounded(np.nanmedian(np.abs(error), axis=0)),
                "bound_um": rounded(limit),
                "over_bound": rounded(rms(error) / limit, 2),
                "error_over_stated": rounded(rms(pull), 2),
                "usual_error_over_stated": rounded(1.4826 * np.nanmedian(np.abs(pull), axis=0), 2),
            }
        )
    lone, same = result["groups"][-1], result["groups"][0]
    result["same_centre_z_over_lone"] = round(same["rms_um"][2] / lone["rms_um"][2], 2)
    return result


def recall_over(rows: np.ndarray, depths: np.ndarray) -> np.ndarray:
    """Part of the particles that is found between successive depths."""
    place = np.digitize(rows[:, 3], depths) - 1
    return np.array([rows[place == k, 5].mean() for k in range(len(depths) - 1)])


def draw(
    path: Path, found: dict[str, dict[str, Any]], rows: list[dict[str, Any]], optics: OpticsModel
) -> None:
    """The figures of the paper's section 3, for these detectors."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 7.5), layout="constrained")
    colours = {"network and fit": "#0072b2", "network": "#e69f00", "classical": "#999999"}
    places = np.arange(len(NAMES))
    for one in rows:
        name, colour = one["detector"], colours[one["detector"]]
        missed = [100 * group["missed"] for group in one["groups"]]
        axes[0, 0].plot(places, missed, "o-", color=colour, label=name)
        axes[0, 1].plot(places, [g["rms_um"][2] for g in one["groups"]], "o-", color=colour, label=name)
    limit = [group["bound_um"][2] for group in rows[0]["groups"]]
    axes[0, 1].plot(places, limit, "k--", lw=1, label="Cramer-Rao bound")
    axes[0, 0].set(yscale="symlog", ylabel="missed (%)", ylim=(0, None))
    axes[0, 0].set_yticks([0, 1, 2, 5, 10, 20, 50], ["0", "1", "2", "5", "10", "20", "50"])
    axes[0, 1].set(yscale="log", ylabel="rms error in depth (um)")
    axes[0, 1].set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    for axis in axes[0]:
        axis.set_xticks(places, NAMES)
        axis.set_xlabel("distance to nearest neighbour")
        axis.legend(frameon=False)
    best = found["network and fit"]["rows"]
    seen = best[best[:, 5] == 1][:6000]
    axes[1, 0].plot(
        seen[:, 3], seen[:, 8], ".", ms=2, alpha=0.5, color=colours["network and fit"], rasterized=True
    )
    axes[1, 0].set(xlabel="true depth (um)", ylabel="found minus true depth (um)", ylim=(-15, 15))
    depths = np.linspace(-optics.visible_um, optics.visible_um, DEPTH_BINS + 1)
    for name, one in found.items():
        middle = 0.5 * (depths[1:] + depths[:-1])
        axes[1, 1].plot(middle, 100 * recall_over(one["rows"], depths), color=colours[name], label=name)
    axes[1, 1].set(xlabel="true depth (um)", ylabel="recall (%)", ylim=(0, 102))
    axes[1, 1].legend(frameon=False, loc="lower center")
    figure.savefig(path, dpi=110)


def show(row: dict[str, Any]) -> None:
    print(
        f"{row['detector']}: missed {100 * row['missed']:.2f} %, false {100 * row['false']:.2f} % of "
        f"{row['particles']} particles, depth covered {100 * row['depth_covered']:.0f} %, same centre z over lone "
        f"{row['same_centre_z_over_lone']}"
    )
    for group in row["groups"]:
        print("   ", *(f"{key} {value}" for key, value in group.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=SHIPPED_MODEL)
    parser.add_argument("--optics", default="simulated", help="`simulated`, or a .toml or .json file")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--bounds", type=int, default=24, help="frames whose particles' bounds are computed")
    parser.add_argument("--classical", type=int, default=24, help="frames for the classical detector")
    parser.add_argument("--seed", type=int, default=1_000_001)
    parser.add_argument("--snr", type=float, default=5.6)
    parser.add_argument("--density", type=float, default=1.0, help="times 200 a frame")
    parser.add_argument("--calibrated", action="store_true", help="the zero of depth is a calibration's own")
    parser.add_argument("--plain", action="store_true", help="no out-of-focus fields")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    optics = read_optics(args.optics)
    found, bound = measure(args, optics)
    rows = [summary(name, one, bound, optics) for name, one in found.items()]
    for row in rows:
        row |= {"optics": args.optics, "fields": not args.plain, "snr": args.snr, "seed": args.seed}
        show(row)
    if args.picture:
        draw(args.picture, found, rows, optics)
    if args.json:
        save(args.json, rows)


if __name__ == "__main__":
    main()
