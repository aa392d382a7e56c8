"""`liveptv bench engine`: how fast detection is on every back end that can run here.

Each case runs in its own process, on simulated images with shading and noise.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from acquisition.physics.image_table import load_bank
from acquisition.physics.optics import OpticsModel
from acquisition.physics.rendering import Renderer
from engines.backends.quantised import why_not_quantised
from engines.backends.registry import BACK_ENDS, ONNXRUNTIME, BackEnd
from engines.network.model import OnnxModel
from engines.settings import DetectorSettings
from liveptv.bench.engine_case import Case, measure
from liveptv.bench.machine import measure_limits, processor
from liveptv.models import SHIPPED_MODEL
from stream.errors import LivePTVError

Size = tuple[int, int]
Row = dict[str, Any]

FULL: Size = (1440, 2560)
SIZES: tuple[Size, ...] = ((512, 512), (1024, 1024), FULL, (2048, 2048), (4096, 4096))
FEW, MANY = 200, 5000
FRAMES = 4  # different frames, used over and over; enough that not all are in a cache at full size
REFERENCES = 16  # frames averaged for the bright reference; its noise is then a quarter of a frame's
SNR = 5.6  # of the images in Franchini & Krevor (2020)
SHADING = 0.2  # relative decrease of the light towards the corners
WAYS = ("predicted", "searched", "ghosts")  # what particles came from, as counted by the engine
LARGE = "large (random weights)"


@dataclass(frozen=True, slots=True)
class Plan:
    """`models` by name; `seconds` for each case, half as long again for its latency.

    With `large` a large network with random weights is timed too, if the libraries to make one are installed.
    """

    models: dict[str, Path]
    sizes: Sequence[Size] = SIZES
    full: Size = FULL
    particles: tuple[int, int] = (FEW, MANY)
    seconds: float = 3.0
    large: bool = True


def parse_sizes(text: str) -> list[Size]:
    """Sizes (height, width) from "512x512,1440x2560". Raises `ValueError` for anything else."""
    sizes = []
    for part in text.split(","):
        height, width = (int(number) for number in part.strip().lower().split("x"))
        if not (16 <= height <= 16384 and 16 <= width <= 16384):
            raise ValueError(f"{part} is not between 16 and 16384 pixels")
        sizes.append((height, width))
    return sizes


def measure_engines(plan: Plan, say: Callable[[str], None]) -> list[Row]:
    """Rows of all cases, each with the machine's limits measured beside them.

    A case that fails is reported and left out. Raises `LivePTVError` if all fail.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="liveptv-engine-")))
        models = dict(plan.models)
        if plan.large and find_spec("torch") and find_spec("onnxscript"):
            models[LARGE] = _alone(make_large, folder / "large.onnx")
        limits = asdict(_alone(measure_limits))
        machine = f"{processor()}, {platform.system()}, Python {platform.python_version()}"
        say(
            f"{machine}: {limits['sgemm_gflop_s']} GFLOP/s of a thread, {limits['sgemm_all_gflop_s']} of "
            f"{limits['threads']}; copies {limits['copy_gb_s']} and {limits['copy_all_gb_s']} GB/s"
        )
        rows: list[Row] = []
        for kind, case in _cases(plan, models, folder, say):
            try:
                row = _alone(measure, case)
            except (LivePTVError, BrokenProcessPool, RuntimeError) as error:
                say(f"{case.backend} ({case.device}) on {case.name}: {error}")
                continue
            rows.append({"case": kind} | row | {"machine": machine} | limits)
            say(_line(rows[-1]))
    if not rows:
        raise LivePTVError("no back end could be measured; see the lines above")
    return rows


def default_models() -> dict[str, Path]:
    """The network that comes with liveptv."""
    return {"small (shipped)": SHIPPED_MODEL}


