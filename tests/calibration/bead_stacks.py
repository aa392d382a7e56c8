"""Stacks of beads whose truth is known, drawn without the package: sums of Gaussians, or of another image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Bead = Callable[[FloatArray, FloatArray, FloatArray], FloatArray]


def gaussian(sigma: tuple[float, float, float]) -> Bead:
    def image(z: FloatArray, y: FloatArray, x: FloatArray) -> FloatArray:
        return np.exp(-0.5 * ((z / sigma[0]) ** 2 + (y / sigma[1]) ** 2 + (x / sigma[2]) ** 2))

    return image


def lopsided(z: FloatArray, y: FloatArray, x: FloatArray) -> FloatArray:
    """Sharp above the focus and wide below it, as with spherical aberration."""
    core = np.exp(-0.5 * ((z / 1.3) ** 2 + (y**2 + x**2) / 1.2**2))
    tail = np.exp(-0.5 * (((z + 2.2) / 1.4) ** 2 + (y**2 + x**2) / 2.4**2))
    return np.asarray((core + 0.35 * tail) / 1.1)


def drawn(
    places: FloatArray,
    amplitudes: FloatArray,
    shape: tuple[int, int, int],
    bead: Bead,
    *,
    background: float = 20.0,
    gain: float = 1.0,
    offset: float = 0.0,
    read: float = 0.0,
    seed: int = 0,
) -> npt.NDArray[np.uint16]:
    """A volume (Z, H, W) with beads at `places` (N, 3) of `amplitudes` photo-electrons, on a slope of light."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.arange(float(n)) for n in shape), indexing="ij")
    light = background * (1 + 0.4 * (x / shape[2] - 0.5))
    for (cz, cy, cx), amplitude in zip(places, amplitudes, strict=True):
        rows, columns = (slice(max(0, int(c) - 14), int(c) + 15) for c in (cy, cx))
        near = (slice(None), rows, columns)
        light[near] += amplitude * bead(z[near] - cz, y[near] - cy, x[near] - cx)
    image = gain * rng.poisson(light) + offset + read * rng.standard_normal(shape)
    return np.clip(np.rint(image), 0, 65535).astype(np.uint16)


def spread_out(shape: tuple[int, int, int], step: int, seed: int = 0) -> FloatArray:
    """Places (N, 3) of lone beads, about `step` voxels apart, at any sub-voxel offset, away from the ends."""
    rng = np.random.default_rng(seed)
    along = [np.arange(step / 2, n, step) for n in shape[1:]]
    grid = np.stack(np.meshgrid(*along, indexing="ij"), axis=-1).reshape(-1, 2)
    grid += rng.uniform(-1.5, 1.5, grid.shape)
    depth = rng.uniform(0.25 * shape[0], 0.75 * shape[0], len(grid))
    return np.column_stack([depth, grid])
