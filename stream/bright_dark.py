"""Checks bright and dark reference images, and replaces dead pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from stream.errors import ConfigurationError

MOST_DEAD = 1e-3
"""Largest fraction of dead pixels (0): cameras are sold with less. More are a wrong file or a covered field."""
REACH_PX = 2
"""A dead pixel gets the median within this distance (24 neighbours), px; doubled where all of those are dead. Light
varies little over 2 px, so a smaller or larger one changes one pixel by less than its noise."""


def checked_reference(
    path: Path, image: npt.NDArray[Any], what: Literal["bright", "dark"]
) -> tuple[npt.NDArray[np.float64], tuple[str, ...]]:
    """A reference (H, W) as float64, and lines for the user about what was changed in it.

    Dead pixels of a bright reference (0 or less) get the median of their neighbours. Raises `ConfigurationError`
    for NaN or infinite values and for too many dead pixels; the text names how many there are and the first one.
    """
    light = np.array(image, np.float64)
    if light.ndim != 2:
        raise ConfigurationError(
            f"the {what} reference {path} is not a single image: its shape is {light.shape}"
        )
    wrong = ~np.isfinite(light)
    if wrong.any():
        raise ConfigurationError(
            f"the {what} reference {path} has {_counted(wrong)} that are NaN or infinite, "
            f"{_first(wrong)}; take it again, or replace them by their neighbours"
        )
    dead = light <= 0
    if what == "dark" or not dead.any():
        return light, ()
    if dead.mean() > MOST_DEAD:
        raise ConfigurationError(
            f"the bright reference {path} is 0 in {_counted(dead)} of {dead.size}, {_first(dead)}; take it again "
            "with light everywhere"
        )
    for y, x in np.argwhere(dead).tolist():
        light[y, x] = _median_around(light, dead, y, x)
    return light, (
        f"the bright reference {path.name} is 0 in {_counted(dead)}, {_first(dead)}: replaced by the median of the "
        "neighbours",
    )


def _median_around(light: npt.NDArray[np.float64], dead: npt.NDArray[np.bool_], y: int, x: int) -> float:
    reach = REACH_PX
    while True:
        window = np.s_[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
        alive = light[window][~dead[window]]
        if alive.size:
            return float(np.median(alive))
        reach *= 2


def _counted(which: npt.NDArray[np.bool_]) -> str:
    count = int(which.sum())
    return f"{count} pixel" if count == 1 else f"{count} pixels"


def _first(which: npt.NDArray[np.bool_]) -> str:
    y, x = np.argwhere(which)[0].tolist()
    return f"{'at' if which.sum() == 1 else 'the first at'} x = {x}, y = {y}"
