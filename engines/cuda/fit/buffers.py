"""Buffers of the fit's kernel on both sides, and its launch, recorded; made again where a frame needs more room."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.cuda.device import Device, DeviceBuffer, Kernel, Recorded
from engines.cuda.fit.exchange import gather
from engines.cuda.fit.layout import (
    AT_A_TIME,
    BRIGHTNESS,
    ENDED,
    FLAGS_AT,
    HEAD,
    LARGEST_AREA,
    LARGEST_IMAGES,
    LARGEST_SINGLE,
    LATE,
    LISTS_AT,
    ORIGIN_X,
    ORIGIN_Y,
    PRECISION,
    READ,
    RESULT,
    ROW,
    ROWS_AT,
    SCENE,
    SHOT,
    SIGN,
    TALL,
    TASK,
    TASKS,
    TASKS_AT,
    THREADS,
    WIDE,
)
from engines.cuda.fit.plan import Plan
from engines.refine.arguments import Float32Array, FloatArray, Noise, Prior, Psf

SPARE = 1.5
"""Times the room that is asked for is made, so that the next larger frame does not need new buffers."""
MOST_SCRATCH = 1 << 26
"""Values of work space at most, 256 MB: where blocks are so large, fewer are fitted at a time."""
NAMES = ("ints", "scene", "pixels", "results", "deltas", "scratch")
TYPES = (np.int32, np.float64, np.float32, np.float64, np.float32, np.float32)
SENT, FETCHED = NAMES[:3], NAMES[3:5]


class FitBuffers:
    """Room for one frame's blocks at a time on a device, and the `kernel`'s launch with its `model`'s buffers."""

    def __init__(self, device: Device, kernel: Kernel, model: Sequence[DeviceBuffer]) -> None:
        self._device, self._kernel, self._model = device, kernel, tuple(model)
        self._room = dict.fromkeys(NAMES, 1)
        self._recorded: Recorded | None = None
        self._host: dict[str, npt.NDArray[Any]] = {}
        self._blocks, self._made = 0, 0

    @property
    def made(self) -> int:
        """How often buffers were made."""
        return self._made

    def run(
        self,
        made: Plan,
        frame: Float32Array,
        total: Float32Array,
        theta: FloatArray,
        psf: Psf,
        noise: Noise,
        prior: Prior,
    ) -> tuple[FloatArray, Float32Array, float]:
        """Launch a plan for a `frame` whose image of all is `total` (H, W); waits, and returns results and changes.

        `theta` (R, 4) are the starts of the plan's rows. What is returned, (R, `RESULT`) and flat, is valid until
        the next run; behind it the seconds from start to end. Raises `RuntimeError` where the device fails.
        """
        tasks, rows, lists = made.tasks.shape[0], made.rows.shape[0], made.lists.size
        at = np.cumsum([HEAD, tasks * TASK, rows * ROW, lists])
        each = 4 * made.area + 3 * made.single + 8 * made.images
        blocks = AT_A_TIME * self._device.facts.multiprocessors
        recorded = self._grow(
            {
                "ints": int(at[-1]) + 1 + tasks,
                "scene": SCENE + 4 * rows,
                "pixels": made.pixels,
                "results": RESULT * rows,
                "deltas": made.deltas,
                "scratch": max(each, min(each * blocks, MOST_SCRATCH)),
            },
            each,
        )
        ints, scene = self._host["ints"], self._host["scene"]
        ints[:HEAD] = 0
        for place, value in (
            (TASKS, tasks),
            (TALL, frame.shape[0]),
            (WIDE, frame.shape[1]),
            (TASKS_AT, at[0]),
            (ROWS_AT, at[1]),
            (LISTS_AT, at[2]),
            (FLAGS_AT, at[3]),
            (LARGEST_AREA, made.area),
            (LARGEST_SINGLE, made.single),
            (LARGEST_IMAGES, made.images),
        ):
            ints[place] = value
        ints[at[0] : at[1]] = made.tasks.ravel()
        ints[at[1] : at[2]] = made.rows.ravel()
        ints[at[2] : at[3]] = made.lists
        ints[at[3] : at[3] + 1 + tasks] = 0
        for place, number in (
            (READ, noise.read),
            (SHOT, noise.shot),
            (SIGN, noise.sign),
            (BRIGHTNESS, prior.brightness),
            (PRECISION, prior.precision),
            (ORIGIN_Y, psf.origin[0]),
            (ORIGIN_X, psf.origin[1]),
        ):
            scene[place] = number
        scene[SCENE : SCENE + 4 * rows] = theta.ravel()
        gather(made.tasks, frame, total, self._host["pixels"])
        begun_s = time.perf_counter()
        recorded.start()
        recorded.wait()
        busy_s = time.perf_counter() - begun_s
        results = self._host["results"][: RESULT * rows].reshape(rows, RESULT)
        if (results[:, ENDED] == LATE).any():
            raise RuntimeError("thread blocks of the fit have waited for each other for a second")
        return results, self._host["deltas"], busy_s

    def _grow(self, wanted: dict[str, int], each: int) -> Recorded:
        """The recorded launch, with `wanted` room; a thread block needs `each` values of work space."""
        enough = (
            all(self._room[name] >= size for name, size in wanted.items())
            and self._blocks * each <= (self._room["scratch"])
        )
        if self._recorded is not None and enough:
            return self._recorded
        self.close()
        for name, size in wanted.items():
            if self._room[name] < size:
                self._room[name] = size if name == "scratch" else int(SPARE * size)
        self._blocks = max(
            1, min(AT_A_TIME * self._device.facts.multiprocessors, self._room["scratch"] // each)
        )
        device, kernel = self._device, self._kernel
        sent = {
            name: device.on_host((self._room[name],), dtype)
            for name, dtype in zip(NAMES, TYPES, strict=True)
            if name != "scratch"
        }
        there = {
            name: device.on_device((self._room[name],), dtype)
            for name, dtype in zip(NAMES, TYPES, strict=True)
        }
        arguments = [*self._model, *there.values()]
        grid = (self._blocks, 1, 1)

        def work(stream: int) -> None:
            for name in SENT:
                device.copy_in(there[name], sent[name], stream)
            kernel.launch(grid, (THREADS, 1, 1), 0, arguments, stream)
            for name in FETCHED:
                device.copy_out(sent[name], there[name], stream)

        self._host = {name: buffer.array for name, buffer in sent.items()}
        # recording runs the work a few times: without a task
        self._host["ints"][FLAGS_AT] = HEAD
        self._recorded = device.record(work)
        self._made += 1
        return self._recorded

    def close(self) -> None:
        """Free the buffers; the next frame makes new ones. Idempotent."""
        if self._recorded is not None:
            self._recorded.close()
            self._recorded = None
        self._host, self._blocks = {}, 0
