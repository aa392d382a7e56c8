"""What is learnt of all switching particles: steps, switching rates, how often they are seen, and how long they
live.

Expectation-maximisation with forgetting: each frame adds the sums of `tracking.switching.life`; a quantity is the
ratio of two of them, with a first guess that counts as a few observations.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tracking.switching import life

FloatArray = npt.NDArray[np.float64]

MEMORY_FRAMES = 40.0
"""Frames after which an observation counts 1/e, as for the noise of a flow."""
GUESSED = 5.0  # observations that a first guess counts as; a frame of 20 tracks outweighs it
DIRECTED_STEPS = 0.1
"""First guess of q of D, in q of B. The guess follows what B is found to be: a fixed one stayed above it where
particles are few and slow, and directed motion was then never seen."""
GUESSED_RATES, RATES = 20.0, (0.05, 0.05, 0.03)
"""Weight of the first guess of the switching rates, and the rates a frame: B to N, D and N to B, D to N. A chance
of a few percent each frame costs 0.1 in ln L and keeps who does switch."""
LEAST_RATE, MOST_RATE = 0.003, 0.4
GUESSED_LIVES, DEATHS = 50.0, 0.02
LEAST_DETECTION, MOST_DETECTION = 0.5, 0.998
LEAST_SURVIVAL, MOST_SURVIVAL = 0.7, 0.9995
FIRST_DIRECTED, LEAST_DIRECTED = 0.5, 0.02


class Learning:
    """`q` (2, 3), `rates` (3,), `detection`, `survival` and `directed`, as they are known now."""

    def __init__(self, detection: float, brownian_um2_s: float | None) -> None:
        """`detection` is the first guess; `brownian_um2_s` is q of B if it is known."""
        self.q: FloatArray = np.zeros((2, 3))
        self.rates: FloatArray = np.array(RATES)
        self.detection = self._first_detection = detection
        self.survival = 1.0 - DEATHS
        self.directed = FIRST_DIRECTED
        self.sums: FloatArray = np.zeros(life.SUMS + 6)
        self._known = brownian_um2_s
        self._all: FloatArray = np.zeros(life.SUMS + 6)
        self._first: FloatArray = np.zeros((2, 3))
        self._frames = 0

    @property
    def ready(self) -> bool:
        """Whether the steps have a value."""
        return bool(self.q.any())

    def start(self, step_um2_s: float) -> None:
        """First guess of the Brownian steps; those of directed motion are `DIRECTED_STEPS` of that."""
        self._first[0] = step_um2_s if self._known is None else self._known
        self._first[1] = DIRECTED_STEPS * self._first[0]
        self.q = self._first.copy()

    def learn(self, low: FloatArray, high: FloatArray) -> None:
        """Take in the sums of a frame; `low` and `high` (3,), um^2/s, are bounds of the steps."""
        self._frames += 1
        self._all *= math.exp(-1.0 / min(1.0 + 0.5 * self._frames, MEMORY_FRAMES))
        self._all += self.sums
        s = self._all
        for m, (step, weight) in enumerate(((life.STEP_B, life.WEIGHT_B), (life.STEP_D, life.WEIGHT_D))):
            if m == 0 and self._known is not None:
                continue
            total, count = s[step : step + 3].copy(), s[weight : weight + 3].copy()
            total[:2], count[:2] = total[:2].sum(), count[:2].sum()  # nothing tells x from y
            # directed motion is the steadier one: until it was seen, its steps are guessed from the others
            first = self._first[0] if m == 0 else DIRECTED_STEPS * self.q[0]
            self.q[m] = np.clip((total + GUESSED * first) / (count + GUESSED), low, high)
        away = s[life.STOP] + s[life.STAY_D] + s[life.TURN]
        for at, (number, of) in enumerate((
            (s[life.START], s[life.START] + s[life.STAY_B]), (s[life.STOP], away), (s[life.TURN], away),
        )):  # fmt: skip
            rate = (number + GUESSED_RATES * RATES[at]) / (of + GUESSED_RATES)
            self.rates[at] = min(max(rate, LEAST_RATE), MOST_RATE)
        seen, unseen = s[life.DETECTED], s[life.UNDETECTED]
        found = (seen + GUESSED * self._first_detection) / (seen + unseen + GUESSED)
        self.detection = float(min(max(found, LEAST_DETECTION), MOST_DETECTION))
        dies = (s[life.DIED] + GUESSED_LIVES * DEATHS) / (s[life.LIVED] + GUESSED_LIVES)
        self.survival = float(min(max(1.0 - dies, LEAST_SURVIVAL), MOST_SURVIVAL))
        share = (s[life.DIRECTED] + GUESSED * FIRST_DIRECTED) / (s[life.ALL] + GUESSED)
        self.directed = float(min(max(share, LEAST_DIRECTED), 1.0 - LEAST_DIRECTED))
