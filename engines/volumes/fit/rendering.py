"""Images of particles in boxes of voxels, and their derivatives; a Gaussian is a product of three profiles."""

from __future__ import annotations

import numpy as np
from numba import njit

from engines.refine.spline import weights
from engines.volumes.fit.arguments import (
    BOX,
    Float32Array,
    FloatArray,
    IntArray,
    KernelPsf,
    Room,
    X,
    Y,
    Z,
)

BY_Z, BY_Y, BY_X, VALUE = range(4)
WIDE = 1.35
"""How much farther than for a lone particle light is drawn where it falls on others: a Gaussian to 4 standard
deviations, 0.03 % of its peak, so that it is not taken for something faint beside a bright particle."""


@njit(cache=True, nogil=True)
def set_box(
    theta: FloatArray,
    heights: FloatArray,
    shape: tuple[int, int, int],
    psf: KernelPsf,
    widen: float,
    box: IntArray,
) -> None:
    """Fill `box` (6,) with the voxels of a particle `theta` (4,); empty outside the volume.

    They reach `widen` times as far as `psf.reach`.
    """
    first, last = 0, shape[0]
    while first < last and heights[first] < theta[Z] - widen * psf.reach[Z]:
        first += 1
    while last > first and heights[last - 1] > theta[Z] + widen * psf.reach[Z]:
        last -= 1
    box[0], box[1] = first, last
    for axis in range(1, 3):
        low = int(np.ceil(theta[axis] - widen * psf.reach[axis]))
        high = int(np.floor(theta[axis] + widen * psf.reach[axis])) + 1
        box[2 * axis] = min(max(low, 0), shape[axis])
        box[2 * axis + 1] = max(min(high, shape[axis]), box[2 * axis])


@njit(cache=True, nogil=True)
def volume_of(box: IntArray) -> int:
    """Voxels of a box."""
    return int((box[1] - box[0]) * (box[3] - box[2]) * (box[5] - box[4]))


@njit(cache=True, nogil=True)
def render(
    theta: FloatArray,
    box: IntArray,
    heights: FloatArray,
    psf: KernelPsf,
    gradients: bool,
    room: Room,
    out: Float32Array,
) -> None:
    """Fill `out` (4, S) with the image of a particle of amplitude 1 in its `box`, and its derivatives by z, y, x.

    Voxels follow one another as in the box. Without `gradients` only `VALUE` is filled.
    """
    if psf.measured:
        _render_measured(theta, box, heights, psf, gradients, room, out)
    else:
        _render_gaussian(theta, box, heights, psf, gradients, room.profile, out)


@njit(cache=True, nogil=True, fastmath={"contract", "nsz"})
def _render_gaussian(
    theta: FloatArray,
    box: IntArray,
    heights: FloatArray,
    psf: KernelPsf,
    gradients: bool,
    profile: Float32Array,
    out: Float32Array,
) -> None:
    for axis in range(3):
        inverse = 1.0 / psf.sigma[axis] ** 2
        first = box[2 * axis]
        for i in range(box[2 * axis + 1] - first):
            place = heights[first + i] if axis == Z else float(first + i)
            off = place - theta[axis]
            value = np.exp(-0.5 * off * off * inverse)
            profile[axis, 0, i] = value
            profile[axis, 1, i] = value * off * inverse
    tall, wide = box[3] - box[2], box[5] - box[4]
    along, slope = profile[X, 0, :wide], profile[X, 1, :wide]
    at = 0
    for k in range(box[1] - box[0]):
        for j in range(tall):
            value = profile[Z, 0, k] * profile[Y, 0, j]
            row = out[VALUE, at : at + wide]
            for i in range(wide):
                row[i] = value * along[i]
            if gradients:
                by_z, by_y = profile[Z, 1, k] * profile[Y, 0, j], profile[Z, 0, k] * profile[Y, 1, j]
                d0, d1, d2 = out[BY_Z, at : at + wide], out[BY_Y, at : at + wide], out[BY_X, at : at + wide]
                for i in range(wide):
                    d0[i] = by_z * along[i]
                    d1[i] = by_y * along[i]
                    d2[i] = value * slope[i]
            at += wide


