"""One factor that makes a network's class probabilities right: its temperature, found on held-out images.

Networks state classes with too much or, after a short training, too little confidence. The logits of the classes
over one number, which minimises the cross-entropy of the classes of held-out particles, state it as it is, and no
class changes (Guo et al. 2017, On calibration of modern neural networks, ICML).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from calibration.matching import IntArray
from engines.network.decode import ROW, particles_of
from engines.network.layout import CHANNELS, SLOTS

FloatArray = npt.NDArray[np.float64]
FEWEST = 50
"""Particles found, below which the temperature stays 1: of 50 it is known to some 20 %."""
RANGE = (0.2, 5.0)
EXACT = 0.01
"""Of the logarithm of the temperature: much less than it is known to."""
LEAST = 1e-9
"""Probability that none is below."""


def class_temperature(
    slots: Sequence[FloatArray], learnt: int, found: IntArray, kind: IntArray, kinds: int
) -> float:
    """The temperature for the classes of particles, which are decoded from `slots` (`slots_of`), one of each image.

    `found` (P,) numbers those of all images that are known to be of the classes `kind` (P,). One more is counted as
    of another class than stated, so that of few, all right, none is certain (Laplace's rule). 1 for too few.
    """
    if len(found) < FEWEST:
        return 1.0
    loss = partial(_cross_entropy, slots, learnt, found, kind, kinds)
    low, high = (math.log(end) for end in RANGE)
    best = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": EXACT})
    return float(math.exp(best.x))


def at_temperature(weights: dict[str, Any], kinds: int, temperature: float) -> dict[str, Any]:
    """The weights of a network that divides the logits of its `kinds` classes by the temperature."""
    if temperature == 1.0:
        return weights
    classes = slice(SLOTS * CHANNELS, SLOTS * (CHANNELS + kinds))
    changed = {name: weights[name].clone() for name in ("head.weight", "head.bias")}
    for values in changed.values():
        values[classes] /= temperature
    return weights | changed


def _cross_entropy(
    slots: Sequence[FloatArray],
    learnt: int,
    found: IntArray,
    kind: IntArray,
    kinds: int,
    log_temperature: float,
) -> float:
    power = math.exp(-log_temperature)
    first = len(ROW)
    rows = [particles_of(_raised(some, slice(first, first + kinds), power), learnt) for some in slots]
    stated = np.concatenate([some[:, first : first + kinds] for some in rows])[found]
    right = np.clip(stated[np.arange(len(kind)), kind], LEAST, 1 - LEAST)
    return float(-np.log(right).sum() - np.log(1 - right).mean())


def _raised(slots: FloatArray, classes: slice, power: float) -> FloatArray:
    """Slots whose logits of classes are multiplied by `power`: probabilities to this power, over their sum."""
    changed = slots.copy()
    raised = np.maximum(slots[:, classes], LEAST) ** power
    changed[:, classes] = raised / raised.sum(axis=1, keepdims=True)
    return changed
