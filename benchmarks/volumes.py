"""Detectors of particles in volumes beside one another: F1 and RMSE over SNR and density of the stand-in scene.

    python benchmarks/volumes.py choose sef3d trackpy-padded        thresholds, on volumes that are not measured
    python benchmarks/volumes.py measure ours sef3d --volumes 25    adds to the results, and goes on where it ended
    python benchmarks/volumes.py table                              prints them, and writes results/volumes.json

One threshold serves every SNR and density: the one with the best mean F1 on the volumes of `choose`. Ours has its
own. A gate of 5 voxels, F1 and RMSE averaged over volumes, as published. Models of networks are given as
NAME=FILE (`--model dm-detnet3d=runs/dm-detnet3d.onnx`). Where a detector states standard errors, its lone
particles' errors over the Cramer-Rao bound and over the stated ones are kept as well.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from reporting import device, save
from volume_detectors import Detect, Detector, Found, catalogue
from volume_scene import BACKGROUND, DENSITIES, SIGMA, SNRS, Scene, amplitude_at, draw
from volume_scoring import bound, is_at_end, is_lone, pairs, score

RESULTS = Path(__file__).parent / "results"
THRESHOLDS = RESULTS / "volumes_thresholds.json"
ROWS = Path("runs") / "volumes.jsonl"
"""A line for each volume and detector; their means are what is kept in `RESULTS`."""
CHOOSING_SEEDS = 500_000
"""Seeds from here on choose thresholds; those measured count from 0, those of trainings from a billion."""
STEPS = 24
"""Thresholds tried, at quantiles of the scores of what is there and around."""
PUBLISHED = {
    "sef3d": {1: (0.376, 2.491), 2: (0.891, 0.967), 4: (0.993, 0.655), 7: (0.994, 0.574)},
    "detnet3d": {1: (0.544, 1.363), 2: (0.896, 0.686), 4: (0.970, 0.522), 7: (0.982, 0.508)},
    "dm-detnet3d": {1: (0.623, 1.396), 2: (0.973, 0.612), 4: (0.994, 0.496), 7: (0.995, 0.505)},
}
"""F1 and RMSE of Spilger et al., Table 1, on the challenge's own images."""


def scenes(first: int, volumes: int) -> Iterator[Scene]:
    for snr in SNRS:
        for particles in DENSITIES:
            for seed in range(first, first + volumes):
                yield Scene(snr, particles, seed)


def choose(name: str, detector: Detector, detect: Detect, volumes: int) -> dict[str, Any]:
    """The threshold with the best mean F1 over all SNRs and densities."""
    kept: list[tuple[Scene, Found, np.ndarray]] = []
    for scene in scenes(CHOOSING_SEEDS, volumes):
        volume = draw(scene)
        kept.append((scene, detect(volume.image), volume.truth))
    # from half to twice as many as there are, at each SNR and density
    tried = np.unique(
        [
            f.score[min(round(part * len(t)), len(f.score) - 1)]
            for _, f, t in kept
            if len(f.score)
            for part in np.geomspace(0.2, 1.5, 9)
        ]
    )
    tried = np.quantile(tried, np.linspace(0, 1, STEPS))
    by_threshold = [np.mean([score(t, f.above(at).points).f1 for _, f, t in kept]) for at in tried]
    best = int(np.argmax(by_threshold))
    return {
        "threshold": float(tried[best]),
        "mean_f1": round(float(by_threshold[best]), 4),
        "volumes": len(kept),
        "seeds_from": CHOOSING_SEEDS,
        "tried": [[float(a), round(float(b), 4)] for a, b in zip(tried, by_threshold, strict=True)],
    }


def measured(scene: Scene, detect: Detect, threshold: float) -> dict[str, Any]:
    """What is kept of one volume."""
    volume = draw(scene)
    start_s = time.process_time()
    found = detect(volume.image)
    seconds = time.process_time() - start_s
    found = found.above(threshold)
    result = score(volume.truth, found.points)
    row: dict[str, Any] = {
        "snr": scene.snr,
        "particles": scene.particles,
        "seed": scene.seed,
        "right": result.right,
        "found": result.found,
        "f1": round(result.f1, 5),
        "rmse": None if np.isnan(result.rmse) else round(result.rmse, 5),
        "cpu_s": round(seconds, 3),
    }
    return row | errors(scene, volume.truth, found)


