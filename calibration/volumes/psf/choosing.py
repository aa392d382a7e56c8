"""Gaussian or measured PSF: the one that explains beads best that were not used to make it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calibration.volumes.likelihood import deviance
from calibration.volumes.psf.fitting import BeadFits, expected, fit_beads
from calibration.volumes.psf.measuring import deviation
from calibration.volumes.psf.shapes import GaussianShape, MeasuredShape, Shape, nodes_for
from calibration.volumes.windows import Windows
from engines.volumes.surroundings.noise import Noise

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FREEDOMS = (0.02, 0.06, 0.2, 0.6)
"""Freedoms of the deviation that are tried, as parts of the peak: between two of them the likelihood is flat."""
FOLDS = 4
SURE = 2.0
"""The measured PSF is taken where its gain on beads left out exceeds this many of its standard errors."""
FEWEST = 6
"""With fewer beads none can be spared for cross-validation, and the PSF is a Gaussian."""
BRIGHT = 0.05
"""Part of the peak from which a bead's voxels tell how far it is from the PSF: others hold noise only."""
DECIDED = 4
"""Parameters of a bead that its light decides: place and amplitude."""
MOST_MISFIT = 0.5
MOST_CHECKED = 120
"""Beads of the cross-validation, at most; their mean gain is then known well enough."""


@dataclass(frozen=True, slots=True)
class Choice:
    """`freedom` of the deviation, 0 for a Gaussian; the mean gain in log likelihood per bead over the Gaussian.

    `gains` and `errors` are for each freedom tried. `misfit` is how far beads that were left out are from the shape
    that was chosen: the root of the part of their light's square, weighted by the noise, that it leaves over.
    """

    freedom: float
    freedoms: tuple[float, ...]
    gains: tuple[float, ...]
    errors: tuple[float, ...]
    beads: int
    misfit: float = 0.0

    @property
    def measured(self) -> bool:
        """Whether the measured PSF was chosen."""
        return self.freedom > 0

    @property
    def gain(self) -> float:
        """The best mean gain per bead."""
        return max(self.gains, default=0.0)


def choose(
    windows: Windows,
    fits: BeadFits,
    gaussian: GaussianShape,
    noise: Noise,
    group: IntArray,
) -> Choice:
    """Cross-validate; `group` (N,) has one number for all sightings of one bead, which stay together."""
    names = np.unique(group)
    if len(names) < FEWEST:
        return Choice(0.0, (), (), (), len(names))
    fold = np.searchsorted(names, group) % min(FOLDS, len(names))
    if len(windows) > MOST_CHECKED:
        kept = np.linspace(0, len(windows) - 1, MOST_CHECKED).astype(int)
        windows, fold, group = windows.some(kept), fold[kept], group[kept]
        fits = BeadFits(fits.parameters[kept], fits.errors[kept], fits.chi_square[kept])
    nodes = nodes_for(gaussian.sigma, windows.half)
    plain, left, light = losses(windows, gaussian, noise, fits.parameters)
    gain = np.zeros((len(FREEDOMS), len(windows)))
    over, energy = np.zeros((2, len(FREEDOMS) + 1, len(windows)))
    over[-1], energy[-1] = left, light
    for number in np.unique(fold):
        out, rest = fold == number, fold != number
        kept_fits = BeadFits(fits.parameters[rest], fits.errors[rest], fits.chi_square[rest])
        start = None
        for row, freedom in enumerate(FREEDOMS):
            start = deviation(windows.some(rest), kept_fits, gaussian, nodes, noise, freedom, start)
            shape = MeasuredShape(gaussian, nodes, start)
            found, over[row, out], energy[row, out] = losses(
                windows.some(out), shape, noise, fits.parameters[out]
            )
            gain[row, out] = 0.5 * (plain[out] - found)
    names = np.unique(group)
    by_bead = np.stack([gain[:, group == name].mean(axis=1) for name in names], axis=1)
    means, errors = by_bead.mean(axis=1), by_bead.std(axis=1, ddof=1) / np.sqrt(len(names))
    best = int(np.argmax(means))
    sure = means[best] > SURE * errors[best]
    chosen = best if sure else len(FREEDOMS)
    part = max(float(over[chosen].sum()), 0.0) / max(float(energy[chosen].sum()), 1e-30)
    return Choice(
        FREEDOMS[best] if sure else 0.0,
        FREEDOMS,
        tuple(means.tolist()),
        tuple(errors.tolist()),
        len(names),
        min(float(np.sqrt(part)), MOST_MISFIT),
    )


def losses(
    windows: Windows, shape: Shape, noise: Noise, start: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Deviance (N,) of beads that are fitted with a shape; where they are bright, the chi-square beyond that of
    noise, and the sum of the light's squares over the variance."""
    fits = fit_beads(windows, shape, noise, start)
    image = shape.image(fits.offset, windows.half)
    mean = expected(fits.parameters, image, windows.half)
    lost = deviance(noise, windows.values, mean, windows.counts).reshape(len(windows), -1).sum(axis=1)
    bright = windows.counts & (image > BRIGHT)
    variance = noise.variance(mean)
    over = np.where(bright, (windows.values - mean) ** 2 / variance - 1, 0.0).reshape(len(windows), -1)
    light = np.where(bright, (fits.amplitude[:, None, None, None] * image) ** 2 / variance, 0.0)
    # the fit takes up the noise of the parameters that the light decides
    return lost, over.sum(axis=1) + DECIDED, light.reshape(len(windows), -1).sum(axis=1)
