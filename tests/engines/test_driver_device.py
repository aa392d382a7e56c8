"""A GPU through NVIDIA's driver alone; the driver is played by a library that does what it is told, in C."""

from __future__ import annotations

import ctypes
import gc
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from stand_in_driver import MODULE, SOURCE, StandIn, needs_gcc, pointer_of

from engines.cuda.driver.api import SIGNATURES, CudaError
from engines.cuda.driver.device import DriverCuda, open_cuda
from engines.cuda.driver.library import why_no_gpu
from engines.engine import BackEndError

pytestmark = needs_gcc

FRAMING = ("cuCtxPushCurrent_v2", "cuCtxPopCurrent_v2")


@pytest.fixture
def driver(tmp_path):
    return StandIn(tmp_path)


@pytest.fixture
def device(driver):
    """Closed at the end, when everything has to be free, and nothing may have been used after that."""
    opened = DriverCuda(driver.library)
    yield opened
    opened.close()
    gc.collect()
    assert (driver.alive, driver.retained, driver.reclaimed, driver.illegal) == ({}, 0, 0, 0)
    assert driver.depth == 0


def test_facts_come_from_the_driver(device):
    facts = device.facts
    assert (facts.name, facts.capability, facts.multiprocessors) == ("stand-in 7", (8, 6), 28)
    assert (facts.memory_bytes, facts.driver) == (12 << 30, "12.4")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.int64])
def test_what_is_uploaded_is_read_back(device, dtype):
    given = np.arange(24).reshape(4, 6).astype(dtype)
    for array in (given, given.T, given[::2, 1:], given[:0]):
        there = device.upload(array)
        assert (there.shape, there.dtype) == (array.shape, np.dtype(dtype))
        np.testing.assert_array_equal(device.read(there), array)


def test_new_memory_holds_zeros_on_both_sides(device):
    assert not device.on_host((3, 5), np.uint16).array.any()
    assert not device.read(device.on_device((3, 5), np.float32)).any()
    assert device.on_host((), np.float32).array.shape == ()


def test_memory_is_freed_as_soon_as_nobody_refers_to_it(driver, device):
    before = driver.alive
    buffers = [device.on_device((8,), np.uint8), device.on_host((8,), np.uint8)]
    assert driver.alive["device"] == driver.alive["host"] == 1
    buffers.clear()
    assert driver.alive == before


def test_a_view_of_page_locked_memory_outlives_its_buffer_and_the_device(driver):
    device = DriverCuda(driver.library)
    view = device.on_host((4, 6), np.float32).array.view(np.uint32)[1:, ::2]
    view[:] = 7
    device.close()
    assert (driver.alive, driver.retained) == ({"host": 1}, 1)
    assert (view == 7).all()
    del view
    assert (driver.alive, driver.retained, driver.reclaimed) == ({}, 0, 0)


def test_a_device_that_nobody_refers_to_gives_everything_back(driver):
    device = DriverCuda(driver.library)
    there = device.upload(np.ones(5, np.float32))
    recorded = device.record(lambda stream: None)
    del device
    gc.collect()
    assert driver.alive["device"] == 1
    del there, recorded
    gc.collect()
    assert (driver.alive, driver.retained, driver.reclaimed) == ({}, 0, 0)


def test_after_its_end_a_device_says_so_and_closing_again_does_nothing(driver):
    device = DriverCuda(driver.library)
    there, recorded = device.on_device((4,), np.uint8), device.record(lambda stream: None)
    device.close()
    count = driver.call_count
    device.close()
    recorded.close()
    assert driver.call_count == count
    for use in (lambda: device.read(there), lambda: device.on_host((4,), np.uint8), recorded.start):
        with pytest.raises(RuntimeError, match="was closed before"):
            use()
    with pytest.raises(RuntimeError, match="nothing was started"):
        recorded.wait()


