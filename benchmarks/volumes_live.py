"""Volumes of the simulated microscope, sequenced in the real core, live: acquired, declared, reduced, how old.

    flock LOCK python benchmarks/volumes_live.py [--json benchmarks/results/volumes_live.json]

For each load (about so many particles in a volume) one run in which the fit gives way first and one in which
only volumes are dropped (`detector.too_slow`); then one in which the camera loses one image in 1,000. A run of
12 s takes about 25 s, all of them two minutes.

Of each run: volumes acquired, and their rate over the one asked for; those in the file; those declared lost, and
what is neither (must be 0). The age of the results over the period of a volume, without the first `SETTLED_S`. How
many volumes were fitted whole, in part and shortly; how many detections and rows of tracks are reduced; what the
governor said. How far tracked positions are from the truth, for rows with the whole fit and for reduced ones, and
over the standard error that they state (1: as stated). Were slices behind a lost image in wrong places, z would be
off by a step.
"""

import argparse
import csv
import json
import os
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from reporting import save
from scipy.spatial import cKDTree

from acquisition.configuration import config_path
from liveptv.config import build_experiment
from liveptv.files import RunFiles
from liveptv.workflows.run import run_experiment
from stream.messages import FitDecision, TrackFlag
from tracking.trajectories.file import TrajectoryFile, read_trajectories

STEP_UM, CENTRE_UM = 0.5, 15.0
SPOT_UM = [0.26, 0.26, 0.65]
LAG_UM = 0.044  # of the simulated drive at this rate, see docs/volumes-acquisition.md
DEPTH_UM, SEEN_UM = 30.0, 0.65
"""Of the simulated channel, and how far outside of the scan a particle is still found."""
SETTLED_S = 3.0  # the stages do things for the first time
FEWEST = 30
HALF_NORMAL = 0.6745
NEAR_UM = 1.0  # a position this far from every true one is counted as false


def microscope(folder, name, size, rate_hz, particles, drop_every):
    """The configuration of the simulated confocal microscope with other properties, and its file of the truth."""
    truth = folder / f"{name}.csv"
    changed = {
        "Width": size, "Height": size, "FrameRate": rate_hz, "ParticlesPerVolume": particles,
        "Exposure": 500 / rate_hz, "DropEvery": drop_every, "TruthFile": truth,
    }  # fmt: skip
    lines = []
    for line in config_path("fluorescence").read_text().splitlines():
        property_name = line.split(",")[2] if line.startswith("#py Property,Camera,") else ""
        known = property_name in changed
        lines.append(f"#py Property,Camera,{property_name},{changed.pop(property_name)}" if known else line)
    lines += [f"#py Property,Camera,{key},{value}" for key, value in changed.items()]
    config = folder / f"{name}.cfg"
    config.write_text("\n".join(lines) + "\n")
    return config, truth


def truth_of(path, images):
    """True x, y, height (N, 3), um, by volume: of each particle when its nearest slice was taken."""
    nearest = defaultdict(dict)
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            volume, particle = int(row["frame"]) // images, row["particle"]
            off = abs(float(row["z_um"]))
            if off < nearest[volume].get(particle, (np.inf,))[0]:
                nearest[volume][particle] = (off, *(float(row[key]) for key in ("x_um", "y_um", "height_um")))
    return {volume: np.array(list(rows.values()))[:, 1:] for volume, rows in nearest.items()}


def measure(name, arguments, folder, particles, drop_every, too_slow):
    """One run: its account, ages, what was reduced, and distances from the truth."""
    in_channel = round(particles * DEPTH_UM / (STEP_UM * (arguments.slices - 1) + 2 * SEEN_UM))
    config, truth = microscope(folder, name, arguments.size, arguments.rate, in_channel, drop_every)
    experiment = build_experiment(
        {
            "run": {"seconds": arguments.seconds, "output": str(folder / f"{name}.h5"), "overwrite": True},
            "microscope": {"config": str(config)},
            "detector": {"spot_um": SPOT_UM, "too_slow": too_slow},
            "volume": {
                "slices": arguments.slices,
                "z_step_um": STEP_UM,
                "centre_um": CENTRE_UM,
                "mode": "sequenced",
                "lag_up_um": LAG_UM,
                "lag_down_um": LAG_UM,
            },
            "limits": {"min_focus_um": 0, "max_focus_um": 30},
        },
        "the benchmark",
    )
    files = RunFiles.beside(experiment.run.output)
    outcome = run_experiment(experiment, files, on_update=lambda _: None, on_note=print)
    if not outcome.result.ok:
        raise SystemExit("; ".join(outcome.result.failures))
    counts, account = outcome.result.counts, outcome.account
    asked_hz = arguments.rate / arguments.slices
    row = {
        "run": name,
        "acquired": counts["acquire"]["received"] + counts["acquire"].get("lost_in_camera", 0),
        "of_the_rate_asked_for": round(counts["acquire"]["received"] / arguments.seconds / asked_hz, 3),
        "in_file": account.in_file,
        "partial": outcome.volumes.partial,
        "slices_lost": counts["acquire"].get("slices_lost", 0),
        "declared_lost": account.total_lost,
        "undeclared": account.exposed - account.in_file - account.total_lost,
        "governor": governor_of(outcome.files.log),
    }
    with TrajectoryFile(folder / f"{name}.h5") as file:
        frames = file.frames
    settled = frames["time_s"] > frames["time_s"].min(initial=0.0) + SETTLED_S
    ages = frames["age_ms"][settled & np.isfinite(frames["age_ms"])] * asked_hz / 1e3
    if ages.size:
        row["age_over_period_median"], row["age_over_period_99"] = (
            np.percentile(ages, (50, 99)).round(2).tolist()
        )
        row["within_a_period"] = round(float((ages <= 1).mean()), 3)
    whole = ~np.isfinite(frames["fit_credit"]) | (frames["fit"] == FitDecision.WHOLE)
    row["volumes_fitted"] = {
        "whole": int((whole & (frames["fit"] != FitDecision.NO_TIME)).sum()),
        "in_part": int((~whole & (frames["fit"] == FitDecision.LIMITED)).sum()),
        "short": int((frames["fit"] == FitDecision.NO_TIME).sum()),
    }
    row["detections_reduced"] = counts["detect"].get("reduced", 0)
    row["detections"] = counts["detect"]["particles"]
    compare(row, folder / f"{name}.h5", frames, truth_of(truth, arguments.slices))
    print(json.dumps(row, indent=1))
    return row