@njit(cache=True, nogil=True, fastmath={"contract", "nsz"})
def _render_measured(
    theta: FloatArray,
    box: IntArray,
    heights: FloatArray,
    psf: KernelPsf,
    gradients: bool,
    room: Room,
    out: Float32Array,
) -> None:
    """The spline, depth first, then rows, then columns, each only where the box needs it."""
    deep, high, long = psf.coefficients.shape
    tall, wide = box[3] - box[2], box[5] - box[4]
    planes, w, s = room.planes, np.empty(4), np.empty(4)
    for k in range(box[1] - box[0]):
        node = (heights[box[0] + k] - theta[Z]) * psf.per_voxel[Z] + psf.centre[Z]
        base = int(np.floor(node))
        area = out[:, k * tall * wide : (k + 1) * tall * wide]
        if base < 1 or base > deep - 3:
            area[:] = 0.0
            continue
        weights(node - base, w, s)
        for part in range(2 if gradients else 1):
            of, scale = (w, 1.0) if part == 0 else (s, -psf.per_voxel[Z])
            a0, a1 = np.float32(of[0] * scale), np.float32(of[1] * scale)
            a2, a3 = np.float32(of[2] * scale), np.float32(of[3] * scale)
            for j in range(high):
                c0, c1 = psf.coefficients[base - 1, j], psf.coefficients[base, j]
                c2, c3 = psf.coefficients[base + 1, j], psf.coefficients[base + 2, j]
                row = planes[part, j]
                for i in range(long):
                    row[i] = a0 * c0[i] + a1 * c1[i] + a2 * c2[i] + a3 * c3[i]
        for j in range(tall):
            node = (box[2] + j - theta[Y]) * psf.per_voxel[Y] + psf.centre[Y]
            base = int(np.floor(node))
            line = area[:, j * wide : (j + 1) * wide]
            if base < 1 or base > high - 3:
                line[:] = 0.0
                continue
            weights(node - base, w, s)
            for part in range(3 if gradients else 1):
                of, scale = (s, -psf.per_voxel[Y]) if part == 2 else (w, 1.0)
                b0, b1 = np.float32(of[0] * scale), np.float32(of[1] * scale)
                b2, b3 = np.float32(of[2] * scale), np.float32(of[3] * scale)
                plane, row = planes[part % 2], planes[2 + part, 0]
                p0, p1, p2, p3 = plane[base - 1], plane[base], plane[base + 1], plane[base + 2]
                for i in range(long):
                    row[i] = b0 * p0[i] + b1 * p1[i] + b2 * p2[i] + b3 * p3[i]
            for i in range(wide):
                node = (box[4] + i - theta[X]) * psf.per_voxel[X] + psf.centre[X]
                base = int(np.floor(node))
                if base < 1 or base > long - 3:
                    line[:, i] = 0.0
                    continue
                weights(node - base, w, s)
                value, by_x, by_z, by_y = 0.0, 0.0, 0.0, 0.0
                for t in range(4):
                    plain = planes[2, 0, base - 1 + t]
                    value += w[t] * plain
                    if gradients:
                        by_x -= s[t] * plain
                        by_z += w[t] * planes[3, 0, base - 1 + t]
                        by_y += w[t] * planes[4, 0, base - 1 + t]
                line[VALUE, i] = value
                if gradients:
                    line[BY_X, i] = by_x * psf.per_voxel[X]
                    line[BY_Z, i], line[BY_Y, i] = by_z, by_y


@njit(cache=True, nogil=True)
def put(
    total: Float32Array,
    theta: FloatArray,
    amplitude: float,
    heights: FloatArray,
    psf: KernelPsf,
    room: Room,
) -> None:
    """Add the image of a particle of this amplitude to `total` (D, H, W)."""
    box = np.empty(BOX, np.int64)
    set_box(theta, heights, total.shape, psf, WIDE, box)
    if volume_of(box) == 0:
        return
    out = room.images[room.images.shape[0] - 1]
    render(theta, box, heights, psf, False, room, out)
    factor, at, wide = np.float32(amplitude), 0, box[5] - box[4]
    for k in range(box[0], box[1]):
        for j in range(box[2], box[3]):
            row, image = total[k, j, box[4] : box[5]], out[VALUE, at : at + wide]
            for i in range(wide):
                row[i] += factor * image[i]
            at += wide