def test_copies_between_memory_of_different_size_or_type_are_refused(device):
    here, there = device.on_host((4, 6), np.float32), device.on_device((4, 6), np.uint8)
    with pytest.raises(ValueError, match=r"float32 \(4, 6\) cannot be copied to or from uint8 \(4, 6\)"):
        device.copy_in(there, here, 1)
    with pytest.raises(ValueError, match="cannot be copied"):
        device.copy_out(device.on_host((6, 4), np.uint8), there, 1)


def there_and_back(device: DriverCuda, size: int):
    """Work that copies `size` numbers to the device and back to other memory, with both ends."""
    sent, came = device.on_host((size,), np.float32), device.on_host((size,), np.float32)
    between = device.on_device((size,), np.float32)

    def work(stream: int) -> None:
        device.copy_in(between, sent, stream)
        device.copy_out(came, between, stream)

    return work, sent, came


class Gate:
    """A kernel that ends when it may."""

    def __init__(self, driver: StandIn, device: DriverCuda) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        self.open.set()
        driver.kernel("gate", self._pass, ())
        self._kernel = device.load(MODULE, ["gate"])["gate"]

    def _pass(self, *_arguments) -> None:
        self.reached.set()
        self.open.wait()

    def close(self) -> None:
        self.reached.clear()
        self.open.clear()

    def __call__(self, stream: int) -> None:
        self._kernel.launch((1, 1, 1), (1, 1, 1), 0, (), stream)


def test_recorded_work_is_done_again_in_order_with_what_is_there_then(driver, device):
    work, sent, came = there_and_back(device, 1000)
    recorded = device.record(work)
    before = driver.done.count("copy")
    driver.delay(2000)
    for value in (1.0, 2.0, 3.0):
        sent.array[:] = value
        recorded.start()
        recorded.wait()
        assert (came.array == value).all()
    assert driver.done.count("copy") == before + 6


def test_waiting_for_what_was_not_started_is_refused(driver, device):
    recorded = device.record(lambda stream: None)
    with pytest.raises(RuntimeError, match="nothing was started"):
        recorded.wait()
    driver.fail_next("cuGraphLaunch", 1)
    recorded_twice = device.record(lambda stream: None)
    with pytest.raises(CudaError, match="cuGraphLaunch"):
        recorded_twice.start()
    with pytest.raises(RuntimeError, match="nothing was started"):
        recorded_twice.wait()


def test_closing_frees_the_newest_first(driver):
    device = DriverCuda(driver.library)
    work, _, _ = there_and_back(device, 4)
    kept = device.record(work), device.upload(np.ones(3))
    before = driver.call_count
    device.close()
    freed = [name for name in driver.calls[before:] if not name.startswith("cuCtx")]
    graph = ["cuStreamSynchronize", "cuGraphExecDestroy", "cuEventDestroy_v2", "cuStreamDestroy_v2"]
    assert freed == ["cuMemFree_v2", *graph, "cuMemFree_v2", "cuStreamDestroy_v2"]
    del kept, work
    assert "cuDevicePrimaryCtxRelease_v2" not in driver.calls  # page-locked memory is still looked at
    del _
    assert driver.calls[-1] == "cuDevicePrimaryCtxRelease_v2"


def test_starting_returns_before_the_work_is_done(driver, device):
    work, sent, came = there_and_back(device, 10)
    gate = Gate(driver, device)
    recorded = device.record(lambda stream: (gate(stream), work(stream)))
    gate.close()
    sent.array[:] = 5.0
    recorded.start()
    gate.reached.wait()
    assert not came.array.any()
    gate.open.set()
    recorded.wait()
    assert came.array.all()


