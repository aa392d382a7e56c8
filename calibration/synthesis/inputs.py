"""Inputs of training images, as measured by a calibration: cut-outs, noise, out-of-focus background.

Contrast is a fraction of the background's brightness, positive at the particle, whatever its polarity:
an image's relative brightness is 1 - contrast where particles are dark, 1 + contrast where they are bright.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from calibration.errors import CalibrationError
from engines.network.layout import MOST_KINDS

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Polarity = Literal["dark", "bright"]

QUANTILES = 65


@dataclass(frozen=True, slots=True, eq=False)
class Distribution:
    """A distribution of one quantity by its quantiles (K,) at evenly spaced probabilities from 0 to 1."""

    quantiles: FloatArray

    def __post_init__(self) -> None:
        values = np.asarray(self.quantiles, np.float64)
        if (
            values.ndim != 1
            or not values.size
            or not np.isfinite(values).all()
            or (np.diff(values) < 0).any()
        ):
            raise CalibrationError(f"quantiles must be finite and must not fall, unlike {self.quantiles}")
        object.__setattr__(self, "quantiles", values)

    @classmethod
    def constant(cls, value: float) -> Distribution:
        """One value, always."""
        return cls(np.array([value]))

    @classmethod
    def uniform(cls, low: float, high: float) -> Distribution:
        """Evenly between two values."""
        return cls(np.array([low, high]))

    @classmethod
    def of(cls, samples: npt.ArrayLike) -> Distribution:
        """As measured: the distribution of these samples."""
        values = np.asarray(samples, np.float64).ravel()
        if not values.size:
            raise CalibrationError("a distribution needs samples: measure at least one")
        return cls(np.quantile(values, np.linspace(0, 1, QUANTILES)))

    def draw(self, rng: np.random.Generator, size: int) -> FloatArray:
        """Random values, (size,)."""
        probability = np.linspace(0, 1, self.quantiles.size)
        values: FloatArray = np.interp(rng.random(size), probability, self.quantiles)
        return values


@dataclass(frozen=True, slots=True, eq=False)
class Cutouts:
    """M particles cut out of a focus scan, each seen R times at one focus position, on a background of 0.

    `contrast` (M, R, P, P) int16, times `scale`; P is odd. `z_um` (M,) is height minus focus position;
    `dx_px, dy_px` (M,) the particle's centre, off the middle pixel; `trace` (M,) says which particle it is.
    The images of a cut-out differ by the sensor's noise alone. `place_px` (M, 2) is where in the field of view each
    was seen, x and y; None where that makes no difference. `z_um` is local then, see `engines.refine.field`.
    `kind` (M,) is the class of particle, from 0; left out: all are of one.
    """

    contrast: npt.NDArray[np.int16]
    scale: float
    z_um: FloatArray
    dx_px: FloatArray
    dy_px: FloatArray
    trace: IntArray
    brightness: FloatArray
    pixel_size_um: float
    polarity: Polarity
    place_px: FloatArray | None = None
    kind: IntArray = field(default_factory=lambda: np.empty(0, np.int64))

    def __post_init__(self) -> None:
        shape = self.contrast.shape
        if len(shape) != 4 or self.contrast.dtype != np.int16 or shape[2] != shape[3] or shape[2] % 2 == 0:
            raise CalibrationError(
                "cut-outs are int16 (cut-outs, repeats, P, P) with P odd, "
                f"not {self.contrast.dtype} {shape}: cut them around a middle pixel"
            )
        if 0 in shape:
            raise CalibrationError(f"there are no cut-outs in an array of {shape}: nothing to paste")
        if not self.kind.size:
            object.__setattr__(self, "kind", np.zeros(shape[0], np.int64))
        if self.kind.min() < 0 or self.kind.max() >= MOST_KINDS:
            raise CalibrationError(f"kinds of particles are from 0 to {MOST_KINDS - 1}: find fewer of them")
        for name in ("z_um", "dx_px", "dy_px", "trace", "brightness", "kind"):
            values = getattr(self, name)
            if values.shape != shape[:1] or not np.isfinite(values).all():
                raise CalibrationError(f"{name} must hold one finite number for each of {shape[0]} cut-outs")
        place = self.place_px
        if place is not None and not (place.shape == (shape[0], 2) and np.isfinite(place).all()):
            raise CalibrationError(f"place_px must hold x and y of each of {shape[0]} cut-outs")
        if max(np.abs(self.dx_px).max(), np.abs(self.dy_px).max()) > 0.5:
            raise CalibrationError(
                "a particle is more than half a pixel off the middle of its cut-out: cut around the nearest pixel"
            )
        if not (self.scale > 0 and self.pixel_size_um > 0):
            raise CalibrationError(
                f"scale and pixel size must be positive, not {self.scale} and {self.pixel_size_um}"
            )

    def where(self, chosen: npt.NDArray[np.bool_]) -> Cutouts:
        """The cut-outs that `chosen` (M,) marks."""
        columns: dict[str, Any] = {
            item.name: value[chosen]
            for item in fields(self)
            if isinstance(value := getattr(self, item.name), np.ndarray)
        }
        return replace(self, **columns)

    @property
    def repeats(self) -> int:
        """Images of each cut-out."""
        return int(self.contrast.shape[1])

    @property
    def half_px(self) -> int:
        """Pixels from the middle to the edge of a cut-out."""
        return int(self.contrast.shape[2]) // 2


@dataclass(frozen=True, slots=True, eq=False)
class NoiseModel:
    """The sensor's noise and the light: variance of the contrast = `read` + `shot` x relative brightness.

    `background` is the mean background of an image over that of the reference (1: as bright as that), `level`
    the standard deviation of an image's noise over what `read` and `shot` say; both are drawn again for every
    image. `grey` is the reference's brightness in grey values, for images of whole numbers; the variance
    then includes the rounding to these.
    """

    read: float
    shot: float
    grey: float
    background: Distribution
    level: Distribution

    def __post_init__(self) -> None:
        if not (self.read >= 0 and self.shot >= 0 and self.grey > 0):
            raise CalibrationError(
                f"noise must not be negative and grey positive, not {self.read}, {self.shot}, {self.grey}"
            )
        if self.background.quantiles[0] <= 0 or self.level.quantiles[0] < 0:
            raise CalibrationError("a background must be positive and a noise level must not be negative")

    @classmethod
    def steady(cls, read: float, shot: float, grey: float) -> NoiseModel:
        """The same light and noise in every image."""
        return cls(read, shot, grey, Distribution.constant(1.0), Distribution.constant(1.0))


@dataclass(frozen=True, slots=True)
class BackgroundModel:
    """Far out-of-focus particles as directional Gaussian random fields (Franchini & Krevor 2020, 2.1.3).

    For every image, correlation lengths along and across the direction, a threshold (in standard deviations
    of the field) and a contrast from 0 to `amplitude` are drawn evenly from their ranges; one field of these
    lies along x, a second one along y. A field's peaks of three standard deviations reach the contrast drawn.
    """

    along_px: tuple[float, float]
    across_px: tuple[float, float]
    amplitude: float
    threshold: tuple[float, float] = (0.0, 2.0)

    def __post_init__(self) -> None:
        for low, high in (self.along_px, self.across_px):
            if not 1.0 <= low <= high:
                raise CalibrationError(f"correlation lengths rise from 1 px or more, unlike {low}, {high}")
        if not (self.amplitude >= 0 and self.threshold[0] <= self.threshold[1] < 3):
            raise CalibrationError(
                f"amplitude {self.amplitude} must not be negative, threshold {self.threshold} rise to below 3"
            )
