"""Frames through the driver's stand-in: the calls of one, each of them failing, and the whole engine on top."""

from __future__ import annotations

import ctypes
import gc

import numpy as np
import pytest
from stand_in_driver import MODULE, StandIn, needs_gcc, pointer_of

from engines.cuda.driver.device import DriverCuda
from engines.cuda.layout import FrameFormat
from engines.cuda.slot import Slot

pytestmark = needs_gcc

FRAME = FrameFormat.of((32, 48), np.dtype(np.uint16), False, 10)


@pytest.fixture
def driver(tmp_path):
    return StandIn(tmp_path)


def array_at(argument: int, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """What a kernel's argument points to."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_ubyte * size).from_address(pointer_of(argument)), dtype).reshape(shape)


class SumRunner:
    """Writes the sum of an image's pixels to all results, in one kernel with a reference of its own."""

    def __init__(self, driver: StandIn, device: DriverCuda) -> None:
        self.frame = FRAME
        driver.kernel("network", self._run, (8,) * 5)
        self._reference = device.upload(np.full(3, 0.5, np.float32))
        self._kernel = device.load(MODULE, ["network"])["network"]

    def _run(self, _grid, _block, _shared, arguments) -> None:
        shapes = (FRAME.kept_shape, FRAME.summary_shape, FRAME.maps_shape)
        pixels = array_at(arguments[0], (FRAME.height, FRAME.width), np.uint16)
        reference = array_at(arguments[4], (3,), np.float32)
        for k, shape in enumerate(shapes):
            array_at(arguments[1 + k], shape, np.float32)[:] = pixels.sum(dtype=np.int64) + reference[0] + k

    def bind(self, raw, kept, summary, maps):
        def enqueue(stream: int) -> None:
            given = (raw, kept, summary, maps, self._reference)
            self._kernel.launch((1, 1, 1), (32, 1, 1), 0, given, stream)

        return enqueue

    def close(self) -> None:
        self._reference = None


OPENING = [
    "cuInit",
    "cuDeviceGet",
    "cuDevicePrimaryCtxRetain",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDeviceGetAttribute",
    "cuDeviceGetAttribute",
    "cuDeviceTotalMem_v2",
    "cuDriverGetVersion",
    "cuStreamCreate",
]
RUNNER = [
    "cuMemAlloc_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuStreamSynchronize",
    "cuModuleLoadDataEx",
    "cuModuleGetFunction",
]
ZEROS = ["cuMemAlloc_v2", "cuMemsetD8Async", "cuStreamSynchronize"]
BUFFERS = ["cuMemHostAlloc", *ZEROS] * 3 + ZEROS
WORK = ["cuMemcpyHtoDAsync_v2", "cuLaunchKernel", "cuMemcpyDtoHAsync_v2", "cuMemcpyDtoHAsync_v2"]
RECORDING = ["cuStreamCreate", "cuEventCreate", *WORK, *WORK, *WORK, "cuStreamSynchronize"]
RECORDING += ["cuStreamBeginCapture_v2", *WORK, "cuStreamEndCapture"]
RECORDING += ["cuGraphInstantiateWithFlags", "cuGraphDestroy"]
FILLING, ANSWERING = ["cuGraphLaunch", "cuEventRecord"], ["cuEventSynchronize"]
READING = ["cuMemcpyDtoHAsync_v2", "cuStreamSynchronize"]
ENDING = ["cuStreamSynchronize", "cuGraphExecDestroy", "cuEventDestroy_v2", "cuStreamDestroy_v2"]
FREEING = ["cuMemFree_v2", "cuMemFreeHost", "cuModuleUnload", "cuStreamDestroy_v2"]
FRAMING = ("cuCtxPushCurrent_v2", "cuCtxPopCurrent_v2")


def one_frame(driver: StandIn, steps: list[int] | None = None) -> None:
    """Open, answer two frames, close; the numbers of calls after each step are added to `steps`."""
    steps = [] if steps is None else steps
    device = DriverCuda(driver.library)
    try:
        steps.append(driver.call_count)
        runner = SumRunner(driver, device)
        steps.append(driver.call_count)
        slot = Slot(device, runner)
        steps.append(driver.call_count)
        for value in (1, 500):
            slot.fill(np.full((FRAME.height, FRAME.width), value, np.uint16))
            steps.append(driver.call_count)
            answer = slot.answer()
            steps.append(driver.call_count)
            expected = FRAME.height * FRAME.width * value + 0.5
            assert (answer.kept == expected).all()
            assert (answer.summary == expected + 1).all()
        assert (slot.maps() == expected + 2).all()
        steps.append(driver.call_count)
        slot.close()
        steps.append(driver.call_count)
    finally:
        device.close()


def test_the_calls_of_a_frame_are_these_in_this_order(driver):
    steps: list[int] = []
    one_frame(driver, steps)
    gc.collect()
    calls = driver.calls
    parts = [calls[a:b] for a, b in zip([0, *steps], [*steps, len(calls)], strict=True)]
    plain = [[name for name in part if name not in FRAMING] for part in parts]
    wanted = [OPENING, RUNNER, BUFFERS + RECORDING, FILLING, ANSWERING, FILLING, ANSWERING, READING]
    assert plain[:8] == wanted
    assert plain[8][:4] == ENDING
    assert set(plain[8][4:] + plain[9]) == {*FREEING, "cuDevicePrimaryCtxRelease_v2"}
    assert plain[9][-1] == "cuDevicePrimaryCtxRelease_v2"
    assert parts[3] == ["cuCtxPushCurrent_v2", *FILLING, "cuCtxPopCurrent_v2"]
    assert parts[4] == ["cuCtxPushCurrent_v2", *ANSWERING, "cuCtxPopCurrent_v2"]
    frame = ["copy", "network", "copy", "copy"]
    assert driver.done == ["copy", *["fill"] * 4, *frame * 5, "copy"]
    assert (driver.alive, driver.retained, driver.reclaimed, driver.illegal) == ({}, 0, 0, 0)
    assert (driver.made("device"), driver.made("host"), driver.made("stream")) == (5, 3, 2)


GIVING_BACK = ("Free", "Destroy", "Unload", "Release", "PopCurrent", "PushCurrent")
MOST_AT_ONCE = 3
"""A graph, its event and its stream are freed in one go."""


def test_any_call_that_fails_is_named_and_nothing_is_left(tmp_path, caplog):
    """Without the help of the garbage collector; what could not be given back itself goes with the context."""
    whole = StandIn(tmp_path)
    one_frame(whole)
    calls = whole.calls
    assert len(calls) > 150
    last_wait = max(at for at, name in enumerate(calls) if name == "cuStreamSynchronize")  # at the slot's end
    for at, name in enumerate(calls):
        driver, said = StandIn(tmp_path), ""
        driver.fail(at, 1)
        caplog.clear()
        try:
            one_frame(driver)
        except RuntimeError as error:
            said = str(error)
        notes = "".join(record.getMessage() for record in caplog.records)
        where = f"call {at}, {name}"
        assert f"CUDA error 1 in {name}: CUDA_ERROR" in said + notes, where
        gives_back = any(part in name for part in GIVING_BACK)
        assert said or gives_back or at == last_wait, where
        assert driver.reclaimed <= (MOST_AT_ONCE if "Push" in name else gives_back), where
        assert driver.illegal == 0, where
        if "Release" not in name:
            assert (driver.alive, driver.retained) == ({}, 0), where


def test_a_gpu_that_is_lost_at_any_call_ends_the_work_with_that_and_is_let_go(tmp_path, caplog):
    whole = StandIn(tmp_path)
    one_frame(whole)
    calls = whole.calls
    begin, end = calls.index("cuDevicePrimaryCtxRetain"), len(calls) - calls[::-1].index("cuEventSynchronize")
    for at in range(begin, end):
        driver, said = StandIn(tmp_path), ""
        driver.lose_at(at, 719)
        try:
            one_frame(driver)
        except RuntimeError as error:
            said = str(error)
        assert said.startswith("the GPU is lost to this program, a kernel failed (CUDA error 719 in"), at
        assert (driver.alive, driver.retained, driver.illegal) == ({}, 0, 0), at
    assert not caplog.records
