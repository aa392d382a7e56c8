"""Training images a second, and whether their noise and their truth are what they should be.

Cut-outs are simulated ones of the paper's set-up (Franchini & Krevor 2020): 4 repeats, SNR 5.6; `density` counts
in the paper's 200 particles in 1440 x 2560 pixels. `noise` compares images of noisy cut-outs with those of the same
cut-outs without noise: the variance of the difference over the camera's, by how many cut-outs lie on a pixel
(`rim`: partly, at the edge of one mask). Rates suffer from whatever else the machine does, `cpu_ms` hardly.
"""

from __future__ import annotations

import argparse
import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from reporting import save

from acquisition.physics.optics import OpticsModel
from calibration.synthesis import CutAndPaste, Layout, NoiseModel, Rendered
from calibration.synthesis.canvas import Canvas
from calibration.synthesis.from_optics import (
    background_for,
    model_from_optics,
    noise_for_snr,
    simulated_cutouts,
)
from calibration.synthesis.layout import PAPER_DENSITY
from calibration.synthesis.sources import Synthesis

SNR, REPEATS = 5.6, 4
NOISE_IMAGES, NOISE_SHAPE, NOISE_DENSITY = 300, (256, 256), 10
REPETITIONS = 3
SHAPES = (((128, 128), 400), ((256, 256), 150), ((1440, 2560), 2))
NAMES: dict[type, str] = {CutAndPaste: "cut and paste", Rendered: "rendered"}

Row = dict[str, Any]


def density(times: float) -> Layout:
    return Layout(density_per_px=(times * PAPER_DENSITY, times * PAPER_DENSITY))


def rate(source: Synthesis, shape: tuple[int, int], count: int, dtype: npt.DTypeLike, threads: int) -> Row:
    """Images a second, the best of a few runs; each thread has a generator of its own."""

    def work(seed: int) -> None:
        source.draw(np.random.default_rng(seed), shape, count, dtype)

    best = cpu = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
        for repetition in range(REPETITIONS):
            start, start_cpu = time.perf_counter(), time.process_time()
            list(pool.map(work, range(threads * repetition, threads * (repetition + 1))))
            best = min(best, time.perf_counter() - start)
            cpu = min(cpu, time.process_time() - start_cpu)
    images = threads * count
    return {"threads": threads, "images_per_s": images / best, "cpu_ms": 1e3 * cpu / images}


def speed(pasted: CutAndPaste, rendered: Rendered) -> list[Row]:
    rows: list[Row] = []
    cases = itertools.product(SHAPES, (1, 10), (pasted, rendered), (np.float32, np.uint8), (1, 4))
    for (shape, count), times, source, dtype, threads in cases:
        source.layout = density(times)
        row: Row = {"what": "speed", "source": NAMES[type(source)], "shape": list(shape), "density": times}
        row |= {"dtype": np.dtype(dtype).name} | rate(source, shape, count, dtype, threads)
        rows.append(row)
        print(
            f"{row['source']:<14}{shape[0]:>5} x{shape[1]:>5}{times:>4}x {row['dtype']:<8}{threads} threads"
            f"{row['images_per_s']:>9.1f} images/s{row['cpu_ms']:>9.2f} ms of processor each",
            flush=True,
        )
    return rows


def noise_and_overlap(noisy: CutAndPaste, clean: CutAndPaste) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Noise over the camera's, and the sum of the squared masks, (B, H, W) each."""
    noise = np.empty((NOISE_IMAGES, *NOISE_SHAPE))
    overlap = np.empty_like(noise)
    camera = noisy.noise
    for index in range(NOISE_IMAGES):
        one, other = (s.draw(np.random.default_rng(index), NOISE_SHAPE).images[0] for s in (noisy, clean))
        noise[index] = (one - other) / np.sqrt(camera.read + camera.shot * (1 - other))
        canvas = Canvas.empty(NOISE_SHAPE)
        counting = copy(noisy)
        counting.noise = NoiseModel.steady(1.0, 0.0, camera.grey)
        counting.place(np.random.default_rng(index), canvas)
        overlap[index] = canvas.variance
    return noise, overlap


def noise_in_overlaps(noisy: CutAndPaste, clean: CutAndPaste) -> list[Row]:
    noisy.layout = clean.layout = density(NOISE_DENSITY)
    noise, overlap = noise_and_overlap(noisy, clean)
    part_of = {"none": overlap < 1e-6, "rim": (overlap > 0.02) & (overlap < 0.98)}
    part_of |= {str(n): np.abs(overlap - n) < 0.02 for n in range(1, REPEATS + 3)}
    part_of["2 to 4, rims too"] = (overlap > 1.02) & (overlap <= REPEATS)
    rows = []
    for name, part in part_of.items():
        values = noise[part]
        variance = float(values.var())
        rows.append(
            {
                "what": "noise",
                "overlapping": name,
                "pixels": int(values.size),
                "variance": variance,
                "mean_sds": float(values.mean()),
            }
        )
        print(
            f"overlapping {name:<18}{values.size:>10} pixels  variance {variance:.4f}  mean {values.mean():+.4f}"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cutouts", type=int, default=4000, help="how many to paste from")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    model = model_from_optics(OpticsModel())
    noise = noise_for_snr(model, SNR)
    background = background_for(model)
    silence = NoiseModel.steady(0.0, 0.0, noise.grey)
    cutouts, silent = (
        simulated_cutouts(model, camera, np.random.default_rng(1), options.cutouts, REPEATS)
        for camera in (noise, silence)
    )
    pasted = CutAndPaste(cutouts, noise, background)
    rows = speed(pasted, Rendered(model, noise, background))
    noisy = CutAndPaste(cutouts, noise)
    noisy.level[:] = 0
    clean = copy(noisy)
    clean.cutouts, clean.noise = silent, silence
    rows += noise_in_overlaps(noisy, clean)
    if options.json is not None:
        save(options.json, rows)


if __name__ == "__main__":
    main()
