"""The parts of the GPU's benchmark. Each tells rows as it has them; `Task.limit_s` says how long it may take."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import gpu_machine
import gpu_roads
import numpy as np
from gpu_fit import fit_rows
from gpu_frames import latency, throughput
from gpu_live import live
from gpu_material import PICTURES, SHIPPED, frames_of, large_model, lend_finds, picture
from gpu_roads import Road, Row
from gpu_spent import kernels, spent

from engines.cuda.check import EXACT, HALF, agreement, reference_answer
from engines.cuda.driver.device import open_cuda
from engines.cuda.driver.library import why_no_gpu
from engines.cuda.engine import GpuBackEnd, GpuEngine
from engines.cuda.layout import MOST_PARTICLES, FrameFormat
from engines.cuda.slot import Slot
from engines.cuda.unpacking import kept_slots
from engines.engine import Engine
from engines.flatfield import FlatField
from engines.network.decode import particles_of, slots_of
from engines.network.model import OnnxModel
from liveptv.bench.machine import peak_memory_mib
from stream.errors import LivePTVError

PROCESSOR = "onnxruntime"
CAMERA_HZ = 800.0
"""Full frames/s that the large network should reach."""
LIVE_S, LIVE_START_S = 60.0, 25.0
"""s of a live run, and s that its start and end may take."""
REHEARSED_S = 0.3
"""s of a timing in a rehearsal."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a part is to do: on which road, with which model ("small" or "large"), in how many s."""

    road: str
    model: str
    limit_s: float
    rehearse: bool
    folder: Path
    live_hz: float
    large: Path | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Of the frames, px."""
        return (192, 256) if self.rehearse else (1440, 2560)

    @property
    def particles(self) -> int:
        """On a frame."""
        return 6 if self.rehearse else 200

    @property
    def path(self) -> Path:
        """The model's file."""
        return large_model(self.folder, self.large) if self.model == "large" else SHIPPED

    def the_road(self) -> Road:
        """The road itself."""
        return next(road for road in gpu_roads.roads(rehearse=self.rehearse) if road.name == self.road)

    def back_end(self, *, half: bool) -> GpuBackEnd:
        """What runs networks on the GPU there."""
        opens = self.the_road().back_end
        assert opens is not None, "a road of the processor's"
        return opens(half, self.folder)

    def images(self, count: int = PICTURES) -> list[np.ndarray]:
        """Frames with particles; no two are alike."""
        model = OnnxModel(SHIPPED)
        return [picture(model, self.shape, np.uint8, self.particles, seed) for seed in range(count)]


def machine(task: Task) -> Iterator[Row]:
    """What there is: computer, GPUs, libraries, and of each road whether it can be used."""
    yield {"computer": gpu_machine.computer(), "gpus": gpu_machine.gpus(), "versions": gpu_machine.versions()}
    no_gpu = why_no_gpu()
    for road in gpu_roads.roads(rehearse=task.rehearse):
        reason = road.why_not()
        tried = bool(reason) and road.may_be_tried and not no_gpu
        yield {"road": road.name, "usable": not reason, "why_not": reason, "could_be_tried": tried}


def prepare(task: Task) -> Iterator[Row]:
    """Compile what runs on the processor, which takes a minute the first time, so that no other part has to."""
    begun_s = time.perf_counter()
    processor = gpu_roads.roads(rehearse=task.rehearse)[-1]
    with closing(processor.open(SHIPPED, task.folder, half=False, refine=True)) as engine:
        engine.warmup(*task.shape, np.dtype(np.uint8))
        throughput(engine, frames_of(task.images(2)), 0.0)
    yield {"compiled_s": time.perf_counter() - begun_s}


def start(task: Task) -> Iterator[Row]:
    """The start of an engine: the first builds and compiles, the second (another part) uses what was kept."""
    for half in (True, False):
        yield _started(task, half=half)[1]


def _started(task: Task, *, half: bool) -> tuple[Engine, Row]:
    """An engine ready for frames, without a fit, and how long that took."""
    begun_s = time.perf_counter()
    engine = task.the_road().open(task.path, task.folder, half=half, refine=False)
    opened_s = time.perf_counter() - begun_s
    engine.warmup(*task.shape, np.dtype(np.uint8))
    row = {"what": "start", "half": half, "open_s": opened_s, "start_s": time.perf_counter() - begun_s}
    row["agreement"] = engine.info.details.get("agreement", "")
    row["said"], gpu_roads.said[:] = list(gpu_roads.said), []
    return engine, row | {"device": engine.info.device}


def agrees(task: Task) -> Iterator[Row]:
    """Frames of 8 bits, and of 16 bits with a flat field, by the road and by ONNX Runtime on the processor."""
    model, shape = OnnxModel(task.path), task.shape if task.rehearse else (720, 1280)
    for half in (True, False):
        back_end = task.back_end(half=half)
        for dtype, flat in ((np.uint8, False), (np.uint16, True)):
            yield _agreement(back_end, task.path, model, shape, dtype, flat, task.particles)


