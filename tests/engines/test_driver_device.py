"""A GPU through NVIDIA's driver alone; the driver is played by a library that does what it is told, in C."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest
from stand_in_driver import MODULE, StandIn, needs_gcc

from engines.cuda.driver_api import CudaError
from engines.cuda.driver_device import DriverCuda, open_cuda
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


def test_starting_returns_before_the_work_is_done(driver, device):
    work, sent, came = there_and_back(device, 10)
    recorded = device.record(work)
    driver.delay(50_000)
    sent.array[:] = 5.0
    recorded.start()
    assert not came.array.any()
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
