"""Images of a sphere through an astigmatic lens: partially coherent bright field, or fluorescence.

Dark polarity is partially coherent bright-field imaging (Hopkins, Proc. R. Soc. A 217, 408, 1953; Streibl, J. Opt.
Soc. Am. A 2, 121, 1985). The condenser fills a disc with plane waves k_s. The sphere scatters a part of each (Mie),
and both parts pass the pupil P(k, z) with its astigmatic defocus. With the scattered spectrum f(k) and the source
S(k_s), the contrast is linear in f plus a weak quadratic term:

    c(x) = -2 Re F^-1[ f(k) T(k) ] - <|F^-1[ f(k - k_s) P(k) ]|^2>,    T(k) = sum P(k + k_s) P*(k_s) S(k_s) / sum S

T, a cross-correlation of the pupil with the source, sums the linear term over the whole condenser; the quadratic
one is averaged over a ring of directions k_s. The defaults are the set-up of Franchini & Krevor (2020), section
2.1.1, and reproduce their Fig. 2.

Bright polarity is the incoherent image of a fluorescing sphere through the same pupil.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy import fft

from acquisition.physics.mie import scattering_amplitudes

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
ComplexArray = npt.NDArray[np.complex128]

IMAGE_MODEL_VERSION = 1
BRIGHT_PEAK_CONTRAST = 3.0
"""Brightness of a fluorescent particle in a focal line over the background. A choice; the SNR scales with it."""
_DIRECTIONS = 8
"""Directions of illumination for the weak quadratic term: with 32 instead, images change by less than 3e-7 of their
peak."""
_TAPER_PX = 6
"""Soft edge of an image, px; a harder one would leave a visible rim in averages of many frames."""


class OpticsModel(BaseModel):
    """The optical set-up; defaults after Franchini & Krevor (2020)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    polarity: Literal["dark", "bright"] = Field(
        default="dark", description="particles darker or brighter than the background"
    )
    numerical_aperture: float = Field(
        default=0.15, gt=0, lt=1.3, description="numerical aperture of the objective"
    )
    condenser_na: float = Field(
        default=0.145,
        gt=0,
        description="numerical aperture of the condenser; rings appear if it is well below the objective's",
    )
    pixel_size_um: float = Field(default=0.8, gt=0, description="pixel size in object space")
    particle_diameter_um: float = Field(default=2.0, gt=0, le=20, description="diameter of a particle")
    particle_index: float = Field(
        default=1.59, gt=1, description="refractive index of the particle (default: polystyrene)"
    )
    medium_index: float = Field(
        default=1.473, ge=1, description="refractive index of the medium (default: glycerol)"
    )
    wavelengths_um: tuple[float, ...] = Field(
        default=(0.50, 0.53, 0.56), min_length=1, description="wavelengths of the lamp"
    )
    focal_line_separation_um: float = Field(
        default=150.0, ge=0, description="distance between the two focal lines"
    )
    rotation_deg: float = Field(default=0.0, description="rotation of the astigmatic axes, from x towards y")
    visible_um: float = Field(
        default=204.0, gt=0, description="particles count as visible for |z| up to this"
    )
    range_um: float = Field(default=240.0, gt=0, description="images are rendered for |z| up to this")

    @model_validator(mode="after")
    def _is_bright_field(self) -> OpticsModel:
        if self.condenser_na > self.numerical_aperture:
            raise ValueError("condenser_na above numerical_aperture is dark field: lower the condenser's")
        if self.numerical_aperture >= self.medium_index:
            raise ValueError("numerical_aperture must be below medium_index")
        if self.range_um < self.visible_um:
            raise ValueError("range_um must be at least visible_um")
        return self

    @property
    def oversampling(self) -> int:
        """Points per pixel needed to resolve the band limit 2 NA / wavelength of the image."""
        return math.ceil(self.pixel_size_um * 4 * self.numerical_aperture / min(self.wavelengths_um))

    @property
    def half_size_px(self) -> int:
        """Pixels from the centre of a particle to the edge of its largest image, soft edge included."""
        slope = math.tan(math.asin(self.numerical_aperture / self.medium_index))
        shadow_um = (self.range_um + self.focal_line_separation_um / 2) * slope
        airy_um = 0.61 * max(self.wavelengths_um) / self.numerical_aperture
        extent_um = shadow_um + 2 * airy_um + self.particle_diameter_um / 2
        return math.ceil(extent_um / self.pixel_size_um) + _TAPER_PX


