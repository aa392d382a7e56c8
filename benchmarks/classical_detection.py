"""What the classical detector finds, and how fast: on the simulated microscope and on the shared data.

Times are of one core. They stand beside a peer in the same run: scipy's Laplacian of Gaussian of the same
image (one filter of the dozen that the detector needs), and for the beads in water trackpy's `locate`.
"""

from __future__ import annotations

import argparse
import csv
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from reporting import save
from scipy import ndimage

from acquisition.physics.optics import OpticsModel
from acquisition.physics.rendering import simulate_images
from calibration.evaluation import Evaluation, evaluate
from calibration.matching import match, nearest_neighbour
from calibration.width_curve import width_curve_from_optics, width_curve_from_widths
from engines.classical.centre import CONVERGED, FULL_ITERATIONS, fit_gaussian
from engines.classical.detector import SpotDetector
from engines.classical.widths import WidthCurve
from engines.settings import DetectorSettings
from stream.messages import Detections

DATA = Path(__file__).parents[2] / "shared" / "data"
MARGIN_UM = 36.0
FAMILIES = {  # width of the image over depth, px: two kinds of particles share the frames of dtai-astigmatic
    "A": ([-90, -30, -8, 0], [112, 38, 20, 29]),
    "B": ([-90, -62, -30, 0], [28, 14, 38, 57]),
}


