"""Tables as pandas data frames, and data frames as detection tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from liveptv.tables import DetectionTable
from liveptv.tables.reader import AT_END, COLUMNS, WRITTEN, known, measured
from stream.errors import ConfigurationError
from stream.messages import NAN, Detections, Properties
from stream.particle_properties import property_columns, property_names_among
from stream.particle_tables import RESERVED

if TYPE_CHECKING:
    import pandas as pd

    from liveptv.api.frames import DetectionFrame

FloatArray = npt.NDArray[np.float64]

NEEDED = ("frame", "x_um", "y_um")


def detections_frame(found: Iterable[Detections], pixel_size_um: float | None = None) -> DetectionFrame:
    """Detections of many frames as one table.

    Parameters
    ----------
    found : iterable of Detections
        One entry a frame, in order.
    pixel_size_um : float, optional
        Size of a pixel of the images; goes into the table's `attrs`.

    Returns
    -------
    DetectionFrame
        One row a particle: `frame` (int64) and the columns of `stream.messages.Detections` (float64) but `flags`;
        those from `z_other_um` on only where anything is known, and `at_end` (1) where a particle is at an end
        of a volume. Properties that the detector measures (`radius_um`) follow, with standard errors.
    """
    from liveptv.api.frames import PIXEL, DetectionFrame

    parts = [(one.info.frame, measured(one)) for one in found]
    number = np.repeat([n for n, _ in parts], [len(part[AT_END]) for _, part in parts]).astype(np.int64)
    names = dict.fromkeys((*WRITTEN[1:], *(name for _, part in parts for name in part)))
    columns = {
        name: np.concatenate(
            [np.empty(0), *(part.get(name, np.full(len(part[AT_END]), NAN)) for _, part in parts)]
        )
        for name in names
    }
    table = DetectionFrame({"frame": number, **known(columns)})
    if pixel_size_um is not None:
        table.attrs[PIXEL] = pixel_size_um
    return table


def detection_table(frame: pd.DataFrame) -> DetectionTable:
    """A data frame as the table that the tracker reads, in the order of its frames.

    Parameters
    ----------
    frame : pandas.DataFrame
        Needs the columns `frame`, `x_um` and `y_um`; `z_um`, `sigma_x_um`, `sigma_y_um`, `sigma_z_um`,
        `brightness`, `confidence`, `z_other_um`, `p_other`, `chi_square`, `kind`, `p_kind` and `time_offset_s`
        are used where they are there, and so are properties of particles, each with a standard error (`radius_um`
        and `sigma_radius_um`). Further columns are ignored.

    Raises
    ------
    ConfigurationError
        If a needed column is missing, a column is not numeric, a frame number is not whole, or a position in the
        plane is not finite.
    """
    for name in NEEDED:
        if name not in frame:
            have = ", ".join(map(str, frame.columns)) or "none"
            raise ConfigurationError(f"the table has no column {name!r}; it has {have}. Rename one of them")
    columns = {name: _numbers(frame, name) for name in COLUMNS if name in frame}
    properties = property_names_among(map(str, frame.columns), RESERVED)
    number = columns.pop("frame")
    if not np.array_equal(number, np.rint(number)):
        raise ConfigurationError("the column 'frame' must hold whole numbers; convert it, or drop such rows")
    for name in NEEDED[1:]:
        if not np.isfinite(columns[name]).all():
            bad = int(np.flatnonzero(~np.isfinite(columns[name]))[0])
            raise ConfigurationError(f"the column {name!r} is not finite in row {bad}; drop such rows")
    order = np.argsort(number, kind="stable")
    rows = len(number)
    values: dict[str, FloatArray] = {
        name: columns.get(name, np.full(rows, NAN))[order] for name in COLUMNS if name != "frame"
    }
    table = DetectionTable(number[order].astype(np.int64), **values)  # type: ignore[arg-type]
    if not properties:
        return table
    further = {name: _numbers(frame, name)[order] for name in property_columns(properties)}
    return replace(table, properties=Properties.from_columns(further, rows))


def positions_by_frame(frame: pd.DataFrame) -> list[tuple[FloatArray, FloatArray, FloatArray]]:
    """x, y and z in um, (N,) each, of every frame from 0 to the last; what is missing in z is 0.

    Raises `ConfigurationError` like `detection_table`, and for negative frame numbers.
    """
    table = detection_table(frame)
    if len(table) == 0:
        raise ConfigurationError("the table is empty; give at least one position")
    if table.frame[0] < 0:
        raise ConfigurationError(f"frames are counted from 0; the table has frame {table.frame[0]}")
    edges = np.searchsorted(table.frame, np.arange(table.frame[-1] + 2))
    columns = table.x_um, table.y_um, np.nan_to_num(table.z_um)
    return [(columns[0][a:b], columns[1][a:b], columns[2][a:b]) for a, b in pairwise(edges)]


def _numbers(frame: pd.DataFrame, name: str) -> FloatArray:
    try:
        return np.asarray(frame[name].to_numpy(np.float64, na_value=NAN))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"the column {name!r} must hold numbers: {error}") from error
