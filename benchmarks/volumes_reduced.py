"""Volumes for whose whole fit there is no time: what is found, how far off it is, and how true its errors are.

    python benchmarks/volumes_reduced.py [--volumes 6] [--json benchmarks/results/volumes_reduced.json]

Draws stacks of 256 x 256 x 10 voxels (`volume_scene.py`) and detects in each three times: with the whole fit, with
a fifth of its work after the short fit of all, and with the short fit alone. For each: the score F1 (gate of 5
voxels, pairs one to one), the processor time of the detector, and for lone and overlapped particles (nearest other
one beyond or within 6 standard deviations of a spot) the rms error of z, y, x in voxels and the median of error
over stated error, in units of what it is for normal errors (1: as stated).
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from reporting import save
from scipy.spatial import cKDTree
from volume_scene import SIGMA, Scene, draw

from engines.refine.turns import NOTHING, Allowance
from engines.settings import DetectorSettings
from engines.volumes.detector import VolumeDetector, Voxel
from engines.volumes.limited_fit import VolumeFits, VolumeLimit
from engines.volumes.psf import VolumePsf

SHAPE = (10, 256, 256)
GATE, APART = 5.0, 6.0
HALF_NORMAL = 0.6745
CASES = ((2, 150), (4, 150), (7, 150), (7, 300))
"""Signal-to-noise ratio and particles."""
WAYS = {"whole": Allowance(1.0, 1e9), "fifth": Allowance(share=0.2), "short": NOTHING}
VOXEL = Voxel(1.0, 1.0)

FloatArray = npt.NDArray[np.float64]


def pairs(found: FloatArray, truth: FloatArray) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """The true particle nearest to each found one, and whether that is its pair: nearest first, within the gate."""
    off, nearest = cKDTree(truth).query(found)
    taken, paired = set(), np.zeros(len(found), np.bool_)
    for row in np.argsort(off):
        if off[row] < GATE and nearest[row] not in taken:
            taken.add(nearest[row])
            paired[row] = True
    return nearest, paired


def measure(snr: float, particles: int, volumes: int) -> list[dict[str, Any]]:
    """The rows of one case, one for each way."""
    psf = VolumePsf.gaussian(SIGMA[2], SIGMA[1], SIGMA[0], VOXEL.zyx_um)
    detector = VolumeDetector(psf, VOXEL, DetectorSettings())
    heights, missing = np.arange(float(SHAPE[0])), np.zeros(SHAPE[0], np.bool_)
    scores, fit_ms, reduced = defaultdict(list), defaultdict(list), defaultdict(list)
    errors: dict[tuple[str, str], list[FloatArray]] = defaultdict(list)
    for seed in range(1, volumes + 1):
        volume = draw(Scene(snr, particles, seed, SHAPE))
        scaled = volume.truth / SIGMA
        lone = cKDTree(scaled).query(scaled, k=2)[0][:, 1] > APART
        for way, allowed in WAYS.items():
            times = []
            for _ in range(2):
                begun_s = time.thread_time()
                limit = VolumeLimit(VolumeFits(), 0, allowed)
                table, _ = detector.detect(volume.image, missing, heights, np.zeros(SHAPE[0]), limit)
                times.append(1e3 * (time.thread_time() - begun_s))
            found, stated = table[2::-1].T, table[5:2:-1].T
            nearest, paired = pairs(found, volume.truth)
            scores[way].append(2 * paired.sum() / (len(found) + particles))
            fit_ms[way].append(min(times))
            reduced[way].append((table[-1].astype(int) & 1).mean())
            off = np.hstack([found - volume.truth[nearest], stated])
            for name, which in (("lone", lone[nearest]), ("overlapped", ~lone[nearest])):
                errors[way, name].append(off[paired & which])
    rows = []
    for way in WAYS:
        row: dict[str, Any] = {
            "snr": snr,
            "particles": particles,
            "fit": way,
            "f1": round(float(np.mean(scores[way])), 4),
            "reduced": round(float(np.mean(reduced[way])), 3),
            "detector_cpu_ms": round(float(np.median(fit_ms[way])), 1),
        }
        for name in ("lone", "overlapped"):
            off = np.concatenate(errors[way, name])
            row[name] = {
                "positions": len(off),
                "rms_zyx": np.sqrt((off[:, :3] ** 2).mean(axis=0)).round(3).tolist(),
                "over_stated_zyx": (np.median(np.abs(off[:, :3] / off[:, 3:]), axis=0) / HALF_NORMAL)
                .round(2)
                .tolist(),
            }
        print(row, flush=True)
        rows.append(row)
    return rows


def main() -> None:
    """Measure all cases."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--volumes", type=int, default=6)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = [row for snr, particles in CASES for row in measure(snr, particles, arguments.volumes)]
    if arguments.json is not None:
        save(arguments.json, {"volumes": arguments.volumes, "cases": rows})


if __name__ == "__main__":
    main()
