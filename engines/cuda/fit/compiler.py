"""Kernels compiled for a GPU, by NVIDIA's run-time compiler (NVRTC). It needs neither a GPU nor its driver.

It comes as the package nvidia-cuda-nvrtc (about 80 MB), with torch, or with the CUDA toolkit.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from engines.engine import BackEndError

NAMES = {"win32": ("nvrtc64_120_0.dll", "nvrtc64_130_0.dll")}.get(
    sys.platform, ("libnvrtc.so.12", "libnvrtc.so.13", "libnvrtc.so")
)
"""The library's file names. What that of CUDA 12 makes runs with drivers for 12 and 13, so it comes first."""
PACKAGES = ("nvidia.cuda_nvrtc", "nvidia.cu13", "torch")
"""Packages that hold it: NVIDIA's own for CUDA 12 and 13, and, on Windows, torch."""
FOLDERS = ("lib", "bin", "bin/x86_64", "lib/x64")
WHAT_TO_DO = "pip install nvidia-cuda-nvrtc-cu12"


@dataclass(frozen=True, slots=True)
class Compiled:
    """Machine code for one kind of GPU (or PTX, which its driver finishes), and what the compiler said."""

    image: bytes
    log: str


def candidates() -> Iterator[str]:
    """Where the library may be: in the packages, then wherever the system looks for libraries."""
    for package in PACKAGES:
        try:
            spec = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            continue
        for place in () if spec is None else spec.submodule_search_locations or ():
            for folder in FOLDERS:
                yield from (str(p) for name in NAMES if (p := Path(place) / folder / name).is_file())
    yield from NAMES


@cache
def nvrtc() -> ctypes.CDLL:
    """The library. Raises `BackEndError` where there is none."""
    for place in candidates():
        try:
            if sys.platform == "win32" and (folder := Path(place).parent) != Path():
                os.add_dll_directory(str(folder))
            found = ctypes.CDLL(place)
        except OSError:
            continue
        found.nvrtcGetErrorString.restype = ctypes.c_char_p
        return found
    raise BackEndError(f"NVIDIA's run-time compiler is not installed: {WHAT_TO_DO}")


def compiler_version() -> str:
    """Its version, as "12.9"."""
    major, minor = ctypes.c_int(0), ctypes.c_int(0)
    _check(nvrtc().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return f"{major.value}.{minor.value}"


def architectures() -> list[int]:
    """The GPUs that the compiler knows, as 10 x major + minor compute capability, rising."""
    count = ctypes.c_int(0)
    _check(nvrtc().nvrtcGetNumSupportedArchs(ctypes.byref(count)))
    found = (ctypes.c_int * count.value)()
    _check(nvrtc().nvrtcGetSupportedArchs(found))
    return sorted(found)


def compile_kernel(
    source: str, headers: Mapping[str, str], capability: tuple[int, int], options: Sequence[str] = ()
) -> Compiled:
    """Compile `source`, which may include the `headers` (name: text), for GPUs of a compute capability.

    A GPU that the compiler does not know yet gets PTX for the newest one that it knows. Raises `BackEndError` with
    the compiler's first lines where it refuses.
    """
    known, wanted = architectures(), 10 * capability[0] + capability[1]
    older = [arch for arch in known if arch <= wanted]
    if not older:
        raise BackEndError(
            f"GPUs of compute capability {capability[0]}.{capability[1]} are older than NVIDIA's compiler knows "
            f"({known[0] // 10}.{known[0] % 10} at least)"
        )
    finished = wanted in known
    target = f"--gpu-architecture={'sm' if finished else 'compute'}_{older[-1]}"
    library, program = nvrtc(), ctypes.c_void_p()
    texts = (ctypes.c_char_p * len(headers))(*(text.encode() for text in headers.values()))
    names = (ctypes.c_char_p * len(headers))(*(name.encode() for name in headers))
    _check(
        library.nvrtcCreateProgram(
            ctypes.byref(program), source.encode(), b"kernel.cu", len(headers), texts, names
        )
    )
    try:
        asked = [target, "--std=c++17", *options]
        given = (ctypes.c_char_p * len(asked))(*(option.encode() for option in asked))
        status = library.nvrtcCompileProgram(program, len(asked), given)
        log = _read(program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
        if status:
            first = " ".join(log.split())[:400]
            raise BackEndError(f"NVIDIA's compiler refuses the kernel for {target}: {first or _said(status)}")
        return Compiled(_read(program, "CUBIN" if finished else "PTX"), log)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _read(program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t(0)
    _check(getattr(nvrtc(), f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    text = ctypes.create_string_buffer(size.value)
    _check(getattr(nvrtc(), f"nvrtcGet{what}")(program, text))
    return text.raw


def _said(status: int) -> str:
    return str(nvrtc().nvrtcGetErrorString(status).decode())


def _check(status: int) -> None:
    if status:
        raise BackEndError(f"NVIDIA's run-time compiler failed: {_said(status)}")