def errors(scene: Scene, truth: np.ndarray, found: Found) -> dict[str, Any]:
    """Mean squares of lone particles' errors over the bound, in the middle and at the ends, and over the stated.

    Each is [number of values, mean square in the plane, mean square along z].
    """
    rows, columns, _ = pairs(truth, found.points)
    lone = is_lone(truth)[rows]
    rows, columns = rows[lone], columns[lone]
    if not len(rows):
        return {}
    amplitude = amplitude_at(scene.snr)
    least = np.array([bound(truth[r], amplitude, scene.shape, SIGMA, BACKGROUND) for r in rows])
    off = found.points[columns] - truth[rows]
    ends = is_at_end(truth[rows], scene.shape[0])
    kept = {"middle": squares(off[~ends] / least[~ends]), "ends": squares(off[ends] / least[ends])}
    if np.isfinite(found.sigma[columns]).all():
        kept["stated"] = squares(off / found.sigma[columns])
    return kept


def squares(ratio: np.ndarray) -> list[float]:
    if not len(ratio):
        return [0, 0.0, 0.0]
    z, y, x = (ratio**2).mean(axis=0)
    return [len(ratio), round(float(x + y) / 2, 5), round(float(z), 5)]


def read_rows() -> list[dict[str, Any]]:
    if not ROWS.is_file():
        return []
    return [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]


def key(name: str, snr: float, particles: int, seed: int) -> tuple[str, float, int, int]:
    return name, snr, particles, seed


def measure(name: str, detector: Detector, detect: Detect, model: Path | None, volumes: int) -> None:
    """Measure what is not there yet; a line of `ROWS` for each volume."""
    threshold = detector.threshold
    if threshold is None:
        threshold = json.loads(THRESHOLDS.read_text(encoding="utf-8"))[name]["threshold"]
    done = {key(row["detector"], row["snr"], row["particles"], row["seed"]) for row in read_rows()}
    order = sorted(scenes(0, volumes), key=lambda scene: scene.seed)
    for scene in order:
        if key(name, scene.snr, scene.particles, scene.seed) in done:
            continue
        row = {"detector": name, "threshold": threshold} | measured(scene, detect, threshold)
        if model is not None:
            row["model"] = model.name
        ROWS.parent.mkdir(parents=True, exist_ok=True)
        with ROWS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over volumes: F1 and RMSE, and errors over the bound and over the stated ones."""
    found: dict[str, Any] = {
        "volumes": len(rows),
        "f1": float(np.mean([row["f1"] for row in rows])),
        "f1_sd": float(np.std([row["f1"] for row in rows])),
        "rmse": float(np.mean([row["rmse"] for row in rows if row["rmse"] is not None] or [np.nan])),
        "cpu_s": float(np.median([row["cpu_s"] for row in rows])),
    }
    for part in ("middle", "ends", "stated"):
        values = np.array([row[part] for row in rows if part in row] or np.empty((0, 3)))
        if values[:, 0].sum():
            plane, z = (np.average(values[:, i], weights=values[:, 0]) for i in (1, 2))
            found[part] = [int(values[:, 0].sum()), float(np.sqrt(plane)), float(np.sqrt(z))]
    return found


def by_snr(rows: list[dict[str, Any]], name: str) -> dict[float, dict[str, Any]]:
    mine = [row for row in rows if row["detector"] == name]
    return {snr: summary(part) for snr in SNRS if (part := [r for r in mine if r["snr"] == snr])}


def summaries(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each detector, SNR and density, and one for all densities of an SNR."""
    found = []
    for name, detector in catalogue().items():
        for count in (*DENSITIES, None):
            part = [row for row in rows if row["particles"] == count or count is None]
            for snr, values in by_snr(part, name).items():
                rounded = {key: np.round(value, 4).tolist() for key, value in values.items()}
                found.append(
                    {"detector": name, "title": detector.title, "snr": snr, "particles": count, **rounded}
                )
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """The markdown that the documentation shows."""
    head = "| detector | volumes | " + " | ".join(f"SNR {snr}" for snr in SNRS) + " | s a volume |"
    lines = [head, "|---" * (len(SNRS) + 3) + "|"]
    for name, detector in catalogue().items():
        found = by_snr(rows, name)
        if found:
            cells = [f"{found[s]['f1']:.3f} / {found[s]['rmse']:.2f}" if s in found else "" for s in SNRS]
            volumes = sum(part["volumes"] for part in found.values())
            seconds = np.median([part["cpu_s"] for part in found.values()])
            lines.append(f"| {detector.title} | {volumes} | {' | '.join(cells)} | {seconds:.2f} |")
    for name, values in PUBLISHED.items():
        cells = [f"{values[snr][0]:.3f} / {values[snr][1]:.2f}" for snr in SNRS]
        title = catalogue()[name].title.split(",")[0].split(" (")[0]
        lines.append(f"| *{title}, published, the challenge's images* | 1200 | {' | '.join(cells)} | |")
    return "\n".join(lines)


