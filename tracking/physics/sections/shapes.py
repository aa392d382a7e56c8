"""Cross-sections of straight channels: rectangle, ellipse (circle) and polygon, um.

In a section y is measured from the middle of its bounding box and z from the bottom of that.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.special import ellipe

from stream.errors import ConfigurationError

FloatArray = npt.NDArray[np.float64]

LARGEST_UM = 1e7
"""10 m: longer ones are in another unit."""
ELLIPSE_CORNERS = 128
"""Corners of the polygon that stands for an ellipse in the finite elements. Its sides touch the ellipse, so that it
holds all of it; its area is 0.02 % larger."""


@dataclass(frozen=True)
class Section(ABC):
    """A section with its bounding box; the lengths are positive and finite (`ConfigurationError`)."""

    width_um: float
    depth_um: float

    def __post_init__(self) -> None:
        for name, value in (("width", self.width_um), ("depth", self.depth_um)):
            if not 0 < value <= LARGEST_UM:
                raise ConfigurationError(
                    f"the {name} of the channel's section is {value:g} um; give a length above 0, in um"
                )

    @property
    @abstractmethod
    def area_um2(self) -> float:
        """Area of the section."""

    @property
    @abstractmethod
    def perimeter_um(self) -> float:
        """Length of its wall."""

    @abstractmethod
    def outline_um(self) -> FloatArray:
        """Corners (C, 2) of the section as a polygon, y and z, in order around it."""

    @abstractmethod
    def spans_um(self, y_um: FloatArray, z_um: FloatArray) -> FloatArray:
        """From where to where the section reaches along y and along z through each point, (2, 2, N): axis, end.

        Of a line that leaves the section and enters it again, the part nearest to the point. A point that the
        section does not reach on an axis has the point of the section nearest to it on that axis.
        """

    def resized(self, width_um: float, depth_um: float) -> Self:
        """The same shape, stretched to another bounding box."""
        return replace(self, width_um=width_um, depth_um=depth_um)


@dataclass(frozen=True)
class Rectangle(Section):
    """A rectangular channel."""

    @property
    def area_um2(self) -> float:
        """Area of the section."""
        return self.width_um * self.depth_um

    @property
    def perimeter_um(self) -> float:
        """Length of its wall."""
        return 2.0 * (self.width_um + self.depth_um)

    def outline_um(self) -> FloatArray:
        """Corners (4, 2)."""
        half = self.width_um / 2.0
        return np.array([[-half, 0.0], [half, 0.0], [half, self.depth_um], [-half, self.depth_um]])

    def spans_um(self, y_um: FloatArray, z_um: FloatArray) -> FloatArray:
        """See `Section`."""
        spans = np.empty((2, 2, y_um.size))
        spans[0, 0], spans[0, 1] = -self.width_um / 2.0, self.width_um / 2.0
        spans[1, 0], spans[1, 1] = 0.0, self.depth_um
        return spans


@dataclass(frozen=True)
class Ellipse(Section):
    """An elliptic channel, a circular one where width and depth are equal."""

    @property
    def area_um2(self) -> float:
        """Area of the section."""
        return math.pi / 4.0 * self.width_um * self.depth_um

    @property
    def perimeter_um(self) -> float:
        """Length of its wall, from the complete elliptic integral of the second kind."""
        longer, shorter = max(self.width_um, self.depth_um), min(self.width_um, self.depth_um)
        return 2.0 * longer * float(ellipe(1.0 - (shorter / longer) ** 2))

    def outline_um(self) -> FloatArray:
        """Corners (`ELLIPSE_CORNERS`, 2) of a polygon around it."""
        angle = 2.0 * math.pi * np.arange(ELLIPSE_CORNERS) / ELLIPSE_CORNERS
        wider = 0.5 / math.cos(math.pi / ELLIPSE_CORNERS)
        across, up = wider * self.width_um * np.cos(angle), wider * self.depth_um * np.sin(angle)
        return np.stack([across, up + self.depth_um / 2.0], axis=1)

    def spans_um(self, y_um: FloatArray, z_um: FloatArray) -> FloatArray:
        """See `Section`."""
        a, b = self.width_um / 2.0, self.depth_um / 2.0
        half_y = a * np.sqrt(np.maximum(1.0 - ((z_um - b) / b) ** 2, 0.0))
        half_z = b * np.sqrt(np.maximum(1.0 - (y_um / a) ** 2, 0.0))
        return np.stack([[-half_y, half_y], [b - half_z, b + half_z]])


@dataclass(frozen=True)
class Polygon(Section):
    """A polygon without crossing sides; `corners` are shares of the bounding box, 0 to 1. Make it by `polygon`."""

    corners: tuple[tuple[float, float], ...]

    @cached_property
    def _outline(self) -> FloatArray:
        share = np.array(self.corners)
        corners: FloatArray = np.stack(
            [(share[:, 0] - 0.5) * self.width_um, share[:, 1] * self.depth_um], axis=1
        )
        return corners

    @property
    def area_um2(self) -> float:
        """Area of the section."""
        return abs(signed_area(self._outline))

    @property
    def perimeter_um(self) -> float:
        """Length of its wall."""
        return float(np.linalg.norm(np.roll(self._outline, -1, axis=0) - self._outline, axis=1).sum())

    def outline_um(self) -> FloatArray:
        """Corners (C, 2), counter-clockwise."""
        return self._outline

    def spans_um(self, y_um: FloatArray, z_um: FloatArray) -> FloatArray:
        """See `Section`."""
        return np.stack([self._span(y_um, z_um, 0), self._span(z_um, y_um, 1)])

    def _span(self, along: FloatArray, across: FloatArray, axis: int) -> FloatArray:
        """Where the line of each point along an axis crosses the wall before and behind it, (2, N)."""
        start = self._outline
        end = np.roll(start, -1, axis=0)
        low, high = start[:, 1 - axis].min(), start[:, 1 - axis].max()
        inset = 1e-9 * (high - low)  # a line along a side crosses nothing
        line = np.clip(across, low + inset, high - inset)[:, None]
        a, b = start[None, :, 1 - axis], end[None, :, 1 - axis]
        crosses = (a <= line) != (b <= line)
        share = np.where(crosses, (line - a) / np.where(crosses, b - a, 1.0), 0.0)
        place = np.where(crosses, start[:, axis] + share * (end - start)[:, axis], np.inf)
        place.sort(axis=1)
        # Crossings come in pairs, each the two ends of a piece inside.
        pieces = place[:, : place.shape[1] // 2 * 2].reshape(along.size, -1, 2)
        beyond = np.maximum(pieces[..., 0] - along[:, None], along[:, None] - pieces[..., 1])
        beyond[~np.isfinite(pieces[..., 0])] = np.inf
        nearest = np.argmin(beyond, axis=1)
        span: FloatArray = pieces[np.arange(along.size), nearest].T
        return span


def polygon(corners_um: npt.ArrayLike) -> Polygon:
    """A polygon with these corners (C, 2), y and z, in order around it; its position is left out.

    Raises `ConfigurationError` if there are fewer than three, or sides cross or have no length.
    """
    corners = np.asarray(corners_um, np.float64)
    if corners.ndim != 2 or corners.shape[1:] != (2,) or len(corners) < 3 or not np.isfinite(corners).all():
        raise ConfigurationError(
            "the section's outline is not a list of corners; give three or more pairs of y and z in um"
        )
    if _sides_meet(corners):
        raise ConfigurationError(
            "sides of the section's outline cross or have no length; give its corners in order around it, each once"
        )
    if signed_area(corners) < 0:
        corners = corners[::-1]
    low, size = corners.min(axis=0), np.ptp(corners, axis=0)
    shares = (corners - low) / size
    return Polygon(float(size[0]), float(size[1]), tuple((float(y), float(z)) for y, z in shares))


def signed_area(corners: FloatArray) -> float:
    """Area of a polygon (C, 2), positive if its corners are in counter-clockwise order (shoelace formula)."""
    after = np.roll(corners, -1, axis=0)
    return float((corners[:, 0] * after[:, 1] - after[:, 0] * corners[:, 1]).sum() / 2.0)


def _sides_meet(corners: FloatArray) -> bool:
    """Whether two sides without a common corner touch, or a side has no length, or all corners lie on a line."""
    count = len(corners)
    after = np.roll(corners, -1, axis=0)
    scale = float(np.ptp(corners, axis=0).max())
    if scale == 0 or abs(signed_area(corners)) < 1e-9 * scale**2:
        return True
    if np.linalg.norm(after - corners, axis=1).min() < 1e-9 * scale:
        return True

    def side(p: FloatArray, q: FloatArray, r: FloatArray) -> float:
        return float((q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]))

    for i in range(count):
        for j in range(i + 2, count):
            if i == 0 and j == count - 1:
                continue
            a, b, c, d = corners[i], after[i], corners[j], after[j]
            # Both boxes have to overlap as well: sides on one line may lie apart.
            apart = (np.maximum(a, b) < np.minimum(c, d)) | (np.maximum(c, d) < np.minimum(a, b))
            if side(a, b, c) * side(a, b, d) <= 0 and side(c, d, a) * side(c, d, b) <= 0 and not apart.any():
                return True
    return False
