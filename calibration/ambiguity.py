"""Ambiguity of the depth: depths whose images cannot be told apart at the noise of one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

TOLD_APART = 5.0
"""Standard deviations of one image's noise by which two depths must differ to be told apart: at 5 a confusion is
a matter of other errors, not of noise. It sets the reported part only, no label."""
FAR_PART = 0.12
"""Part of the depth range within which depths are neighbours, not twins: images change slowly, so that close
depths are always alike. It should exceed the depth resolution and stay below the distance of the focal lines."""


@dataclass(frozen=True, slots=True, eq=False)
class Ambiguity:
    """For each depth (J,) the most similar other one, its twin, and by how many sigma the two images differ."""

    z_um: FloatArray
    twin_um: FloatArray
    sigmas: FloatArray

    @property
    def part(self) -> float:
        """Part of the depth range in which a twin cannot be told apart at 5 sigma."""
        return float(np.mean(self.sigmas < TOLD_APART))


def find_ambiguity(images: npt.NDArray[np.floating], z_um: FloatArray, noise_sd: float) -> Ambiguity:
    """Compare images (J, P, P) at depths (J,), of free brightness, under white noise of one image.

    Depths nearer to each other than an eighth of the range are neighbours, not twins.
    """
    flat = images.reshape(len(images), -1).astype(np.float64)
    power = (flat**2).sum(axis=1)
    products = flat @ flat.T
    # with the best brightness the residual is |a|^2 - (a b)^2 / |b|^2; the larger one of both directions counts
    left = power[:, None] - products**2 / np.maximum(power[None, :], 1e-30)
    distance = np.sqrt(np.maximum(np.maximum(left, left.T), 0.0)) / noise_sd
    near = np.abs(z_um[:, None] - z_um[None, :]) < FAR_PART * np.ptp(z_um)
    distance[near] = np.inf
    twin = np.argmin(distance, axis=1)
    return Ambiguity(z_um, z_um[twin], distance[np.arange(len(z_um)), twin])
