"""The types of values that attributes of a trajectory file may have, and how to read them."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np

Read = Callable[[Any], Any]
"""Decodes a stored value; raises ValueError, TypeError or RecursionError if it is of another type."""

LARGEST = 1e300
"""Larger numbers are damage: they would overflow when squared. No quantity comes near it."""


def text(value: Any) -> str:
    """Text in UTF-8, as it is stored."""
    _require(isinstance(value, str))
    value.encode()
    return str(value)


def number(value: Any) -> float:
    """Any number, NaN included."""
    _require(isinstance(value, int | float) and not isinstance(value, bool))
    _require(isinstance(value, float) or abs(value) < LARGEST)
    return value  # type: ignore[no-any-return]


def positive(value: Any) -> float:
    """A number above 0."""
    _require(0 < number(value) < LARGEST)
    return value  # type: ignore[no-any-return]


def whole(value: Any) -> int:
    """A whole number, from 0."""
    _require(isinstance(value, int) and 0 <= value < LARGEST)
    return value  # type: ignore[no-any-return]


def _object(value: Any) -> dict[str, Any]:
    found = json.loads(value) if isinstance(value, str) else value
    _require(isinstance(found, dict))
    return found  # type: ignore[no-any-return]


def _list(value: Any) -> list[Any]:
    found = json.loads(value) if isinstance(value, str) else value
    if isinstance(found, np.ndarray):
        found = found.tolist()
    _require(isinstance(found, list))
    return found  # type: ignore[no-any-return]


def mapping(of: Read | None = None, **named: Read) -> Read:
    """A JSON object whose values are of type `of`; those in `named` must exist and are of the type given there."""

    def read(value: Any) -> dict[str, Any]:
        found = _object(value)
        for name, inner in found.items():
            if name in named:
                named[name](inner)
            elif of is not None:
                of(inner)
        _require(set(named) <= set(found))
        return found

    return read


def either(*kinds: Read) -> Read:
    """The first of several types that fits."""

    def read(value: Any) -> Any:
        for kind in kinds[:-1]:
            with contextlib.suppress(ValueError, TypeError):
                return kind(value)
        return kinds[-1](value)

    return read


def sequence(of: Read | None = None, length: int | None = None) -> Read:
    """A JSON list or an array with `length` values (None: any number) of type `of`."""

    def read(value: Any) -> list[Any]:
        found = _list(value)
        _require(length is None or len(found) == length)
        for inner in found:
            if of is not None:
                of(inner)
        return found

    return read


def configuration(value: Any) -> dict[str, Any]:
    """The settings of a run by section; of the channel, the sizes that its profile is drawn with are checked."""
    found = _object(value)
    _require(isinstance(found.get("controller"), dict | None))
    channel = found.get("channel")
    if channel is not None:
        mapping(width_um=positive, depth_um=positive)(channel)
        for name in set(channel) - {"width_um", "depth_um"}:
            _require(
                (name == "center_y_um" and channel[name] is None) or math.isfinite(number(channel[name]))
            )
    return found


def _require(fits: bool) -> None:
    if not fits:
        raise ValueError("it is of another type")