class _Grid:
    """The fine grid on which images are computed, with wave vectors (kx, ky) and the pupil P of one wavelength."""

    def __init__(self, optics: OpticsModel, wavelength_um: float) -> None:
        self.points = grid_points(optics)
        self.step_um = optics.pixel_size_um / optics.oversampling
        frequency = 2 * np.pi * fft.fftfreq(self.points, self.step_um)
        self.kx, self.ky = np.meshgrid(frequency, frequency)
        self.vacuum_wavenumber = 2 * np.pi / wavelength_um
        self.wavenumber = self.vacuum_wavenumber * optics.medium_index
        self.radius = np.hypot(self.kx, self.ky)
        self.pupil = self.radius <= optics.numerical_aperture * self.vacuum_wavenumber
        turn = math.radians(optics.rotation_deg)
        self._along = (self.kx * math.cos(turn) + self.ky * math.sin(turn)) ** 2 / (2 * self.wavenumber)
        self._across = (self.ky * math.cos(turn) - self.kx * math.sin(turn)) ** 2 / (2 * self.wavenumber)
        self._half_um = optics.focal_line_separation_um / 2

    def defocused_pupil(self, z_um: float) -> ComplexArray:
        """Return P(k, z) for a particle at z: sharp in y at z = -s/2, in x at z = +s/2, s the line separation.

        The phase is kx^2 (z - s/2) / 2k + ky^2 (z + s/2) / 2k: paraxial defocus along and across the axis of
        astigmatism.
        """
        phase = self._along * (z_um - self._half_um) + self._across * (z_um + self._half_um)
        pupil: ComplexArray = self.pupil * np.exp(-1j * phase)
        return pupil


def grid_points(optics: OpticsModel) -> int:
    """Points per side of the fine grid: the largest image plus room for light diffracted beyond it."""
    pixels = fft.next_fast_len(round(3.1 * optics.half_size_px), real=True)
    return pixels * optics.oversampling


def _bright_field(optics: OpticsModel, wavelength_um: float, z_um: FloatArray) -> FloatArray:
    grid = _Grid(optics, wavelength_um)
    size = math.pi * optics.particle_diameter_um * optics.medium_index / wavelength_um
    angle = np.linspace(0, math.pi, 2001)
    s1, s2 = scattering_amplitudes(size, optics.particle_index / optics.medium_index, angle)
    amplitude = (s1 + s2) / 2
    # angular spectrum of the scattered wave: exp(ikr)/(-ikr) S -> -S / (2 pi k kz), kz = k; the sums below
    # are the integrals over the transverse wave vector
    cell = (2 * np.pi / (grid.points * grid.step_um)) ** 2
    scale = -(cell * grid.points**2) / (2 * np.pi * grid.wavenumber**2)

    def scattered(deflection: FloatArray) -> ComplexArray:
        theta = 2 * np.arcsin(np.clip(deflection / (2 * grid.wavenumber), 0, 1))
        wave: ComplexArray = scale * np.interp(theta, angle, amplitude)
        return wave

    source = grid.radius <= optics.condenser_na * grid.vacuum_wavenumber
    linear = scattered(grid.radius)
    radius = optics.condenser_na * grid.vacuum_wavenumber / math.sqrt(2)
    azimuth = (np.arange(_DIRECTIONS) + 0.5) * 2 * np.pi / _DIRECTIONS
    oblique = [
        scattered(np.hypot(grid.kx - radius * math.cos(a), grid.ky - radius * math.sin(a))) for a in azimuth
    ]
    contrast = np.empty((z_um.size, grid.points, grid.points))
    for index, z in enumerate(z_um):
        pupil = grid.defocused_pupil(float(z))
        transfer = fft.fft2(fft.ifft2(pupil) * np.conj(fft.ifft2(pupil * source))) * grid.points**2
        contrast[index] = -2 * fft.ifft2(linear * transfer / source.sum()).real
        for wave in oblique:
            field = fft.ifft2(wave * pupil)
            contrast[index] -= (field.real**2 + field.imag**2) / _DIRECTIONS
    return contrast


