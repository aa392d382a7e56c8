"""Low light with objects and a camera on which nothing was developed: error over the bound and over what is stated.

    python -m benchmarks.low_light_others models
    python -m benchmarks.low_light_others measure [--images 40] [--out low_light_others.json]

Objects, optics and camera: `low_light_others_pipeline`. The light, flat or with a gradient, multiplies object and
background alike; the pipeline of the model has flat light only. The bound is Cramer-Rao's with place, radius,
brightness and a plane of background unknown, for shot noise and read noise.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.low_light import OF_MEAN, detected
from benchmarks.reporting import save
from engines.factory import open_engine
from engines.settings import DetectorSettings

BRIGHTER = (1.0, 10.0)
"""Light over that of the pipeline."""
GRADIENTS = (0.0, 0.8)
"""From one side of the image to the other, over the light in its middle."""
SEED = 4711
STEPS = (0.05, 0.05, 3e-8, 0.02)
"""px, px, m, and of the intensity, for derivatives."""


def make_models(folder: Path) -> None:
    """Run the product's command for each kind."""
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = Path(__file__).with_name("low_light_others_pipeline.py")
    for kind in ("bead", "sphere"):
        command = [sys.executable, "-m", "liveptv", "train", "--images", f"{pipeline}:{kind}"]
        subprocess.run([*command, "-o", str(folder / f"{kind}.h5"), "--overwrite"], check=True)


def row_of(engine: Any, kind: str, brighter: float, gradient: float, count: int) -> dict[str, Any]:
    """Errors (px) over images of one kind in one light, their bound and what is stated."""
    from benchmarks import low_light_others_pipeline as scene

    rng = np.random.default_rng([SEED, kind == "bead", int(brighter), int(10 * gradient)])
    v, u = np.mgrid[-1 : 1 : scene.SIZE * 1j, -1 : 1 : scene.SIZE * 1j]
    read = (scene.READ_GREY / scene.GAIN) ** 2
    radii = scene.BEAD_RADIUS_M if kind == "bead" else scene.SPHERE_RADIUS_M
    images, true, bounds = [], [], []
    for _ in range(count):
        angle = rng.uniform(-np.pi, np.pi)
        lamp = brighter * (1 + 0.5 * gradient * (u * np.cos(angle) + v * np.sin(angle)))
        what = [*rng.normal(scene.HALF, 1.0, 2), rng.uniform(*radii), rng.uniform(*scene.BEAD_INTENSITY)]
        mean = lamp * scene.seen(kind, *what)
        terms = [np.ones_like(u), u, v]
        for number, step in enumerate(STEPS[: 4 if kind == "bead" else 3]):
            sides = []
            for sign in (1, -1):
                moved = list(what)
                moved[number] += sign * step
                sides.append(lamp * scene.seen(kind, *moved))
            terms.append((sides[0] - sides[1]) / (2 * step))
        if kind != "bead":
            terms.append(mean - np.median(mean))  # brightness, which the fit leaves free
        rows = np.array(terms).reshape(len(terms), -1)
        rows /= np.sqrt((rows**2).sum(axis=1, keepdims=True))
        norms = np.sqrt((np.array(terms[3:5]).reshape(2, -1) ** 2).sum(axis=1))
        covariance = np.linalg.inv((rows / (mean.ravel() + read)) @ rows.T)
        bounds.append(np.sqrt(np.diagonal(covariance)[3:5]) / norms)
        grey = scene.OFFSET + scene.GAIN * rng.poisson(mean) + rng.normal(0, scene.READ_GREY, mean.shape)
        images.append(np.clip(np.rint(grey), 0, 65535).astype(np.uint16))
        true.append(what[:2])
    found = detected(engine, images)
    missed = [each is None for each in found]
    there = np.array([(np.nan,) * 6 if each is None else each for each in found])
    off = there[:, :2] - np.array(true)
    pull2 = (off / there[:, 2:4]) ** 2
    return {
        "kind": kind,
        "light": brighter,
        "gradient": gradient,
        "images": count,
        "missed": int(np.sum(missed)),
        "bound": OF_MEAN * float(np.mean(bounds)),
        "liveptv": float(np.nanmean(np.abs(off))),
        "over_bound": float(
            np.nanmean(np.abs(off)) / (OF_MEAN * np.mean(np.array(bounds)[~np.array(missed)]))
        ),
        "over_stated": float(np.sqrt(np.nanmedian(pull2) / 0.4549)),
        "over_stated_rms": float(np.sqrt(np.nanmean(pull2))),
    }


def main() -> None:
    """Make models, or measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("models", "measure"))
    parser.add_argument("--models", type=Path, default=Path(".work/low_light_others"))
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.what == "models":
        make_models(given.models)
        return
    settings = DetectorSettings(threshold=2.0, min_confidence=0.05, workers=1)
    rows = []
    for kind in ("bead", "sphere"):
        engine = open_engine(settings, model=given.models / f"{kind}.h5", pixel_size_um=0.1)
        engine.warmup(51, 51, np.dtype(np.uint16))
        for brighter in BRIGHTER:
            for gradient in GRADIENTS:
                rows.append(row_of(engine, kind, brighter, gradient, given.images))
                print(
                    {k: round(v, 4) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True
                )
        engine.close()
    if given.out is not None:
        save(given.out, rows)


if __name__ == "__main__":
    main()
