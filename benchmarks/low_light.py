"""DeepTrack 1's own test: one particle in 51 x 51 px at low light, flat and uneven; error of place over the bound.

    python benchmarks/low_light.py models            # `liveptv train --images ... -o KIND.h5` for the four kinds
    python benchmarks/low_light.py measure [--images 40] [--deeptrack1 network.h5] [--out low_light.json]

Images and bound: `low_light_scene`. Ours is what `liveptv detect` does with these models: matched filters and the
fit. There is one particle in each image, within a few px of its middle, which DeepTrack 1's network knows from its
training. So the surest detection within 5 px of the middle counts, down to a threshold of 2 standard errors; where
there is none, the middle counts. Peers are given the same images.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.low_light_peers import centroid, radial_symmetry
from benchmarks.low_light_scene import SIZE, Particle, bound_px, clean, draw_particle, photons
from benchmarks.reporting import save
from engines.engine import Engine
from engines.factory import open_engine
from engines.settings import DetectorSettings
from stream.messages import Frame, FrameInfo

KINDS = {"bright_spots": (1, 1), "dark_spots": (1, -1), "bright_rings": (2, 1), "dark_rings": (2, -1)}
SNRS = (3, 5, 10, 20, 50, 100)
GRADIENTS = (0.0, 0.8)
PIXEL_UM = 0.1
HALF = SIZE // 2
OF_MEAN = float(np.sqrt(2 / np.pi))
"""Mean absolute error of a normal distribution over its standard deviation."""
NEAR_PX = 5.0
"""px from the middle: five standard deviations of where particles are."""
SEED = 3011


def make_models(folder: Path) -> None:
    """Run the product's command for each kind."""
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = Path(__file__).with_name("low_light_pipeline.py")
    for kind in KINDS:
        command = [sys.executable, "-m", "liveptv", "train", "--images", f"{pipeline}:{kind}"]
        subprocess.run([*command, "-o", str(folder / f"{kind}.h5"), "--overwrite"], check=True)


def images_of(kind: str, snr: float, gradient: float, count: int) -> list[tuple[Particle, Any]]:
    """Particles and their images, from seeds of their own."""
    order, sign = KINDS[kind]
    rng = np.random.default_rng([SEED, order, sign + 1, int(10 * gradient), int(snr)])
    drawn = []
    for _ in range(count):
        p = draw_particle(rng, gradient, (order,), (sign,))
        drawn.append((p, photons(clean(p), snr, rng)))
    return drawn


def detected(engine: Engine, images: list[Any]) -> list[tuple[float, ...] | None]:
    """x, y, their stated errors (px), the radius and its stated error, of the surest detection of each image."""
    found: list[tuple[float, ...] | None] = []
    for number, image in enumerate(images):
        info = FrameInfo("low light", number, number, 0.01 * number, 0, 0.0, pixel_size_um=PIXEL_UM)
        engine.submit(Frame(info, image))
        results = []
        while not results:
            results = engine.results(1.0)
        table = results[0]
        away = np.hypot(table.x_um / PIXEL_UM - HALF, table.y_um / PIXEL_UM - HALF)
        if not (away < NEAR_PX).any():
            found.append(None)
            continue
        best = int(np.argmax(np.where(away < NEAR_PX, table.confidence, -1.0)))
        own = table.properties.of([best])
        radius = (float(own.values[0, 0]), float(own.errors[0, 0])) if len(own) else (np.nan, np.nan)
        place = (table.x_um[best], table.y_um[best], table.sigma_x_um[best], table.sigma_y_um[best])
        found.append((*(float(value) / PIXEL_UM for value in place), *radius))
    return found


def row_of(
    engine: Engine, kind: str, snr: float, gradient: float, count: int, network: Any
) -> dict[str, Any]:
    """Mean absolute errors (px) of all methods on the same images, and the bound's."""
    drawn = images_of(kind, snr, gradient, count)
    images = [image for _, image in drawn]
    true = np.array([(p.x_px, p.y_px) for p, _ in drawn])
    ours = detected(engine, images)
    missed = np.array([each is None for each in ours])
    there = np.array(
        [(HALF, HALF, np.nan, np.nan, np.nan, np.nan) if each is None else each for each in ours]
    )
    off = there[:, :2] - HALF - true
    radius = np.array([p.radius_px for p, _ in drawn])
    bounds = np.array([bound_px(p, snr) for p, _ in drawn])
    row: dict[str, Any] = {
        "kind": kind,
        "snr": snr,
        "gradient": gradient,
        "images": count,
        "bound": OF_MEAN * float(bounds.mean()),
        "liveptv": float(np.abs(off).mean()),
        "missed": int(missed.sum()),
        "over_stated": float(np.sqrt(np.nanmedian((off / there[:, 2:4]) ** 2) / 0.4549)),
        "radius": float(np.nanmean(np.abs(there[:, 4] - radius))),
        "radius_over_stated": float(
            np.sqrt(np.nanmedian(((there[:, 4] - radius) / there[:, 5]) ** 2) / 0.4549)
        ),
    }
    scaled = [image / snr**2 for image in images]
    for name, method in (("radial_symmetry", radial_symmetry), ("centroid", centroid)):
        row[name] = float(np.abs(np.array([method(image) for image in scaled]) - true).mean())
    if network is not None:
        row["deeptrack1"] = float(np.abs(network(np.array(scaled)) - true).mean())
    return row


def measure(folder: Path, count: int, deeptrack1: Path | None) -> list[dict[str, Any]]:
    """All rows."""
    network = None
    if deeptrack1 is not None:
        from engines.comparison.deeptrack1 import DeepTrack1

        network = DeepTrack1(deeptrack1)
    settings = DetectorSettings(threshold=2.0, min_confidence=0.05, workers=1)
    rows = []
    for kind in KINDS:
        engine = open_engine(settings, model=folder / f"{kind}.h5", pixel_size_um=PIXEL_UM)
        engine.warmup(SIZE, SIZE, np.dtype(np.uint16))
        for gradient in GRADIENTS:
            for snr in SNRS:
                rows.append(row_of(engine, kind, snr, gradient, count, network))
                print(
                    {k: round(v, 4) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True
                )
        engine.close()
    return rows


def summary(rows: list[dict[str, Any]]) -> None:
    """The table of all kinds together."""
    names = ["liveptv", "radial_symmetry", "centroid"] + (["deeptrack1"] if "deeptrack1" in rows[0] else [])
    for gradient in GRADIENTS:
        for snr in SNRS:
            mine = [row for row in rows if row["snr"] == snr and row["gradient"] == gradient]
            mean = {name: float(np.mean([row[name] for row in mine])) for name in ("bound", *names)}
            print(
                gradient,
                snr,
                {k: round(v, 4) for k, v in mean.items()},
                round(mean["liveptv"] / mean["bound"], 3),
            )


def main() -> None:
    """Make models, or measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("models", "measure"))
    parser.add_argument("--models", type=Path, default=Path(".work/low_light"))
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--deeptrack1", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.what == "models":
        make_models(given.models)
        return
    rows = measure(given.models, given.images, given.deeptrack1)
    summary(rows)
    if given.out is not None:
        save(given.out, rows)


if __name__ == "__main__":
    main()
