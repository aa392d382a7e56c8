"""In-line holograms of spheres: the wave that a sphere scatters (Mie) interferes with the one that passes it.

A plane wave travels along the optical axis, polarised along y (down the image's rows). In the focal plane the
camera sees |1 + E|^2 relative to the light without particles (Lee et al., Optics Express 15, 18275, 2007), E the y
component of all scattered waves inside the objective's aperture. For one sphere E is a sum of plane waves at angles
t, up to the aperture's. With the scattering amplitudes S1(t) and S2(t) (Bohren & Huffman 1983, eq. 4.74), the far
field exp(ikr) / (-ikr) S, and the azimuth p from the polarisation:

    E(rho, p) = A0(rho) + cos(2 p) A2(rho)
    A0(rho) = -1/2 Int [S1 + S2 cos t] J0(k rho sin t) w(t) dt
    A2(rho) = +1/2 Int [S2 cos t - S1] J2(k rho sin t) w(t) dt,      w(t) = sin t exp(i k z (1 - cos t))

z is the sphere's distance beyond the focal plane, along the light. The sign of A0 is the optical theorem's: the
light that a sphere scatters is missing in the wave that passes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt
from scipy import special

from acquisition.physics.mie import amplitudes, angular_functions, mie_coefficients

FloatArray = npt.NDArray[np.float64]
ComplexArray = npt.NDArray[np.complex128]

PARAMETERS = ("x_px", "y_px", "z_um", "radius_um", "refractive_index")
"""What a sphere is described by, one column each."""
_RHO_STEP_UM = 0.01
"""Step of the tables over rho. Between their points images are linear: off by 0.2 % of the fringes at an aperture
of 1.2 and 633 nm, in proportion to the square of the step."""
_RADIUS_STEP_UM, _INDEX_STEP = 2e-4, 2e-4
"""Steps of the derivatives by radius and index: 1e-3 of a small sphere's, far above the rounding of the series."""


@dataclass(frozen=True)
class HologramOptics:
    """The microscope; defaults are a water-immersion objective and a red laser."""

    numerical_aperture: float = 1.2
    wavelength_um: float = 0.633
    medium_index: float = 1.33
    pixel_size_um: float = 0.1
    pixel_fill: float = 1.0
    """Side of a pixel's sensitive area over the distance between pixels; 0 for the light at its centre."""

    def __post_init__(self) -> None:
        if not 0 < self.numerical_aperture < self.medium_index:
            raise ValueError("numerical_aperture must be above 0 and below medium_index")
        if self.wavelength_um <= 0 or self.pixel_size_um <= 0 or not 0 <= self.pixel_fill <= 1:
            raise ValueError("wavelength_um and pixel_size_um must be above 0, pixel_fill 0 to 1")

    @property
    def wavenumber(self) -> float:
        """Wavenumber in the medium, 1/um."""
        return 2 * math.pi * self.medium_index / self.wavelength_um

    @property
    def fringe_depth_um(self) -> float:
        """Change of z after which the light at the aperture's edge has the same phase again."""
        sine = self.numerical_aperture / self.medium_index
        return 2 * math.pi / (self.wavenumber * (1 - math.sqrt(1 - sine**2)))