def test_work_is_started_in_one_thread_and_waited_for_in_another(driver, device):
    driver.delay(100)
    parts = []
    for _ in range(3):
        work, sent, came = there_and_back(device, 100)
        parts.append((device.record(work), sent, came))
    found = {}
    turns = [(threading.Semaphore(1), threading.Semaphore(0)) for _ in parts]

    def answer():
        for number in range(90):
            free, filled = turns[number % 3]
            filled.acquire()
            recorded, _, came = parts[number % 3]
            recorded.wait()
            found[number] = came.array.copy()
            free.release()

    other = threading.Thread(target=answer)
    other.start()
    for number in range(90):
        (free, filled), (recorded, sent, _) = turns[number % 3], parts[number % 3]
        free.acquire()
        sent.array[:] = number
        recorded.start()
        filled.release()
    other.join()
    assert [set(found[number]) for number in range(90)] == [{float(number)} for number in range(90)]


def test_a_capture_is_spoiled_by_an_allocation_in_it_and_leaves_nothing_behind(driver, device):
    before = driver.alive
    runs = []

    def work(stream: int) -> None:
        runs.append(stream)
        if len(runs) > 3:
            device.on_device((4,), np.uint8)

    with pytest.raises(CudaError, match="CUDA error 900 in cuMemAlloc_v2"):
        device.record(work)
    gc.collect()
    assert driver.alive == before
    work, sent, came = there_and_back(device, 4)
    recorded = device.record(work)
    sent.array[:] = 1.0
    recorded.start()
    recorded.wait()
    assert came.array.all()


def test_what_the_garbage_collector_finds_during_a_capture_is_freed_after_it(driver, device):
    buffers = [device.on_device((4,), np.uint8), device.on_host((4,), np.uint8)]
    runs, during = [], []

    def work(stream: int) -> None:
        runs.append(stream)
        if len(runs) > 3:
            buffers.clear()
            during.append((driver.alive["device"], driver.alive["host"]))

    recorded = device.record(work)
    assert during == [(1, 1)]
    assert not {"device", "host"} & set(driver.alive)
    recorded.start()
    recorded.wait()


def test_one_thread_captures_while_others_allocate_and_copy(driver, device):
    stop = threading.Event()

    def busy() -> int:
        rounds = 0
        while not stop.is_set():
            given = np.arange(100.0)
            np.testing.assert_array_equal(device.read(device.upload(given)), given)
            rounds += 1
        return rounds

    with ThreadPoolExecutor(2) as others:
        busy_ones = [others.submit(busy) for _ in range(2)]
        try:
            for value in range(20):
                work, sent, came = there_and_back(device, 50)
                recorded = device.record(work)
                sent.array[:] = value
                recorded.start()
                recorded.wait()
                assert (came.array == value).all()
        finally:
            stop.set()
        assert all(one.result() for one in busy_ones)


@pytest.mark.parametrize("at", [1, 2, 4])
def test_work_that_fails_itself_leaves_nothing_behind(driver, device, at):
    """In a run before the capture, and in the capture."""
    before, runs = driver.alive, []

    def failing():
        copies, _, _ = there_and_back(device, 10)

        def work(stream: int) -> None:
            runs.append(1)
            if len(runs) == at:
                raise RuntimeError("TensorRT did not start")
            copies(stream)

        return work

    driver.delay(5000)  # the copies before are under way when the memory is freed
    with pytest.raises(RuntimeError, match="TensorRT did not start"):
        device.record(failing())
    gc.collect()
    assert driver.alive == before


def test_ending_recorded_work_waits_for_it_and_lets_go_of_its_memory(driver, device):
    work, sent, came = there_and_back(device, 1000)
    before = driver.alive
    recorded = device.record(work)
    del work
    driver.delay(20_000)
    sent.array[:] = 3.0
    recorded.start()
    recorded.close()
    assert (came.array == 3.0).all()
    assert driver.alive == {"host": 2, "stream": before["stream"]}


