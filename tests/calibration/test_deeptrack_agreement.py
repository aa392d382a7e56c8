"""DeepTrack's renderer and ours draw the same images where both can, and differ where and as the docs say."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from acquisition.physics.hologram import HologramOptics, hologram_model
from acquisition.physics.mie import mie_coefficients
from acquisition.physics.optics import OpticsModel
from calibration.synthesis.from_optics import model_from_optics
from calibration.synthesis.reach import reach_of_model
from calibration.synthesis.render import Drawn, Spline, render

pytestmark = pytest.mark.filterwarnings("ignore")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    deeptrack = pytest.importorskip("deeptrack")

# astigmatic fluorescence of 2 um spheres at a low aperture; depths are whole pixels, as DeepTrack puts a particle
# into the plane of voxels below it
ASTIGMATIC = OpticsModel(
    polarity="bright",
    wavelengths_um=(0.53,),
    focal_line_separation_um=60.0,
    visible_um=75.0,
    range_um=84.0,
)
SIDE = 65
DEPTHS_UM = (-60.0, -27.2, 0.0, 16.0, 44.8)
OVERSAMPLED = (2, 2, 1)
SHIFT_PX = 0.5
"""How far DeepTrack 2.0.2 moves an image that it draws on a grid of half the pixel: it takes the grid's half step
into account twice (in the particle's place, and when it adds up pixels)."""


def astigmatism(optics):
    """DeepTrack's Zernike coefficient (radians, Noll's normalisation) of two focal lines at a distance."""
    edge = 2 * math.pi / optics.wavelengths_um[0] * optics.numerical_aperture
    wavenumber = 2 * math.pi / optics.wavelengths_um[0] * optics.medium_index
    return edge**2 * optics.focal_line_separation_um / (4 * wavenumber) / math.sqrt(6)


def drawn_by_deeptrack(optics, x_px, y_px, z_um, upscale=OVERSAMPLED):
    microscope = deeptrack.Fluorescence(
        NA=optics.numerical_aperture,
        wavelength=optics.wavelengths_um[0] * 1e-6,
        resolution=optics.pixel_size_um * 1e-6,
        magnification=1,
        refractive_index_medium=optics.medium_index,
        output_region=(0, 0, SIDE, SIDE),
        padding=(32,) * 4,
        upscale=upscale,
        pupil=deeptrack.Astigmatism(coefficient=astigmatism(optics)),
    )
    sphere = deeptrack.Sphere(
        position=(y_px, x_px),
        z=round(z_um / optics.pixel_size_um) + 0.01,
        radius=optics.particle_diameter_um / 2 * 1e-6,
        intensity=1.0,
    )
    return np.asarray(microscope(sphere).resolve(), float)[..., 0]


def drawn_by_us(psf, x_px, y_px, z_um):
    image = np.zeros((SIDE, SIDE), np.float32)
    spline = Spline(psf.coefficients, psf.z_first_um, psf.z_step_um, reach_of_model(psf))
    one = np.ones(1)
    render(image, spline, Drawn(x_px * one, y_px * one, z_um * one, one))
    return image.astype(float)


@pytest.fixture(scope="module")
def psf():
    return model_from_optics(ASTIGMATIC)


@pytest.mark.parametrize("z_um", DEPTHS_UM)
def test_fluorescent_spheres_look_alike_at_all_depths(psf, z_um):
    x_px, y_px = 32.3, 31.8
    theirs = drawn_by_deeptrack(ASTIGMATIC, x_px - SHIFT_PX, y_px - SHIFT_PX, z_um)
    ours = drawn_by_us(psf, x_px, y_px, z_um)
    theirs *= (theirs * ours).sum() / (theirs**2).sum()
    # measured: 1.1 to 1.7 % of the peak: DeepTrack's voxels and its sums over halves of a pixel, and our paraxial
    # defocus, which needs 0.5 % more depth for the same image
    assert np.abs(theirs - ours).max() < 0.025 * ours.max()
    assert theirs.sum() == pytest.approx(ours.sum(), rel=0.03)


def test_the_axes_of_astigmatism_are_not_confused(psf):
    theirs = drawn_by_deeptrack(ASTIGMATIC, 32.0 - SHIFT_PX, 32.0 - SHIFT_PX, 27.2)
    ours = drawn_by_us(psf, 32.0, 32.0, -27.2)
    theirs *= (theirs * ours).sum() / (theirs**2).sum()
    assert np.abs(theirs - ours).max() > 0.3 * ours.max()


@pytest.mark.parametrize(("upscale", "shift_px"), [(1, 0.0), (2, 0.5), (3, 1 / 3)])
def test_deeptrack_moves_images_that_it_draws_on_a_finer_grid(upscale, shift_px):
    focused = ASTIGMATIC.model_copy(update={"focal_line_separation_um": 0.0})
    image = drawn_by_deeptrack(focused, 32.0, 31.0, 0.0, upscale)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    bright = np.maximum(image - 0.02 * image.max(), 0)
    place = [float((bright * axis).sum() / bright.sum()) for axis in (columns, rows)]
    assert place == pytest.approx([32.0 + shift_px, 31.0 + shift_px], abs=0.01)


@pytest.mark.parametrize(
    ("radius_um", "index"), [(0.15, 1.58), (0.23, 1.58), (0.5, 1.45), (1.0, 1.58), (0.05, 1.34)]
)
def test_mie_coefficients_are_the_same(radius_um, index):
    size, relative = 2 * math.pi * 1.33 / 0.633 * radius_um, index / 1.33
    ours = mie_coefficients(size, relative)
    theirs = deeptrack.backend.mie.coefficients(relative, size, len(ours[0]))
    assert np.abs(np.array(ours) - np.array(theirs)).max() < 1e-12


HOLOGRAPHIC = HologramOptics(pixel_fill=0.0)  # DeepTrack draws the light at a pixel's centre
HOLOGRAM_SIDE, PADDING = 96, 80


def hologram_by_deeptrack(sphere, **settings):
    """The scattered wave (H, W), 0 where there is none, of a sphere in the order of `PARAMETERS`."""
    x_px, y_px, z_um, radius_um, index = sphere
    microscope = deeptrack.Brightfield(
        NA=HOLOGRAPHIC.numerical_aperture,
        wavelength=HOLOGRAPHIC.wavelength_um * 1e-6,
        resolution=HOLOGRAPHIC.pixel_size_um * 1e-6,
        magnification=1,
        refractive_index_medium=HOLOGRAPHIC.medium_index,
        output_region=(0, 0, HOLOGRAM_SIDE, HOLOGRAM_SIDE),
        padding=(PADDING,) * 4,
        return_field=True,
    )
    scatterer = deeptrack.MieSphere(
        position=(y_px, x_px),
        z=z_um / HOLOGRAPHIC.pixel_size_um,
        radius=radius_um * 1e-6,
        refractive_index=index,
        **settings,
    )
    return np.asarray(microscope(scatterer).resolve())[..., 0] - 1


def ours_of(sphere):
    return hologram_model(HOLOGRAPHIC, 10.0, 8.0).wave(np.array(sphere), (HOLOGRAM_SIDE, HOLOGRAM_SIDE))


def relative_difference(theirs, ours):
    return float(np.linalg.norm(theirs - ours) / np.linalg.norm(ours))


SPHERES = [(47.6, 48.3, 3.0, 0.15, 1.58), (47.6, 48.3, 6.0, 0.23, 1.58), (45.0, 50.0, -4.0, 0.3, 1.46)]


@pytest.mark.parametrize("sphere", SPHERES)
def test_scattered_waves_are_the_same_but_for_scale_and_obliquity(sphere):
    k, px = HOLOGRAPHIC.wavenumber, HOLOGRAPHIC.pixel_size_um
    points = HOLOGRAM_SIDE + 2 * PADDING
    across = (np.arange(points) - points / 2) * 2 * math.pi / (points * px)
    sine2 = np.minimum((across[:, None] ** 2 + across**2) / k**2, 0.99)
    theirs = hologram_by_deeptrack(
        sphere, mode="hybrid", amp_factor=-((k * px) ** 2) / (2 * math.pi), pupil=1 / np.sqrt(1 - sine2)
    )
    # measured: 0.02 to 0.035, the edge of the pupil on a grid and the edge of the padded image
    assert relative_difference(theirs, ours_of(sphere)) < 0.05


@pytest.mark.parametrize("sphere", SPHERES)
def test_deeptracks_spheres_add_light_where_they_should_take_it(sphere):
    theirs = hologram_by_deeptrack(sphere)
    ours = ours_of(sphere)
    scale = np.vdot(ours, theirs) / np.vdot(ours, ours)
    assert scale.real == pytest.approx(-0.98, abs=0.05)
    assert abs(scale.imag) < 0.15
