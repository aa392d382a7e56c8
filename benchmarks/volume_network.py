"""The network for volumes beside the matched filter: F1, errors and cost, over signal-to-noise ratio and crowding.

    python benchmarks/volume_network.py calibration standin.h5     # the optics of the stand-in scene
    liveptv train standin.h5 -o volumes.onnx --from nothing --processes 1 --minutes 105 --checkpoint CHECKPOINTS
    python benchmarks/volume_network.py measure volumes.onnx --json benchmarks/results/volume_network.json
    python benchmarks/volume_network.py history CHECKPOINTS --json benchmarks/results/volume_network_training.json

`measure` runs the network alone, the matched filter with the joint fit, and both with the fit on the same volumes,
with the thresholds given (`--thresholds`), fixed beforehand. The volumes' seeds are those of no training.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from volume_scene import BACKGROUND, SIGMA, VOXEL_UM, Scene, draw

from engines.settings import DetectorSettings
from engines.volumes.detector import COLUMNS, VolumeDetector, Voxel
from engines.volumes.layout import (
    GROUP,
    KIND,
    KIND_ATTRIBUTE,
    NOISE,
    PSF,
    SCHEMA,
    SCHEMA_VERSION,
    VOXEL,
)
from engines.volumes.network.proposer import NetworkProposer
from engines.volumes.psf import VolumePsf

FloatArray = npt.NDArray[np.float64]
SEED = 70_000
GATE = 5.0
SNRS = (1.0, 2.0, 4.0, 7.0)
WAVE = 0.5
"""Rise and fall of the uneven background, as a part of it."""
NETWORK, FILTER, BOTH = "network alone", "matched filter and fit", "network, matched filter and fit"


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of scene: particles in a volume, unevenness of the background, slices left out."""

    name: str
    particles: int
    unevenness: float = 0.0
    missing: tuple[int, ...] = ()


CASES = (
    Case("100 particles", 100),
    Case("500 particles", 500),
    Case("1000 particles", 1000),
    Case("6000 particles, most overlap", 6000),
    Case("500 particles, uneven background", 500, WAVE),
    Case("500 particles, slices 3 and 6 missing", 500, missing=(3, 6)),
)


def write_calibration(path: Path) -> None:
    """The optics of the stand-in scene as a calibration for volumes."""
    z, y, x = (sigma * voxel for sigma, voxel in zip(SIGMA, VOXEL_UM, strict=True))
    with h5py.File(path, "w") as file:
        file.attrs[KIND_ATTRIBUTE], file.attrs["schema"] = KIND, SCHEMA
        file.attrs["schema_version"] = SCHEMA_VERSION
        group = file.create_group(GROUP)
        group.attrs[VOXEL] = VOXEL_UM
        for name, value in zip(NOISE, (1.0, 0.0, 0.0), strict=True):
            group.attrs[name] = value
        VolumePsf.gaussian(x, y, z, VOXEL_UM).save(group.create_group(PSF))


def count(true: FloatArray, found: FloatArray) -> npt.NDArray[np.float64]:
    """True, found, right, and the sum of squared errors in voxels, of centres (N, 3)."""
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    apart = cdist(true, found)
    rows, columns = linear_sum_assignment(np.minimum(apart, GATE))
    pairs = apart[rows, columns]
    pairs = pairs[pairs < GATE]
    return np.array([len(true), len(found), pairs.size, float((pairs**2).sum())])


