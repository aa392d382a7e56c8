"""Properties of particles (radius, refractive index ...) as a trajectory file keeps them.

`/tracks/properties` has one entry (PROPERTY) for each row and property of which something is known, in order of
rows; `/tracks/property_names` names the properties in the order of their numbers. Both are written before the
frames, so that what belongs to committed rows is complete. Files of earlier versions have neither.
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from stream.errors import OutputError
from stream.messages import NO_PROPERTIES, Properties, Tracks
from stream.particle_properties import MOST_PROPERTIES, check_names
from tracking.trajectories.precision import OF_PROPERTY, rounded
from tracking.trajectories.row_entries import RowEntries
from tracking.trajectories.schema import PROPERTY, PROPERTY_NAME, RecordArray

PLACES = 256
"""Room for the numbers of properties in the order of entries: the number has a byte."""


def entries_of(tracks: Tracks, known: list[str]) -> RecordArray:
    """The entries (PROPERTY) of a frame's rows; their `row` counts from the frame's first.

    Names that are not `known` yet are added to the list. Raises `OutputError` if they become too many.
    """
    names = tracks.properties.names
    known += [name for name in names if name not in known]
    if len(known) > MOST_PROPERTIES:
        raise OutputError(
            f"a trajectory file holds {MOST_PROPERTIES} properties of particles, these are {len(known)} "
            f"({', '.join(known)}); begin another file for another detector"
        )
    columns = (
        tracks.properties.values,
        tracks.properties.errors,
        tracks.detected.values,
        tracks.detected.errors,
    )
    if not names:
        return np.empty(0, PROPERTY)
    row, which = np.nonzero(np.isfinite(columns[0].T) | np.isfinite(columns[2].T))
    entries = np.empty(len(row), PROPERTY)
    entries["row"] = row
    entries["property"] = np.array([known.index(name) for name in names])[which]
    for name, column in zip(("value", "sigma", "detected", "sigma_detected"), columns, strict=True):
        values = column[which, row]
        entries[name] = rounded(OF_PROPERTY, values) if name.startswith("sigma") else values
    order = np.argsort(_order(entries), kind="stable")
    return entries[order]


def names_as_stored(names: list[str]) -> npt.NDArray[np.bytes_]:
    """Names of properties as the file has them."""
    return np.array(names, PROPERTY_NAME)


def as_tables(
    entries: RecordArray, names: tuple[str, ...], rows: int, start: int = 0
) -> tuple[Properties, Properties]:
    """The properties of `rows` rows from `start` on, and what their own detections said; NaN where not known."""
    if not names:
        return NO_PROPERTIES, NO_PROPERTIES
    mean, detected = Properties.unknown(names, rows), Properties.unknown(names, rows)
    at, which = entries["row"].astype(np.int64) - start, entries["property"]
    for array, name in (
        (mean.values, "value"),
        (mean.errors, "sigma"),
        (detected.values, "detected"),
        (detected.errors, "sigma_detected"),
    ):
        array[which, at] = entries[name]
    return mean, detected


def _order(entries: RecordArray) -> npt.NDArray[np.int64]:
    order: npt.NDArray[np.int64] = entries["row"].astype(np.int64) * PLACES + entries["property"]
    return order


def _written(entries: RecordArray) -> RecordArray:
    """The entries up to the first that was never written, as after a crash: none has two standard errors of 0."""
    unwritten = np.flatnonzero((entries["sigma"] == 0) & (entries["sigma_detected"] == 0))
    return entries[: unwritten[0]] if unwritten.size else entries


class PropertyRows(RowEntries):
    """Reads the properties of rows from an open file, which may grow."""

    def __init__(self, dataset: h5py.Dataset | None, names: h5py.Dataset | None) -> None:
        super().__init__(dataset, PROPERTY, _written, _order)
        self._names = names

    def refresh(self) -> None:
        """See what a live writer has added."""
        super().refresh()
        if self._names is not None:
            self._names.refresh()

    def names(self) -> tuple[str, ...]:
        """The names of the properties. Raises `ValueError` if they cannot be those of any."""
        if self._names is None:
            return ()
        found: list[Any] = self._names[:].tolist()
        names = tuple(name.decode("ascii") for name in found if name)  # empty: claimed, never written
        check_names(names)
        return names

    def tables(self, start: int, stop: int) -> tuple[Properties, Properties]:
        """The properties of rows `start` to `stop`, and what their own detections said.

        Raises `ValueError` for an entry of a property without a name.
        """
        names, entries = self.names(), self.of(start, stop)
        if len(entries) and int(entries["property"].max()) >= len(names):
            raise ValueError(
                f"{int(entries['property'].max()) + 1} properties of rows with {len(names)} names"
            )
        return as_tables(entries, names, stop - start, start)
