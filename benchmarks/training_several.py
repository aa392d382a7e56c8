"""Training in one process with all threads and in several with their share of them: images a second, and how well
the network is trained after as many images.

    python benchmarks/training_several.py --processes 2 --crops 3200 --seeds 0 1 2

Starts itself by torchrun for each case, one after the other, seed by seed, as the
machine's other work comes and goes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
from reporting import save

from acquisition.physics.optics import OpticsModel
from calibration.training.group.member import launched_member
from calibration.training.material import Material, from_optics
from calibration.training.settings import TrainingSettings
from calibration.training.train import train

RESULT = Path(__file__).with_name("results") / "training_several.json"
BATCH = 16


def trained(crops: int, batch: int, seed: int) -> dict[str, Any]:
    """Train as the member that the environment describes; what the first one reports."""
    member = launched_member()
    size = 1 if member is None else member.size
    settings = TrainingSettings(
        minutes=600.0,
        steps=crops // (batch * size),
        seed=seed,
        processes=size,
        batch=batch,
        score_every_s=1e6,
    )
    before_s: list[float] = []

    def recipe() -> Material:
        material = from_optics(OpticsModel())()
        before_s.append(_cpu_s())  # what it took to get here does not grow with the crops
        return material

    course = train(recipe, settings, member=member)
    found = course.scores[-1] if course.scores else {}
    keys = ("held_out_loss", "missed", "false", "z_um")
    return {
        "trained_s": course.trained_s,
        "cpu_s": _cpu_s() - before_s[0],
        **{key: found.get(key) for key in keys},
    }


def _cpu_s() -> float:
    return float(sum(psutil.Process().cpu_times()[:2]))


def case(processes: int, crops: int, batch: int, seed: int) -> dict[str, Any]:
    """One training by torchrun; its row."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += [
            "--nproc-per-node",
            str(processes),
            __file__,
            "--case",
            f"{crops},{batch},{seed},{folder}",
        ]
        subprocess.run(command, check=True)
        rows = [json.loads(path.read_text()) for path in sorted(Path(folder).iterdir())]
    first = rows[0]
    cpu_s = sum(row["cpu_s"] for row in rows)
    scores = {key: first[key] for key in ("held_out_loss", "missed", "false", "z_um")}
    return {
        "processes": processes,
        "batch": batch,
        "seed": seed,
        "crops": crops,
        "crops_per_s": crops / first["trained_s"],
        "cpu_ms_per_crop": 1e3 * cpu_s / crops,
        **scores,
    }


def main() -> None:
    """Run all cases, or be one process of one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--crops", type=int, default=3_200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        crops, batch, seed, folder = arguments.case.split(",")
        row = trained(int(crops), int(batch), int(seed))
        (Path(folder) / f"{int(os.environ['RANK']):04d}.json").write_text(json.dumps(row))
        return
    many = arguments.processes
    rows = []
    for seed in arguments.seeds:
        for processes, batch in ((1, BATCH), (many, BATCH), (many, BATCH // many)):
            rows.append(case(processes, arguments.crops, batch, seed))
            print(rows[-1], flush=True)
            save(RESULT, rows)


if __name__ == "__main__":
    main()
