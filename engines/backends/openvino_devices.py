"""The devices that OpenVINO finds on this computer, and the one that a setting means."""

from __future__ import annotations

from typing import Any

from engines.engine import BackEndError

PROCESSOR = "CPU"
GPU = "GPU"


def found_devices(core: Any) -> dict[str, str]:
    """OpenVINO's names of the devices (`CPU`, `GPU`, `GPU.1`, ...), each with the maker's name."""
    devices = {}
    for name in core.available_devices:
        try:
            devices[name] = str(core.get_property(name, "FULL_DEVICE_NAME"))
        except RuntimeError as error:  # the driver of one may be broken
            devices[name] = " ".join(str(error).split())[:100]
    return devices


def gpu_named(wanted: str, devices: dict[str, str]) -> str:
    """OpenVINO's name of the GPU that `detector.device` means: "gpu" is the first, "gpu.1" the second.

    Raises `BackEndError`, with the devices that there are, where it is not there.
    """
    number = int(wanted.partition(".")[2] or 0)
    gpus = {}
    for name in devices:
        kind, _, index = name.partition(".")
        if kind == GPU:
            gpus[int(index or 0)] = name
    if number in gpus:
        return gpus[number]
    there = ", ".join(f"{name} ({maker})" for name, maker in devices.items()) or "no device"
    if gpus:
        raise BackEndError(f"OpenVINO finds no {GPU}.{number} here, but {there}")
    raise BackEndError(
        f"OpenVINO finds no GPU here, but {there}; it needs an Intel GPU with Intel's graphics driver (on "
        "Linux also its OpenCL runtime, intel-opencl-icd)"
    )


def why_no_gpu(wanted: str) -> str:
    """Why OpenVINO cannot use the GPU that `detector.device` means; "" where it can. Imports OpenVINO."""
    try:
        import openvino

        gpu_named(wanted, found_devices(openvino.Core()))
    except (ImportError, OSError, RuntimeError, BackEndError) as error:
        return " ".join(str(error).split())
    return ""
