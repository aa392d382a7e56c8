"""How large the particles' random steps are, learnt from how well the filter predicts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

TYPICAL_SHARE = 0.75
TYPICAL_CHI_SQUARE = 1.3233
SLOWEST_RATE = 0.05
HALF_TRUST = 20.0
HALF_LEARNT_FRAMES = 20.0
FAR_OFF = 0.1
FASTEST = 4.0


class StepNoise:
    """The variance q (um^2/s) of a Brownian step per second in each axis.

    If q is right, three quarters of the innovations nu^2 / S lie below that quantile of chi-square with one
    degree of freedom. The share found below moves ln q: a quantile, because wrong links and badly centred
    particles lie in the tail; not the median, because mixed particles must not be judged by the slow half. A
    given diffusion coefficient D fixes q = 2 D.
    """

    def __init__(self, diffusion_um2_s: float | None) -> None:
        self.known = diffusion_um2_s is not None
        self.rate: FloatArray = np.full(3, 2.0 * (diffusion_um2_s or 0.0))
        self._frames = 0

    @property
    def trusted_rate(self) -> FloatArray:
        """The rate (3,), less what it may be too large by while it is still coming down to its value."""
        trust = 1.0 if self.known else self._frames / (self._frames + HALF_LEARNT_FRAMES)
        trusted: FloatArray = trust * self.rate
        return trusted

    @property
    def ready(self) -> bool:
        """Whether there is a first value to start from."""
        return self.known or bool(self.rate[0] > 0)

    def start(self, rate: FloatArray) -> None:
        """Set the first guess (3,), um^2/s; without effect where the diffusion coefficient is given."""
        if not self.ready:
            self.rate = rate.astype(np.float64)

    def learn(self, below: npt.NDArray[np.int64], judged: int, low: FloatArray, high: FloatArray) -> None:
        """Adapt to one frame: of `judged` tracks, `below` (3,) had nu^2 / S < `TYPICAL_CHI_SQUARE`.

        `low` and `high` (3,), um^2/s, bound what can be learnt.
        """
        if self.known or judged == 0:
            return
        self._frames += 1
        pace = max(1.0 / (1.0 + self._frames / 10.0), SLOWEST_RATE) * judged / (judged + HALF_TRUST)
        off = TYPICAL_SHARE - below / judged
        hurry = np.minimum(1.0 + (off / FAR_OFF) ** 2, FASTEST)
        self.rate = np.clip(self.rate * np.exp(2.0 * pace * hurry * off), low, high)
