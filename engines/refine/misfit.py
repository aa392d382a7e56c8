"""How far measured positions of particles that no model has seen scatter, beyond noise: by depth and region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

LARGEST_UM = 1e6
"""A metre: more is a damaged file."""
LARGEST = 1e6
"""Variance of a contrast: more is a damaged file."""


@dataclass(frozen=True, slots=True, eq=False)
class Misfit:
    """Variances that the calibration's cross-validation found beyond those of the noise.

    `variance` (rows, columns, B, 3) of x, y, z in um^2, in an even grid of regions over the image of `shape` (H, W)
    and at local depths `z_um` (B,), rising. They add to the variances of (5) in `joint_fit`.

    `image` (rows, columns, B), where it is known, is the variance of the contrast in the images themselves that the
    model does not explain, of particles of brightness 1: their reduced chi-square is 1 + `image` over the variance
    of the noise.
    """

    shape: tuple[int, int]
    z_um: FloatArray
    variance: FloatArray
    image: FloatArray | None = None

    def __post_init__(self) -> None:
        depths = self.z_um.ndim == 1 and self.z_um.size > 0 and bool((np.diff(self.z_um) > 0).all())
        sized = self.variance.ndim == 4 and self.variance.shape[2:] == (self.z_um.size, 3)
        if not (depths and sized and self.variance.size and min(self.shape) > 0):
            raise ValueError(f"a misfit of {self.variance.shape} at {self.z_um.shape} depths")
        if not (np.isfinite(self.z_um).all() and (self.variance >= 0).all()):
            raise ValueError("variances of a misfit must be finite and not negative")
        if not (self.variance < LARGEST_UM**2).all():
            raise ValueError(f"a misfit of more than {LARGEST_UM:g} um")
        if self.image is not None and not (
            self.image.shape == self.variance.shape[:3] and ((self.image >= 0) & (self.image < LARGEST)).all()
        ):
            raise ValueError("a misfit of images that cannot be")

    def at(self, x_px: npt.ArrayLike, y_px: npt.ArrayLike, z_um: npt.ArrayLike) -> FloatArray:
        """Variances (N, 3), um^2, at places (N,) and local depths (N,): those of the region, between its depths."""
        return self._between(self.variance, x_px, y_px, z_um)

    def image_at(self, x_px: npt.ArrayLike, y_px: npt.ArrayLike, z_um: npt.ArrayLike) -> FloatArray:
        """`image` (N,) at places (N,) and local depths (N,), like `at`; 0 where it is not known."""
        if self.image is None:
            return np.zeros(np.size(z_um))
        return self._between(self.image[..., None], x_px, y_px, z_um)[:, 0]

    def _between(
        self, values: FloatArray, x_px: npt.ArrayLike, y_px: npt.ArrayLike, z_um: npt.ArrayLike
    ) -> FloatArray:
        rows, columns = values.shape[:2]
        row = _cell(y_px, self.shape[0], rows)
        column = _cell(x_px, self.shape[1], columns)
        place = np.interp(np.asarray(z_um, np.float64), self.z_um, np.arange(self.z_um.size))
        below = np.minimum(place.astype(np.int64), self.z_um.size - 1)
        above = np.minimum(below + 1, self.z_um.size - 1)
        part = (place - below)[:, None]
        found: FloatArray = (1 - part) * values[row, column, below]
        found += part * values[row, column, above]
        return found

    def numbers(self) -> dict[str, object]:
        """For JSON; `Misfit.of_numbers` reads it."""
        found = {"shape": list(self.shape), "z_um": self.z_um.tolist(), "variance": self.variance.tolist()}
        return found if self.image is None else {**found, "image": self.image.tolist()}

    @classmethod
    def of_numbers(cls, found: dict[str, Any]) -> Misfit:
        """The inverse of `numbers`. Raises `ValueError`, `LookupError`, `TypeError` where they are damaged."""
        height, width = (int(value) for value in found["shape"])
        image = np.array(found["image"], np.float64) if "image" in found else None
        return cls(
            (height, width),
            np.array(found["z_um"], np.float64),
            np.array(found["variance"], np.float64),
            image,
        )


def _cell(place_px: npt.ArrayLike, size_px: int, cells: int) -> npt.NDArray[np.int64]:
    found = np.floor((np.asarray(place_px, np.float64) + 0.5) / size_px * cells).astype(np.int64)
    return np.clip(found, 0, cells - 1)