def densities(rows: list[dict[str, Any]], name: str) -> str:
    """F1 / RMSE of one detector over SNR and density, and how its errors compare with the bound."""
    lines = ["| particles | " + " | ".join(f"SNR {snr}" for snr in SNRS) + " |", "|---" * 5 + "|"]
    for count in DENSITIES:
        found = by_snr([row for row in rows if row["particles"] == count], name)
        cells = [f"{found[s]['f1']:.3f} / {found[s]['rmse']:.2f}" if s in found else "" for s in SNRS]
        lines.append(f"| {count} | {' | '.join(cells)} |")
    found = by_snr(rows, name)
    for part, words in (
        ("middle", "lone, mid-stack: error over the bound, plane / z"),
        ("ends", "lone, at the ends"),
        ("stated", "lone: error over the stated one"),
    ):
        cells = [
            f"{found[s][part][1]:.2f} / {found[s][part][2]:.2f}" if part in found.get(s, {}) else ""
            for s in SNRS
        ]
        if any(cells):
            lines.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("command", choices=("choose", "measure", "table"))
    parser.add_argument(
        "detectors", nargs="*", help=f"of {', '.join(catalogue())}; left out: all but networks"
    )
    parser.add_argument("--volumes", type=int, help="for each SNR and density")
    parser.add_argument("--model", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument(
        "--again", action="store_true", help="measure: forget what was measured of these detectors"
    )
    given = parser.parse_args()
    models = {name: Path(file) for name, file in (text.split("=", 1) for text in given.model)}
    names = given.detectors or [n for n, d in catalogue().items() if n in models or not d.needs_model]
    if given.again and given.command == "measure":
        kept = [json.dumps(row) + "\n" for row in read_rows() if row["detector"] not in names]
        ROWS.write_text("".join(kept), encoding="utf-8")
    for name in names:
        detector = catalogue()[name]
        if given.command == "table":
            continue
        detect = detector.open(models.get(name))
        if given.command == "choose":
            if detector.threshold is not None:
                continue
            chosen = choose(name, detector, detect, given.volumes or 2)
            known = json.loads(THRESHOLDS.read_text(encoding="utf-8")) if THRESHOLDS.is_file() else {}
            text = json.dumps(known | {name: chosen | {"device": device()}}, indent=1)
            THRESHOLDS.write_text(text + "\n", encoding="utf-8")
            print(name, chosen["threshold"], chosen["mean_f1"], flush=True)
        else:
            measure(name, detector, detect, models.get(name), given.volumes or detector.volumes)
    rows = read_rows()
    print(table(rows))
    if given.command == "table":
        save(RESULTS / "volumes.json", summaries(rows))
    for name in names:
        if any(row["detector"] == name for row in rows):
            print(f"\n{catalogue()[name].title}\n\n{densities(rows, name)}")


if __name__ == "__main__":
    main()
