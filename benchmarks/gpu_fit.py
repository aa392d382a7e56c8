"""The fit of a frame's particles by its kernel on the GPU and by one thread of the processor: time, agreement."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from gpu_frames import median_ms
from gpu_material import SHIPPED, picture

from engines.cuda.check import reference_answer
from engines.cuda.device import Device
from engines.cuda.fit.frame import KernelFit
from engines.network.model import OnnxModel
from engines.network.postprocessing import to_table
from engines.refine.refiner import NETWORK_SEARCH_UM, Refiner
from stream.messages import Detections

Row = dict[str, Any]
SURE = 0.5
PLACE = [Detections.COLUMNS.index(name) for name in ("x_um", "y_um", "z_um")]
ERRORS = [Detections.COLUMNS.index(name) for name in ("sigma_x_um", "sigma_y_um", "sigma_z_um")]


def fit_rows(device: Device, shape: tuple[int, int], counts: tuple[int, ...], times: int) -> Iterator[Row]:
    """ms of the whole fit of a frame (search in depth and choice of side included), for numbers of particles.

    `kernel_ms` is what of it the device is busy with, copies included; `off_se` the largest difference of a place
    in its standard errors, `left` the particles that the kernel leaves to the processor.
    """
    model = OnnxModel(SHIPPED)
    particle = model.psf()
    assert particle is not None
    begun_s = time.perf_counter()
    kernel = KernelFit(particle, device)
    yield {"what": "kernel", "compiled_s": time.perf_counter() - begun_s, "device": device.facts.name}
    for count in counts:
        image = picture(model, shape, np.uint8, count, 0)
        found = reference_answer(model, image)
        sure = found.particles[found.particles[:, -1] >= SURE]
        table = to_table(sure, model.card, found.background, particle)
        refiner = Refiner(particle, model.card.pixel_size_um, NETWORK_SEARCH_UM)
        row: Row = {"what": "fit", "drawn": count, "particles": len(sure), "shape": list(shape)}
        one = refiner.refine(image, table)
        row["processor_ms"] = median_ms(lambda: refiner.refine(image, table), times)  # noqa: B023
        refiner.fit_all = kernel
        other = refiner.refine(image, table)
        busy_s, left = kernel.busy_s, kernel.left
        row["with_kernel_ms"] = median_ms(lambda: refiner.refine(image, table), times)  # noqa: B023
        row["kernel_ms"] = 1e3 * (kernel.busy_s - busy_s) / times
        row["left"] = (kernel.left - left) / times
        row["as_many"] = one.shape == other.shape
        if row["as_many"]:
            off = np.abs(one[PLACE] - other[PLACE]) / one[ERRORS]
            row["off_se"] = float(np.nanmax(off, initial=0.0))
        yield row
    kernel.close()
