"""What a user's detector returns: checked, and turned into the columns of `Detections`.

A faulty answer raises `AnswerError`. Rows that cannot be used are left out and counted: those without a finite
position (`no_position`), outside of the image (`outside`), and of lower confidence than asked for (`doubtful`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.messages import NO_PROPERTIES, Detections, Properties
from stream.particle_properties import SIGMA, check_names
from stream.particle_tables import RESERVED

PROPERTIES = "properties"
"""In a mapping: what else is measured of each particle."""
NO_POSITION, OUTSIDE, DOUBTFUL = "no_position", "outside", "doubtful"
IN_PIXELS = {"x_px": "x_um", "y_px": "y_um", "sigma_x_px": "sigma_x_um", "sigma_y_px": "sigma_y_um"}
"""Columns that may be given in pixels, and what they become."""
ACCEPTED = tuple(name for name in Detections.COLUMNS if name != "flags")
SIGMAS = ("sigma_x_um", "sigma_y_um", "sigma_z_um")
FRACTIONS = ("confidence", "p_other", "p_kind")
FINITE = ("brightness", "chi_square")
NOT_NEGATIVE = (*SIGMAS, *FINITE, "kind")
BOUNDED = (*SIGMAS, "z_um", "z_other_um")
MOST_KIND = 32_767  # as many classes fit into a trajectory file
FARTHEST_UM = 1e7
"""Depths and standard errors of 10 m and more are what a fit gives that went astray: not known."""

FloatArray = npt.NDArray[np.float64]


class AnswerError(ValueError):
    """What a detector returned cannot be used; the text says why."""


def table_of(
    answer: object, shape: tuple[int, int], pixel_size_um: float, min_confidence: float
) -> tuple[FloatArray, Properties, Counter[str]]:
    """The table (columns, N) of `Detections` of an answer for an image of `shape` (H, W), the properties of the
    particles, and what was left out.

    The answer is a mapping (a dict, a table of pandas) from columns to N values or one for all, or an array (N, 2)
    of x and y or (N, 3) of x, y and z, in um. Columns that are not there are NaN. A mapping may have `properties`,
    itself a mapping from names (`radius_um`) to values, or to values and standard errors. Raises `AnswerError`.
    """
    columns = _columns(answer, pixel_size_um)
    _check(columns)
    count = max((len(values) for values in columns.values()), default=0)
    properties = _properties(answer, count)
    table = np.full((len(Detections.COLUMNS), count), np.nan)
    table[-1] = 0.0  # flags
    for name, values in columns.items():
        is_unbounded = (np.abs(values) >= FARTHEST_UM) & (name in BOUNDED)
        table[Detections.COLUMNS.index(name)] = np.where(is_unbounded, np.nan, values)
    if count == 0:
        return table, properties, Counter()
    left_out: Counter[str] = Counter()
    is_known = np.isfinite(table[:2]).all(axis=0)
    height, width = shape
    with np.errstate(all="ignore"):  # a position may be as large as numbers go
        x, y = table[0] / pixel_size_um, table[1] / pixel_size_um
        is_inside = (
            is_known
            & (np.abs(x - (width - 1) / 2) <= width / 2)
            & (np.abs(y - (height - 1) / 2) <= height / 2)
        )
    left_out[NO_POSITION] = int(count - is_known.sum())
    left_out[OUTSIDE] = int(is_known.sum() - is_inside.sum())
    if not is_inside.any():
        raise AnswerError(_all_outside(table[:2], count, shape, pixel_size_um))
    is_doubtful = table[Detections.COLUMNS.index("confidence")] < min_confidence
    left_out[DOUBTFUL] = int((is_inside & is_doubtful).sum())
    kept = is_inside & ~is_doubtful
    return np.ascontiguousarray(table[:, kept]), properties.of(kept), +left_out


def _all_outside(places: FloatArray, count: int, shape: tuple[int, int], pixel_size_um: float) -> str:
    finite = np.isfinite(places).all(axis=0)
    if not finite.any():
        return f"none of its {count} positions is finite"
    (x_low, y_low), (x_high, y_high) = places[:, finite].min(axis=1), places[:, finite].max(axis=1)
    width_um, height_um = shape[1] * pixel_size_um, shape[0] * pixel_size_um
    return (
        f"none of its {count} positions is in the image of {width_um:g} x {height_um:g} um: x is {x_low:g} to "
        f"{x_high:g} um, y {y_low:g} to {y_high:g} um from the centre of the first pixel; give pixels as x_px and "
        "y_px"
    )


def _columns(answer: object, pixel_size_um: float) -> dict[str, FloatArray]:
    """The answer's columns in um, all of the same length."""
    if answer is None:
        raise AnswerError("it returned None; return no rows where there are no particles")
    given = _named(answer) if hasattr(answer, "keys") else _from_array(answer)
    columns: dict[str, FloatArray] = {}
    for name, values in given.items():
        to = IN_PIXELS.get(name, name)
        if to in columns:
            raise AnswerError(f"it returned {to} twice, in um and in pixels; return one of them")
        with np.errstate(all="ignore"):
            columns[to] = values * pixel_size_um if name in IN_PIXELS else values
    if columns and not {"x_um", "y_um"} <= set(columns):
        raise AnswerError(
            f"it returned no x and y, only {', '.join(columns)}; return x_um and y_um, or x_px and y_px"
        )
    lengths = {name: len(values) for name, values in columns.items() if values.ndim}
    if len(set(lengths.values())) > 1:
        words = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise AnswerError(f"its columns differ in length: {words}")
    count = next(iter(lengths.values()), 1)
    return {name: np.broadcast_to(values, count) for name, values in columns.items()}


