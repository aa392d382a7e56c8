"""When a change is sure: limits that hold for a whole run, however long it is and however often one looks.

At each look some estimates are compared with what is tolerated. A fixed limit, passed often enough, is passed by
chance in the end. So the nth look gets the part 6 / (pi n)^2 of the chance `FALSE_ALARMS` that a run without any
change is told one: the parts add up to 1 (union bound with a convergent series: Darling & Robbins 1967, PNAS 57,
1188). Limits rise slowly: 4.5 standard errors at the 10th look, 6.2 at the 1000th, 7.5 at the 100,000th,
for the 11 estimates of `engines.selfcheck.images`.
"""

from __future__ import annotations

import math

from scipy.special import ndtri

FALSE_ALARMS = 0.01
"""Chance that a run without any change is told one."""


def limit(look: int, estimates: int) -> float:
    """Standard errors beyond what is tolerated at which one of `estimates` is sure, at the nth look from 1 on."""
    chance = FALSE_ALARMS * 6.0 / (math.pi * look) ** 2 / max(estimates, 1)
    return -float(ndtri(chance / 2.0))


def is_sure(value: float, error: float, tolerated: float, look: int, estimates: int) -> bool:
    """Whether `value` is further from 0 than `tolerated`, beyond doubt."""
    return math.isfinite(error) and abs(value) - tolerated > limit(look, estimates) * error
