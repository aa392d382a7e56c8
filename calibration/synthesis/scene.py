"""Images with their exact truth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Particles:
    """Particles (N,): which image they are in, and where; x and y from the centre of its first pixel.

    `nearest_px` is the distance in the plane to the nearest other particle of the image, those whose centre
    lies outside the image included; infinite where there is none. `kind` is the class of particle, from 0. `more`
    (N, K) are K properties beside these, NaN where a particle does not have one.
    """

    frame: IntArray
    x_px: FloatArray
    y_px: FloatArray
    z_um: FloatArray
    brightness: FloatArray
    nearest_px: FloatArray
    kind: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    more: FloatArray = field(default_factory=lambda: np.empty((0, 0)))

    def __post_init__(self) -> None:
        if self.kind.size != self.frame.size:
            object.__setattr__(self, "kind", np.zeros(self.frame.size, np.int64))
        if len(self.more) != self.frame.size:
            object.__setattr__(self, "more", np.empty((self.frame.size, 0)))

    def __len__(self) -> int:
        return int(self.frame.size)

    def where(self, chosen: npt.NDArray[np.bool_]) -> Particles:
        """The particles that `chosen` (N,) marks."""
        return Particles(*(getattr(self, item.name)[chosen] for item in fields(self)))

    @staticmethod
    def joined(parts: Iterable[Particles]) -> Particles:
        """The particles of all parts, one part after the other."""
        every = list(parts)
        if not every:
            nothing = np.empty(0)
            return Particles(np.empty(0, np.int64), nothing, nothing, nothing, nothing, nothing)
        return Particles(
            *(np.concatenate([getattr(part, item.name) for part in every]) for item in fields(Particles))
        )


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Images (B, H, W), and what is in them.

    Images are contrast (float32) or grey values (uint8, uint16). `particles` have their centre inside the
    image; `outside` are those with their centre beyond its edge, of which a part may be seen. `origin_px` (B, 2)
    is where an image's first pixel lies in the field of view, x and y; None where images look alike everywhere.
    Depths are local ones then, as `engines.refine.field` defines them.
    """

    images: npt.NDArray[Any]
    particles: Particles
    outside: Particles
    pixel_size_um: float
    origin_px: IntArray | None = None

    def table(self) -> dict[str, FloatArray]:
        """The truth as a table of detections: frame, x_um, y_um, z_um, brightness, kind."""
        inside = self.particles
        return {
            "kind": inside.kind.astype(np.float64),
            "frame": inside.frame.astype(np.float64),
            "x_um": inside.x_px * self.pixel_size_um,
            "y_um": inside.y_px * self.pixel_size_um,
            "z_um": inside.z_um,
            "brightness": inside.brightness,
        }
