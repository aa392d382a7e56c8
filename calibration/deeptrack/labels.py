"""Truth of an image: what the microscope saw, as objects with places, classes and properties.

A scatterer has its position as (row, column) or (row, column, z) in pixels. Several scatterers at exactly one
place, such as the core and the shell of a cell, are one object: that of the first, with the properties of all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from calibration.deeptrack.errors import PipelineError
from calibration.deeptrack.following import FloatArray, Followed, array_of, follow
from calibration.deeptrack.recording import Drawn, Seen

SAME_PX = 1e-6
"""Scatterers nearer than this to one another are parts of one object."""
TURNED = 0.02
"""How far an image may be turned or stretched before angles in it are no longer those of the pipeline."""
TERM = re.compile(r"(?P<key>[A-Za-z_]\w*?)(?P<imaginary>_imag)?(?:\[(?P<part>\d+)\])?")
LENGTHS_UM = {"meter": 1e6, "pixel": None}
ANGLE = "radian"
ENDINGS = {"meter": "_um", "pixel": "_px", ANGLE: "_rad"}
"""What the name of a property ends with, by the unit of the pipeline's number."""


class Term(NamedTuple):
    """A number among a scatterer's properties: its key, which part of several, and whether the imaginary part."""

    key: str
    part: int | None = None
    imaginary: bool = False

    @classmethod
    def of(cls, text: str) -> Term:
        """The term that a user has named: `radius`, `radius[1]`, `refractive_index_imag`."""
        match = TERM.fullmatch(text.strip())
        if match is None:
            raise PipelineError(
                f"--learn {text!r}: name properties of the pipeline's objects, such as radius"
            )
        part = match["part"]
        return cls(match["key"], None if part is None else int(part), match["imaginary"] is not None)

    def values_in(self, properties: Mapping[str, Any]) -> FloatArray:
        """All the numbers (K,) that it names in a scatterer's properties; none where there is no such property."""
        if properties.get(self.key) is None:
            return np.empty(0)
        try:
            numbers = np.ravel(array_of(properties[self.key])).astype(np.complex128)
        except (TypeError, ValueError):
            return np.empty(0)
        if self.part is not None:
            numbers = numbers[self.part : self.part + 1]
        return numbers.imag if self.imaginary else numbers.real

    def with_part(self, part: int) -> Term:
        """The same for one part."""
        return Term(self.key, part, self.imaginary)

    @property
    def words(self) -> str:
        """As a user writes it."""
        return (
            self.key + ("_imag" if self.imaginary else "") + ("" if self.part is None else f"[{self.part}]")
        )


def unit_of(scatterer: Any, key: str) -> str:
    """The unit in which DeepTrack holds a property of a scatterer: "meter", "radian", "pixel" or ""."""
    for base in type(scatterer).__mro__:
        table = vars(base).get("__conversion_table__")
        if table is not None and key in table.conversions:
            return str(table.conversions[key][1])
    return ""


class Objects(NamedTuple):
    """Objects (N,) of an image: x and y in px, depth in um, number of the scatterer's feature, values (N, K)."""

    x_px: FloatArray
    y_px: FloatArray
    z_um: FloatArray
    source: npt.NDArray[np.int64]
    values: FloatArray


def objects_of(drawn: Drawn, terms: Sequence[Term], turned: Sequence[bool] = ()) -> Objects:
    """The objects of an image. `turned` marks terms that are angles in the plane.

    Raises `PipelineError` where the pipeline turns the image while there are such terms.
    """
    groups = _objects(drawn.seen)
    places = np.array([group[0].place_px for group in groups]).reshape(-1, 2)
    found = follow(places, drawn.coordinates)
    if any(turned):
        _refuse_turned(found)
    known = np.isfinite(found.place_px).all(axis=1)
    values = np.array([[_value(group, term) for term in terms] for group in groups]).reshape(
        len(groups), len(terms)
    )
    y, x = found.place_px[known].T
    z = np.array([group[0].z_um for group in groups], np.float64)
    source = np.array([group[0].source for group in groups], np.int64)
    return Objects(x, y, z[known], source[known], values[known])


def _objects(seen: Sequence[Seen]) -> list[list[Seen]]:
    groups: list[list[Seen]] = []
    for each in seen:
        for group in groups:
            first = group[0]
            apart = max(float(np.abs(first.place_px - each.place_px).max()), abs(first.z_um - each.z_um))
            if apart < SAME_PX:
                group.append(each)
                break
        else:
            groups.append([each])
    return groups


def _value(group: Sequence[Seen], term: Term) -> float:
    for each in group:
        numbers = term.values_in(each.properties)
        if numbers.size:
            return float(numbers[0])
    return float("nan")


def _refuse_turned(found: Followed) -> None:
    scale = np.sqrt(np.abs(np.linalg.det(found.by_seen)))[:, None, None]
    away = np.abs(found.by_seen / scale - np.eye(2))
    if np.nanmax(away, initial=0.0) > TURNED:
        raise PipelineError(
            "the pipeline turns, mirrors or stretches its images, and DeepTrack does not change the angles of the "
            "objects with them; leave such features out to learn an angle"
        )
