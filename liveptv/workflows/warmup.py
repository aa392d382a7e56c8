"""Compiles, once per installation, what live runs and detection need: each part in a process, on all cores."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from stream.errors import LivePTVError

PIXELS = ("uint8", "uint16")
SHAPE = (64, 64)
"""Rows and columns of the images that are looked at: what is compiled does not depend on them."""
SLICES = 6
POLL_S = 0.25
"""s between two reports of the time that has passed."""


def _fit() -> None:
    from engines.refine.compiling import compile_fit

    compile_fit()


def _tracker() -> None:
    from tracking.settings import TrackerSettings
    from tracking.tracker import OnlineTracker
    from tracking.trajectories import precision

    for rule in ("likelihood", "paper"):
        OnlineTracker(TrackerSettings(double_test=rule)).warmup()
    OnlineTracker(TrackerSettings()).warmup_switching()
    precision.warmup()


def _flow() -> None:
    import numpy as np

    from tracking.physics.channel.parameters import prior_of
    from tracking.physics.live.follower import FlowFollower
    from tracking.physics.sections.choice import profile_of
    from tracking.physics.sections.shapes import Rectangle

    section = Rectangle(2.0, 1.0)
    FlowFollower(section, prior_of(section), in_thread=False)
    profile_of(section).at(np.zeros(1), np.full(1, 0.5))


def _network() -> None:
    import numpy as np
    import tifffile

    from engines.factory import pixel_size_of
    from engines.network.engine import NetworkEngine
    from engines.settings import DetectorSettings
    from liveptv.models import SHIPPED_MODEL

    pixel_size_um = pixel_size_of(SHIPPED_MODEL)
    assert pixel_size_um is not None
    with tempfile.TemporaryDirectory() as folder:
        bright = Path(folder) / "bright.tif"
        tifffile.imwrite(bright, np.full(SHAPE, 200, np.uint8))
        for reference in (None, bright):
            settings = DetectorSettings(refine=False, workers=1, bright=reference)
            engine = NetworkEngine(settings, pixel_size_um, SHIPPED_MODEL)
            for pixels in PIXELS:
                engine.warmup(*SHAPE, np.dtype(pixels))
            engine.close()


def _classical() -> None:
    import numpy as np

    from engines.classical.engine import ClassicalEngine
    from engines.settings import DetectorSettings
    from liveptv.workflows.demo import make_width_curve

    with tempfile.TemporaryDirectory() as folder:
        curve = Path(folder) / "curve.h5"
        make_width_curve(curve, lambda _text: None)
        for model, pixel_size_um in ((None, 1.0), (curve, _pixel_size_um())):
            engine = ClassicalEngine(DetectorSettings(workers=1), pixel_size_um, model)
            for pixels in PIXELS:
                engine.warmup(*SHAPE, np.dtype(pixels))
            engine.close()


def _volumes() -> None:
    import numpy as np

    from engines.settings import DetectorSettings
    from engines.volumes.engine import VolumeEngine

    for kind in ("auto", "sef3d"):
        engine = VolumeEngine(DetectorSettings(engine=kind, workers=1), 1.0, say=lambda _text: None)
        for pixels in PIXELS:
            engine.warmup(*SHAPE, np.dtype(pixels), SLICES)
        engine.close()


def _pixel_size_um() -> float:
    from acquisition.physics.optics import OpticsModel

    return OpticsModel().pixel_size_um


def _camera() -> None:
    from acquisition.physics.image_table import load_bank
    from acquisition.physics.optics import OpticsModel
    from acquisition.physics.rendering import Renderer

    bank = load_bank(OpticsModel())
    for pixels in PIXELS:
        Renderer(bank, SHAPE, pixels).warmup()


PARTS: dict[str, Callable[[], None]] = {
    "fit": _fit,
    "tracker": _tracker,
    "detector for volumes": _volumes,
    "classical detector": _classical,
    "network": _network,
    "simulated camera": _camera,
    "flow": _flow,
}
"""What is compiled, the longest first; no kernel is in two parts."""


def _compiles(part: Callable[[], object]) -> bool:
    """Compile one part; whether anything had to be compiled for it."""
    from liveptv.session.compilation import noticing_compilation

    noticed: list[bool] = []
    with noticing_compilation(lambda: noticed.append(True)):
        part()
    return bool(noticed)


@dataclass(frozen=True, slots=True)
class Warmed:
    """How long it took, s, where the compiled kernels are, and whether anything had to be compiled."""

    seconds: float
    folders: list[Path]
    compiled: bool


def warm_up(
    show: Callable[[list[str], float], None], parts: dict[str, Callable[[], None]] | None = None
) -> Warmed:
    """Compile all `parts`; those that are compiled already take a second.

    `show` gets, some times a second, the parts that are not done and the seconds that have passed. Raises
    `LivePTVError` with the part that failed, after the others are done.
    """
    from liveptv.kernel_cache import cache_folders

    todo = PARTS if parts is None else parts
    began_s = time.monotonic()
    failed: list[str] = []
    compiled = False
    workers = min(len(todo), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        running: dict[Future[bool], str] = {pool.submit(_compiles, part): name for name, part in todo.items()}
        while running:
            show(list(running.values()), time.monotonic() - began_s)
            done, _ = wait(running, timeout=POLL_S, return_when=FIRST_COMPLETED)
            for future in done:
                name = running.pop(future)
                error = future.exception()
                if error is not None:
                    failed.append(f"{name} ({' '.join(f'{type(error).__name__}: {error}'.split())})")
                else:
                    compiled = compiled or future.result()
    if failed:
        raise LivePTVError(f"not everything could be compiled: {'; '.join(failed)}")
    return Warmed(time.monotonic() - began_s, cache_folders(), compiled)
