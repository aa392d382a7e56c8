"""The two libraries that are TensorRT: the full one, and TensorRT for RTX; which of them builds and runs here.

*Full* TensorRT measures on the GPU that will run the engine, for minutes. *TensorRT for RTX* translates the
program in a second, without a GPU, and compiles its kernels where it runs: its engines can be copied to other
computers. `trt` is the module throughout this package; but for `rtx`, only what both have is used.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engines.cuda.driver.first_gpu import Gpu, first_gpu
from engines.cuda.driver.library import load_driver
from engines.engine import BackEndError

RTX_CAPABILITIES = ((8, 0), (8, 6), (8, 9))
"""Of the GPUs of TensorRT for RTX (its documentation of version 1.7), beside those from `RTX_FROM` on. Turing (7.5)
is left out, although engines for it can be built: NVIDIA/TensorRT-RTX#11, #20, pytorch/TensorRT#4643."""
RTX_FROM = (12, 0)


@dataclass(frozen=True, slots=True)
class Library:
    """One of the two. Versions from `oldest` to before `too_new` are used, each a (major, minor).

    `is_portable` says that its engines are built in seconds, without a GPU, and for every GPU that it runs on.
    """

    name: str
    module: str
    extra: str
    oldest: tuple[int, int]
    too_new: tuple[int, int]
    is_portable: bool

    @property
    def is_installed(self) -> bool:
        """Whether its module can be found; it is not imported."""
        return importlib.util.find_spec(self.module) is not None

    def why_not_on(self, gpu: Gpu) -> str:
        """Why it cannot use a GPU; "" where it can."""
        if not self.is_portable or gpu.capability in RTX_CAPABILITIES or gpu.capability >= RTX_FROM:
            return ""
        known = ", ".join(f"{major}.{minor}" for major, minor in RTX_CAPABILITIES)
        return (
            f"{self.name} does not run on the {gpu}, only on {known} and from {RTX_FROM[0]}.{RTX_FROM[1]} on "
            "(GeForce RTX 30 series and newer)"
        )

    @property
    def how_to_install(self) -> str:
        """That it is missing, and how to get it."""
        where = "" if self.is_portable else " (its libraries come from NVIDIA's index)"
        return f'{self.name} not installed: pip install "liveptv[{self.extra}]"{where}'


RTX = Library("TensorRT for RTX", "tensorrt_rtx_bindings", "rtx", (1, 7), (2, 0), True)
FULL = Library("TensorRT", "tensorrt", "tensorrt", (10, 0), (12, 0), False)
LIBRARIES = (RTX, FULL)
"""In the order in which they are tried: the first builds its engines by itself."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A library and its module."""

    library: Library
    trt: Any

    @property
    def version(self) -> str:
        """Of the module, such as 1.7.1.116."""
        return str(self.trt.__version__)

    def __str__(self) -> str:
        """Name and version."""
        return f"{self.library.name} {self.version}"


def library_for(gpu: Gpu) -> Library:
    """The first installed library that can use a GPU. Raises `BackEndError`, with what to install, without one."""
    reasons = {library: library.why_not_on(gpu) for library in LIBRARIES}
    fitting = [library for library, reason in reasons.items() if not reason]
    installed = [library for library in fitting if library.is_installed]
    if installed:
        return installed[0]
    unfit = [reason for library, reason in reasons.items() if reason and library.is_installed]
    raise BackEndError("; ".join([*unfit, fitting[0].how_to_install]))


def why_cannot_run(load: Callable[[], Any] = load_driver) -> str:
    """Why no TensorRT can run an engine here and what to do; "" where one can. Imports neither library."""
    try:
        library_for(first_gpu(load))
    except BackEndError as error:
        if RTX.is_installed and not why_cannot_build(load):
            return f"{error}; engines for other computers can be built here (`liveptv engine build`)"
        return str(error)
    return ""


def why_cannot_build(load: Callable[[], Any] = load_driver) -> str:
    """Why no engine can be built here and what to do; "" where one can. Imports neither library."""
    try:
        library_to_build_with(load)
    except BackEndError as error:
        return str(error)
    return ""


def library_to_build_with(load: Callable[[], Any] = load_driver) -> Library:
    """The library that would run here, or else the one that needs no GPU. Raises `BackEndError` without one."""
    try:
        return library_for(first_gpu(load))
    except BackEndError as error:
        if not RTX.is_installed:
            raise BackEndError(f"{error}; without a GPU, {RTX.how_to_install}") from error
        if sys.platform != "linux":
            _need_driver(load)
        return RTX


def _need_driver(load: Callable[[], Any]) -> None:
    try:
        load()
    except OSError as error:
        raise BackEndError(
            f"{RTX.name} needs NVIDIA's driver on this system, even to build; on Linux it builds without"
        ) from error


def load_library(library: Library) -> Loaded:
    """Import a library. Raises `BackEndError` where it cannot be, or is of a version that is not supported.

    Only where `why_cannot_run` or `why_cannot_build` has nothing against it: the runtime of full TensorRT ends the
    process where there is no GPU.
    """
    try:
        trt = importlib.import_module(library.module)
    except ImportError as error:
        if error.name == library.module:
            raise BackEndError(library.how_to_install) from error
        raise BackEndError(_not_loaded(library, error)) from error
    except (OSError, AssertionError) as error:  # what its own loader raises
        raise BackEndError(_not_loaded(library, error)) from error
    loaded = Loaded(library, trt)
    if not library.oldest <= _numbers(loaded.version) < library.too_new:
        oldest, newest = library.oldest, library.too_new[0] - 1
        raise BackEndError(
            f"{loaded} is not supported; install version {oldest[0]}.{oldest[1]} or newer, up to {newest}: "
            f'pip install "liveptv[{library.extra}]"'
        )
    return loaded


def _not_loaded(library: Library, error: BaseException) -> str:
    return (
        f"{library.name} is installed but cannot be loaded ({' '.join(str(error).split())}); install it again"
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