def governor_of(log):
    """What the governor said, in the order of the run."""
    lines = (json.loads(line) for line in Path(log).read_text(encoding="utf-8").splitlines())
    return [line["text"] for line in lines if line.get("kind") == "governor"]


def compare(row, path, frames, truth):
    """Add to `row` how far tracked positions are from the truth."""
    tracks = read_trajectories(path)
    volume_of = dict(zip(frames["frame"].tolist(), frames["camera_frame"].tolist(), strict=True))
    focus_of = dict(zip(frames["frame"].tolist(), frames["focus_um"].tolist(), strict=True))
    partial = frames["frame"][frames["slices"] < frames["slices"].max(initial=1)]
    first = int(partial[0]) if partial.size else np.inf
    parts, false = defaultdict(list), 0
    for frame in np.unique(tracks.frame):
        true = truth.get(volume_of[int(frame)])
        if true is None or not len(true):
            continue
        rows = (tracks.frame == frame) & (tracks.flags & TrackFlag.PREDICTED == 0)
        found = np.column_stack(
            [tracks.x_um[rows], tracks.y_um[rows], tracks.z_um[rows] + focus_of[int(frame)]]
        )
        stated = np.column_stack([tracks.sigma_x_um[rows], tracks.sigma_y_um[rows], tracks.sigma_z_um[rows]])
        reduced = tracks.flags[rows] & TrackFlag.REDUCED != 0
        off, nearest = cKDTree(true).query(found)
        near = off < NEAR_UM
        false += int((~near).sum())
        away = found - true[np.minimum(nearest, len(true) - 1)]
        when = "after_a_loss" if frame > first else "before"
        for name, chosen in (("whole", ~reduced), ("reduced", reduced)):
            parts[f"{name}_{when}"].append(np.hstack([away, stated])[near & chosen])
    row["rows"], row["rows_reduced"] = len(tracks), int((tracks.flags & TrackFlag.REDUCED != 0).sum())
    for name, found in parts.items():
        both = np.concatenate(found)
        if len(both) < FEWEST:
            continue
        off, stated = both[:, :3], both[:, 3:]
        row[name] = {
            "positions": len(off),
            "rms_um_xyz": np.sqrt((off**2).mean(axis=0)).round(3).tolist(),
            "over_stated": (np.median(np.abs(off / stated), axis=0) / HALF_NORMAL).round(2).tolist(),
        }
    row["farther_than_1_um_from_every_true_one"] = false


def main():
    """Run at both loads in both ways, then with lost images."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rate", type=float, default=200.0, help="images per second")
    parser.add_argument("--slices", type=int, default=10)
    parser.add_argument("--particles", type=int, nargs="+", default=[100, 600], help="about, in a volume")
    parser.add_argument("--keep", type=Path, help="folder for the files; left out: a temporary one")
    parser.add_argument("--drop-every", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        runs = [(f"{n}_{how}", n, 0, how) for n in arguments.particles for how in ("reduce", "drop")]
        runs.append(
            (f"{arguments.particles[0]}_lossy", arguments.particles[0], arguments.drop_every, "reduce")
        )
        rows = [measure(name, arguments, folder.absolute(), n, drop, how) for name, n, drop, how in runs]
    load = [round(load, 1) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None
    volumes = f"{arguments.size} x {arguments.size} x {arguments.slices}, {arguments.rate:g} images/s"
    if arguments.json is not None:
        save(
            arguments.json,
            {"volumes": volumes, "seconds": arguments.seconds, "load_average": load, "runs": rows},
        )


if __name__ == "__main__":
    main()