def measure(model: Path, volumes: int, side: int, thresholds: tuple[float, ...]) -> list[dict[str, Any]]:
    """F1 and the rms error of each way, case and signal-to-noise ratio; `side` 512 px, or less for a quick look."""
    everything = DetectorSettings(min_confidence=0.0)
    network = NetworkProposer(everything, model)
    voxel = Voxel(VOXEL_UM[0], VOXEL_UM[1])
    psf = network.volume_model.psf
    ways = {
        FILTER: VolumeDetector(psf, voxel, everything),
        BOTH: VolumeDetector(psf, voxel, everything, None, network),
    }
    share, rows = (side / 512) ** 2, []
    for case in CASES:
        for snr in SNRS:
            sums: dict[tuple[str, float], FloatArray] = {}
            cpu_ms: dict[str, list[float]] = {}
            for number in range(volumes):
                size = (10, side, side)
                scene = Scene(snr, round(share * case.particles), SEED + number, size)
                drawn = draw(replace(scene, unevenness=case.unevenness))
                missing = np.zeros(10, np.bool_)
                missing[list(case.missing)] = True
                image = np.where(missing[:, None, None], 0, drawn.image).astype(np.uint16)
                for way, (places, sure, ms) in _found(ways, network, image, missing).items():
                    cpu_ms.setdefault(way, []).append(ms)
                    for threshold in thresholds:
                        held = sums.setdefault((way, threshold), np.zeros(4))
                        held += count(drawn.truth, places[sure >= threshold])
            for (way, threshold), (true, found, right, squares) in sums.items():
                row = {
                    "case": case.name, "snr": snr, "way": way, "threshold": threshold,
                    "f1": round(2 * right / max(1.0, true + found), 4),
                    "recall": round(right / max(1.0, true), 4), "precision": round(right / max(1.0, found), 4),
                    "rmse_voxels": round(float(np.sqrt(squares / max(1.0, right))), 3),
                    "particles": int(true), "cpu_ms": round(min(cpu_ms[way])),
                }  # fmt: skip
                rows.append(row)
                print(json.dumps(row), flush=True)
    return rows


def _found(
    ways: dict[str, VolumeDetector],
    network: NetworkProposer,
    image: npt.NDArray[np.uint16],
    missing: npt.NDArray[np.bool_],
) -> dict[str, tuple[FloatArray, FloatArray, float]]:
    """Centres (N, 3) z, y, x in voxels, probabilities (N,), and processor time in ms, of each way."""
    heights_um, result = VOXEL_UM[0] * np.arange(len(image)), {}
    for way, detector in ways.items():
        begun = time.process_time()
        table, _ = detector.detect(image, missing, heights_um, np.zeros(len(image)))
        spent = 1e3 * (time.process_time() - begun)
        axes = zip("zyx", VOXEL_UM, strict=True)
        places = np.column_stack([table[COLUMNS[f"{axis}_um"]] / step for axis, step in axes])
        result[way] = (places, table[COLUMNS["confidence"]], spent)
    background, noise = ways[BOTH].surroundings(image, missing)
    begun = time.process_time()
    found = network.propose(image, missing, background, noise)
    spent = 1e3 * (time.process_time() - begun)
    result[NETWORK] = (np.column_stack([found.z, found.y, found.x]), found.probability, spent)
    return result


def history(folder: Path) -> dict[str, Any]:
    """Settings and scores of the training in a folder of checkpoints. Needs torch."""
    import torch

    data = torch.load(folder / "training.pt", map_location="cpu", weights_only=True)
    made_from, settings = json.loads(data["settings"])
    return {"made_from": made_from, "settings": settings, "steps": data["steps"], "scores": data["course"][3]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("calibration", "measure", "history"))
    parser.add_argument("path", type=Path)
    parser.add_argument("--volumes", type=int, default=5)
    parser.add_argument("--side", type=int, default=512, help="px; particles in proportion")
    parser.add_argument("--thresholds", type=float, nargs="+", default=(0.33, 0.5))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.what == "calibration":
        write_calibration(given.path)
        return
    if given.what == "history":
        found: Any = history(given.path)
    else:
        rows = measure(given.path, given.volumes, given.side, tuple(given.thresholds))
        found = {"volumes": given.volumes, "side_px": given.side, "background": BACKGROUND, "rows": rows}
    text = json.dumps(found, indent=1)
    if given.json is not None:
        given.json.write_text(text + "\n", encoding="utf-8")
    elif given.what == "history":
        print(text)


if __name__ == "__main__":
    main()
