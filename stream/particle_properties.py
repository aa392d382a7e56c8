"""What is known of particles beside place, brightness and class: radius, refractive index, orientation.

The names are those of the detector that measures them. On the wire, in files and in tables a property is two
columns more, `radius_um` and `sigma_radius_um`; those of a track's own detection have the prefix `detected_`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
MOST_PROPERTIES = 8
"""Properties of a particle at most: each adds two to four columns to every row of every file."""
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
SIGMA = "sigma_"
OF_DETECTION = "detected_"
ANGLES = ("_rad", "_deg")
"""Endings of the names of angles, which wrap around and change as a particle turns: they have no mean."""


UNITS = {
    "um": "um", "nm": "nm", "um2": "um^2", "um3": "um^3", "rad": "rad", "deg": "deg", "px": "px", "s": "s",
    "pg": "pg",
}  # fmt: skip
"""Units by the end of a name. The names of other properties carry none: numbers, or in a unit of their own."""


def unit_of(column: str) -> str:
    """The unit of a property's column, by its name; "1" where that says none."""
    return UNITS.get(column.rpartition("_")[2], "1")


def property_names_among(columns: Iterable[str], taken: Iterable[str] = ()) -> tuple[str, ...]:
    """The names of properties by the columns of a table: those that have a standard error and are not `taken`."""
    there = list(columns)
    names = [
        name
        for name in there
        if SIGMA + name in there
        and NAME.fullmatch(name)
        and not name.startswith((SIGMA, OF_DETECTION))
        and name not in taken
    ]
    return tuple(names[:MOST_PROPERTIES])


def check_names(names: Sequence[str], taken: Iterable[str] = ()) -> None:
    """Raise `ValueError` unless the names can be columns beside those that are `taken`."""
    if len(names) > MOST_PROPERTIES:
        raise ValueError(f"{len(names)} properties of a particle; at most {MOST_PROPERTIES}")
    for name in names:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(
                f"{str(name)[:60]!r} cannot name a property: a small letter, then small letters, digits and "
                "_ (40 at most)"
            )
        if name.startswith((SIGMA, OF_DETECTION)) or name in taken:
            raise ValueError(f"'{name}' cannot name a property: tables have such a column; use another name")
    if len(set(names)) < len(names):
        raise ValueError(f"two properties have one name: {', '.join(names)}")


@dataclass(frozen=True, slots=True, eq=False)
class Properties:
    """P properties of N particles: values and standard errors, each of shape (P, N), float64; NaN is not known.

    Each name carries its unit (`radius_um`, `angle_rad`). Raises `ValueError` for names that cannot be columns and
    for shapes that do not fit.
    """

    names: tuple[str, ...]
    values: FloatArray
    errors: FloatArray

    def __post_init__(self) -> None:
        check_names(self.names)
        for what, array in (("values", self.values), ("errors", self.errors)):
            if array.ndim != 2 or array.shape[0] != len(self.names) or array.dtype != np.float64:
                raise ValueError(
                    f"{what} of {len(self.names)} properties need the shape ({len(self.names)}, N), float64, "
                    f"not {array.shape}, {array.dtype}"
                )
        if self.values.shape != self.errors.shape:
            raise ValueError(f"{self.values.shape[1]} values with {self.errors.shape[1]} standard errors")

    @classmethod
    def unknown(cls, names: Sequence[str], count: int) -> Self:
        """Properties of `count` particles of which nothing is known."""
        return cls(tuple(names), np.full((len(names), count), np.nan), np.full((len(names), count), np.nan))

    @classmethod
    def from_columns(cls, columns: Mapping[str, npt.ArrayLike], count: int) -> Self:
        """Build a table for `count` particles from columns `radius_um`, `sigma_radius_um`.

        A column without standard errors has unknown ones; single numbers are those of all particles. Raises
        `ValueError` for a standard error of nothing.
        """
        names = tuple(name for name in columns if not name.startswith(SIGMA))
        if strange := {name.removeprefix(SIGMA) for name in columns} - set(names):
            raise ValueError(
                f"standard errors of properties that are not there: {', '.join(sorted(strange))}"
            )
        found = cls.unknown(names, count)
        for row, name in enumerate(names):
            found.values[row] = columns[name]
            found.errors[row] = columns.get(SIGMA + name, np.nan)
        return found

    def columns(self, prefix: str = "") -> dict[str, FloatArray]:
        """All values, then all standard errors, by the name of their column; the names begin with `prefix`."""
        values = {f"{prefix}{name}": self.values[row] for row, name in enumerate(self.names)}
        return values | {f"{SIGMA}{prefix}{name}": self.errors[row] for row, name in enumerate(self.names)}

    def of(self, particles: Any) -> Self:
        """The properties of some of the particles: of an index array, a mask or a slice of them."""
        if not self.names:
            return self
        return type(self)(self.names, self.values[:, particles], self.errors[:, particles])

    def __len__(self) -> int:
        """Number of properties (not of particles)."""
        return len(self.names)

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def value(self, name: str) -> FloatArray:
        """Values of one property, shape (N,); raises `KeyError` if there is none of that name."""
        values: FloatArray = self.values[self._row(name)]
        return values

    def error(self, name: str) -> FloatArray:
        """Standard errors of one property, shape (N,); raises `KeyError` if there is none of that name."""
        errors: FloatArray = self.errors[self._row(name)]
        return errors

    def _row(self, name: str) -> int:
        if name not in self.names:
            there = ", ".join(self.names) or "none"
            raise KeyError(f"the particles have no property '{name}' (there is: {there})")
        return self.names.index(name)


NO_PROPERTIES = Properties((), np.empty((0, 0)), np.empty((0, 0)))
"""Nothing is known beside place, brightness and class, of any number of particles."""


def joined(tables: Sequence[Properties]) -> Properties:
    """Tables of the same names one behind the other (at least one)."""
    return Properties(
        tables[0].names,
        np.concatenate([table.values for table in tables], axis=1),
        np.concatenate([table.errors for table in tables], axis=1),
    )


def property_columns(names: Sequence[str], prefixes: Sequence[str] = ("",)) -> tuple[str, ...]:
    """The columns that properties of these names have on the wire and in files, in order.

    With the `prefixes` of a track they are those of its means, then those of its own detections.
    """
    kinds = [f"{sigma}{prefix}" for prefix in prefixes for sigma in ("", SIGMA)]
    return tuple(f"{kind}{name}" for kind in kinds for name in names)
