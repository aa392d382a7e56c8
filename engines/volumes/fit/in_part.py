"""The fit of a volume where there is no time for all of it: a short one of all particles, then whole groups."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from engines.volumes.fit.arguments import A, BoolArray, Float32Array, FloatArray, IntArray, KernelPsf, Stack
from engines.volumes.fit.grouping import groups_of
from engines.volumes.fit.short_fit import fit_short


class Limit(Protocol):
    """Says what is fitted whole in one volume. Its methods are called once, in this order."""

    def is_time_for(self, group: IntArray, place: FloatArray) -> bool:
        """Whether there is time for the whole fit of all particles.

        Their groups (N,) are numbered below N; places (N, 3) are in standard deviations of the PSF.
        """
        ...

    def choose(self, group: IntArray, longer: FloatArray) -> BoolArray:
        """The particles (N,) for whose whole fit there is time; `longer` is what `fit_short` returns."""
        ...


def fit_before(
    limit: Limit,
    stack: Stack,
    psf: KernelPsf,
    theta: FloatArray,
    usable: BoolArray,
    others: Float32Array,
    ground: FloatArray,
    covariance: FloatArray,
    fit: FloatArray,
) -> BoolArray:
    """The particles (N,) that get no whole fit and keep the short one; arguments as in `fit_short`.

    Where there is time for all, nothing is done.
    """
    group, _ = groups_of(theta, usable, psf)
    numbered = np.unique(group[usable], return_inverse=True)[1]
    if limit.is_time_for(numbered, theta[usable, :A] / psf.sigma):
        return np.zeros(usable.size, np.bool_)
    longer = fit_short(stack, psf, theta, usable, group, others, ground, covariance, fit)
    short = usable.copy()
    short[usable] = ~limit.choose(numbered, longer[usable])
    return short
