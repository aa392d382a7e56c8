"""What changes over the field of view: the focal surface, the walk with depth, and the shape of the image.

Positions over the field are u, v: px from the middle of the image, along columns and rows, over half its longer
side. A particle at height z above the focus and at x, y (px from the middle) is seen, in local coordinates, at

    z' = z + S(u, v)                         (1)
    (x', y') = (I + G z') (x, y)             (2)

with the focal surface S (um, 0 in the middle) and the walk G (2 x 2, 1/um): the change of magnification with depth
is on its diagonal. Its image there is

    f(x, y; z') + sum_m w_m(u, v, b) f_m(x, y; z')     (3)

with the mean spline f and few modes f_m, whose weights w_m are polynomials of u, v, and of b, the logarithm of the
particle's brightness, as larger particles are brighter and look different. Rossi & Kaehler (2014), Exp.
Fluids 55, 1809, correct (1) alike; (3) is the low-rank form of what Fu et al. (2023), Nature Methods 20, 459, fit
with Zernike maps.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]

SURFACE_DEGREE = 2
"""The focal surface has a height, two tilts and three curvatures: terms that have names."""
MOST_DEGREE = 6
"""Highest degree of the weights that is read from a file; calibrations use up to 3."""


def monomials(u: npt.ArrayLike, v: npt.ArrayLike, degree: int) -> FloatArray:
    """Values (N, T) of all u^a v^b with a + b <= degree at places (N,): 1, u, v, u^2, uv, v^2, u^3 ..."""
    a, b = np.broadcast_arrays(np.atleast_1d(np.asarray(u, np.float64)), np.asarray(v, np.float64))
    columns = [a ** (total - power) * b**power for total in range(degree + 1) for power in range(total + 1)]
    return np.stack(columns, axis=-1)


def terms_of(degree: int) -> int:
    """Number of `monomials` up to a degree."""
    return (degree + 1) * (degree + 2) // 2


def powers(b: npt.ArrayLike, degree: int) -> FloatArray:
    """Values (N, degree) of b, b^2 ... at b (N,)."""
    found = np.atleast_1d(np.asarray(b, np.float64))
    raised: FloatArray = found[:, None] ** np.arange(1, degree + 1)
    return raised


@dataclass(frozen=True, slots=True, eq=False)
class FieldModel:
    """The terms of (1) to (3) for images of `shape` (H, W).

    `surface_um` (6,) are the coefficients of S on `monomials` of degree 2, `walk_per_um` (2, 2) is G. `modes` (M,
    J, P, P) are splines on the nodes of the mean one, M may be 0; `weights` (M, T) on `monomials` of `degree` and,
    behind them, on `powers` of b up to `brightness_degree`. b is held within `brightness_range` (ln of the least
    and of the largest brightness of the calibration's particles).
    """

    shape: tuple[int, int]
    surface_um: FloatArray
    walk_per_um: FloatArray
    modes: Float32Array
    weights: FloatArray
    degree: int
    brightness_degree: int = 0
    brightness_range: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        wanted = {
            "surface_um": (terms_of(SURFACE_DEGREE),),
            "walk_per_um": (2, 2),
            "weights": (len(self.modes), terms_of(self.degree) + self.brightness_degree),
        }
        for name, shape in wanted.items():
            if getattr(self, name).shape != shape:
                raise ValueError(
                    f"{name} of a field model has shape {getattr(self, name).shape}, not {shape}"
                )
        finite = all(
            np.isfinite(part).all()
            for part in (self.surface_um, self.walk_per_um, self.modes, self.weights, self.brightness_range)
        )
        finite &= (
            0 <= self.brightness_degree <= MOST_DEGREE
            and self.brightness_range[0] <= self.brightness_range[1]
        )
        if not finite or self.modes.ndim != 4 or not 0 <= self.degree <= MOST_DEGREE or min(self.shape) < 1:
            raise ValueError(f"a field model of {self.modes.shape} modes for images of {self.shape}")

    @classmethod
    def flat(cls, shape: tuple[int, int], spline: tuple[int, ...]) -> FieldModel:
        """Nothing changes over images of `shape` (H, W); `spline` (J, P, P) is the shape of the mean one."""
        none, surface = np.zeros((0, *spline), np.float32), np.zeros(terms_of(SURFACE_DEGREE))
        return cls(shape, surface, np.zeros((2, 2)), none, np.zeros((0, 1)), 0)

    def place(self, x_px: npt.ArrayLike, y_px: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """u, v (N,) of places (N,) in an image of `shape`, from the centre of its first pixel."""
        height, width = self.shape
        half = max(height, width) / 2
        u = (np.asarray(x_px, np.float64) - (width - 1) / 2) / half
        v = (np.asarray(y_px, np.float64) - (height - 1) / 2) / half
        return u, v

    def surface_at(self, x_px: npt.ArrayLike, y_px: npt.ArrayLike) -> FloatArray:
        """S (N,), um, at places (N,)."""
        u, v = self.place(x_px, y_px)
        found: FloatArray = monomials(u, v, SURFACE_DEGREE) @ self.surface_um
        return found

    def weights_at(self, u: npt.ArrayLike, v: npt.ArrayLike, b: npt.ArrayLike = 0.0) -> FloatArray:
        """Weights of the modes (N, M) at u, v (N,) for particles whose brightness has the logarithm b (N,)."""
        of_place = monomials(u, v, self.degree)
        held = np.clip(np.broadcast_to(np.asarray(b, np.float64), len(of_place)), *self.brightness_range)
        terms = np.hstack([of_place, powers(held, self.brightness_degree)])
        found: FloatArray = terms @ self.weights.T
        return found

    def to_local(self, points: FloatArray) -> FloatArray:
        """Where particles (N, 3: x px, y px, z um) are seen, by (1) and (2)."""
        out = np.array(points, np.float64)
        out[:, 2] += self.surface_at(out[:, 0], out[:, 1])
        out[:, :2] += self.walked(out[:, :2], out[:, 2])
        return out

    def walked(self, places_px: FloatArray, local_um: FloatArray) -> FloatArray:
        """How far (N, 2: x, y), px, images at local depths (N,) are off their particles' places (N, 2), by (2)."""
        away = np.asarray(places_px, np.float64) - self._middle()
        off: FloatArray = away @ self.walk_per_um.T * np.asarray(local_um, np.float64)[:, None]
        return off

    def to_sample(self, points: FloatArray) -> FloatArray:
        """The inverse of `to_local`."""
        out = np.array(points, np.float64)
        stretch = np.eye(2) + self.walk_per_um * out[:, 2, None, None]
        away = np.linalg.solve(stretch, (out[:, :2] - self._middle())[..., None])[..., 0]
        out[:, :2] = self._middle() + away
        out[:, 2] -= self.surface_at(out[:, 0], out[:, 1])
        return out

    def local(self, mean: Float32Array, u: float, v: float, b: float = 0.0) -> Float32Array:
        """The spline (J, P, P) of (3) at one place, from the mean one."""
        weights = self.weights_at(u, v, b)[0].astype(np.float32)
        return np.ascontiguousarray(mean + np.tensordot(weights, self.modes, axes=1), np.float32)

    def levels(self, count: int) -> FloatArray:
        """Logarithms (count,) of the brightness, each in the middle of an even part of `brightness_range`."""
        low, high = self.brightness_range
        return low + (high - low) * (np.arange(count) + 0.5) / count

    def tables(self, mean: Float32Array, rows: int, columns: int, levels: int = 1) -> Float32Array:
        """The splines (levels * rows * columns, J, P, P) in the middle of each cell of an even grid over the image.

        The first rows * columns of them are for the faintest of the `levels` of brightness.
        """
        height, width = self.shape
        y = (np.arange(rows) + 0.5) * height / rows - 0.5
        x = (np.arange(columns) + 0.5) * width / columns - 0.5
        u, v = self.place(*(part.ravel() for part in np.meshgrid(x, y)))
        places = list(zip(u, v, strict=True))
        return np.stack([self.local(mean, a, c, b) for b in self.levels(levels) for a, c in places])

    def _middle(self) -> FloatArray:
        height, width = self.shape
        return np.array([(width - 1) / 2, (height - 1) / 2])

    def numbers(self) -> dict[str, object]:
        """Everything but the modes, for JSON; `FieldModel.of_numbers` reads it."""
        return {
            "shape": list(self.shape),
            "surface_um": self.surface_um.tolist(),
            "walk_per_um": self.walk_per_um.tolist(),
            "weights": self.weights.tolist(),
            "degree": self.degree,
            "brightness_degree": self.brightness_degree,
            "brightness_range": list(self.brightness_range),
        }

    @classmethod
    def of_numbers(cls, text: str | dict[str, Any], modes: Float32Array) -> FieldModel:
        """The model of `numbers`, as they are or as JSON. Raises `ValueError`, `LookupError`, `TypeError`."""
        found = json.loads(text) if isinstance(text, str) else text
        height, width = (int(value) for value in found["shape"])
        degree, powers_of_b = int(found["degree"]), int(found.get("brightness_degree", 0))
        if max(degree, powers_of_b) > MOST_DEGREE:
            raise ValueError(f"polynomials of degree {max(degree, powers_of_b)}")
        low, high = (float(value) for value in found.get("brightness_range", (0.0, 0.0)))
        return cls(
            (height, width),
            np.array(found["surface_um"], np.float64),
            np.array(found["walk_per_um"], np.float64),
            np.ascontiguousarray(modes, np.float32),
            np.array(found["weights"], np.float64).reshape(len(modes), terms_of(degree) + powers_of_b),
            degree,
            powers_of_b,
            (low, high),
        )
