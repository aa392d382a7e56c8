"""Images a second that DeepTrack draws, by kind of object, beside our own renderers, in one run and on one thread.

Each image has 128 x 128 pixels and 5 objects at random places and depths; DeepTrack's are drawn by pipelines as its
users write them: one optics, one object many times (`^`), resolved anew for each image. Ours: `Rendered` draws
particles from a PSF model, with noise, in batches; holograms come from the Mie series
(`acquisition.physics.hologram`). Times are of the processor, medians over repetitions taken in turns. Needs the
extra `deeptrack`.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from reporting import save

from acquisition.physics.hologram import HologramOptics, hologram_model
from acquisition.physics.optics import OpticsModel
from calibration.synthesis import Layout, Rendered
from calibration.synthesis.from_optics import background_for, model_from_optics, noise_for_snr

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import deeptrack as dt

SIDE, OBJECTS = 128, 5
REPETITIONS = 5
DRAWN_EACH = 4
BATCH = 64
PIXEL_UM = 0.1

Draw = Callable[[], int]
"""Draws some images and returns how many."""


def anywhere(depth_um: float) -> dict[str, Any]:
    return {
        "position": lambda: np.random.uniform(0, SIDE, 2),  # noqa: NPY002 (DeepTrack's own way)
        "z": lambda: np.random.uniform(-depth_um, depth_um) / PIXEL_UM,  # noqa: NPY002
    }


def optics(kind: Any, padding: int, **settings: Any) -> Any:
    return kind(
        NA=1.2,
        wavelength=0.633e-6,
        resolution=PIXEL_UM * 1e-6,
        magnification=1,
        refractive_index_medium=1.33,
        output_region=(0, 0, SIDE, SIDE),
        padding=(padding,) * 4,
        **settings,
    )


def of_deeptrack() -> dict[str, Draw]:
    sphere = {"radius": 0.23e-6, "refractive_index": 1.58}
    objects = {
        "fluorescent points": (dt.Fluorescence, 32, dt.PointParticle(intensity=1.0, **anywhere(2.0))),
        "fluorescent spheres, 0.5 um": (
            dt.Fluorescence,
            32,
            dt.Sphere(radius=0.25e-6, intensity=1.0, **anywhere(2.0)),
        ),
        "fluorescent rods, 2 um": (
            dt.Fluorescence,
            32,
            dt.Ellipsoid(
                radius=(1e-6, 0.3e-6, 0.3e-6),
                rotation=lambda: np.random.uniform(0, 2 * np.pi),  # noqa: NPY002
                intensity=1.0,
                **anywhere(2.0),
            ),
        ),
        "holograms, geometric": (dt.Brightfield, 64, dt.MieSphere(**sphere, **anywhere(5.0))),
        "holograms, hybrid": (dt.Brightfield, 64, dt.MieSphere(mode="hybrid", **sphere, **anywhere(5.0))),
    }
    pipelines = {name: optics(kind, padding)(one ^ OBJECTS) for name, (kind, padding, one) in objects.items()}

    def drawing(pipeline: Any) -> Draw:
        def draw() -> int:
            for _ in range(DRAWN_EACH):
                pipeline.update()
                pipeline.resolve()
            return DRAWN_EACH

        return draw

    return {name: drawing(pipeline) for name, pipeline in pipelines.items()}


def of_ours() -> dict[str, Draw]:
    rng = np.random.default_rng(1)
    density = OBJECTS / SIDE**2
    sources = {}
    for polarity in ("bright", "dark"):
        model = model_from_optics(OpticsModel(polarity=polarity))
        sources[polarity] = Rendered(
            model,
            noise_for_snr(model, 5.6),
            background_for(model),
            Layout(density_per_px=(density, density)),
        )
    holograms = hologram_model(HologramOptics(), 6.4, 5.0)

    def draw_holograms() -> int:
        for _ in range(DRAWN_EACH):
            spheres = np.column_stack(
                [
                    rng.uniform(0, SIDE, (OBJECTS, 2)),
                    rng.uniform(-5, 5, OBJECTS),
                    np.full(OBJECTS, 0.23),
                    np.full(OBJECTS, 1.58),
                ]
            )
            holograms.image(spheres, (SIDE, SIDE))
        return DRAWN_EACH

    return {
        "fluorescent particles, astigmatic": lambda: _of_source(sources["bright"]),
        "bright-field particles, astigmatic": lambda: _of_source(sources["dark"]),
        "holograms": draw_holograms,
    }


def _of_source(source: Rendered) -> int:
    source.draw(np.random.default_rng(2), (SIDE, SIDE), BATCH, np.float32)
    return BATCH


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    draws = {("deeptrack", name): draw for name, draw in of_deeptrack().items()}
    draws |= {("ours", name): draw for name, draw in of_ours().items()}
    times: dict[tuple[str, str], list[float]] = {key: [] for key in draws}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for repetition in range(REPETITIONS + 1):
            for key, draw in draws.items():
                start = time.process_time()
                drawn = draw()
                if repetition:  # the first one compiles and fills caches
                    times[key].append((time.process_time() - start) / drawn)
    rows = []
    for (whose, name), seconds in times.items():
        median = float(np.median(seconds))
        row = {"whose": whose, "objects": name, "shape": [SIDE, SIDE], "objects_per_image": OBJECTS}
        row |= {"cpu_ms": 1e3 * median, "images_per_cpu_s": 1 / median, "deeptrack": version("deeptrack")}
        rows.append(row)
        print(f"{whose:<10}{name:<36}{1e3 * median:9.2f} ms of processor an image{1 / median:9.1f} images/s")
    if options.json is not None:
        save(options.json, rows)


if __name__ == "__main__":
    main()
