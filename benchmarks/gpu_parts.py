"""The parts of the GPU's benchmark: is it right, how fast is it, what takes the time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from gpu_material import SHIPPED, Image, picture

from engines.cuda.check import EXACT, HALF, agreement, reference_answer
from engines.cuda.engine import GpuBackEnd, GpuEngine
from engines.cuda.fit_frame import KernelFit
from engines.cuda.layout import MOST_PARTICLES, FrameFormat
from engines.cuda.slot import SLOTS_IN_FLIGHT, Slot
from engines.cuda.torch_device import tensor_of
from engines.cuda.torch_runner import TorchDevice
from engines.flatfield import FlatField
from engines.network.decode import particles_of, slots_of
from engines.network.model import OnnxModel
from engines.network.postprocessing import to_table
from engines.refine.refiner import NETWORK_SEARCH_UM, Refiner
from engines.settings import DetectorSettings
from stream.messages import Frame, FrameInfo

PICTURES = 8
CAMERA_HZ = 800.0
Row = dict[str, Any]


def check(back_end: GpuBackEnd, path: Path, shape: tuple[int, int], particles: int) -> Iterator[Row]:
    """Every kind of frame, by a back end and by ONNX Runtime; the demands are those on the program."""
    model = OnnxModel(path)
    limit = HALF if back_end.half else EXACT
    for dtype in (np.uint8, np.uint16):
        for flat in (False, True):
            images = [picture(model, shape, dtype, particles, seed) for seed in range(4)]
            across = np.linspace(0.8, 1.0, shape[1])
            field = FlatField(np.iinfo(dtype).max * np.broadcast_to(across, shape)) if flat else None
            if flat:
                images = [np.rint(image * across).astype(dtype) for image in images]
            frame = FrameFormat.of(shape, np.dtype(dtype), flat, MOST_PARTICLES)
            row: Row = {"part": "agreement", "back_end": back_end.name, "half": back_end.half}
            row |= {"bits": 8 * frame.bytes_per_pixel, "flat_field": flat, "shape": list(shape)}
            slot = Slot(back_end.device, back_end.runner(path, model, frame, field))
            for image in images:
                slot.fill(image)
                slot.answer().check()
                reference = reference_answer(model, image, field)
                found = agreement(reference.particles, particles_of(slots_of(slot.maps())), model.card)
                most = {name: getattr(found, name) for name in ("missed", "invented", "xy_px", "z_um")}
                row |= {name: max(row.get(name, 0), value) for name, value in most.items()}
                row["sure"] = row.get("sure", 0) + found.sure
            near = row["xy_px"] <= limit.xy_px and row["z_um"] <= limit.z_um
            row["passed"] = bool(near and row["missed"] + row["invented"] <= limit.missed * row["sure"])
            yield row


def frames_of(images: list[Image]) -> Iterator[Frame]:
    """The images over and over."""
    for number in count():
        yield Frame(FrameInfo("bench", number, number, 0.0, 0, 0.0), images[number % len(images)])


def throughput(engine: GpuEngine, frames: Iterator[Frame], seconds: float) -> Row:
    """Frames/s and processor time with frames always waiting."""
    given = 0
    begun_s, cpu_s = time.perf_counter(), time.process_time()
    while time.perf_counter() < begun_s + seconds:
        engine.submit(next(frames))
        given += 1
        engine.results(0.0)
    while engine.pending:
        engine.results(10.0)
    wall_s, cpu_s = time.perf_counter() - begun_s, time.process_time() - cpu_s
    return {"frames": given, "frames_per_s": given / wall_s, "cpu_ms_per_frame": 1e3 * cpu_s / given}


def latency(engine: GpuEngine, frames: Iterator[Frame], rate_hz: float, seconds: float) -> Row:
    """From handing a frame over until its detections are there, frames coming at a camera's rate; in ms."""
    given_s: list[float] = []
    took_ms: list[float] = []
    begun_s = time.perf_counter()
    late = 0
    for number in range(int(rate_hz * seconds)):
        due_s = begun_s + number / rate_hz
        while (left_s := due_s - time.perf_counter()) > 0:
            for _ in engine.results(min(left_s, 2e-4)):
                took_ms.append(1e3 * (time.perf_counter() - given_s[len(took_ms)]))
        late += time.perf_counter() - due_s > 1 / rate_hz
        given_s.append(max(due_s, begun_s))
        engine.submit(next(frames))
    while engine.pending:
        for _ in engine.results(10.0):
            took_ms.append(1e3 * (time.perf_counter() - given_s[len(took_ms)]))
    p50, p99, most = np.percentile(took_ms, (50, 99, 100))
    names = ("latency_p50_ms", "latency_p99_ms", "latency_max_ms")
    return dict(zip(names, map(float, (p50, p99, most)), strict=True)) | {
        "rate_hz": rate_hz,
        "late": int(late),
    }