def test_a_full_gpu_is_named_with_what_was_wanted(driver, device):
    driver.limit_memory(1000)
    kept = device.on_device((900,), np.uint8)
    with pytest.raises(CudaError) as caught:
        device.on_device((101,), np.uint8)
    assert str(caught.value) == (
        "no memory on the GPU left for 101 bytes (CUDA error 2 in cuMemAlloc_v2: CUDA_ERROR_OUT_OF_MEMORY, "
        "out of memory); end other programs that use it"
    )
    del kept
    device.on_device((1000,), np.uint8)


def test_a_gpu_that_is_lost_ends_waiting_says_so_and_is_let_go(driver, caplog):
    device = DriverCuda(driver.library)
    view, gate = device.on_host((4,), np.uint8).array, Gate(driver, device)
    recorded = device.record(gate)
    gate.close()
    recorded.start()
    gate.reached.wait()
    threading.Timer(0.02, driver.lose, (700,)).start()
    with pytest.raises(CudaError) as caught:
        recorded.wait()
    assert str(caught.value) == (
        "the GPU is lost to this program, a kernel used memory that is not its own (CUDA error 700 in "
        "cuEventSynchronize: CUDA_ERROR_ILLEGAL_ADDRESS, an illegal memory access was encountered); start it again"
    )
    with pytest.raises(CudaError, match="lost to this program"):
        device.on_device((4,), np.uint8)
    gate.open.set()
    device.close()
    assert not [record for record in caplog.records if record.levelname != "DEBUG"]
    assert not view.any()
    del view
    assert (driver.alive, driver.retained) == ({}, 0)


def test_what_cannot_be_freed_is_noted_and_the_rest_is_freed(driver, caplog):
    device = DriverCuda(driver.library)
    kept = [device.on_device((4,), np.uint8) for _ in range(3)]
    driver.fail_next("cuMemFree_v2", 1)
    device.close()
    assert "could not be freed: CUDA error 1 in cuMemFree_v2" in caplog.text
    assert driver.reclaimed == 1
    assert (driver.alive, driver.retained) == ({}, 0)
    del kept


def test_errors_that_the_driver_has_no_words_for_keep_their_number(driver, device):
    driver.fail_next("cuMemAlloc_v2", 12345)
    with pytest.raises(CudaError, match="CUDA error 12345 in cuMemAlloc_v2: unknown"):
        device.on_device((4,), np.uint8)


def test_kernels_get_pointers_and_numbers_of_their_own_types(driver, device):
    seen = []

    def body(grid, block, shared, arguments):
        numbers = np.frombuffer((ctypes.c_float * 4).from_address(pointer_of(arguments[0])), np.float32)
        step = ctypes.cast(arguments[1], ctypes.POINTER(ctypes.c_int32))[0]
        factor = ctypes.cast(arguments[2], ctypes.POINTER(ctypes.c_float))[0]
        numbers[:] = numbers * factor + step
        seen.append((tuple(grid[:3]), tuple(block[:3]), shared))

    driver.kernel("scaled", body, (8, 4, 4))
    kernel = device.load(MODULE, ["scaled"])["scaled"]
    numbers = device.upload(np.arange(4, dtype=np.float32))
    arguments = (numbers, np.int32(-3), np.float32(0.5))
    shape = (2, 3, 1), (32, 4, 1), 64 << 10
    recorded = device.record(lambda stream, launch=kernel.launch: launch(*shape, arguments, stream))
    np.testing.assert_allclose(device.read(numbers), [-5.25, -5.125, -5.0, -4.875])
    recorded.start()
    recorded.wait()
    np.testing.assert_allclose(device.read(numbers), [-5.625, -5.5625, -5.5, -5.4375])
    assert set(seen) == {shape}
    assert driver.calls.count("cuFuncSetAttribute") == 1
    assert driver.alive["module"] == 1
    del kernel, recorded
    gc.collect()
    assert "module" not in driver.alive