def _alone(work: Callable[..., Any], *arguments: Any) -> Any:
    """Run it in a fresh process, without memory or threads of another case."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def make_large(path: Path) -> Path:
    """A large network with random weights, for timing only; its detections are meaningless."""
    import torch

    from calibration.training.export import export
    from engines.network.architecture import ParticleNet

    torch.manual_seed(0)
    shipped = OnnxModel(SHIPPED_MODEL)
    card = shipped.card.model_copy(update={"size": "large", "made_from": "random weights"})
    export(path, ParticleNet("large").state_dict(), card)
    return path


def _cases(
    plan: Plan, models: dict[str, Path], folder: Path, say: Callable[[str], None]
) -> Iterator[tuple[str, Case]]:
    """Back ends on full frames; few and many particles; sizes at the same number of particles a pixel."""
    few, many = plan.particles
    workers = sorted({1, os.cpu_count() or 1})
    for name, model in models.items():
        opened = OnnxModel(model)
        frames, bright = rendered_frames(folder, plan.full, few)
        common = Case(ONNXRUNTIME.name, "cpu", "full", model, name, opened.card.pixel_size_um, frames, bright)
        common = replace(common, particles=few, seconds=plan.seconds)
        cases = []
        for back_end, precision in _available(model, name, say):
            case = replace(common, backend=back_end.name, device=back_end.device, precision=precision)
            if not back_end.automatic:
                yield "back end", case
                continue
            cases.append(case)
            for number in workers if back_end.device == "cpu" else workers[:1]:
                yield "back end", replace(case, workers=number)
                if opened.psf() is not None:
                    yield "back end", replace(case, workers=number, refine=True)
        if cases and cases[0].device == "cpu" and opened.psf() is not None:
            flow = rendered_frames(folder, plan.full, few, is_flow=True)[0]
            told = replace(cases[0], frames=flow, bright=None, refine=True, workers=workers[-1])
            for prediction in ("off", "auto"):
                yield "prediction", replace(told, prediction=prediction)
        for case in cases:
            yield (
                "particles",
                replace(case, frames=rendered_frames(folder, plan.full, many)[0], particles=many),
            )
        for size in plan.sizes if name != LARGE else ():
            particles = max(1, round(few * size[0] * size[1] / (plan.full[0] * plan.full[1])))
            frames, bright = rendered_frames(folder, size, particles)
            yield "size", replace(cases[0], frames=frames, bright=bright, particles=particles)


def _available(model: Path, name: str, say: Callable[[str], None]) -> Iterator[tuple[BackEnd, str]]:
    """The back ends that can run a model, with the precisions that they offer; says why others cannot."""
    for back_end in BACK_ENDS:
        reason = back_end.why_not(DetectorSettings(), model)
        if reason:
            say(f"{back_end} on {name}: {reason}")
            continue
        reduced = back_end.device != "cpu" or (back_end.name == "openvino" and not why_not_quantised(model))
        if reduced:
            yield back_end, "reduced"
        yield back_end, "full"


def rendered_frames(folder: Path, size: Size, particles: int, *, is_flow: bool = False) -> tuple[Path, Path]:
    """Rendered frames (N, H, W) uint8 of a size, .npy, and a bright reference, .tif; made once.

    Those of a flow (`bench.flow_case`) show the same particles with different noise, in even light.
    """
    name = f"{size[0]}x{size[1]}"
    kind = "_flow" if is_flow else ""
    frames, bright = folder / f"{name}_{particles}{kind}.npy", folder / f"{name}_bright.tif"
    if frames.exists():
        return frames, bright
    optics, rng = OpticsModel(), np.random.default_rng(particles)
    renderer = Renderer(
        load_bank(optics), size, np.uint8, snr=SNR, shading=0.0 if is_flow else SHADING, seed=1
    )
    images = np.empty((FRAMES, *size), np.uint8)
    for number, image in enumerate(images):
        if not (is_flow and number):
            x, y = (rng.uniform(0, optics.pixel_size_um * pixels, particles) for pixels in size[::-1])
            z = rng.uniform(-optics.visible_um, optics.visible_um, particles)
        renderer.render(x, y, z, image)
    np.save(frames, images)
    if not (bright.exists() or is_flow):
        nothing, empty, mean = np.empty(0), np.empty(size, np.uint8), np.zeros(size, np.float32)
        for _ in range(REFERENCES):
            renderer.render(nothing, nothing, nothing, empty)
            mean += empty / REFERENCES
        tifffile.imwrite(bright, mean)
    return frames, bright


def _line(row: Row) -> str:
    return (
        f"{row['backend']} ({row['device']}, {row['precision']}) {row['model']}, {row['height']} x {row['width']}, "
        f"{row['particles']} particles{', refined' if row['refine'] else ''}, {row['workers']} at a time: "
        f"{row['frames_per_s']:.1f} frames/s{_by_prediction(row)}"
    )


def _by_prediction(row: Row) -> str:
    if "prediction" not in row:
        return ""
    ways = [f"{row[key]:.1f} {way}" for way in WAYS if (key := f"{way}_per_frame") in row]
    read = [f"{100 * row['pixels_read']:.1f} % of the pixels read"] if "pixels_read" in row else []
    cost = f"{row['cpu_ms_per_frame']:.1f} ms of a processor a frame"
    return f", a flow with prediction {row['prediction']}: {', '.join([cost, *ways, *read])}"