def engine_rows(
    back_end: GpuBackEnd,
    path: Path,
    shape: tuple[int, int],
    particles: int,
    seconds: float,
    refine_too: tuple[bool, ...] = (False, True),
) -> Iterator[Row]:
    """The whole engine, frame to detections, with and without the fit."""
    model = OnnxModel(path)
    images = [picture(OnnxModel(SHIPPED), shape, np.uint8, particles, seed) for seed in range(PICTURES)]
    for refine in refine_too:
        settings = DetectorSettings(refine=refine, workers=min(8, os.cpu_count() or 1))
        with closing(GpuEngine(settings, model.card.pixel_size_um, path, back_end)) as engine:
            engine.warmup(*shape, np.dtype(np.uint8))
            frames = frames_of(images)
            throughput(engine, frames, 0.2 * seconds)
            row: Row = {"part": "engine", "back_end": back_end.name, "model": model.card.size}
            row |= {"half": back_end.half, "refine": refine, "particles": particles, "shape": list(shape)}
            row |= {"fit_on": engine.info.details["fit_on"] if refine else ""}
            row |= throughput(engine, frames, seconds)
            rate_hz = min(CAMERA_HZ, 0.8 * row["frames_per_s"])
            yield row | latency(engine, frames, rate_hz, seconds)


def parts_of_a_frame(back_end: GpuBackEnd, path: Path, shape: tuple[int, int], seconds: float) -> Row:
    """Frames/s of the recorded work alone, of one slot and of three, and ms of what the processor does."""
    model = OnnxModel(path)
    image = picture(OnnxModel(SHIPPED), shape, np.uint8, 200, 0)
    frame = FrameFormat.of(shape, np.dtype(np.uint8), False, MOST_PARTICLES)
    runner = back_end.runner(path, model, frame, None)
    slots = [Slot(back_end.device, runner) for _ in range(SLOTS_IN_FLIGHT)]
    row: Row = {"part": "parts", "back_end": back_end.name, "model": model.card.size, "half": back_end.half}
    for number in (1, SLOTS_IN_FLIGHT):
        for slot in slots[:number]:
            slot.fill(image)
        done, begun_s = 0, time.perf_counter()
        while time.perf_counter() < begun_s + seconds:
            slot = slots[done % number]
            slot.answer()
            slot.fill(image)
            done += 1
        row[f"frames_per_s_{number}_slots"] = done / (time.perf_counter() - begun_s)
        for slot in slots[:number]:
            slot.answer()
    sent = np.empty_like(image)
    row["copy_to_pinned_like_ms"] = median_ms(lambda: np.copyto(sent, image))
    slots[0].fill(image)
    slots[0].answer()
    maps = slots[0].maps()
    row["read_all_maps_ms"] = median_ms(slots[0].maps)
    row["decode_ms"] = median_ms(lambda: particles_of(slots_of(maps)))
    return row