def test_modules_and_kernels_that_cannot_be_loaded_are_refused_with_the_compilers_words(driver, device):
    with pytest.raises(CudaError, match=r"CUDA error 200 in cuModuleLoadDataEx.*ptxas fatal : no version"):
        device.load(b".target sm_99", ["scaled"])
    with pytest.raises(CudaError, match="CUDA error 500 in cuModuleGetFunction"):
        device.load(MODULE, ["nobody"])
    gc.collect()
    assert "module" not in driver.alive
    driver.kernel("scaled", lambda *_: None, ())
    kernel = device.load(MODULE, ["scaled"])["scaled"]
    with pytest.raises(CudaError, match="CUDA error 1 in cuFuncSetAttribute"):
        kernel.launch((1, 1, 1), (32, 1, 1), 1 << 20, (), 0)
    with pytest.raises(CudaError, match="CUDA error 400 in cuLaunchKernel"):
        kernel.launch((1, 1, 1), (32, 1, 1), 0, (), 77)


def test_without_a_driver_or_a_gpu_that_is_said(driver, monkeypatch):
    def load():
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr("engines.cuda.driver.device.why_no_gpu", lambda: why_no_gpu(load))
    with pytest.raises(BackEndError, match="no NVIDIA GPU driver"):
        open_cuda()
    monkeypatch.setattr("engines.cuda.driver.device.why_no_gpu", lambda: why_no_gpu(lambda: driver.library))
    driver.devices(0)
    with pytest.raises(BackEndError, match="no NVIDIA GPU"):
        open_cuda()
    driver.devices(1)
    monkeypatch.setattr("engines.cuda.driver.device.load_driver", lambda: driver.library)
    driver.fail_next("cuDevicePrimaryCtxRetain", 46)
    with pytest.raises(BackEndError, match=r"cannot be used.*CUDA error 46 in cuDevicePrimaryCtxRetain"):
        open_cuda()
    assert driver.retained == 0
    driver.fail_next("cuStreamCreate", 2)
    with pytest.raises(BackEndError, match=r"cannot be used.*CUDA error 2 in cuStreamCreate") as caught:
        open_cuda()
    assert caught.value.__cause__ is not None  # which keeps alive what was made
    assert driver.retained == 0
    open_cuda().close()
    assert (driver.alive, driver.retained) == ({}, 0)


def test_a_driver_that_lacks_a_function_is_too_old():
    class Old:
        def __getattr__(self, name):
            if name == "cuGraphInstantiateWithFlags":
                raise AttributeError(name)
            return lambda *_: 0

    with pytest.raises(
        BackEndError, match=r"driver is too old: it lacks cuGraphInstantiateWithFlags; update it"
    ):
        DriverCuda(Old())


def test_the_stand_ins_functions_have_the_types_that_are_used():
    """Its own are checked against NVIDIA's header by the compiler, where that is installed: see its first lines."""
    kinds = {"int": ctypes.c_int, "unsigned int": ctypes.c_uint, "size_t": ctypes.c_size_t}
    kinds |= {"unsigned char": ctypes.c_ubyte, "const char *": ctypes.c_char_p}
    kinds |= dict.fromkeys(("unsigned long long", "CUdeviceptr"), ctypes.c_uint64)
    enums = ("CUresult", "CUdevice", "CUdevice_attribute", "CUstreamCaptureMode", "CUfunction_attribute")
    kinds |= dict.fromkeys(enums, ctypes.c_int)
    found = {}
    for name, given in re.findall(r"^CUresult (cu\w+)\(([^)]*)\)", SOURCE.read_text("utf-8"), re.MULTILINE):
        types = [re.sub(r"\w+$", "", one.strip()).strip() for one in given.split(",")]
        found[name] = tuple(kinds.get(one, ctypes.c_void_p) for one in types)
    found["cuModuleLoadDataEx"] = (
        ctypes.c_void_p,
        ctypes.c_char_p,
        *found["cuModuleLoadDataEx"][2:],
    )  # bytes
    assert {name: found[name] for name in SIGNATURES} == SIGNATURES
