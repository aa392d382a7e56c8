"""The machine code of the fit and of the self-check: whether numba's cache has it, and how it is made, once per
installation.

The kernels that are called from Python are named here with the types of their arguments, which depend neither on
the size of the images nor, but for the first one, on their pixel type.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from engines.pixel_noise import pixel_noise
from engines.refine.arguments import Noise, Particles, Prior, Psf, Typical
from engines.refine.contrast import fill_contrast
from engines.refine.frame import begin_frame, fit_frame, search_depths, take_back, vary, vary_neighbours
from engines.refine.grouping import blocks_of, usable_boxes
from engines.refine.other_side import other_depths
from engines.refine.particle_count import Marks, settle_frame
from engines.refine.presence import presence, put_all
from engines.refine.rendering import BOX, draw, set_box
from engines.refine.residual_bins import (
    add_level,
    bin_residual,
    mark_peaks,
    set_free,
    spread_of,
    standardise,
    sums_of_parts,
    window_sums,
)

Kernel = Any
"""A numba dispatcher."""


def kernels() -> list[tuple[Kernel, tuple[Any, ...]]]:
    """The kernels of the fit that Python calls, with arguments as they have there."""
    image, some, flags = np.zeros((2, 2), np.float32), np.zeros((1, 4)), np.zeros(1, np.bool_)
    psf = Psf(
        np.zeros((1, 1, 1), np.float32),
        0.0,
        0.0,
        0.0,
        0.0,
        np.zeros((1, 2), np.int64),
        np.zeros((1, 1, 1, 1), np.int16),
        np.zeros((1, 1), np.float32),
        1,
        1,
        np.zeros(2),
        np.zeros(2),
        np.zeros(2),
        np.zeros((1, 1, 1), np.float32),
        np.zeros((1, 3), np.int64),
        np.zeros(1, np.int64),
        np.zeros((1, 1), np.float32),
        np.zeros((1, 1), np.float32),
        np.zeros((1, 1), np.float32),
        np.zeros(2),
    )
    noise, prior = Noise(0.0, 0.0, 1.0), Prior(0.0, 0.0)
    particles = Particles(some, np.zeros((1, 4, 4)), np.zeros((1, 2)), np.zeros(1, np.int64), flags)
    typical, marks = Typical(0.0, 0.0, 0.0, 0.0, 0.0), Marks(flags, flags, flags)
    return [
        *((fill_contrast, (_pixels(dtype), 0.0, 0.0, image)) for dtype in (np.uint8, np.uint16, np.float32)),
        (pixel_noise, (image, 1)),
        (usable_boxes, (some, flags, (1, 1), psf)),
        (blocks_of, (np.zeros((1, BOX), np.int64), flags)),
        (take_back, (image, some, some, flags, psf)),
        (vary, (image, particles, flags, psf)),
        (vary_neighbours, (image, particles, np.zeros(1, np.int64), flags, flags, psf)),
        (fit_frame, (image, image, particles, psf, noise, prior, flags)),
        (other_depths, (image, image, particles, psf, noise, np.zeros((1, 2)), np.zeros((1, 2)))),
        (begin_frame, (image, image, some, np.zeros(1), 0.0, psf, noise, flags)),
        (search_depths, (image, image, some, np.zeros(1), 0.0, psf, noise, flags)),
        (settle_frame, (image, image, particles, 1, some, marks, psf, noise, typical)),
        (put_all, (image, some, flags, 0.0, psf)),
        (presence, (image, image, some, flags, psf)),
        (bin_residual, (image, image, np.zeros((1, 1, 1), np.float32))),
        (window_sums, (image, 1, image)),
        (add_level, (image, image)),
        (mark_peaks, (image, 1, np.zeros((1, 1), np.bool_))),
        (spread_of, (np.zeros((1, 1, 1), np.float32), image, 0.0, 0.0, image, image)),
        (set_free, (image, image, image, image, image, 0.0, image, np.zeros(1, np.float32))),
        (standardise, (image, image, image, 0.0)),
        (sums_of_parts, (image, image, image, image, image, 0.0, np.zeros((1, 1, 1), np.float32))),
        (draw, (np.zeros(4), np.zeros(BOX, np.int64), psf, True, np.zeros((1, 1, 1), np.float32))),
        (set_box, (np.zeros(4), (1, 1), psf, 0.0, np.zeros(BOX, np.int64))),
    ]


def _pixels(dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An image that may not be changed: what is compiled for it takes others as well."""
    found = np.zeros((2, 2), dtype)
    found.flags.writeable = False
    return found


def compile_fit() -> None:
    """Load every kernel from numba's cache, or compile it and keep it there: a minute of one core."""
    for kernel, arguments in kernels():
        kernel.compile(_types(arguments))


def is_compiled() -> bool:
    """Whether loading is all that is left to do: takes milliseconds, and reads the cache's index only."""
    for kernel, arguments in kernels():
        types = _types(arguments)
        if types not in kernel.overloads and not _is_cached(kernel, types):
            return False
    return True


def _types(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    typeof: Any = numba.typeof
    return tuple(typeof(argument) for argument in arguments)


def _is_cached(kernel: Kernel, types: tuple[Any, ...]) -> bool:
    """numba has no public way to ask; where this one is gone, the answer is no, and a process is started for it."""
    try:
        cache = kernel._cache
        codegen = kernel.targetctx.codegen()
        return cache._index_key(types, codegen) in cache._cache_file._load_index()
    except (AttributeError, TypeError, OSError, ValueError, EOFError):
        return False


def main() -> None:
    """Compile the fit; ends at once when standard input ends, as then nobody waits for it any more."""

    def end_with_the_parent() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        # `sys.exit` would end this thread only; what is compiled so far is in the cache
        os._exit(1)

    threading.Thread(target=end_with_the_parent, daemon=True).start()
    compile_fit()
    sys.stderr.flush()
    os._exit(0)  # an orderly end would wait for the thread, which waits for the parent


if __name__ == "__main__":
    main()
