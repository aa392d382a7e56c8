"""Fit of a smooth surface to the particles, such as the bottom of a channel: its tilt and curvature.

Through the microscope, such a surface shows the tilt of the sample and the curvature of the field. Where particles
fill a volume, their heights and the field curvature cannot be told apart, and no surface is reported.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import median_abs_deviation

from engines.robust_sigma import SIGMA_OF_MAD

FloatArray = npt.NDArray[np.float64]

MIN_PARTICLES = 8
"""Fewest particles for a plane (three parameters); twice as many for the curved surface (six)."""
ON_SURFACE = 0.025
"""Scatter about the surface, over the depth range, below which the particles lie on it. Particles that fill a
channel scatter by 0.3, dried ones by less than 0.01."""
ROUNDS = 6
"""Rounds of leaving out particles far from the surface; two or three suffice."""
REACH = 4.0
"""Rounds of leaving out particles far from the surface."""


@dataclass(frozen=True, slots=True)
class FocalSurface:
    """z = height_um + tilt_x x + tilt_y y + bend_xx x^2 + bend_xy x y + bend_yy y^2 about the image's centre.

    Tilts in um per um, bends per um. `residual_um` is the rms distance of the particles from it, all of them;
    `typical_um` the same from the median. `is_surface` tells whether they lie on it rather than in a volume.
    """

    height_um: float
    tilt_x: float
    tilt_y: float
    bend_xx: float
    bend_xy: float
    bend_yy: float
    residual_um: float
    typical_um: float
    is_surface: bool

    def to_dict(self) -> dict[str, float | bool]:
        """All fields."""
        return asdict(self)


def fit_surface(
    x_um: FloatArray, y_um: FloatArray, z_um: FloatArray, extent_um: tuple[float, float], *, depth_um: float
) -> FocalSurface | None:
    """Fit particles (N,), robustly; None for fewer than 8.

    `extent_um` is the width and height of the image, `depth_um` the depth over which a particle is seen: a layer
    much thinner than that is a surface.
    """
    if x_um.size < MIN_PARTICLES:
        return None
    x, y = x_um - extent_um[0] / 2, y_um - extent_um[1] / 2
    columns = [np.ones_like(x), x, y]
    if x.size >= 2 * MIN_PARTICLES:
        columns += [x * x, x * y, y * y]
    design = np.stack(columns, axis=1)
    scale = np.abs(design).max(axis=0) + 1e-12
    kept = np.ones(x.size, np.bool_)
    for _ in range(ROUNDS):
        solution, *_ = np.linalg.lstsq(design[kept] / scale, z_um[kept], rcond=None)
        away = z_um - design / scale @ solution
        spread = float(median_abs_deviation(away[kept], scale="normal"))
        kept = np.abs(away) <= REACH * max(spread, 1e-9)
    found = np.zeros(6)
    found[: len(columns)] = solution / scale
    residual = float(np.sqrt(np.mean(away**2)))
    typical = SIGMA_OF_MAD * float(np.median(np.abs(away)))
    return FocalSurface(
        height_um=float(found[0]),
        tilt_x=float(found[1]),
        tilt_y=float(found[2]),
        bend_xx=float(found[3]),
        bend_xy=float(found[4]),
        bend_yy=float(found[5]),
        residual_um=residual,
        typical_um=typical,
        is_surface=typical < ON_SURFACE * depth_um,
    )