def _agreement(
    back_end: GpuBackEnd,
    path: Path,
    model: OnnxModel,
    shape: tuple[int, int],
    dtype: type,
    flat: bool,
    particles: int,
) -> Row:
    limit = HALF if back_end.half else EXACT
    across = np.linspace(0.8, 1.0, shape[1]) if flat else np.ones(shape[1])
    field = FlatField(np.iinfo(dtype).max * np.broadcast_to(across, shape)) if flat else None
    frame = FrameFormat.of(shape, np.dtype(dtype), flat, MOST_PARTICLES, model.card.kinds)
    row: Row = {
        "what": "agreement",
        "half": back_end.half,
        "bits": 8 * frame.bytes_per_pixel,
        "flat_field": flat,
    }
    row |= dict.fromkeys(("sure", "missed", "invented"), 0) | dict.fromkeys(("xy_px", "z_um"), 0.0)
    with closing(Slot(back_end.device, back_end.runner(path, model, frame, field))) as slot:
        for seed in range(2):
            drawn = picture(OnnxModel(SHIPPED), shape, dtype, particles, seed)
            image = np.rint(drawn * across).astype(dtype)
            slot.fill(image)
            answer = slot.answer()
            answer.check()
            slots = kept_slots(answer, slot.frame) if answer.complete else slots_of(slot.maps())
            found = agreement(
                reference_answer(model, image, field).particles, particles_of(slots), model.card
            )
            for name in ("sure", "missed", "invented"):
                row[name] += getattr(found, name)
            for name in ("xy_px", "z_um"):
                row[name] = max(row[name], getattr(found, name))
    near = row["xy_px"] <= limit.xy_px and row["z_um"] <= limit.z_um
    row["passed"] = bool(near and max(row["missed"], row["invented"]) <= limit.missed * row["sure"])
    return row


def speed(task: Task) -> Iterator[Row]:
    """Second start, what a frame's time is spent on, frames/s and latency without and with the fit, memory."""
    on_gpu = task.the_road().back_end is not None
    seconds = REHEARSED_S if task.rehearse else task.limit_s / (30.0 if on_gpu else 12.0)
    images = task.images()
    for half in (True, False) if task.road != PROCESSOR else (False,):
        before_mib = gpu_machine.memory_used_mib()
        engine, row = _started(task, half=half)
        yield row
        with closing(engine):
            yield {"what": "engine", "half": half, "fit": ""} | _engine_row(task, engine, images, seconds)
            after_mib = gpu_machine.memory_used_mib()
        gpu_mib = None if before_mib is None or after_mib is None else after_mib - before_mib
        yield {"what": "memory", "half": half, "host_mib": peak_memory_mib(), "gpu_mib": gpu_mib}
        for where in (("gpu", "processor") if half else ()) if on_gpu else ("processor",):
            yield _with_fit(task, images, where, half=half, seconds=seconds)
        if on_gpu:
            back_end = task.back_end(half=half)
            yield {"what": "spent", "half": half} | spent(back_end, task.path, task.shape, images[0], seconds)


def _with_fit(task: Task, images: list[np.ndarray], where: str, *, half: bool, seconds: float) -> Row:
    row: Row = {"what": "engine", "half": half, "fit": where}
    try:
        engine = task.the_road().open(task.path, task.folder, half=half, refine=True, fit=where)
        with closing(engine):
            engine.warmup(*task.shape, np.dtype(np.uint8))
            return row | _engine_row(task, engine, images, seconds)
    except (LivePTVError, RuntimeError) as error:
        return row | {"failed": " ".join(str(error).split())}


def _engine_row(task: Task, engine: Engine, images: list[np.ndarray], seconds: float) -> Row:
    """Frames/s, then latency at a camera's rate. A network with random weights borrows what the small one finds."""
    row: Row = {"particles": task.particles, "shape": list(task.shape)}
    if task.model == "large" and task.large is None and isinstance(engine, GpuEngine):
        lend_finds(engine, task.the_road().open(SHIPPED, task.folder, half=True, refine=False), images)
        row["finds"] = "of the small network"
    frames = frames_of(images)
    throughput(engine, frames, 0.3 * seconds)
    row |= throughput(engine, frames, seconds)
    return row | latency(engine, frames, min(CAMERA_HZ, 0.8 * row["frames_per_s"]), seconds)


def live_run(task: Task) -> Iterator[Row]:
    """The simulated microscope through the whole program, for a minute, on this road."""
    road = task.the_road()
    detector = {"backend": "onnxruntime"} if task.rehearse else {"device": "gpu", **road.settings}
    shape, particles = ((192, 256), 6) if task.rehearse else ((1440, 2560), 200)
    seconds = 5.0 if task.rehearse else min(LIVE_S, max(5.0, task.limit_s - LIVE_START_S))
    # full TensorRT runs what the part `start` has built, which it finds beside the model
    model = task.folder / road.name / SHIPPED.name
    model.parent.mkdir(exist_ok=True)
    shutil.copyfile(SHIPPED, model)
    yield live(model, detector, shape, particles, task.live_hz, seconds, task.folder, rehearse=task.rehearse)


def fit(task: Task) -> Iterator[Row]:
    """The fit by its kernel, for three numbers of particles, through the driver alone."""
    device = gpu_roads.stand_in_device(task.folder) if task.rehearse else open_cuda()
    counts = (2, 6) if task.rehearse else (50, 200, 500)
    yield from fit_rows(device, task.shape, counts, 1 if task.rehearse else 20)


def kernel_times(task: Task) -> Iterator[Row]:
    """Which kernels of the torch program take the time."""
    yield kernels(task.path, task.shape, task.images(1)[0])


PARTS: dict[str, Callable[[Task], Iterator[Row]]] = {
    "machine": machine,
    "prepare": prepare,
    "start": start,
    "agreement": agrees,
    "speed": speed,
    "fit": fit,
    "live": live_run,
    "kernels": kernel_times,
}