def fit_rows(device: TorchDevice, shape: tuple[int, int], counts: tuple[int, ...]) -> Iterator[Row]:
    """The fit of a frame's particles, by one thread of the processor and by the kernel; and how the two agree."""
    model = OnnxModel(SHIPPED)
    particle = model.psf()
    assert particle is not None
    for particles in counts:
        image = picture(model, shape, np.uint8, particles, 0)
        found = reference_answer(model, image)
        table = to_table(found.particles[found.particles[:, -1] >= 0.5], model.card, found.background)
        refiner = Refiner(particle, model.card.pixel_size_um, NETWORK_SEARCH_UM)
        row: Row = {"part": "fit", "particles": particles, "shape": list(shape)}
        tables = []
        for name, fit in (
            ("processor", refiner.fit_all),
            ("kernel", KernelFit(particle, device)),
        ):
            refiner.fit_all = fit
            tables.append(refiner.refine(image, table))
            row[f"{name}_ms"] = median_ms(lambda: refiner.refine(image, table), 5)  # noqa: B023
        one, other = tables
        row["as_many"] = one.shape == other.shape
        if row["as_many"]:
            off = np.quantile(np.abs(one[:3] - other[:3]), 0.99, axis=1)
            row |= {"xy_px": off[:2].max() / model.card.pixel_size_um, "z_um": off[2]}
        yield row


def kernels(path: Path, device: TorchDevice, shape: tuple[int, int]) -> Row:
    """Where a frame's time on the GPU goes: the kernels of the torch program, in us a frame."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from engines.cuda.program import FrameProgram
    from engines.network.torch_model import network_of

    model = OnnxModel(path)
    frame = FrameFormat.of(shape, np.dtype(np.uint8), False, MOST_PARTICLES)
    program = device.place(FrameProgram(network_of(model, str(path)), model.card, frame, half=True).eval())
    raw = tensor_of(device.upload(picture(OnnxModel(SHIPPED), shape, np.uint8, 200, 0)))
    frames = 20
    with torch.inference_mode():
        for _ in range(3):
            program(raw)
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CUDA]) as recorded:
            for _ in range(frames):
                program(raw)
            torch.cuda.synchronize()
    times = {event.key: event.self_device_time_total / frames for event in recorded.key_averages()}
    most = sorted(times.items(), key=lambda item: -item[1])[:15]
    found = {name[:90]: round(us, 1) for name, us in most}
    return {
        "part": "kernels",
        "model": model.card.size,
        "us_a_frame": round(sum(times.values()), 1),
        "us": found,
    }


def copies(shape: tuple[int, int]) -> Row:
    """GB/s of a frame's bytes to the GPU from page-locked memory and back, and within the processor's memory."""
    import torch

    here = torch.zeros(shape, dtype=torch.uint8, pin_memory=True)
    there = torch.zeros(shape, dtype=torch.uint8, device="cuda")
    gigabytes = 1e-9 * here.numel()
    row: Row = {"part": "copies", "bytes": here.numel()}
    for name, target, source in (("to_gpu", there, here), ("from_gpu", here, there)):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        target.copy_(source, non_blocking=True)
        begin.record()
        for _ in range(50):
            target.copy_(source, non_blocking=True)
        end.record()
        torch.cuda.synchronize()
        row[f"{name}_gb_s"] = 50 * gigabytes / (1e-3 * begin.elapsed_time(end))
    a, b = np.ones(shape, np.uint8), np.ones(shape, np.uint8)
    row["in_memory_gb_s"] = gigabytes / (1e-3 * median_ms(lambda: np.copyto(b, a)))
    return row


def with_flat_field(back_end: GpuBackEnd, path: Path, shape: tuple[int, int], folder: Path) -> Row:
    """The start of an engine with references, which compares itself with ONNX Runtime and raises if they differ."""
    model = OnnxModel(path)
    bright = folder / "bright.tif"
    tifffile.imwrite(bright, np.broadcast_to(np.linspace(180, 240, shape[1]), shape).astype(np.float32))
    settings = DetectorSettings(bright=bright, refine=False)
    with closing(GpuEngine(settings, model.card.pixel_size_um, path, back_end)) as engine:
        begun_s = time.perf_counter()
        engine.warmup(*shape, np.dtype(np.uint8))
        started_s = time.perf_counter() - begun_s
        said = engine.info.details["agreement"]
    return {"part": "start", "back_end": back_end.name, "start_s": started_s, "agreement": said}


def median_ms(work: Callable[[], object], times: int = 30) -> float:
    """The median time of `work`."""
    took = []
    for _ in range(times):
        begun_s = time.perf_counter()
        work()
        took.append(1e3 * (time.perf_counter() - begun_s))
    return float(np.median(took))
