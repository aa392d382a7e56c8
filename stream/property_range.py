"""A range of a property of particles, and the probability that a particle is in it."""

from __future__ import annotations

import math
from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator
from scipy.special import ndtr

from stream.messages import Tracks
from stream.particle_properties import FloatArray, check_names
from stream.settings import Section


class PropertyRange(Section):
    """Settings that choose particles by a property, such as their radius."""

    property: str | None = Field(
        None,
        description="property of the particles that count, as the detector names it (`radius_um`); left out: all",
    )
    at_least: float | None = Field(None, description="least value of `property`, in the unit of its name")
    at_most: float | None = Field(None, description="largest value of `property`")
    min_p_property: float = Field(
        0.9,
        ge=0,
        le=1,
        description="least probability, by its standard error, that a particle's `property` is in this range",
    )

    @model_validator(mode="after")
    def _a_range(self) -> Self:
        edges = (self.at_least, self.at_most)
        if self.property is None:
            if edges != (None, None):
                raise ValueError("at_least and at_most need the property that they limit; give `property`")
            return self
        check_names((self.property,))
        if edges == (None, None):
            raise ValueError(f"no range of {self.property} is given; give at_least or at_most")
        if self.at_least is not None and self.at_most is not None and self.at_least >= self.at_most:
            raise ValueError("the range is empty: at_least must be less than at_most")
        return self


def in_range(tracks: Tracks, chosen: PropertyRange) -> npt.NDArray[np.bool_]:
    """Rows (N,) of particles whose property is in the range with the wanted probability; all without a property.

    A particle of which value or standard error is not known does not count.
    """
    if chosen.property is None:
        return np.ones(len(tracks), np.bool_)
    if chosen.property not in tracks.properties:
        return np.zeros(len(tracks), np.bool_)
    value, sigma = tracks.properties.value(chosen.property), tracks.properties.error(chosen.property)
    sure: npt.NDArray[np.bool_] = probability(value, sigma, chosen) >= max(
        chosen.min_p_property, math.ulp(0.0)
    )
    return sure


def probability(value: FloatArray, sigma: FloatArray, chosen: PropertyRange) -> FloatArray:
    """Probability (N,) that the true values are in the range, for normal errors; 0 where something is not known."""
    low = -math.inf if chosen.at_least is None else chosen.at_least
    high = math.inf if chosen.at_most is None else chosen.at_most
    scale = np.maximum(sigma, np.finfo(np.float64).tiny)
    with np.errstate(invalid="ignore", over="ignore"):
        share = ndtr((high - value) / scale) - ndtr((low - value) / scale)
    known: FloatArray = np.where(np.isfinite(value) & (sigma >= 0), share, 0.0)
    return known


def not_there(tracks: Tracks, chosen: PropertyRange) -> str:
    """What is to be said where the particles do not have the property, or ""."""
    if chosen.property is None or not len(tracks) or chosen.property in tracks.properties:
        return ""
    there = ", ".join(tracks.properties.names) or "none"
    return f"the detector gives no property '{chosen.property}' of particles (it gives: {there})"
