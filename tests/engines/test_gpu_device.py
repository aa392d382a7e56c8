from __future__ import annotations

import ctypes

import pytest

from engines.backends.registry import BACK_ENDS
from engines.cuda.driver.library import why_no_gpu
from engines.settings import DetectorSettings
from liveptv.models import SHIPPED_MODEL


class Driver:
    def __init__(self, starts: int, devices: int) -> None:
        self.starts, self.devices = starts, devices

    def cuInit(self, _flags):
        return self.starts

    def cuDeviceGetCount(self, count):
        ctypes.cast(count, ctypes.POINTER(ctypes.c_int))[0] = self.devices
        return 0


@pytest.mark.parametrize(
    ("starts", "devices", "reason"),
    [
        (0, 2, ""),
        (0, 0, "no NVIDIA GPU"),
        (100, 0, "no NVIDIA GPU"),
        (803, 0, "the NVIDIA driver cannot be started (CUDA error 803); check it with nvidia-smi"),
    ],
)
def test_the_driver_says_whether_there_is_a_gpu(starts, devices, reason):
    assert why_no_gpu(lambda: Driver(starts, devices)) == reason


def test_a_machine_without_a_driver_has_no_gpu():
    def load():
        raise OSError("libcuda.so.1: cannot open shared object file")

    assert why_no_gpu(load) == "no NVIDIA GPU driver"


def test_back_ends_for_nvidias_gpus_say_that_there_is_none(monkeypatch):
    def load():
        raise OSError("libcuda.so.1: cannot open shared object file")

    for module in ("cuda.with_torch.device", "cuda.driver.first_gpu"):
        monkeypatch.setattr(f"engines.{module}.why_no_gpu", lambda *_: why_no_gpu(load))
    nvidias = [b for b in BACK_ENDS if b.device == "gpu" and b.automatic]
    reasons = {b.name: b.why_not(DetectorSettings(), SHIPPED_MODEL) for b in nvidias}
    assert "torch" in reasons
    assert all("NVIDIA GPU" in reason for reason in reasons.values())
