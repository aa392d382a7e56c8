"""First estimate of the traces' relative depths, good to about a step.

Every trace is the same sequence of images shifted along the focus. Pairs of traces are compared by the
correlation of their images, binned 2 x 2, at every whole shift; then each trace with the mean of the others.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]

ROUNDS = 8
"""Most rounds of comparing each trace with the mean of the others; 2 to 4 are typical."""
MIN_ENERGY = 0.3
"""Part of its energy that a trace must share with another one at a shift; less would let a few planes decide."""
MIN_OTHERS = 2
"""Most rounds of comparing each trace with the mean of the others; they end as soon as no shift changes."""


def binned(contrast: Float32Array) -> Float32Array:
    """Traces (N, K, P, P) binned 2 x 2 and flattened: (N, K, Q)."""
    count, planes, size = contrast.shape[:3]
    even = size // 2 * 2
    small = contrast[:, :, :even, :even].reshape(count, planes, even // 2, 2, even // 2, 2).mean(axis=(3, 5))
    return np.ascontiguousarray(small.reshape(count, planes, -1))


def start_shifts(traces: Float32Array, noise_variance: float) -> tuple[FloatArray, FloatArray]:
    """Shifts (N,) in planes and correlations (N,) of binned traces (N, K, Q) in evenly spaced planes.

    Plane k of trace i shows what plane k - shift of the others does. `noise_variance` is a binned pixel's.
    """
    energy = np.maximum((traces**2).sum(axis=2, dtype=np.float64) - traces.shape[2] * noise_variance, 0.0)
    reference = int(np.argmax(energy.sum(axis=1)))
    shifts, quality = np.zeros(len(traces)), np.zeros(len(traces))
    for index in range(len(traces)):
        shifts[index], quality[index] = _best_shift(
            traces[index] @ traces[reference].T, energy[index], energy[reference]
        )
    for _ in range(ROUNDS):
        before = shifts.copy()
        shifts, quality = _against_mean(traces, energy, shifts, noise_variance)
        if np.abs((shifts - np.median(shifts)) - (before - np.median(before))).max() < 0.1:
            break
    return shifts, quality


def _best_shift(products: Float32Array, first: FloatArray, second: FloatArray) -> tuple[float, float]:
    """The shift of the first trace (K,) against the second (L,) and its correlation; products are (K, L)."""
    rows, columns = products.shape
    offsets = np.arange(-(columns - 1), rows)
    scores = np.full(offsets.size, -np.inf)
    all_first, all_second = first.sum(), second.sum()
    for place, offset in enumerate(offsets):
        low, high = max(offset, 0), min(rows, columns + offset)
        shared = (first[low:high].sum(), second[low - offset : high - offset].sum())
        if shared[0] < MIN_ENERGY * all_first or shared[1] < MIN_ENERGY * all_second or min(shared) <= 0:
            continue
        scores[place] = np.trace(products, offset=-offset) / np.sqrt(shared[0] * shared[1])
    best = int(np.argmax(scores))
    if not np.isfinite(scores[best]):
        return 0.0, 0.0
    return float(offsets[best] + vertex(scores, best)), float(scores[best])


def vertex(scores: FloatArray, best: int) -> float:
    """Where a parabola through a maximum and its neighbours peaks, relative to it; 0 at the ends."""
    if not 0 < best < len(scores) - 1 or not np.isfinite(scores[best - 1 : best + 2]).all():
        return 0.0
    before, middle, after = scores[best - 1 : best + 2]
    curve = before - 2 * middle + after
    return float(0.5 * (before - after) / curve) if curve < 0 else 0.0


def _against_mean(
    traces: Float32Array, energy: FloatArray, shifts: FloatArray, noise_variance: float
) -> tuple[FloatArray, FloatArray]:
    """Compare each trace with the mean of the others, all put at their whole shifts."""
    count, planes, pixels = traces.shape
    whole = np.round(shifts).astype(int)
    first = whole.max() - whole
    length = int(first.max()) + planes
    total, number = np.zeros((length, pixels), np.float32), np.zeros(length)
    for index in range(count):
        total[first[index] : first[index] + planes] += traces[index]
        number[first[index] : first[index] + planes] += 1
    new, quality = shifts.copy(), np.zeros(count)
    for index in range(count):
        own = slice(first[index], first[index] + planes)
        others, mean = number.copy(), total.copy()
        others[own] -= 1
        mean[own] -= traces[index]
        known = others >= min(MIN_OTHERS, count - 1)
        mean[known] /= others[known, None].astype(np.float32)
        mean[~known] = 0
        left = np.where(known, noise_variance / np.maximum(others, 1), 0.0)
        mean_energy = np.maximum((mean**2).sum(axis=1, dtype=np.float64) - pixels * left, 0.0)
        # plane k of the trace shows row k + whole.max() - shift of the mean
        shift, quality[index] = _best_shift(traces[index] @ mean.T, energy[index], mean_energy)
        new[index] = shift + whole.max()
    return new, quality
