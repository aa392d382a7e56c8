"""The fit's kernel: its source, and compiled for a GPU."""

from __future__ import annotations

from functools import cache
from importlib import resources

from engines.cuda.fit.compiler import Compiled, compile_kernel, compiler_version
from engines.cuda.fit.kernel_cache import kept_or_made
from engines.cuda.fit.layout import header

NAME = "fit_blocks"
SOURCE = "fit_kernel.cu"
HEADERS = ("threads.h", "model.h", "block.h")
REPORT = ("--ptxas-options=-v", "--ptxas-options=-warn-spills")
"""Registers and memory of each function in the compiler's log, and a warning where registers do not suffice."""


def sources() -> dict[str, str]:
    """The text of each file of the kernel, by its name."""
    folder = resources.files("engines.cuda.fit") / "source"
    found = {name: (folder / name).read_text(encoding="utf-8") for name in (SOURCE, *HEADERS)}
    return {**found, "layout.h": header()}


def compile_fit_kernel(capability: tuple[int, int]) -> Compiled:
    """The kernel for GPUs of a compute capability, with what the compiler says. Raises `BackEndError`."""
    texts = sources()
    return compile_kernel(texts.pop(SOURCE), texts, capability, REPORT)


@cache
def fit_kernel(capability: tuple[int, int]) -> bytes:
    """The kernel for GPUs of a compute capability, compiled once for each user. Raises `BackEndError`."""
    about = (str(capability), compiler_version(), *REPORT, *(f"{k}\n{v}" for k, v in sources().items()))
    return kept_or_made(about, lambda: compile_fit_kernel(capability).image)
