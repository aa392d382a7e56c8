"""Volumes of the simulated microscope, sequenced in the real core, live: what is acquired, lost, declared, how old.

    python benchmarks/volumes_live.py [--seconds 20] [--size 128] [--rate 200] [--slices 10] [--particles 150]

Runs an experiment twice, without and with one image in 1,000 that the camera loses, and prints for each: volumes
acquired and their rate over the one asked for; volumes whole, partial, lost and declared, and what is neither (must
be 0); the age of the results over the period of a volume; how far the tracked positions are from the truth. Were
slices behind a lost image in wrong places, z would be off by a step.
"""

import argparse
import csv
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from acquisition.configuration import config_path
from liveptv.config import build_experiment
from liveptv.files import RunFiles
from liveptv.workflows.run import run_experiment
from tracking.trajectories.file import TrajectoryFile, read_trajectories

STEP_UM, CENTRE_UM = 0.5, 15.0
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


def measure(name, arguments, folder, drop_every):
    """One run, its account and its distances from the truth."""
    config, truth = microscope(folder, name, arguments.size, arguments.rate, arguments.particles, drop_every)
    experiment = build_experiment(
        {
            "run": {"seconds": arguments.seconds, "output": str(folder / f"{name}.h5"), "overwrite": True},
            "microscope": {"config": str(config)},
            "volume": {
                "slices": arguments.slices,
                "z_step_um": STEP_UM,
                "centre_um": CENTRE_UM,
                "mode": "sequenced",
            },
            "limits": {"min_focus_um": 0, "max_focus_um": 30},
        },
        "the benchmark",
    )
    outcome = run_experiment(
        experiment, RunFiles.beside(experiment.run.output), on_update=lambda _: None, on_note=print
    )
    if not outcome.result.ok:
        raise SystemExit("; ".join(outcome.result.failures))
    counts, account = outcome.result.counts["acquire"], outcome.account
    asked_hz = arguments.rate / arguments.slices
    acquired = counts["received"] + counts["lost_in_camera"]
    rate = counts["received"] / arguments.seconds / asked_hz
    undeclared = account.exposed - account.in_file - account.total_lost
    print(f"{name}: {acquired} volumes acquired, {rate:.3f} of {asked_hz:g} a second")
    print(
        f"  in the file {account.in_file}: {outcome.volumes.in_words()}; slices lost {counts.get('slices_lost', 0)}"
    )
    print(f"  declared lost: {account.in_words()}; neither: {undeclared}")
    if outcome.age is not None:
        ages = (outcome.age.median_ms, outcome.age.p99_ms)
        print(
            "  age of results over a volume period: {:.2f} (median), {:.2f} (99 %)".format(
                *(a * asked_hz / 1e3 for a in ages)
            )
        )
    compare(folder / f"{name}.h5", truth_of(truth, arguments.slices))


def compare(path, truth):
    """Print how far tracked positions are from the truth: before and after the first partial volume."""
    tracks = read_trajectories(path)
    with TrajectoryFile(path) as file:
        frames = file.frames
    volume_of = dict(zip(frames["frame"].tolist(), frames["camera_frame"].tolist(), strict=True))
    focus_of = dict(zip(frames["frame"].tolist(), frames["focus_um"].tolist(), strict=True))
    partial = frames["frame"][frames["slices"] < frames["slices"].max(initial=1)]
    first = int(partial[0]) if partial.size else np.inf
    parts = {"before the first lost image": [], "after it": []}
    false = 0
    for frame in np.unique(tracks.frame):
        true = truth.get(volume_of[int(frame)])
        if true is None or not len(true):
            continue
        rows = tracks.frame == frame
        found = np.column_stack(
            [tracks.x_um[rows], tracks.y_um[rows], tracks.z_um[rows] + focus_of[int(frame)]]
        )
        off, nearest = cKDTree(true).query(found)
        near = off < NEAR_UM
        false += int((~near).sum())
        where = "before the first lost image" if frame < first else "after it"
        parts[where].append(found[near] - true[nearest[near]])
    for where, found in parts.items():
        if found:
            off = np.concatenate(found)
            rms, mean = np.sqrt((off**2).mean(axis=0)), off.mean(axis=0)
            print(
                f"  {where}: {len(off)} positions, x y z off by rms {rms.round(3)} um, mean {mean.round(3)} um"
            )
    print(f"  {false} positions farther than {NEAR_UM:g} um from every true one")


def main():
    """Run with and without lost images."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rate", type=float, default=200.0, help="images per second")
    parser.add_argument("--slices", type=int, default=10)
    parser.add_argument("--particles", type=int, default=150, help="in the channel")
    parser.add_argument("--keep", type=Path, help="folder for the files; left out: a temporary one")
    parser.add_argument("--drop-every", type=int, default=1000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name, drop_every in (("whole", 0), ("lossy", arguments.drop_every)):
            measure(name, arguments, folder.absolute(), drop_every)


if __name__ == "__main__":
    main()
