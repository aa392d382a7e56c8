"""Dense suspensions of balls that touch, with their truth: what is found where hardly any background is left.

    python benchmarks/volume_balls.py            measures all rows, and writes results/volume_balls.json
    python benchmarks/volume_balls.py --rows 3   the first three

Equal balls are pushed apart in a periodic box until they only touch (Jodrey & Tory 1985, Physical Review A 32,
2347), cut to the stack, drawn as balls of even light in cubic samples finer than the voxels, blurred with a
Gaussian PSF, averaged over the voxels, and given Poisson noise. `liveptv`'s engine is opened without a calibration
and without a size, as `liveptv detect` does. F1 and errors are of balls whose centre is inside the stack, gate one
radius; a detection of a ball whose centre lies outside counts neither as right nor as wrong.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from reporting import save
from scipy import ndimage
from scipy.spatial import cKDTree
from volume_scoring import is_at_end, pairs

FloatArray = npt.NDArray[np.float64]
RESULTS = Path(__file__).parent / "results" / "volume_balls.json"
FINE = 2
"""Samples a voxel along each axis."""
TOUCH = 1.02
"""Distance of neighbours over the diameter to which balls are pushed apart."""
ROUNDS = 2000


@dataclass(frozen=True, slots=True)
class Suspension:
    """Balls of `radius_um` that fill the part `fraction` of a stack of `shape` voxels of `voxel_um` (z, y, x).

    The light is `background`, and `amplitude` more inside of balls (less, where it is negative), photo-electrons a
    voxel; `fade` is the part of it that the last slice has lost. `blur_um` (z, y, x) is the PSF's standard
    deviation.
    """

    fraction: float
    radius_um: float
    shape: tuple[int, int, int] = (32, 96, 96)
    voxel_um: tuple[float, float, float] = (0.1, 0.1, 0.1)
    blur_um: tuple[float, float, float] = (0.25, 0.1, 0.1)
    amplitude: float = 60.0
    background: float = 20.0
    fade: float = 0.0
    seed: int = 0


ROWS = (
    Suspension(0.1, 0.5),
    Suspension(0.3, 0.5),
    Suspension(0.5, 0.5),
    Suspension(0.3, 0.3),
    Suspension(0.5, 0.3),
    Suspension(0.3, 0.8, shape=(40, 128, 128)),
    Suspension(0.3, 0.5, voxel_um=(0.25, 0.1, 0.1), shape=(20, 96, 96)),
    Suspension(0.5, 0.5, voxel_um=(0.25, 0.1, 0.1), shape=(20, 96, 96)),
    Suspension(0.3, 0.5, amplitude=-60.0, background=100.0),
    Suspension(0.5, 0.5, amplitude=-60.0, background=100.0),
    Suspension(0.2, 0.5, amplitude=-60.0, background=100.0, fade=0.6),
    Suspension(0.3, 0.5, amplitude=15.0, background=20.0),
)


def packed(box_um: FloatArray, radius_um: float, fraction: float, rng: np.random.Generator) -> FloatArray:
    """Centres (N, 3) of balls in a periodic box that do not overlap by more than a percent of the diameter."""
    count = max(1, round(fraction * box_um.prod() / (4 / 3 * np.pi * radius_um**3)))
    place = rng.uniform(0, 1, (count, 3)) * box_um
    wanted = 2 * radius_um * TOUCH
    for _ in range(ROUNDS):
        near = cKDTree(place, boxsize=box_um).query_pairs(wanted, output_type="ndarray")
        if not len(near):
            break
        apart = place[near[:, 0]] - place[near[:, 1]]
        apart -= box_um * np.rint(apart / box_um)
        length = np.linalg.norm(apart, axis=1, keepdims=True)
        if length.min() > 2 * radius_um * 0.99:
            break
        push = 0.5 * (wanted - length) * apart / np.maximum(length, 1e-9)
        np.add.at(place, near[:, 0], push)
        np.add.at(place, near[:, 1], -push)
        place %= box_um
    return place


def drawn(scene: Suspension) -> tuple[npt.NDArray[np.uint16], FloatArray]:
    """The stack (Z, H, W), and the centres (N, 3) in voxels of the balls of which a part is inside of it."""
    rng = np.random.default_rng((scene.seed, round(1000 * scene.fraction), round(1000 * scene.radius_um)))
    voxel, shape = np.array(scene.voxel_um), np.array(scene.shape)
    margin = 2 * scene.radius_um + 3 * np.array(scene.blur_um)
    place = packed(shape * voxel + 2 * margin, scene.radius_um, scene.fraction, rng) - margin
    wide = np.ceil(margin / voxel).astype(int)
    step = voxel / FINE
    light = np.zeros((shape + 2 * wide) * FINE)
    first = -wide * voxel - 0.5 * voxel + 0.5 * step
    reach = np.ceil(scene.radius_um / step).astype(int) + 1
    for centre in place:
        middle = np.rint((centre - first) / step).astype(int)
        low, high = np.maximum(middle - reach, 0), np.minimum(middle + reach + 1, light.shape)
        if (low >= high).any():
            continue
        axes = [first[a] + np.arange(low[a], high[a]) * step[a] - centre[a] for a in range(3)]
        z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
        edge = scene.radius_um - np.sqrt(z**2 + y**2 + x**2)
        part = light[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
        np.maximum(part, np.clip(edge / step.mean() + 0.5, 0, 1), out=part)
    blurred = ndimage.gaussian_filter(light, np.array(scene.blur_um) / step)
    sizes = [n for count in blurred.shape for n in (count // FINE, FINE)]
    mean = blurred.reshape(sizes).mean(axis=(1, 3, 5))
    mean = mean[tuple(slice(w, w + n) for w, n in zip(wide, scene.shape, strict=True))]
    light = scene.background + scene.amplitude * mean
    light *= (1 - scene.fade * np.arange(len(light)) / len(light))[:, None, None]
    image = np.minimum(rng.poisson(light), 65535).astype(np.uint16)
    places = place / voxel
    near = ((places > -0.5 - reach / FINE) & (places < shape - 0.5 + reach / FINE)).all(axis=1)
    return image, places[near]


def measured(scene: Suspension) -> dict[str, Any]:
    """What is found in one suspension."""
    from engines.factory import open_engine
    from engines.settings import DetectorSettings
    from stream.messages import Frame, FrameInfo
    from stream.volume_info import VolumeInfo

    image, truth = drawn(scene)
    said: list[str] = []
    step_um, pixel_um = scene.voxel_um[0], scene.voxel_um[2]
    engine = open_engine(
        DetectorSettings(workers=1), model=None, pixel_size_um=pixel_um, volumes=True, say=said.append
    )
    info = FrameInfo(
        run_id="balls", frame=0, camera_frame=0, time_s=0.0, monotonic_ns=0, wall_s=0.0,
        pixel_size_um=pixel_um, volume=VolumeInfo(tuple(step_um * k for k in range(len(image)))),
    )  # fmt: skip
    start_s = time.process_time()
    engine.submit(Frame(info, image))
    (found,) = engine.results(600.0)
    seconds = time.process_time() - start_s
    engine.close()
    scale, last = np.array(scene.voxel_um) / scene.radius_um, np.array(scene.shape) - 1.0
    points = np.stack([found.z_um, found.y_um, found.x_um], axis=1) / scene.radius_um
    inside = ((truth > -0.5) & (truth < last + 0.5)).all(axis=1)
    # of a ball that is only seen in part, detections lie at the edge
    rows, columns, _ = pairs(np.clip(truth, 0, last) * scale, points, 1.0)
    counted = np.ones(len(points), bool)
    counted[columns[~inside[rows]]] = False
    rows, columns = rows[inside[rows]], columns[inside[rows]]
    balls, counted_points = int(inside.sum()), int(counted.sum())
    error = (points[columns] - truth[rows] * scale) * scene.radius_um
    sigma = np.stack([found.sigma_z_um, found.sigma_y_um, found.sigma_x_um], axis=1)[columns]
    middle = ~is_at_end(truth[rows], scene.shape[0], 2 * scene.radius_um / scene.voxel_um[0])
    stated = (error[middle] / sigma[middle]) ** 2
    # the median of a squared normal deviate is 0.455
    ratio = np.round(np.sqrt(np.median(stated, axis=0) / 0.455), 2)
    return {
        "fraction": scene.fraction, "radius_um": scene.radius_um, "voxel_um": scene.voxel_um,
        "amplitude": scene.amplitude, "background": scene.background, "fade": scene.fade,
        "balls": balls, "found": counted_points, "right": len(rows),
        "f1": round(2 * len(rows) / max(counted_points + balls, 1), 4),
        "rms_um": np.round(np.sqrt((error[middle] ** 2).mean(axis=0)), 4).tolist() if middle.any() else None,
        "true_over_stated": ratio.tolist() if middle.any() else None,
        "said": said, "cpu_s": round(seconds, 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=len(ROWS))
    given = parser.parse_args()
    rows = []
    for scene in ROWS[: given.rows]:
        rows.append(measured(scene))
        print(rows[-1], flush=True)
    if given.rows == len(ROWS):
        save(RESULTS, rows)


if __name__ == "__main__":
    main()
