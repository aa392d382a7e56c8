"""Real and published stacks, calibrated from themselves and detected: how many particles, and where.

    python benchmarks/volumes_real.py STACK ... [--positions POSITIONS.csv|.npy] [--voxel Z Y X] [-o FOLDER]

runs `liveptv calibrate --volume` and `liveptv detect` on each stack as a user would, counts what was found, and
compares it with published positions (columns or rows z, y, x in voxels) where they are given: how
many lie within `--gate` voxels of one, and how far.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from reporting import save

from calibration.volumes.scoring import match_volumes, score_volumes
from liveptv.tables import read_detection_table


def liveptv(*arguments: object) -> None:
    """Run a command; what it says goes to the terminal."""
    done = subprocess.run([sys.executable, "-m", "liveptv", *map(str, arguments)], check=False)
    if done.returncode:
        print(f"liveptv {arguments[0]} ended with {done.returncode}")


def published(path: Path) -> np.ndarray:
    """Positions (N, 3) along z, y, x in voxels."""
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)[:, :3].astype(float)
    return np.loadtxt(path, delimiter=",", skiprows=1, usecols=(0, 1, 2))


def measured(stack: Path, given: argparse.Namespace) -> dict[str, Any]:
    """What is found in a stack, with a calibration from itself where one can be made."""
    model, table = given.output / f"{stack.stem}.h5", given.output / f"{stack.stem}.csv"
    z, _, x = given.voxel
    sizes = ("--axes", given.axes, "--pixel-size", x, "--z-step", z, "--overwrite")
    liveptv("calibrate", stack, "--volume", "-o", model, *sizes)
    with_model = ("-m", model) if model.is_file() else ()
    liveptv("detect", stack, "-o", table, *with_model, *sizes)
    row: dict[str, Any] = {"stack": stack.name, "calibrated": model.is_file(), "found": None}
    if not table.is_file():
        return row
    found = read_detection_table(table).columns()
    row["found"] = len(found["frame"])
    if given.positions is not None:
        places = published(given.positions) * np.asarray(given.voxel)
        truth = {
            "frame": np.zeros(len(places)),
            **{f"{axis}_um": places[:, column] for column, axis in enumerate("zyx")},
        }
        voxel = (given.voxel[2], given.voxel[1], given.voxel[0])
        score = score_volumes(match_volumes(truth, found, given.gate, voxel), given.gate, "voxels", voxel)
        row["score"] = score.to_dict()["all"]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("stacks", type=Path, nargs="+", metavar="STACK")
    parser.add_argument("--positions", type=Path, help="published positions of one stack, z, y, x in voxels")
    parser.add_argument("--voxel", type=float, nargs=3, default=(0.1, 0.1, 0.1), metavar=("Z", "Y", "X"))
    parser.add_argument("--axes", default="ZYX")
    parser.add_argument("--gate", type=float, default=5.0, help="voxels")
    parser.add_argument("-o", "--output", type=Path, default=Path())
    parser.add_argument("--json", type=Path, help="file for the results")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    rows = [measured(stack, given) for stack in given.stacks]
    print(json.dumps(rows, indent=2))
    if given.json is not None:
        save(given.json, rows)


if __name__ == "__main__":
    main()
