"""Learns the size of the particles' random steps from the innovations of the filter."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

TYPICAL_SHARE = 0.75
TYPICAL_CHI_SQUARE = 1.3233
"""Quantile of chi-square with one degree of freedom, and its share, by which innovations are judged. Above it the
tail of wrong links and badly centred particles would raise the rate; at the median, in a mixture, the slow half
decides."""
SLOWEST_RATE = 0.05
"""Smallest change of ln rate for each frame and unit of deviation: a memory of about 20 frames. Smaller follows a
change slowly; larger makes the rate noisy where few tracks are judged."""
HALF_TRUST = 20.0
"""Tracks judged in a frame at which it changes the rate half as much as a frame of many. The share of 20 is known
to 0.1; smaller lets single tracks move the rate, larger delays learning in sparse suspensions."""
HALF_LEARNT_FRAMES = 20.0
"""Frames after which the rate is trusted by half (`trusted_rate`). It starts too large and needs about that
long."""
FAR_OFF = 0.1
FASTEST = 4.0
"""Deviation of the share from which learning is faster, and by how much at most: the first guess may be wrong by
orders of magnitude. With more the rate overshoots; with 1 the first tens of frames have too wide gates."""


class StepNoise:
    """The variance q (um^2/s) of a Brownian step per second in each axis.

    If q is right, `TYPICAL_SHARE` of the innovations nu^2 / S lie below `TYPICAL_CHI_SQUARE`. The deviation of the
    share that is found changes ln q. A given diffusion coefficient D fixes q = 2 D.
    """

    def __init__(self, diffusion_um2_s: float | None) -> None:
        self.known = diffusion_um2_s is not None
        self.rate: FloatArray = np.full(3, 2.0 * (diffusion_um2_s or 0.0))
        self._frames = 0

    @property
    def trusted_rate(self) -> FloatArray:
        """A cautious rate (3,): reduced in the first frames, in which the rate is too large."""
        trust = 1.0 if self.known else self._frames / (self._frames + HALF_LEARNT_FRAMES)
        trusted: FloatArray = trust * self.rate
        return trusted

    @property
    def ready(self) -> bool:
        """Whether the rate has a value."""
        return self.known or bool(self.rate[0] > 0)

    def start(self, rate: FloatArray) -> None:
        """Set the first guess (3,), um^2/s; no effect if the diffusion coefficient was given."""
        if not self.ready:
            self.rate = rate.astype(np.float64)

    def learn(self, below: npt.NDArray[np.int64], judged: int, low: FloatArray, high: FloatArray) -> None:
        """Adapt to one frame: of `judged` tracks, `below` (3,) had nu^2 / S < `TYPICAL_CHI_SQUARE`.

        `low` and `high` (3,), um^2/s, are bounds of the rate.
        """
        if self.known or judged == 0:
            return
        self._frames += 1
        pace = max(1.0 / (1.0 + self._frames / 10.0), SLOWEST_RATE) * judged / (judged + HALF_TRUST)
        off = TYPICAL_SHARE - below / judged
        hurry = np.minimum(1.0 + (off / FAR_OFF) ** 2, FASTEST)
        self.rate = np.clip(self.rate * np.exp(2.0 * pace * hurry * off), low, high)
