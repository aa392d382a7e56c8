"""What a machine has: computer, GPUs, their drivers and memory, packages."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from engines.backends.openvino_devices import found_devices
from engines.backends.registry import missing
from engines.cuda.driver.device import open_cuda
from engines.cuda.driver.library import why_no_gpu
from engines.engine import BackEndError

Row = dict[str, Any]
PACKAGES = (
    "liveptv",
    "numpy",
    "onnxruntime",
    "onnx",
    "onnxscript",
    "torch",
    "tensorrt",
    "tensorrt-cu12",
    "tensorrt-cu13",
    "tensorrt-rtx-cu12-bindings",
    "tensorrt-rtx-cu13-bindings",
    "tensorrt_rtx_cu12_libs",
    "tensorrt_rtx_cu13_libs",
    "cuda-bindings",
    "nvidia-cuda-nvrtc-cu12",
    "nvidia-cuda-nvrtc",
    "openvino",
    "numba",
)
GPU_FACTS = (
    "name",
    "driver_version",
    "compute_cap",
    "memory.total",
    "pcie.link.gen.max",
    "pcie.link.width.max",
)


def versions() -> Row:
    """Of the packages that there are."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def gpus() -> list[Row]:
    """Name, driver and more of each GPU, as far as a driver or OpenVINO knows it."""
    found: list[Row] = []
    for line in _nvidia_smi(f"--query-gpu={','.join(GPU_FACTS)}", "--format=csv,noheader"):
        found.append(dict(zip(GPU_FACTS, (value.strip() for value in line.split(",")), strict=False)))
    if not found and not why_no_gpu():
        found.append(_first_gpu())
    if not missing("openvino", extra="openvino"):
        import openvino

        devices = found_devices(openvino.Core())
        found += [
            {"name": maker, "openvino": name} for name, maker in devices.items() if name.startswith("GPU")
        ]
    return found


def _first_gpu() -> Row:
    """What its driver says of the first of NVIDIA's GPUs, or why it says nothing."""
    try:
        with closing(open_cuda()) as device:
            facts = device.facts
    except BackEndError as error:
        return {"name": str(error)}
    capability = ".".join(map(str, facts.capability))
    return {"name": facts.name, "driver_version": f"for CUDA {facts.driver}", "compute_cap": capability}


def memory_used_mib() -> float | None:
    """Memory in use on the first GPU, by all programs; None where nobody knows."""
    found = _nvidia_smi("--query-gpu=memory.used", "--format=csv,noheader,nounits")
    return float(found[0]) if found else None


def _nvidia_smi(*arguments: str) -> list[str]:
    try:
        done = subprocess.run(
            ["nvidia-smi", *arguments], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [" ".join(line.split()) for line in done.stdout.splitlines() if line.strip()]


def computer() -> Row:
    """The processor, memory and system."""
    import psutil

    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return {
        "processor": name,
        "threads": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
