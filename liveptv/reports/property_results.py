"""Properties of the particles (radius, refractive index ...), one value a track: how they are distributed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream.messages import Properties
from stream.particle_properties import unit_of
from tracking.analysis.robust import robust_sigma
from tracking.trajectories.file import Trajectories

FloatArray = npt.NDArray[np.float64]
FEWEST = 5
"""Tracks from which a histogram is drawn."""
BINS = 24
INNER_PERCENT = (1.0, 99.0)
MARGIN = 0.05
"""The bins reach from the first to the last percent of the values, and so much of that range beyond: a few wrong
values do not squeeze the others into one bin. What lies outside counts in the outermost bins."""


@dataclass(frozen=True, slots=True, eq=False)
class PropertyHistogram:
    """Values of one property over tracks: counts (M,) between `edges` (M + 1,), in the unit of the name.

    `middle` and `scatter` (standard deviation) are robust; `error` is the median of the stated standard errors of
    the values, NaN where none is known.
    """

    name: str
    edges: FloatArray
    counts: FloatArray
    middle: float
    scatter: float
    error: float
    tracks: int

    @property
    def unit(self) -> str:
        """The unit, "" for a number."""
        unit = unit_of(self.name)
        return "" if unit == "1" else {"um": "µm"}.get(unit, unit)

    def in_words(self) -> str:
        """Median, scatter and standard error in one line."""
        error = (
            f", standard error of one {self.error:.2g}"
            if np.isfinite(self.error)
            else ", without stated errors"
        )
        text = f"{self.middle:.4g} in the middle, scatter {self.scatter:.2g}{error}"
        return f"{text} ({self.unit})" if self.unit else text


def histogram_of(name: str, values: FloatArray, errors: FloatArray) -> PropertyHistogram | None:
    """The histogram of a property's values (N,) of tracks; None with too few of them."""
    known = np.isfinite(values)
    values, errors = values[known], errors[known]
    if values.size < FEWEST:
        return None
    low, high = np.percentile(values, INNER_PERCENT)
    spare = max(MARGIN * (high - low), 1e-6 * max(abs(low), abs(high), 1e-300))
    edges = np.linspace(low - spare, high + spare, BINS + 1)
    counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0].astype(np.float64)
    stated = errors[np.isfinite(errors)]
    error = float(np.median(stated)) if stated.size else float("nan")
    return PropertyHistogram(
        name, edges, counts, float(np.median(values)), robust_sigma(values), error, int(values.size)
    )


def of_tracks(trajectories: Trajectories) -> Iterator[PropertyHistogram]:
    """A histogram for each property: of each trajectory its last value, which is the mean over its detections."""
    properties = trajectories.properties
    for name in properties.names:
        value, error = properties.value(name), properties.error(name)
        rows = np.flatnonzero(np.isfinite(value))[::-1]
        _, first = np.unique(trajectories.track[rows], return_index=True)
        found = histogram_of(name, value[rows[first]], error[rows[first]])
        if found is not None:
            yield found


def of_particles(properties: Properties) -> Iterator[PropertyHistogram]:
    """A histogram for each property of particles that there are now."""
    for name in properties.names:
        found = histogram_of(name, properties.value(name), properties.error(name))
        if found is not None:
            yield found
