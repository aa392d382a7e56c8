"""In-line holograms of spheres: the wave that a sphere scatters (Mie) interferes with the one that passes it.

A plane wave travels along the optical axis, polarised along y (down the image's rows). In the focal plane the camera
sees |1 + E|^2 relative to the light without particles (Lee et al., Optics Express 15, 18275, 2007), E the y component
of all scattered waves inside the objective's aperture. For one sphere E is a sum of plane waves at angles t, up to
the aperture's. With the scattering amplitudes S1(t), S2(t) (Bohren & Huffman 1983, eq. 4.74), the far field
exp(ikr) / (-ikr) S, and the azimuth p from the polarisation:

    E(rho, p) = A0(rho) + cos(2 p) A2(rho)
    A0(rho) = -1/2 Int [S1 + S2 cos t] J0(k rho sin t) w(t) dt
    A2(rho) = +1/2 Int [S2 cos t - S1] J2(k rho sin t) w(t) dt,      w(t) = sin t exp(i k z (1 - cos t))

z is the sphere's distance beyond the focal plane, along the light. The sign of A0 is the optical theorem's: the light
that a sphere scatters is missing in the wave that passes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt
from scipy import special

from acquisition.physics.mie import scattering_amplitudes

FloatArray = npt.NDArray[np.float64]
ComplexArray = npt.NDArray[np.complex128]

PARAMETERS = ("x_px", "y_px", "z_um", "radius_um", "refractive_index")
"""What a sphere is described by, one column each."""
_RHO_STEP_UM = 0.01
"""Step of the tables over rho. Between their points images are linear: off by 0.2 % of the fringes at an aperture
of 1.2 and 633 nm, in proportion to the square of the step."""
_RADIUS_STEP_UM, _INDEX_STEP = 2e-4, 2e-4
"""Steps of the derivatives by radius and index: 1e-3 of a small sphere's, far above the rounding of Mie's series."""


@dataclass(frozen=True)
class HologramOptics:
    """The microscope; defaults are a water-immersion objective and a red laser."""

    numerical_aperture: float = 1.2
    wavelength_um: float = 0.633
    medium_index: float = 1.33
    pixel_size_um: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.numerical_aperture < self.medium_index:
            raise ValueError("numerical_aperture must be above 0 and below medium_index")
        if self.wavelength_um <= 0 or self.pixel_size_um <= 0:
            raise ValueError("wavelength_um and pixel_size_um must be above 0")

    @property
    def wavenumber(self) -> float:
        """Wavenumber in the medium, 1/um."""
        return 2 * math.pi * self.medium_index / self.wavelength_um


class HologramModel:
    """Scattered waves of spheres in one microscope, up to `reach_um` from their centres and `deepest_um` from focus.

    The tables of Bessel functions are made once; a wave then takes about a millisecond for 100 x 100 pixels.
    """

    def __init__(self, optics: HologramOptics, reach_um: float, deepest_um: float) -> None:
        self.optics = optics
        self.reach_um = reach_um
        k = optics.wavenumber
        largest_sine = optics.numerical_aperture / optics.medium_index
        turns = k * (reach_um * largest_sine + deepest_um * (1 - math.sqrt(1 - largest_sine**2)))
        nodes, weights = np.polynomial.legendre.leggauss(32 + math.ceil(turns))
        sine = (nodes + 1) / 2 * largest_sine
        self._angle = np.arcsin(sine)
        self._cosine = np.cos(self._angle)
        self._weight = weights / 2 * largest_sine * sine / self._cosine  # dt = d(sin t) / cos t
        self._rho_um = np.arange(math.ceil(reach_um / _RHO_STEP_UM) + 2) * _RHO_STEP_UM
        argument = k * self._rho_um[:, None] * sine
        self._bessel0, self._bessel2 = special.jv(0, argument), special.jv(2, argument)

    @cached_property
    def _path(self) -> FloatArray:
        """Phase of a plane wave relative to the passing one, for each um of z."""
        return self.optics.wavenumber * (1 - self._cosine)

    def _parts(self, radius_um: float, index: float) -> tuple[ComplexArray, ComplexArray]:
        optics = self.optics
        s1, s2 = scattering_amplitudes(
            optics.wavenumber * radius_um, index / optics.medium_index, self._angle
        )
        return -0.5 * (s1 + s2 * self._cosine), 0.5 * (s2 * self._cosine - s1)

    def _spectra(self, z_um: float, radius_um: float, index: float, slopes: bool) -> list[ComplexArray]:
        """Spectra (T, 2) of A0 and A2, and with `slopes` their derivatives by z, radius and index."""
        turn = self._weight * np.exp(1j * self._path * z_um)

        def at(radius: float, refractive: float) -> ComplexArray:
            return np.stack(self._parts(radius, refractive), axis=1) * turn[:, None]

        here = at(radius_um, index)
        if not slopes:
            return [here]
        by_radius = at(radius_um + _RADIUS_STEP_UM, index) - at(radius_um - _RADIUS_STEP_UM, index)
        by_index = at(radius_um, index + _INDEX_STEP) - at(radius_um, index - _INDEX_STEP)
        return [
            here,
            here * (1j * self._path)[:, None],
            by_radius / (2 * _RADIUS_STEP_UM),
            by_index / (2 * _INDEX_STEP),
        ]

    def _on_pixels(
        self, spectra: list[ComplexArray], x_px: float, y_px: float, shape: tuple[int, int]
    ) -> ComplexArray:
        """Waves (S, H, W) of spectra; 0 beyond the reach."""
        along_y = (np.arange(shape[0]) - y_px)[:, None] * self.optics.pixel_size_um
        along_x = (np.arange(shape[1]) - x_px)[None, :] * self.optics.pixel_size_um
        rho = np.hypot(along_y, along_x)
        twice = (along_y**2 - along_x**2) / np.maximum(rho**2, 1e-12)
        seen = rho <= self.reach_um
        place = rho[seen] / _RHO_STEP_UM
        node = place.astype(np.int64)
        rest = place - node
        waves = np.zeros((len(spectra), *shape), complex)
        for wave, spectrum in zip(waves, spectra, strict=True):
            even, double = self._bessel0 @ spectrum[:, 0], self._bessel2 @ spectrum[:, 1]
            wave[seen] = (even[node] + rest * (even[node + 1] - even[node])) + twice[seen] * (
                double[node] + rest * (double[node + 1] - double[node])
            )
        return waves

    def wave(self, sphere: FloatArray, shape: tuple[int, int]) -> ComplexArray:
        """The wave E (H, W) that one sphere (5,), in the order of `PARAMETERS`, adds to the passing one of 1."""
        x_px, y_px, z_um, radius_um, index = (float(value) for value in sphere)
        return self._on_pixels(self._spectra(z_um, radius_um, index, False), x_px, y_px, shape)[0]

    def wave_and_slopes(
        self, sphere: FloatArray, shape: tuple[int, int]
    ) -> tuple[ComplexArray, ComplexArray]:
        """The wave (H, W) of a sphere and its derivatives (5, H, W) by `PARAMETERS`."""
        x_px, y_px, z_um, radius_um, index = (float(value) for value in sphere)
        spectra = self._spectra(z_um, radius_um, index, True)
        waves = self._on_pixels(spectra, x_px, y_px, shape)
        step_px = _RHO_STEP_UM / self.optics.pixel_size_um
        sideways = [
            (
                self._on_pixels(spectra[:1], x_px + dx, y_px + dy, shape)[0]
                - self._on_pixels(spectra[:1], x_px - dx, y_px - dy, shape)[0]
            )
            / (2 * step_px)
            for dx, dy in ((step_px, 0.0), (0.0, step_px))
        ]
        return waves[0], np.concatenate([np.stack(sideways), waves[1:]])

    def image(self, spheres: FloatArray, shape: tuple[int, int]) -> FloatArray:
        """The hologram (H, W) of spheres (N, 5), 1 where nothing scatters."""
        wave = np.ones(shape, complex)
        for sphere in spheres:
            wave += self.wave(sphere, shape)
        return wave.real**2 + wave.imag**2


@lru_cache(maxsize=4)
def hologram_model(optics: HologramOptics, reach_um: float, deepest_um: float) -> HologramModel:
    """A `HologramModel`, kept for the next call."""
    return HologramModel(optics, reach_um, deepest_um)
