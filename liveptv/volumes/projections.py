"""Maximum projections of a volume along its three axes, for pages and reports."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from stream.messages import Frame, ImageArray
from tracking.trajectories.snapshot import SideViews

MOST_ROWS = 4
"""Rows of a projection along y for each slice, where the slices are not evenly spaced. More show uneven distances
more exactly and cost as many more pixels."""
EVEN = (
    0.05  # part of the median distance by which others may differ before rows are spread out; only a picture
)


@dataclass(frozen=True, slots=True, eq=False)
class Projections:
    """The brightest voxels along z, y and x.

    `xy` is (H, W); `xz` (R, W) and `yz` (H, R) have R rows that are evenly spaced in z, the lowest first, from
    `low_um` to `high_um` (edges of the first and the last one, um above the first slice). `missing_um` are the
    spans that have no image.
    """

    xy: ImageArray
    xz: ImageArray
    yz: ImageArray
    low_um: float
    high_um: float
    slices: int
    missing_um: tuple[tuple[float, float], ...] = ()


def projections(frame: Frame) -> Projections:
    """The projections of a volume (Z, H, W); slices without an image are left out."""
    volume = frame.info.volume
    slices = frame.image.shape[0]
    z_um = np.arange(float(slices)) if volume is None else np.asarray(volume.z_um)
    missing = () if volume is None else volume.missing
    image = frame.image
    taken = np.delete(np.arange(slices), missing)
    xz, yz = image.max(axis=1), image.max(axis=2)
    xz[list(missing)], yz[list(missing)] = 0, 0
    xy = image[taken].max(axis=0) if missing and taken.size else image.max(axis=0)
    edges_um = slice_edges_um(z_um)
    rows = rows_of(z_um, edges_um)
    spans = tuple((float(edges_um[k]), float(edges_um[k + 1])) for k in missing)
    return Projections(
        xy, xz[rows], np.ascontiguousarray(yz[rows].T), float(edges_um[0]), float(edges_um[-1]), slices, spans
    )


def flattened(frame: Frame) -> tuple[Frame, SideViews | None]:
    """A frame as one image with what is seen from two sides; an image as it is, without them."""
    if frame.image.ndim == 2:
        return frame, None
    seen = projections(frame)
    return replace(frame, image=seen.xy), SideViews(seen.xz, seen.yz, (seen.low_um, seen.high_um))


def slice_edges_um(z_um: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Where slices at `z_um` (Z,), increasing, begin and end, (Z + 1,): midway to their neighbours.

    A single slice is 1 um thick.
    """
    if z_um.size < 2:
        return np.array([z_um[0] - 0.5, z_um[0] + 0.5])
    middles = (z_um[1:] + z_um[:-1]) / 2
    first, last = z_um[0] - (middles[0] - z_um[0]), z_um[-1] + (z_um[-1] - middles[-1])
    return np.concatenate([[first], middles, [last]])


def rows_of(z_um: npt.NDArray[np.float64], edges_um: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The slice that each of the evenly spaced rows shows: one row a slice where these are even."""
    steps = np.diff(z_um)
    if steps.size < 2 or np.ptp(steps) <= EVEN * np.median(steps):
        return np.arange(z_um.size)
    count = MOST_ROWS * z_um.size
    centres = edges_um[0] + (np.arange(count) + 0.5) * (edges_um[-1] - edges_um[0]) / count
    return np.asarray(np.clip(np.searchsorted(edges_um, centres, side="right") - 1, 0, z_um.size - 1))
