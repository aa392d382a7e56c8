"""Properties of particles that a network learnt beside place, brightness and class: their units and names.

A plain property is one number of the network, in half ranges off the middle of the range that was trained. An angle
is two, the cosine and the sine of `2 pi angle / period`: so a rod at 1 degree is near one at 179 degrees.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

FloatArray = npt.NDArray[np.float64]
LEAST_LENGTH = 0.05
"""Length of the mean vector of an angle below which nothing is known of it; only division by 0 must be avoided."""


class LearntProperty(BaseModel):
    """A property: its `name` with its unit, the range `low` to `high` that was trained, and its scale of errors.

    `period` is that of an angle, in the unit of the name; None for all else. `of_kinds` are the classes of
    particles that have the property, None for all. Standard errors are to be multiplied by `sigma_scale`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    name: str
    low: float
    high: float
    period: float | None = Field(None, gt=0)
    of_kinds: tuple[int, ...] | None = None
    sigma_scale: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _has_a_range(self) -> LearntProperty:
        if not self.low < self.high:
            raise ValueError(f"{self.name} ranges from {self.low:g} to {self.high:g}, which is no range")
        return self

    @property
    def numbers(self) -> int:
        """Numbers of the network."""
        return 1 if self.period is None else 2

    @property
    def middle(self) -> float:
        """The middle of the range."""
        return 0.5 * (self.low + self.high)

    @property
    def half_range(self) -> float:
        """Half of the range: the unit of the network."""
        return 0.5 * (self.high - self.low)

    def as_numbers(self, values: FloatArray) -> FloatArray:
        """The numbers (N, numbers) that the network is to learn for values (N,); NaN where these are NaN."""
        if self.period is None:
            return ((values - self.middle) / self.half_range)[:, None]
        phase = 2 * math.pi * values / self.period
        return np.column_stack([np.cos(phase), np.sin(phase)])

    def from_numbers(self, numbers: FloatArray, sigmas: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (N,) and standard errors (N,) of the network's numbers (N, numbers) and their standard errors.

        Angles are from 0 to their period; errors of an angle that is not known at all are half a period at most.
        """
        if self.period is None:
            return self.middle + self.half_range * numbers[:, 0], (
                self.half_range * self.sigma_scale * sigmas[:, 0]
            )
        cosine, sine = numbers.T
        length = np.maximum(np.hypot(cosine, sine), LEAST_LENGTH)
        per_rad = self.period / (2 * math.pi)
        across = (
            np.hypot(sine * sigmas[:, 0], cosine * sigmas[:, 1]) / length
        )  # of the vector, along the circle
        error = np.minimum(per_rad * self.sigma_scale * across / length, 0.5 * self.period)
        return (per_rad * np.arctan2(sine, cosine)) % self.period, error

    def difference(self, found: FloatArray, true: FloatArray) -> FloatArray:
        """`found` minus `true`; of an angle the shorter way round."""
        away = found - true
        if self.period is None:
            return away
        return (away + 0.5 * self.period) % self.period - 0.5 * self.period


def values_of(
    learnt: tuple[LearntProperty, ...], rows: FloatArray, kind: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Values and standard errors (P, N) by the last columns of decoded particles (N, ...), `decode.ROW`.

    Those of properties that a particle's `kind` (N,) does not have are NaN.
    """
    total = sum(each.numbers for each in learnt)
    numbers, sigmas = rows[:, rows.shape[1] - 2 * total :][:, :total], rows[:, rows.shape[1] - total :]
    values, errors = np.empty((2, len(learnt), len(rows)))
    first = 0
    for row, each in enumerate(learnt):
        of = slice(first, first + each.numbers)
        values[row], errors[row] = each.from_numbers(numbers[:, of], sigmas[:, of])
        first += each.numbers
        if each.of_kinds is not None and kind is not None:
            lacks = ~np.isin(kind, each.of_kinds)
            values[row, lacks] = errors[row, lacks] = np.nan
    return values, errors
