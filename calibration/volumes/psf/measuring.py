"""Measures the PSF: the deviation from a Gaussian, from many beads at sub-voxel offsets of their own.

Every voxel of every bead is an equation for the nodes of the deviation (see `shapes`), weighted by its noise.
Before the images are looked at the deviation is taken as normally distributed around 0 with a standard deviation
`freedom` in the middle, falling off with the Gaussian to a floor: so nodes that few voxels see stay near the
Gaussian (ridge regression; the freedom is chosen by cross-validation, see `choosing`). Beads are then fitted with
the new shape, and so on.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse.linalg import LinearOperator, cg

from calibration.volumes.psf.fitting import AMPLITUDE, BACKGROUND, BeadFits, fit_beads
from calibration.volumes.psf.shapes import (
    GaussianShape,
    MeasuredShape,
    Nodes,
    gather,
    nodes_for,
    spread,
)
from calibration.volumes.windows import Windows, background_terms
from engines.volumes.surroundings.noise import Noise

FloatArray = npt.NDArray[np.float64]

ENVELOPE = 1.5
"""Width of the deviation's prior over that of the Gaussian: real PSFs have tails where a Gaussian has none."""
FLOOR = 0.05
"""The prior far from the centre, over that in the middle."""
STEPS = 30
TOLERANCE = 1e-3
FINE = 4.0
"""Samples per standard deviation where the PSF is centred."""


def deviation(
    windows: Windows,
    fits: BeadFits,
    gaussian: GaussianShape,
    nodes: Nodes,
    noise: Noise,
    freedom: float,
    start: FloatArray | None = None,
) -> FloatArray:
    """Coefficients (nodes z, y, x) of the deviation, given the beads' positions, amplitudes and backgrounds."""
    half, parameters = windows.half, fits.parameters
    bases = [nodes.basis(parameters[:, :3], half, axis) for axis in range(3)]
    amplitude = parameters[:, AMPLITUDE, None, None, None]
    ground = np.tensordot(parameters[:, BACKGROUND : BACKGROUND + 4], background_terms(half), axes=1)
    smooth = amplitude * gaussian.image(parameters[:, :3], half) + ground
    mean = smooth if start is None else smooth + amplitude * spread(start, bases)
    weight = np.where(windows.counts, 1 / noise.variance(mean), 0.0)
    scale = freedom * prior(nodes, gaussian)
    right = scale * gather(amplitude * weight * (windows.values - smooth), bases)

    def apply(flat: FloatArray) -> FloatArray:
        given = flat.reshape(nodes.shape)
        image = amplitude**2 * weight * spread(scale * given, bases)
        return np.asarray((given + scale * gather(image, bases)).ravel())

    size = int(np.prod(nodes.shape))
    first = None if start is None else (start / scale).ravel()
    operator = LinearOperator((size, size), matvec=apply, dtype=np.float64)
    found, _ = cg(operator, right.ravel(), x0=first, rtol=TOLERANCE, maxiter=STEPS)
    return np.asarray(scale * found.reshape(nodes.shape))


def prior(nodes: Nodes, gaussian: GaussianShape) -> FloatArray:
    """Standard deviation of each node before the images are looked at, for a freedom of 1."""
    factors = [
        np.exp(-0.5 * (nodes.positions(axis) / (ENVELOPE * gaussian.sigma[axis])) ** 2) for axis in range(3)
    ]
    inside = factors[0][:, None, None] * factors[1][None, :, None] * factors[2][None, None, :]
    return np.asarray(np.maximum(inside, FLOOR))


def measure(
    windows: Windows,
    fits: BeadFits,
    gaussian: GaussianShape,
    noise: Noise,
    freedom: float,
    rounds: int = 3,
) -> tuple[MeasuredShape, BeadFits]:
    """The measured shape, and the beads fitted with it; both in turn, `rounds` times."""
    nodes = nodes_for(gaussian.sigma, windows.half)
    coefficients: FloatArray | None = None
    for _ in range(rounds):
        coefficients = deviation(windows, fits, gaussian, nodes, noise, freedom, coefficients)
        shape = MeasuredShape(gaussian, nodes, coefficients)
        moved = fits.parameters.copy()
        moved[:, :3] += centre_of(shape)
        coefficients = deviation(
            windows, BeadFits(moved, fits.errors, fits.chi_square), gaussian, nodes, noise, freedom
        )
        shape = MeasuredShape(gaussian, nodes, coefficients)
        fits = fit_beads(windows, shape, noise, moved)
    return shape, fits


def fine_samples(shape: MeasuredShape, half: tuple[int, int, int]) -> tuple[FloatArray, FloatArray]:
    """The shape (D, H, W) at `FINE` samples per sigma as far as `half` voxels, and the samples' spacing (3,)."""
    spacing = shape.gaussian.sigma / FINE
    places = [
        np.arange(-int(h / step), int(h / step) + 1) * step for h, step in zip(half, spacing, strict=True)
    ]
    return shape.sampled(*places), spacing


def centre_of(shape: MeasuredShape) -> FloatArray:
    """Where (3,: z, y, x; voxels) the Gaussian lies that fits the shape best: the origin of a measured PSF.

    So positions by a Gaussian and by the measured PSF agree on the average.
    """
    reach = [
        min(3.0 * s, n * d)
        for s, n, d in zip(shape.gaussian.sigma, shape.nodes.count, shape.nodes.spacing, strict=True)
    ]
    samples, spacing = fine_samples(shape, tuple(reach))
    half = tuple(n // 2 for n in samples.shape)
    window = Windows(samples[None], np.ones((1, *samples.shape), bool), np.zeros((1, 4), np.int64), half)
    flat = Noise(0.0, 0.0, 1.0)
    fine = fit_beads(window, GaussianShape(np.full(3, FINE)), flat, free_width=True, slopes=False, bound=FINE)
    return np.asarray(fine.offset[0] * spacing)
