"""What goes to the fit's kernel, the pixels that its tasks look at, and what is made of what comes back."""

from __future__ import annotations

from numba import njit

from engines.cuda.fit.layout import (
    ACROSS,
    CORNER_X,
    CORNER_Y,
    COVARIANCE,
    DATA,
    DELTA,
    DRAWN,
    ENDED,
    FILLED,
    FIT,
    HIGH,
    IS_SPLIT,
    PARENT,
    RECT_TALL,
    RECT_WIDE,
    RECT_X,
    RECT_Y,
    THETA,
)
from engines.cuda.fit.plan import Int32Array, Plan
from engines.refine.arguments import BoolArray, Float32Array, FloatArray, IntArray, Particles, Psf
from engines.refine.frame import take_out
from engines.refine.rendering import put


@njit(cache=True, nogil=True)
def gather(tasks: Int32Array, frame: Float32Array, total: Float32Array, out: Float32Array) -> None:
    """Fill `out` with what each task looks at: the frame less the image of all, and the image of all."""
    for t in range(tasks.shape[0]):
        task = tasks[t]
        if task[PARENT] >= 0:  # looks at what its parent does
            continue
        # as long numbers, and rows as slices: then the loop over a row is made of vector instructions
        tall, wide, at = int(task[HIGH]), int(task[ACROSS]), int(task[DATA])
        y, x = int(task[CORNER_Y]), int(task[CORNER_X])
        for i in range(tall):
            seen, image = frame[y + i, x : x + wide], total[y + i, x : x + wide]
            left = out[at + i * wide : at + (i + 1) * wide]
            drawn = out[at + (tall + i) * wide : at + (tall + i + 1) * wide]
            for j in range(wide):
                left[j] = seen[j] - image[j]
                drawn[j] = image[j]


@njit(cache=True, nogil=True)
def apply(
    made: Plan,
    results: FloatArray,
    deltas: Float32Array,
    total: Float32Array,
    particles: Particles,
    block: IntArray,
    touches: BoolArray,
    psf: Psf,
) -> None:
    """Take over what a launch has found: `results` (R, `RESULT`), and the changes of the image of all, `total`.

    Particles of blocks that were singular become blocks of their own, as in `refine.frame.fit_blocks`.
    """
    theta, covariance, fit, state, _ = particles
    for r in range(made.particle.size):
        i, found, row = made.particle[r], results[r], made.rows[r]
        if found[DRAWN] > 0.0:
            wide, at = int(row[RECT_WIDE]), int(row[DELTA])
            y, x = int(row[RECT_Y]), int(row[RECT_X])
            for k in range(int(row[RECT_TALL])):
                line, change = total[y + k, x : x + wide], deltas[at + k * wide : at + (k + 1) * wide]
                for j in range(wide):
                    line[j] += change[j]
        else:
            take_out(total, particles, i, psf)
        theta[i] = found[THETA : THETA + 4]
        if found[FILLED] > 0.0:
            covariance[i] = found[COVARIANCE : COVARIANCE + 16].copy().reshape(4, 4)
            fit[i] = found[FIT : FIT + 2]
        state[i] = int(found[ENDED])
        if found[IS_SPLIT] > 0.0:
            block[i], touches[i] = i, True
        if found[DRAWN] == 0.0:
            put(total, theta[i], 1.0, psf)