def _named(answer: Any) -> dict[str, FloatArray]:
    try:
        names = list(answer.keys())
        names = [name for name in names if not (name == PROPERTIES and isinstance(answer, Mapping))]
        unknown = [name for name in names if name not in ACCEPTED and name not in IN_PIXELS]
    except Exception as error:
        raise AnswerError(f"the columns that it returned cannot be read: {error}") from error
    if unknown:
        raise AnswerError(
            f"it returned a column {unknown[0]!r}, which is none of {', '.join((*ACCEPTED, *IN_PIXELS))}"
        )
    return {name: _numbers(answer[name], name, 1) for name in names}


def _properties(answer: object, count: int) -> Properties:
    """The properties of `count` particles that an answer has; those without standard errors have unknown ones."""
    given = answer[PROPERTIES] if isinstance(answer, Mapping) and PROPERTIES in answer else {}
    if not isinstance(given, Mapping):
        raise AnswerError(f"its {PROPERTIES} are {type(given).__name__}; return a dict from names to values")
    columns: dict[str, FloatArray] = {}
    for name, pair in given.items():
        both = pair if isinstance(pair, tuple) else (pair, np.nan)
        if len(both) != 2:
            raise AnswerError(f"{name} has {len(both)} parts; return values, or (values, standard errors)")
        values, errors = (_numbers(part, str(name), 1) for part in both)
        if (errors < 0).any():
            raise AnswerError(f"a standard error of {name} is negative ({errors.min():g})")
        for column, numbers in ((str(name), values), (f"{SIGMA}{name}", errors)):
            if numbers.ndim and len(numbers) != count:
                raise AnswerError(f"{column} has {len(numbers)} values for {count} particles")
            columns[column] = np.where(np.isfinite(numbers), numbers, np.nan)
    if not columns:
        return NO_PROPERTIES
    try:
        check_names(tuple(map(str, given)), RESERVED)
        return Properties.from_columns(columns, count)
    except ValueError as error:
        raise AnswerError(str(error)) from error


def _from_array(answer: Any) -> dict[str, FloatArray]:
    rows = _numbers(answer, "the array that it returned", 2)
    if rows.size == 0:
        return {}
    if rows.ndim != 2 or rows.shape[1] not in (2, 3):
        raise AnswerError(
            f"it returned an array of shape {rows.shape}; return (N, 2) for x and y, (N, 3) with z, or a dict of "
            "columns"
        )
    return dict(zip(("x_um", "y_um", "z_um"), rows.T, strict=False))


def _numbers(values: Any, name: str, most_axes: int) -> FloatArray:
    """Values as an array of numbers of their own; masked ones are NaN."""
    try:
        array = np.ma.asarray(values) if isinstance(values, np.ma.MaskedArray) else np.asarray(values)
        kind, shape = array.dtype.kind, array.shape
        if kind not in "biuf":
            raise AnswerError(f"{name} has values of type {array.dtype}, not numbers")
        if array.ndim > most_axes:
            raise AnswerError(f"{name} has the shape {shape}, not one value for each particle")
        numbers: FloatArray = np.ma.filled(array.astype(np.float64), np.nan)
    except AnswerError:
        raise
    except Exception as error:  # whatever a user's object raises when it is asked for its numbers
        raise AnswerError(f"{name} cannot be read as numbers: {error}") from error
    return numbers


def _check(columns: dict[str, FloatArray]) -> None:
    """Refuse what no particle can have."""
    for name, values in columns.items():
        wrong = np.zeros(len(values), np.bool_)
        if name in NOT_NEGATIVE:
            wrong, what = values < 0, "is negative"
        elif name in FRACTIONS:
            wrong, what = (values < 0) | (values > 1), "is not between 0 and 1"
        if name in FINITE and not wrong.any():
            wrong, what = np.isinf(values), "is infinite"
        if name == "kind" and not wrong.any():
            wrong = (values != np.rint(values)) & ~np.isnan(values) | (values > MOST_KIND)
            what = f"is not a whole number from 0 to {MOST_KIND}"
        if wrong.any():
            row = int(np.argmax(wrong))
            raise AnswerError(f"{name} {what} in row {row} ({values[row]:g})")
