"""Which of the two libraries runs here and which one builds: told by the driver and by what is installed."""

from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace

import pytest

from engines.cuda.driver.first_gpu import Gpu, first_gpu
from engines.engine import BackEndError
from engines.tensorrt import library as of
from engines.tensorrt.library import FULL, RTX, library_for, load_library

GEFORCE = Gpu("NVIDIA GeForce RTX 3060", (8, 6))
H100 = Gpu("NVIDIA H100 PCIe", (9, 0))


class Driver:
    """NVIDIA's driver, with one GPU."""

    def __init__(self, gpu: Gpu, fails: str = "") -> None:
        self.gpu, self.fails = gpu, fails

    def _answer(self, name, pointer, value):
        ctypes.cast(pointer, ctypes.POINTER(ctypes.c_int))[0] = value
        return 999 if name == self.fails else 0

    def cuInit(self, _flags):
        return 0

    def cuDeviceGetCount(self, count):
        return self._answer("count", count, 1)

    def cuDeviceGet(self, device, number):
        return self._answer("get", device, number)

    def cuDeviceGetName(self, buffer, length, _device):
        assert len(buffer) == length
        buffer.value = self.gpu.name.encode()
        return 0

    def cuDeviceGetAttribute(self, value, attribute, _device):
        return self._answer("attribute", value, self.gpu.capability[attribute - 75])


def no_driver():
    raise OSError("libcuda.so.1: cannot open shared object file")


@pytest.fixture
def installed(monkeypatch):
    """What is installed: a list to be filled."""
    found: list[of.Library] = []
    monkeypatch.setattr(of.Library, "is_installed", property(lambda one: one in found))
    return found


def test_the_driver_says_what_the_gpu_is():
    assert first_gpu(lambda: Driver(GEFORCE)) == GEFORCE
    assert str(GEFORCE) == "NVIDIA GeForce RTX 3060 (compute capability 8.6)"


def test_a_driver_that_does_not_answer_is_named_with_its_error():
    with pytest.raises(BackEndError, match="does not describe the GPU \\(CUDA error 999\\)"):
        first_gpu(lambda: Driver(GEFORCE, fails="attribute"))


@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (8, 9), (12, 0), (12, 1), (13, 0)])
def test_tensorrt_for_rtx_is_taken_on_the_gpus_that_it_is_for(capability, installed):
    gpu = Gpu("GPU", capability)
    installed[:] = [RTX]
    assert library_for(gpu) is RTX
    installed[:] = [FULL, RTX]
    assert library_for(gpu) is RTX
    installed[:] = [FULL]
    assert library_for(gpu) is FULL


@pytest.mark.parametrize("capability", [(7, 0), (7, 5), (8, 7), (9, 0), (10, 0), (11, 0)])
def test_other_gpus_are_refused_by_it_in_a_line_that_names_them(capability, installed):
    gpu = Gpu("NVIDIA H100 PCIe", capability)
    installed[:] = [RTX]
    with pytest.raises(BackEndError) as caught:
        library_for(gpu)
    major, minor = capability
    assert str(caught.value) == (
        f"TensorRT for RTX does not run on the NVIDIA H100 PCIe (compute capability {major}.{minor}), only on 8.0, "
        "8.6, 8.9 and from 12.0 on (GeForce RTX 30 series and newer); TensorRT not installed: pip install "
        '"liveptv[tensorrt]" (its libraries come from NVIDIA\'s index)'
    )
    installed[:] = [FULL, RTX]
    assert library_for(gpu) is FULL


@pytest.mark.parametrize(("gpu", "extra"), [(GEFORCE, "rtx"), (H100, "tensorrt")])
def test_without_either_the_one_that_fits_the_gpu_is_named(gpu, extra, installed):
    reason = of.why_cannot_run(lambda: Driver(gpu))
    assert "not installed: pip install" in reason
    assert f"liveptv[{extra}]" in reason
    assert not installed


def test_to_build_and_to_run_are_two_questions(installed, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    assert of.why_cannot_run(no_driver) == "no NVIDIA GPU driver"
    assert of.why_cannot_build(no_driver) == (
        'no NVIDIA GPU driver; without a GPU, TensorRT for RTX not installed: pip install "liveptv[rtx]"'
    )
    installed[:] = [FULL]  # measures on the GPU
    assert of.why_cannot_build(no_driver)
    installed[:] = [RTX]
    assert of.why_cannot_build(no_driver) == ""
    assert of.why_cannot_run(no_driver) == (
        "no NVIDIA GPU driver; engines for other computers can be built here (`liveptv engine build`)"
    )
    assert of.library_to_build_with(lambda: Driver(H100)) is RTX
    assert of.why_cannot_run(lambda: Driver(GEFORCE)) == ""


def test_on_windows_building_needs_the_driver_too(installed, monkeypatch):
    installed[:] = [RTX]
    monkeypatch.setattr(sys, "platform", "win32")
    assert "needs NVIDIA's driver on this system, even to build" in of.why_cannot_build(no_driver)
    assert of.why_cannot_build(lambda: Driver(H100)) == ""
    assert of.why_cannot_run(no_driver) == "no NVIDIA GPU driver"


def test_with_both_installed_the_engine_is_built_with_the_one_that_will_run_it(installed):
    installed[:] = [FULL, RTX]
    assert of.library_to_build_with(lambda: Driver(H100)) is FULL
    assert of.library_to_build_with(lambda: Driver(GEFORCE)) is RTX


@pytest.mark.parametrize(
    ("library", "version", "fits"),
    [
        (FULL, "9.3.0", False),
        (FULL, "10.0.1", True),
        (FULL, "11.4.0.106", True),
        (FULL, "12.0.0", False),
        (RTX, "1.6.1.120", False),
        (RTX, "1.7.1.116", True),
        (RTX, "1.10.0.1", True),
        (RTX, "2.0.0.1", False),
    ],
)
def test_versions_that_are_not_known_are_refused(library, version, fits, monkeypatch):
    monkeypatch.setitem(sys.modules, library.module, SimpleNamespace(__version__=version))
    if fits:
        assert str(load_library(library)) == f"{library.name} {version}"
        return
    with pytest.raises(BackEndError, match=f"{library.name} {version} is not supported; install version"):
        load_library(library)


def test_a_library_that_is_missing_or_broken_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, RTX.module, None)
    with pytest.raises(BackEndError, match='pip install "liveptv\\[rtx\\]"'):
        load_library(RTX)

    def broken(_name):
        raise OSError("libtensorrt_rtx.so.1: file too short")

    monkeypatch.setattr("engines.tensorrt.library.importlib.import_module", broken)
    with pytest.raises(BackEndError, match=r"cannot be loaded .*file too short.*install it again"):
        load_library(RTX)