class HologramModel:
    """Scattered waves of spheres in one microscope, `reach_um` around their centres, up to `deepest_um` from focus.

    The tables of Bessel functions are made once; a wave then takes about a millisecond for 100 x 100 pixels.
    """

    def __init__(self, optics: HologramOptics, reach_um: float, deepest_um: float) -> None:
        self.optics = optics
        self.reach_um, self.deepest_um = reach_um, deepest_um
        k = optics.wavenumber
        largest_sine = optics.numerical_aperture / optics.medium_index
        turns = k * (reach_um * largest_sine + deepest_um * (1 - math.sqrt(1 - largest_sine**2)))
        nodes, weights = np.polynomial.legendre.leggauss(32 + math.ceil(turns))
        sine = (nodes + 1) / 2 * largest_sine
        self._angle = np.arcsin(sine)
        self._angular = angular_functions(1, self._angle)
        self._cosine = np.cos(self._angle)
        self._weight = weights / 2 * largest_sine * sine / self._cosine  # dt = d(sin t) / cos t
        # The mean over a square pixel of side a takes sinc(kx a / 2) sinc(ky a / 2) of a plane wave, to the third
        # order this, whatever its direction. What it does to |E|^2, small and smooth, is left out
        self._weight *= np.exp(-((k * sine * optics.pixel_fill * optics.pixel_size_um) ** 2) / 24)
        self._rho_um = np.arange(math.ceil(reach_um / _RHO_STEP_UM) + 2) * _RHO_STEP_UM
        argument = k * self._rho_um[:, None] * sine
        self._bessel0, self._bessel2 = special.jv(0, argument), special.jv(2, argument)

    @cached_property
    def _path(self) -> FloatArray:
        """Phase of a plane wave relative to the passing one, for each um of z."""
        phase: FloatArray = self.optics.wavenumber * (1 - self._cosine)
        return phase

    def _parts(self, radius_um: float, index: float) -> tuple[ComplexArray, ComplexArray]:
        optics = self.optics
        a, b = mie_coefficients(optics.wavenumber * radius_um, index / optics.medium_index)
        functions = self._angular
        if a.size > len(functions[0]):  # a larger sphere than any before
            functions = self._angular = angular_functions(a.size, self._angle)
        s1, s2 = amplitudes(a, b, functions)
        return -0.5 * (s1 + s2 * self._cosine), 0.5 * (s2 * self._cosine - s1)

    def _spectra(self, z_um: float, radius_um: float, index: float, slopes: bool) -> ComplexArray:
        """Spectra (S, T, 2) of A0 and A2, and with `slopes` their derivatives by z, radius and index."""
        turn = self._weight * np.exp(1j * self._path * z_um)

        def at(radius: float, refractive: float) -> ComplexArray:
            spectrum: ComplexArray = np.stack(self._parts(radius, refractive), axis=1) * turn[:, None]
            return spectrum

        here = at(radius_um, index)
        if not slopes:
            return here[None]
        by_radius = at(radius_um + _RADIUS_STEP_UM, index) - at(radius_um - _RADIUS_STEP_UM, index)
        by_index = at(radius_um, index + _INDEX_STEP) - at(radius_um, index - _INDEX_STEP)
        by_z = here * (1j * self._path)[:, None]
        return np.stack([here, by_z, by_radius / (2 * _RADIUS_STEP_UM), by_index / (2 * _INDEX_STEP)])

    def _tables(self, spectra: ComplexArray) -> tuple[ComplexArray, ComplexArray]:
        """A0 and A2 (S, R) over rho."""
        count = len(spectra)
        parts = np.concatenate([spectra.real, spectra.imag])  # real products: half the work of complex ones
        even, double = parts[:, :, 0] @ self._bessel0.T, parts[:, :, 1] @ self._bessel2.T
        return even[:count] + 1j * even[count:], double[:count] + 1j * double[count:]

    def wave(self, sphere: FloatArray, shape: tuple[int, int]) -> ComplexArray:
        """The wave E (H, W) that one sphere (5,), in the order of `PARAMETERS`, adds to the passing one of 1."""
        z_um, radius_um, index = sphere[2:].tolist()
        even, double = self._tables(self._spectra(z_um, radius_um, index, False))
        pixels = _Pixels.around(sphere, shape, self)
        wave = np.zeros(shape, complex)
        wave[pixels.seen] = pixels.take(even[0]) + pixels.twice * pixels.take(double[0])
        return wave

    def wave_and_slopes(
        self, sphere: FloatArray, shape: tuple[int, int]
    ) -> tuple[ComplexArray, ComplexArray]:
        """The wave (H, W) of a sphere and its derivatives (5, H, W) by `PARAMETERS`."""
        z_um, radius_um, index = sphere[2:].tolist()
        even, double = self._tables(self._spectra(z_um, radius_um, index, True))
        pixels = _Pixels.around(sphere, shape, self)
        waves = np.zeros((len(PARAMETERS) + 1, *shape), complex)
        taken0, taken2 = pixels.take(even.T), pixels.take(double.T)
        together = taken0 + pixels.twice[:, None] * taken2
        for row, which in enumerate((0, 3, 4, 5)):
            waves[which][pixels.seen] = together[:, row]
        # moving the sphere by dx moves each pixel by -dx, along rho and in azimuth
        outward = pixels.take(np.gradient(even[0], _RHO_STEP_UM))
        outward += pixels.twice * pixels.take(np.gradient(double[0], _RHO_STEP_UM))
        turning = taken2[:, 0] * 4 * pixels.x_um * pixels.y_um / pixels.rho_um**4
        pixel_um = self.optics.pixel_size_um
        by_x = outward * pixels.x_um / pixels.rho_um - turning * pixels.y_um
        by_y = outward * pixels.y_um / pixels.rho_um + turning * pixels.x_um
        waves[1][pixels.seen], waves[2][pixels.seen] = -pixel_um * by_x, -pixel_um * by_y
        return waves[0], waves[1:]

    def image(self, spheres: FloatArray, shape: tuple[int, int]) -> FloatArray:
        """The hologram (H, W) of spheres (N, 5), 1 where nothing scatters."""
        wave = np.ones(shape, complex)
        for sphere in spheres:
            wave += self.wave(sphere, shape)
        light: FloatArray = wave.real**2 + wave.imag**2
        return light


@dataclass(frozen=True, slots=True, eq=False)
class _Pixels:
    """The pixels (M,) within reach of a sphere: which, where relative to it, and their places in the tables.

    `twice` is cos(2 p).
    """

    seen: npt.NDArray[np.bool_]
    x_um: FloatArray
    y_um: FloatArray
    rho_um: FloatArray
    twice: FloatArray
    node: npt.NDArray[np.int64]
    rest: FloatArray

    @classmethod
    def around(cls, sphere: FloatArray, shape: tuple[int, int], model: HologramModel) -> _Pixels:
        along_y = (np.arange(shape[0]) - sphere[1])[:, None] * model.optics.pixel_size_um
        along_x = (np.arange(shape[1]) - sphere[0])[None, :] * model.optics.pixel_size_um
        square = along_y**2 + along_x**2
        seen = square <= model.reach_um**2
        y_um, x_um = np.broadcast_to(along_y, shape)[seen], np.broadcast_to(along_x, shape)[seen]
        rho = np.maximum(np.sqrt(square[seen]), 1e-6)
        place = rho / _RHO_STEP_UM
        node = place.astype(np.int64)
        return cls(seen, x_um, y_um, rho, (y_um**2 - x_um**2) / rho**2, node, place - node)

    def take(self, table: ComplexArray) -> ComplexArray:
        """The values (M, ...) of a table (R, ...), linear between its points."""
        rest = self.rest.reshape(-1, *[1] * (table.ndim - 1))
        here = table[self.node]
        values: ComplexArray = here + rest * (table[self.node + 1] - here)
        return values


@lru_cache(maxsize=4)
def hologram_model(optics: HologramOptics, reach_um: float, deepest_um: float) -> HologramModel:
    """A `HologramModel`, kept for the next call."""
    return HologramModel(optics, reach_um, deepest_um)
