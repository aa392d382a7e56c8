"""What the time of a frame is spent on: copies, the program, the decoding; and the kernels of the torch program."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from gpu_frames import median_ms

from engines.cuda.device import Device, Work
from engines.cuda.engine import GpuBackEnd
from engines.cuda.layout import MOST_PARTICLES, FrameFormat
from engines.cuda.slot import SLOTS_IN_FLIGHT, Slot
from engines.cuda.unpacking import kept_slots
from engines.network.decode import particles_of, slots_of
from engines.network.model import OnnxModel

Row = dict[str, Any]
TIMES = 10
"""Copies, or runs of the program, in one recording, so that its launch (10 us) counts little."""


def spent(back_end: GpuBackEnd, path: Path, shape: tuple[int, int], image: np.ndarray, seconds: float) -> Row:
    """ms of each part of a frame alone, and frames/s of the recorded work with one and with three slots."""
    model, device = OnnxModel(path), back_end.device
    frame = FrameFormat.of(shape, np.dtype(np.uint8), False, MOST_PARTICLES, model.card.kinds)
    runner = back_end.runner(path, model, frame, None)
    sent, raw = device.on_host(frame.raw_shape, np.uint8), device.on_device(frame.raw_shape, np.uint8)
    kept, summary = (device.on_device(shape, np.float32) for shape in (frame.kept_shape, frame.summary_shape))
    here = [device.on_host(shape, np.float32) for shape in (frame.kept_shape, frame.summary_shape)]
    maps = device.on_device(frame.maps_shape, np.float32)
    sent.array[:] = image
    enqueue = runner.bind(raw, kept, summary, maps)

    def copy_in(stream: int) -> None:
        for _ in range(TIMES):
            device.copy_in(raw, sent, stream)

    def program(stream: int) -> None:
        for _ in range(TIMES):
            enqueue(stream)

    def copy_out(stream: int) -> None:
        for _ in range(TIMES):
            device.copy_out(here[0], kept, stream)
            device.copy_out(here[1], summary, stream)

    row: Row = {"to_pinned_ms": median_ms(lambda: np.copyto(sent.array, image))}
    for name, work in (("copy_in", copy_in), ("program", program), ("copy_out", copy_out)):
        row[f"{name}_ms"] = _recorded_ms(device, work, 0.2 * seconds) / TIMES
    row["copy_in_gb_s"] = 1e-6 * image.nbytes / row["copy_in_ms"]
    row["answer_bytes"] = sum(buffer.array.nbytes for buffer in here)
    return row | _of_slots(device, runner, image, 0.4 * seconds)


def _recorded_ms(device: Device, work: Work, seconds: float) -> float:
    recorded = device.record(work)
    done, begun_s = 0, time.perf_counter()
    while not done or time.perf_counter() < begun_s + seconds:
        recorded.start()
        recorded.wait()
        done += 1
    took_ms = 1e3 * (time.perf_counter() - begun_s) / done
    recorded.close()
    return took_ms


def _of_slots(device: Device, runner: Any, image: np.ndarray, seconds: float) -> Row:
    row: Row = {}
    slots = [Slot(device, runner) for _ in range(SLOTS_IN_FLIGHT)]
    for number in (1, SLOTS_IN_FLIGHT):
        for slot in slots[:number]:
            slot.fill(image)
        done, begun_s = 0, time.perf_counter()
        while not done or time.perf_counter() < begun_s + 0.5 * seconds:
            slot = slots[done % number]
            slot.answer()
            slot.fill(image)
            done += 1
        row[f"frames_per_s_{number}_slots"] = done / (time.perf_counter() - begun_s)
        for slot in slots[:number]:
            slot.answer()
    slots[0].fill(image)
    answer = slots[0].answer()
    if answer.complete:
        row["decode_ms"] = median_ms(lambda: particles_of(kept_slots(answer, runner.frame)))
    maps = slots[0].maps()
    row["read_all_maps_ms"] = median_ms(slots[0].maps, 10)
    row["decode_all_maps_ms"] = median_ms(lambda: particles_of(slots_of(maps)), 10)
    for slot in slots:
        slot.close()
    return row


def kernels(path: Path, shape: tuple[int, int], image: np.ndarray) -> Row:
    """The kernels of the torch program in half precision, in us a frame."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from engines.cuda.with_torch.device import open_torch_cuda, tensor_of
    from engines.cuda.with_torch.program import FrameProgram
    from engines.network.torch_model import network_of

    model, device = OnnxModel(path), open_torch_cuda()
    frame = FrameFormat.of(shape, np.dtype(np.uint8), False, MOST_PARTICLES, model.card.kinds)
    program = device.place(FrameProgram(network_of(model, str(path)), model.card, frame, half=True).eval())
    raw = tensor_of(device.upload(image))
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
    return {"us_a_frame": sum(times.values()), "us": {name[:90]: us for name, us in most}}
