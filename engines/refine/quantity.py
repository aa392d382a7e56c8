"""What the third coordinate of a PSF model stands for where it is not the depth itself: a radius, an orientation.

The fit knows x, y, a depth and a brightness. Images of an object that change with one number of it, whatever that
is, are a PSF model with that number in the place of depth: `Quantity` says which, and converts tables before and
after the fit, so that nothing in between knows of it. Depths of optics for which the steps of the fit (7.5 um, 12
um) are too coarse are stretched in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream.messages import Detections, Properties

Table = npt.NDArray[np.float64]
FloatArray = npt.NDArray[np.float64]
DEPTH = "z_um"
"""Name of the quantity that is the depth."""
HALF_SPAN_UM = 30.0
"""um of the fit's depth on both sides of the middle over which a quantity's range is spread: as far as the fit
searches when it knows little (`fitting.LEAST_SEARCH_UM`), nine of its steps in all."""
UNKNOWN_SIGMA_UM = HALF_SPAN_UM / 3.0
"""Standard error of a quantity of which nothing is known, three of which are searched."""
ROW = {name: Detections.COLUMNS.index(name) for name in ("z_um", "sigma_z_um", "chi_square")}
OTHERS = tuple(Detections.COLUMNS.index(name) for name in ("z_other_um", "p_other"))


@dataclass(frozen=True, slots=True)
class Quantity:
    """A quantity is `at_zero` + `per_um` x the model's depth; its `name` is that of a property, or `z_um`."""

    name: str
    at_zero: float
    per_um: float

    def __post_init__(self) -> None:
        if not (np.isfinite([self.at_zero, self.per_um]).all() and self.per_um > 0):
            raise ValueError(f"{self.name} of {self.at_zero:g} + {self.per_um:g} x depth")

    @classmethod
    def over(cls, name: str, low: float, high: float) -> Quantity:
        """The quantity whose range `low` to `high` is spread over `HALF_SPAN_UM` on both sides of 0."""
        return cls(name, 0.5 * (low + high), (high - low) / (2 * HALF_SPAN_UM))

    @property
    def is_depth(self) -> bool:
        """Whether it is the depth, only on another scale."""
        return self.name == DEPTH

    def depths(self, values: npt.ArrayLike) -> FloatArray:
        """The model's depths (N,) of values (N,)."""
        return np.asarray((np.asarray(values, np.float64) - self.at_zero) / self.per_um)

    def values(self, depths_um: npt.ArrayLike) -> FloatArray:
        """Values (N,) at the model's depths (N,)."""
        return np.asarray(self.at_zero + self.per_um * np.asarray(depths_um, np.float64))

    def as_depth(self, table: Table, properties: Properties) -> Table:
        """A `table` (columns, N) of `Detections` as the fit takes it: the quantity in the place of depth.

        The quantity is that of the `properties` of these particles, where it is among them; unknown ones are in the
        middle of the range, with a standard error that makes the fit search all of it.
        """
        out = table.copy()
        z, sigma = ROW["z_um"], ROW["sigma_z_um"]
        if self.is_depth:
            out[z], out[sigma] = self.depths(table[z]), table[sigma] / self.per_um
        elif self.name in properties and properties.values.shape[1] == table.shape[1]:
            out[z] = self.depths(properties.value(self.name))
            out[sigma] = properties.error(self.name) / self.per_um
        else:
            out[[z, sigma]] = np.nan
        unknown = ~np.isfinite(out[z])
        out[z] = np.clip(np.where(unknown, 0.0, out[z]), -HALF_SPAN_UM, HALF_SPAN_UM)
        out[sigma] = np.where(unknown | ~(out[sigma] > 0), UNKNOWN_SIGMA_UM, out[sigma])
        return out

    def taken_out(self, table: Table, properties: Properties) -> tuple[Table, Properties]:
        """The inverse, after the fit: the table (columns, M), and the `properties` (P, M) with the quantity.

        Of particles that were not fitted it is what it was before; what a fit never knew stays unknown.
        """
        out = table.copy()
        z, sigma = ROW["z_um"], ROW["sigma_z_um"]
        value, error = self.values(table[z]), table[sigma] * self.per_um
        if self.is_depth:
            out[z], out[sigma] = value, error
            out[OTHERS[0]] = self.values(table[OTHERS[0]])
            return out, properties
        out[[z, sigma, *OTHERS]] = np.nan
        names = properties.names if self.name in properties else (*properties.names, self.name)
        found = Properties.unknown(names, table.shape[1])
        for row in range(len(properties.names)):
            found.values[row], found.errors[row] = properties.values[row], properties.errors[row]
        fitted = np.isfinite(table[ROW["chi_square"]])
        row = names.index(self.name)
        found.values[row, fitted], found.errors[row, fitted] = value[fitted], error[fitted]
        return out, found
