"""Images of particles by ray tracing, as MicroSIG makes them; shares nothing with our own renderers.

After Rossi (2020), "Synthetic image generator for defocusing and astigmatic PIV/PTV", Meas. Sci. Technol. 31,
017003, whose program made the data sets of Barnkob & Rossi (2020). A particle is a sphere that glows over the half
of its surface that faces the lens; each point sends rays evenly into all directions. Those that hit the lens
(biconvex, thin, of two spherical surfaces that refract by Snell's law, so with spherical aberration) pass a
cylindrical lens at a third of the way to the camera and are counted in the pixel that they hit. There is no
diffraction; the number of rays is the only noise of the light. The camera adds a background with Gaussian noise.
The place of an image does not depend on its depth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Microscope:
    """Optics and camera. The rays of a particle, 25,000, are as many as MicroSIG traces at these settings."""

    magnification: float = 10.0
    numerical_aperture: float = 0.3
    focal_length_um: float = 350.0
    index_medium: float = 1.0
    index_lens: float = 1.5
    cylinder_um: float = 2000.0
    camera_pixel_um: float = 6.5
    particle_um: float = 2.0
    rays: int = 25_000
    grey_per_ray: float = 3.2
    background: float = 300.0
    noise: float = 15.0

    @property
    def pixel_size_um(self) -> float:
        """Size of a pixel in the object."""
        return self.camera_pixel_um / self.magnification

    def hits(self, z_um: float, rng: np.random.Generator) -> FloatArray:
        """Where rays (2, N) of a particle at depth z meet the camera, px from its centre; N is Poisson's.

        z is the distance beyond the plane that the spherical lens alone images sharply.
        """
        f, m = self.focal_length_um, self.magnification
        to_lens, to_camera = z_um + f * (1 + 1 / m), f * (1 + m)
        aperture = math.tan(math.asin(self.numerical_aperture)) * f * (1 + 1 / m)
        count = rng.poisson(self.rays)
        start = _half_sphere(rng, count) * self.particle_um / 2
        # a little wider than the aperture as seen from the particle's edge; what misses it is cut off
        widest = math.atan((aperture + self.particle_um) / (to_lens - self.particle_um))
        cosine = rng.uniform(math.cos(widest), 1.0, count)
        turn = rng.uniform(0, 2 * math.pi, count)
        slope = np.sqrt(1 / cosine**2 - 1) * np.stack([np.cos(turn), np.sin(turn)])
        at = start[:2] + slope * (to_lens - start[2])
        through = (at**2).sum(axis=0) <= aperture**2
        at, slope = at[:, through], slope[:, through]
        slope = self._refracted(at, slope)
        at = at + slope * to_camera / 3
        slope = slope - np.stack([at[0] / self.cylinder_um, np.zeros(at.shape[1])])
        return (at + slope * to_camera * 2 / 3) / self.camera_pixel_um

    def _refracted(self, at: FloatArray, slope: FloatArray) -> FloatArray:
        """Slopes behind the lens of rays that meet it at `at` with slopes `slope`."""
        ratio = self.index_lens / self.index_medium
        radius = 2 * self.focal_length_um * (ratio - 1)
        ray = _unit(np.vstack([slope, np.ones(at.shape[1])]))
        front = _unit(np.vstack([-at, np.full(at.shape[1], radius)]))
        inside = _snell(ray, front, 1 / ratio)
        back = front * [[-1.0], [-1.0], [1.0]]
        outside = _snell(inside, back, ratio)
        return outside[:2] / outside[2]

    def draw(
        self,
        x_px: FloatArray,
        y_px: FloatArray,
        z_um: FloatArray,
        shape: tuple[int, int],
        rng: np.random.Generator,
    ) -> npt.NDArray[np.uint16]:
        """A camera image (H, W), 16 bit, of particles at x, y (px from the centre of the first pixel) and z."""
        light = np.zeros(shape)
        for x, y, z in zip(x_px, y_px, z_um, strict=True):
            hits = self.hits(z, rng)
            column, row = np.rint(hits[0] + x).astype(int), np.rint(hits[1] + y).astype(int)
            seen = (column >= 0) & (column < shape[1]) & (row >= 0) & (row < shape[0])
            np.add.at(light, (row[seen], column[seen]), 1.0)
        image = self.background + self.grey_per_ray * light + rng.normal(0, self.noise, shape)
        return np.clip(np.rint(image), 0, 65535).astype(np.uint16)

    def area_px(self, z_um: float, part: float, rng: np.random.Generator) -> float:
        """Area of a particle's image at depth z: the pixels above `part` of its brightest one, without noise."""
        half = 64
        light = np.zeros((2 * half + 1, 2 * half + 1))
        for _ in range(20):  # so that the number of rays in a pixel is sure
            column, row = np.rint(self.hits(z_um, rng)).astype(int) + half
            seen = (column >= 0) & (column <= 2 * half) & (row >= 0) & (row <= 2 * half)
            np.add.at(light, (row[seen], column[seen]), 1.0)
        return float((light > part * light.max()).sum())


def _half_sphere(rng: np.random.Generator, count: int) -> FloatArray:
    """Points (3, N) on the half of the unit sphere that faces the lens, even over its surface."""
    z = rng.uniform(0, 1, count)
    turn = rng.uniform(0, 2 * math.pi, count)
    across = np.sqrt(1 - z**2)
    return np.stack([across * np.cos(turn), across * np.sin(turn), z])


def _unit(vectors: FloatArray) -> FloatArray:
    return vectors / np.sqrt((vectors**2).sum(axis=0))


def _snell(ray: FloatArray, normal: FloatArray, ratio: float) -> FloatArray:
    """Refracted unit vectors (3, N); `ratio` is the index before over that behind, normals point along the ray."""
    cosine = (ray * normal).sum(axis=0)
    behind = np.sqrt(1 - ratio**2 * (1 - cosine**2))
    return ratio * ray + (behind - ratio * cosine) * normal
