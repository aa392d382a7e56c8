"""Follows places through what a pipeline does to an image after the microscope: crops, flips, turns, pooling.

DeepTrack 2 gives plain arrays, and positions are not changed with them. So each feature that moves pixels is also
applied, with the same random numbers, to two images that hold the row and the column of each pixel. What comes out
says where each pixel has come from, whatever the feature does.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from calibration.deeptrack.errors import PipelineError

FloatArray = npt.NDArray[np.float64]


class Followed(NamedTuple):
    """Places (N, 2), row and column in the image, and (N, 2, 2) how they move with those seen by the microscope."""

    place_px: FloatArray
    by_seen: FloatArray


def array_of(value: Any) -> npt.NDArray[Any]:
    """A value of DeepTrack as an array: of a wrapper, a tensor of torch, or one already."""
    value = getattr(value, "array", value)
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    return np.asarray(value)


def own_coordinates(shape: tuple[int, ...]) -> FloatArray:
    """Row and column (H, W, 2) of each pixel of an image (H, W)."""
    return np.moveaxis(np.indices(shape[:2]).astype(np.float64), 0, -1)


def random_state() -> tuple[Any, Any]:
    """The state of the global random numbers that pipelines draw."""
    return random.getstate(), np.random.get_state()  # noqa: NPY002


@contextmanager
def random_numbers_from(state: tuple[Any, Any]) -> Iterator[None]:
    """Draw global random numbers from a state on, and leave them as they were before."""
    ours, numpys = random_state()
    random.setstate(state[0])
    np.random.set_state(state[1])  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(ours)
        np.random.set_state(numpys)  # noqa: NPY002


def moved(
    coordinates: FloatArray, move: Callable[[FloatArray], Any], state: tuple[Any, Any], name: str
) -> FloatArray:
    """Coordinates (H', W', 2) after a feature that moves pixels; `move` applies it to an image (H, W, 1).

    `state` is that of the random numbers with which it moved the image itself.
    """
    planes = []
    for axis in range(2):
        with random_numbers_from(state):
            planes.append(np.squeeze(array_of(move(coordinates[..., axis : axis + 1].copy()))))
    if planes[0].ndim != 2 or planes[0].shape != planes[1].shape:
        raise PipelineError(f"positions cannot be followed through {name}, which gives {planes[0].shape}")
    return np.stack(planes, axis=-1).astype(np.float64)


def follow(places: FloatArray, coordinates: FloatArray | None) -> Followed:
    """Where places (N, 2) seen by the microscope are in the image, by the `coordinates` (H, W, 2) of its pixels.

    Without these nothing was moved. Places beyond the image are taken on from its nearest pixel.
    """
    if coordinates is None or not len(places):
        return Followed(places, np.broadcast_to(np.eye(2), (len(places), 2, 2)).copy())
    height, width = coordinates.shape[:2]
    if min(height, width) < 3:
        raise PipelineError(f"the pipeline gives images of {height} x {width} pixels, which are too small")
    flat = coordinates.reshape(-1, 2)
    out, slopes = np.empty((len(places), 2)), np.empty((len(places), 2, 2))
    for n, place in enumerate(places):
        nearest = int(((flat - place) ** 2).sum(axis=1).argmin())
        row = min(max(nearest // width, 1), height - 2)
        column = min(max(nearest % width, 1), width - 2)
        by_row = 0.5 * (coordinates[row + 1, column] - coordinates[row - 1, column])
        by_column = 0.5 * (coordinates[row, column + 1] - coordinates[row, column - 1])
        seen_by_image = np.column_stack([by_row, by_column])
        if abs(np.linalg.det(seen_by_image)) < 1e-9:  # beyond what the image shows, where a fill value stands
            out[n], slopes[n] = np.nan, np.nan
            continue
        slopes[n] = np.linalg.inv(seen_by_image)
        out[n] = np.array([row, column]) + slopes[n] @ (place - coordinates[row, column])
    return Followed(out, slopes)
