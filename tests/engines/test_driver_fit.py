"""The fit's kernel on the driver's device: its CPU build, run by the stand-in's streams in the device's memory."""

from __future__ import annotations

import ctypes
import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from host_device import HostDevice
from kernel_on_cpu import Kernels, build
from stand_in_driver import MODULE, StandIn, needs_gcc, pointer_of

from engines.cuda.check import add_particle
from engines.cuda.driver.api import CudaError
from engines.cuda.driver.device import DriverCuda
from engines.cuda.fit.buffers import NAMES
from engines.cuda.fit.frame import KernelFit
from engines.cuda.fit.kernel import NAME
from engines.network.model import OnnxModel
from engines.refine.fitting import fit_particles
from liveptv.models import SHIPPED_MODEL

pytestmark = needs_gcc

MODEL = OnnxModel(SHIPPED_MODEL).psf()
SHAPE = (200, 260)
SD = 0.008
MODEL_BUFFERS = 6


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return build(tmp_path_factory.mktemp("kernel"))


@pytest.fixture(autouse=True)
def compiled_already(monkeypatch):
    monkeypatch.setattr("engines.cuda.fit.frame.fit_kernel", lambda _capability: MODULE)


@pytest.fixture
def driver(tmp_path, library):
    """It has the fit's kernel, whose thread blocks beyond the first would find nothing left to do."""
    found = StandIn(tmp_path)
    call = getattr(library, NAME)
    call.restype = None
    count = MODEL_BUFFERS + len(NAMES)

    def body(_grid, _block, _shared, arguments) -> None:
        call(*(ctypes.c_void_p(pointer_of(arguments[k])) for k in range(count)), ctypes.c_int(0))

    found.kernel(NAME, body, (8,) * count)
    return found


def scene(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Contrast with noise of particles anywhere, and where their fits start."""
    rng = np.random.default_rng(seed)
    contrast = (SD * rng.standard_normal(SHAPE)).astype(np.float32)
    truth = rng.uniform(0, 1, (count, 3)) * (SHAPE[1], SHAPE[0], 1)
    for x, y, part in truth:
        add_particle(contrast, x, y, part, MODEL)
    truth[:, 2] = MODEL.z_min_um + truth[:, 2] * (MODEL.z_max_um - MODEL.z_min_um)
    return contrast, truth + rng.normal(0, [0.4, 0.4, 4.0], truth.shape)


def fitted(fit: KernelFit, given: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    contrast, start = given
    sigma = np.full(len(start), 4.0)
    return fit_particles(contrast, MODEL, start, sigma, (0.0, SD**2), search_um=8.0, fit_all=fit).theta


def test_two_threads_fit_frames_of_any_density_and_all_memory_is_given_back(driver, library):
    scenes = [scene(count, seed) for seed, count in enumerate((5, 60, 20, 90, 40, 10))]
    reference = KernelFit(MODEL, HostDevice(kernels=Kernels(library)))
    expected = [fitted(reference, given) for given in scenes]
    device = DriverCuda(driver.library)
    fit = KernelFit(MODEL, device)
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda given: fitted(fit, given), scenes))
    for here, there in zip(found, expected, strict=True):
        np.testing.assert_array_equal(here, there)
    assert driver.done.count(NAME) > 2 * len(scenes)
    fit.close()
    assert driver.alive == {"device": MODEL_BUFFERS, "stream": 1, "module": 1}
    device.close()
    gc.collect()
    assert (driver.alive, driver.retained, driver.reclaimed, driver.illegal) == ({}, 0, 0, 0)


def test_a_gpu_that_is_lost_during_a_fit_says_so(driver):
    device = DriverCuda(driver.library)
    fit = KernelFit(MODEL, device)
    fitted(fit, scene(10, 0))
    driver.fail_next("cuEventSynchronize", 700)
    with pytest.raises(CudaError, match="the GPU is lost to this program"):
        fitted(fit, scene(10, 0))
    fit.close()
    device.close()
    gc.collect()
    assert (driver.alive, driver.retained, driver.reclaimed, driver.illegal) == ({}, 0, 0, 0)