def _fluorescence(optics: OpticsModel, wavelength_um: float, z_um: FloatArray) -> FloatArray:
    grid = _Grid(optics, wavelength_um)
    radius = optics.particle_diameter_um / 2
    argument = np.maximum(grid.radius * radius, 1e-3)
    sphere = 3 * (np.sin(argument) - argument * np.cos(argument)) / argument**3
    contrast = np.empty((z_um.size, grid.points, grid.points))
    for index, z in enumerate(z_um):
        field = fft.ifft2(grid.defocused_pupil(float(z)))
        contrast[index] = -fft.ifft2(fft.fft2(field.real**2 + field.imag**2) * sphere).real
    contrast *= grid.points**2 / grid.pupil.sum()
    return contrast


def fine_images(optics: OpticsModel, z_um: npt.ArrayLike) -> Float32Array:
    """Return relative contrast on the fine grid, shape (Z, N, N), centred at index N // 2, pixel-averaged.

    N is `grid_points(optics)`; the step is the pixel over `optics.oversampling`. Image: background * (1 - c).
    """
    z = np.atleast_1d(np.asarray(z_um, float))
    one_wavelength = _bright_field if optics.polarity == "dark" else _fluorescence
    total = np.zeros((z.size, grid_points(optics), grid_points(optics)))
    for wavelength in optics.wavelengths_um:
        total += one_wavelength(optics, wavelength, z) / len(optics.wavelengths_um)
    if optics.polarity == "bright":
        line_focus = np.array([-optics.focal_line_separation_um / 2])
        wavelength = optics.wavelengths_um[0]
        total *= BRIGHT_PEAK_CONTRAST / -float(_fluorescence(optics, wavelength, line_focus).min())
    frequency = fft.fftfreq(total.shape[1], 1 / optics.oversampling)
    pixel = np.sinc(frequency)[:, None] * np.sinc(frequency)
    averaged = fft.ifft2(fft.fft2(total, axes=(1, 2)) * pixel, axes=(1, 2)).real
    return fft.fftshift(averaged, axes=(1, 2)).astype(np.float32)


def spectrum_of(fine: Float32Array) -> npt.NDArray[np.complex64]:
    """The Fourier transform of fine images (Z, N, N), as `shifted_images` takes it."""
    spectrum: npt.NDArray[np.complex64] = fft.rfft2(fine, axes=(1, 2))
    return spectrum


def shifted_images(
    spectrum: npt.NDArray[np.complex64], optics: OpticsModel, shift_x_px: float, shift_y_px: float
) -> Float32Array:
    """Sample fine images, given by their `spectrum_of`, at the camera's pixels, shifted by a part of a pixel.

    Returns (Z, 2 h + 1, 2 h + 1) with h = `optics.half_size_px`; the shift is exact (Fourier).
    """
    points, factor, half = spectrum.shape[1], optics.oversampling, optics.half_size_px
    along = fft.fftfreq(points)[:, None] * shift_y_px
    phase = along + fft.rfftfreq(points)[None, :] * shift_x_px
    turned = spectrum * np.exp(-2j * np.pi * factor * phase).astype(np.complex64)
    shifted = fft.irfft2(turned, s=(points, points), axes=(1, 2))
    pixels = points // 2 + factor * np.arange(-half, half + 1)
    return np.ascontiguousarray(shifted[:, pixels[:, None], pixels], dtype=np.float32)


def particle_images(
    optics: OpticsModel, z_um: npt.ArrayLike, shift_x_px: float = 0.0, shift_y_px: float = 0.0
) -> Float32Array:
    """Return the relative contrast c of a particle at each z: (Z, H, W); image = background * (1 - c).

    z_um is the particle's height minus the focus position. The centre of the particle is the middle pixel
    plus the shift. For z < 0 the image is long along x, for z > 0 along y.
    """
    return shifted_images(spectrum_of(fine_images(optics, z_um)), optics, shift_x_px, shift_y_px)
