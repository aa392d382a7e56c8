"""How true the network's own standard errors are, measured on the particles that are fitted.

Where the fit is efficient, the network's position is the fit's plus an independent error (Hausman 1978,
Econometrica 46, 1251):

    var(network) = var(network - fit) + var(fit)    (1)

Both terms are known for each fitted particle, so that the factor by which the network's standard errors are too
large or too small can be measured on any optics, without the truth. They depend on the noise: a network states
those of its training images, and finds better positions in less noisy ones.
"""

from __future__ import annotations

import threading

import numpy as np

from engines.refine.arguments import BoolArray, FloatArray, IntArray

DEPTHS = 6
"""Parts of the depth range with a factor of their own. The errors of the shipped network deviate by up to 15 %
between them, hardly within one."""
KEPT = 300
"""Particles remembered for each part, alone and overlapped: a factor good to 4 %."""
PRIOR, PART_PRIOR = 15.0, 40.0
"""Particles that what is assumed beforehand counts for: 1 for all depths together, and that for each part. From 15
particles a factor is good to 20 %, about as good as the network's own errors are at first."""
OUTLIER, OF_NORMAL = 2.5, 0.9776
"""Standard deviations at which deviations are cut off, and the mean square of a normal distribution that is cut so:
1 % of wrong pairs then widens the errors by 3 %. Without a cut they would decide."""
NORMAL_PART = 0.6827
LEAST, MOST = 0.3, 5.0
"""Bounds of a factor: beyond them something else is wrong."""
EVERY, SOON = 150, 20
"""Particles after which the factors are calculated anew, which takes 0.5 ms; sooner at the beginning."""


def scale2_of(pull2: FloatArray, fit2: FloatArray) -> FloatArray:
    """The squared factors (3,) of standard errors by (1).

    `pull2` (N, 3) are squared differences between network and fit, `fit2` (N, 3) squared standard errors of the
    fit, both over the network's.
    """
    cut = OUTLIER**2 * np.quantile(pull2, NORMAL_PART, axis=0)
    scale2: FloatArray = np.minimum(pull2, cut).mean(axis=0) / OF_NORMAL + np.median(fit2, axis=0)
    return scale2


def are_known(factors: FloatArray) -> bool:
    """Whether factors are other than 1."""
    return bool((factors != 1.0).any())


class StatedErrors:
    """Factors for the standard errors of particles that were not fitted; several threads may use it at once."""

    def __init__(self, z_min_um: float, z_max_um: float) -> None:
        self._edges_um = np.linspace(z_min_um, z_max_um, DEPTHS + 1)[1:-1]
        self._lock = threading.Lock()
        self._pull2 = np.zeros((2, DEPTHS, KEPT, 3))
        self._fit2 = np.zeros((2, DEPTHS, KEPT, 3))
        self._count = np.zeros((2, DEPTHS), np.int64)
        self._fresh = 0
        self._factors: FloatArray = np.ones((2, DEPTHS, 3))

    def add(
        self,
        off_um: FloatArray,
        network_um: FloatArray,
        fit_um: FloatArray,
        z_um: FloatArray,
        overlapped: BoolArray,
    ) -> None:
        """Take fitted particles (N): network less fit, and the standard errors of both, (N, 3) each, um."""
        with np.errstate(invalid="ignore", divide="ignore"):
            pull2, fit2 = (off_um / network_um) ** 2, (fit_um / network_um) ** 2
        good = np.isfinite(pull2).all(axis=1) & np.isfinite(fit2).all(axis=1) & np.isfinite(z_um)
        part = self._part(z_um)
        with self._lock:
            for i in np.flatnonzero(good):
                at = int(overlapped[i]), int(part[i])
                slot = self._count[at] % KEPT
                self._pull2[at][slot], self._fit2[at][slot] = pull2[i], fit2[i]
                self._count[at] += 1
            self._fresh += int(good.sum())
            if self._fresh >= min(EVERY, SOON + int(self._count.sum()) // 8):
                self._fresh = 0
                self._calculate()

    def _part(self, z_um: FloatArray) -> IntArray:
        return np.searchsorted(self._edges_um, np.nan_to_num(z_um))

    def _calculate(self) -> None:
        factors = np.empty_like(self._factors)
        for kind in range(2):
            have = np.minimum(self._count[kind], KEPT)
            held = [(self._pull2[kind, d, : have[d]], self._fit2[kind, d, : have[d]]) for d in range(DEPTHS)]
            whole = np.ones(3)
            if have.sum() > 0:
                pull2, fit2 = (np.concatenate([pair[k] for pair in held]) for k in range(2))
                whole = (have.sum() * scale2_of(pull2, fit2) + PRIOR) / (have.sum() + PRIOR)
            for d in range(DEPTHS):
                mine = scale2_of(*held[d]) if have[d] else whole
                factors[kind, d] = (have[d] * mine + PART_PRIOR * whole) / (have[d] + PART_PRIOR)
        self._factors = np.clip(np.sqrt(factors), LEAST, MOST)

    @property
    def all_factors(self) -> FloatArray:
        """The factors (2, DEPTHS, 3) as they are now, lone and overlapped; never changed, only replaced."""
        return self._factors

    def factors(
        self, z_um: FloatArray, overlapped: BoolArray, factors: FloatArray | None = None
    ) -> FloatArray:
        """By what the network's standard errors of x, y, z (N, 3) are to be multiplied; 1 before it is known.

        `factors` are `all_factors` of an earlier moment.
        """
        of = self._factors if factors is None else factors
        found: FloatArray = of[overlapped.astype(np.int64), self._part(z_um)]
        return found

    @property
    def are_known(self) -> bool:
        """Whether the factors are other than 1."""
        return are_known(self._factors)

    def facts(self) -> dict[str, object]:
        """The mean factors of x, y, z for lone and for overlapped particles, and on how many they rest."""
        with self._lock:
            count, factors = self._count.sum(axis=1), self._factors.mean(axis=1)
        return {
            name: {"factors": [round(float(f), 3) for f in factors[k]], "particles": int(count[k])}
            for k, name in enumerate(("lone", "overlapped"))
        }