def best_ms(work: Callable[[], Any], repeats: int = 3) -> float:
    """The shortest of a few runs, after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start_s = time.perf_counter()
        work()
        times.append(time.perf_counter() - start_s)
    return 1e3 * min(times)


def row(case: str, score: Evaluation, **more: Any) -> dict[str, Any]:
    rms = {f"lone_rms_{a}_um": round(e.rms_um, 2) for a, e in score.lone.errors.items()}
    median = {f"lone_median_{a}_um": round(e.median_um, 2) for a, e in score.lone.errors.items()}
    return {
        "case": case,
        "particles": score.true_particles,
        "missed": round(score.missed, 3),
        "false": round(score.false, 3),
        "lone_missed": round(score.lone.missed, 3),
        **rms,
        **median,
    } | more


def simulated(shape: tuple[int, int], particles: int, snr: float, frames: int) -> dict[str, Any]:
    """Particles anywhere within 150 um of the focus, also beyond the edges of the picture."""
    optics = OpticsModel()
    detector = SpotDetector(*shape, DetectorSettings(), 0.8, width_curve_from_optics(optics))
    rng = np.random.default_rng(0)
    height_um, width_um = 0.8 * shape[0], 0.8 * shape[1]
    density = particles / (height_um * width_um)
    count = round(density * (height_um + 2 * MARGIN_UM) * (width_um + 2 * MARGIN_UM))
    truth: list[np.ndarray] = []
    found: list[np.ndarray] = []
    for frame in range(frames):
        x = rng.uniform(-MARGIN_UM, width_um + MARGIN_UM, count)
        y = rng.uniform(-MARGIN_UM, height_um + MARGIN_UM, count)
        z = rng.uniform(-150, 150, count)
        image, seen = simulate_images(optics, x, y, z, shape, snr=snr, seed=frame)
        truth.append(np.stack([np.full(seen.x_um.size, frame), *seen]))
        table, _ = detector.detect(image, -1.0)
        found.append(np.vstack([np.full(table.shape[1], frame), table]))
    score = evaluate(
        dict(zip(("frame", "x_um", "y_um", "z_um"), np.hstack(truth), strict=True)),
        dict(zip(("frame", *Detections.COLUMNS), np.hstack(found), strict=True)),
    )
    ours = best_ms(lambda: detector.detect(image, -1.0))
    peer = best_ms(lambda: ndimage.gaussian_laplace(image.astype(np.float32), 4.0))
    return row(
        f"simulated {shape[0]}x{shape[1]} SNR {snr:g}",
        score,
        ms=round(ours, 1),
        peer="one scipy LoG",
        peer_ms=round(peer, 1),
        ratio=round(ours / peer, 2),
    )


def beads_in_water(frames: int) -> dict[str, Any]:
    """Agreement with trackpy, diameter 11, minmass 20, and with what its walk-through keeps of that."""
    import trackpy

    trackpy.quiet()
    video = tifffile.imread(DATA / "bulk-water" / "video.ome.tif")
    detector = SpotDetector(*video.shape[1:], DetectorSettings(), 1.0)

    def locate(image: np.ndarray) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return trackpy.locate(image, 11, invert=True, minmass=20)

    theirs = good = both = good_both = ours = 0
    apart = []
    for image in video[:: len(video) // frames]:
        features = locate(image)
        table, _ = detector.detect(image, -1.0)
        points = np.column_stack([features[["x", "y"]].to_numpy(), np.zeros(len(features))])
        i, j = match(points, np.column_stack([table[0], table[1], np.zeros(table.shape[1])]), 4.0, None)
        kept = ((features["mass"] > 50) & (features["size"] < 2.6) & (features["ecc"] < 0.3)).to_numpy()
        theirs, ours, both = theirs + len(points), ours + table.shape[1], both + len(i)
        good, good_both = good + int(kept.sum()), good_both + int(kept[i].sum())
        apart.append((table[:2, j].T - points[i, :2])[kept[i]])
    difference = np.concatenate(apart)
    ms, peer_ms = best_ms(lambda: detector.detect(video[0], -1.0)), best_ms(lambda: locate(video[0]))
    return {
        "case": "bulk-water against trackpy",
        "trackpy": theirs,
        "ours": ours,
        "both": both,
        "of_its_filtered": round(good_both / good, 3),
        "bias_px": [round(v, 3) for v in difference.mean(axis=0)],
        "median_apart_px": [round(v, 3) for v in np.median(np.abs(difference), axis=0)],
        "ms": round(ms, 1),
        "peer": "trackpy.locate",
        "peer_ms": round(peer_ms, 1),
        "ratio": round(ms / peer_ms, 2),
    }


def dtai(family: str) -> list[dict[str, Any]]:
    """Ray-traced astigmatic images: the curve from lone particles of frames 1 - 5, the test on 6 - 10."""
    folder = DATA / "dtai-astigmatic"
    with (folder / "ground_truth.csv").open() as file:
        rows = [{k: float(v) for k, v in line.items()} for line in csv.DictReader(file)]
    truth = {k: np.array([line[k] for line in rows]) for k in rows[0]}
    distance = {name: np.abs(truth["W"] - np.interp(truth["Z"], *line)) for name, line in FAMILIES.items()}
    own = distance[family] == np.minimum(*distance.values())
    images = {f: tifffile.imread(folder / f"B{f:05d}.tif") for f in range(1, 11)}
    curve = _dtai_curve(truth, own, images)
    detector = SpotDetector(*images[1].shape, DetectorSettings(), 1.0, curve)
    tables = [
        np.vstack([np.full(t.shape[1], f), t])
        for f in range(6, 11)
        for t in [detector.detect(images[f], 1.0)[0]]
    ]
    found = dict(zip(("frame", *Detections.COLUMNS), np.hstack(tables), strict=True))
    test = truth["fr"] > 5

    def score(chosen: np.ndarray) -> Evaluation:
        columns = {"frame": "fr", "x_um": "x0", "y_um": "y0", "z_um": "Z"}
        table = {name: truth[column][chosen] for name, column in columns.items()}
        return evaluate(table, found, gate_xy_um=10.0, gate_z_um=None, lone_um=35.0)

    inside = (truth["Z"] >= curve.z_um[0]) & (truth["Z"] <= curve.z_um[-1])
    anything = round(score(test).false, 3)
    return [
        row(f"dtai family {family}", score(test & own), false_of_all_particles=anything),
        row(f"dtai family {family}, z > {curve.z_um[0]:.0f}", score(test & own & inside)),
    ]


def _dtai_curve(truth: dict[str, np.ndarray], own: np.ndarray, images: dict[int, np.ndarray]) -> WidthCurve:
    measured = []
    for number in range(1, 6):
        there = np.flatnonzero(truth["fr"] == number)
        alone = nearest_neighbour(np.column_stack([truth["x0"], truth["y0"]])[there]) > 45
        image = images[number].astype(np.float32)
        for k in there[alone & own[there]]:
            width, height = (np.log(truth[side][k] / 4.3) for side in "WH")
            parameters, covariance = (
                np.array([truth["x0"][k], truth["y0"][k], width, height, 0, 0]),
                np.zeros((6, 6)),
            )
            result = fit_gaussian(image, parameters, 5.0, False, FULL_ITERATIONS, covariance)
            off = np.hypot(parameters[0] - truth["x0"][k], parameters[1] - truth["y0"][k])
            if result == CONVERGED and off < 5:
                measured.append([truth["Z"][k], *np.exp(parameters[2:4]), parameters[4]])
    return width_curve_from_widths(*np.array(measured).T, 1.0, polarity="bright")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--frames", type=int, default=20, help="simulated frames a case")
    arguments = parser.parse_args()
    rows = [
        simulated((512, 768), 60, 5.6, arguments.frames),
        simulated((512, 768), 60, 8.0, arguments.frames),
        simulated((1440, 2560), 200, 5.6, max(2, arguments.frames // 5)),
    ]
    if DATA.exists():
        rows += [beads_in_water(10), *dtai("A"), *dtai("B")]
    for line in rows:
        print("  ".join(f"{k} {v}" for k, v in line.items()))
    if arguments.json:
        save(arguments.json, rows)


if __name__ == "__main__":
    main()
