"""The PSF of volumes keeps its shape through files and units, and refuses what cannot be one."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.volumes.psf import VolumePsf
from stream.errors import ConfigurationError

VOXEL = (0.3, 0.1, 0.12)
SIGMA = (0.2, 0.25, 0.6)
SIZES = st.floats(0.01, 10)


def gaussian() -> VolumePsf:
    return VolumePsf.gaussian(*SIGMA, VOXEL)


def measured(factor: float = 1.0) -> VolumePsf:
    z, y, x = np.meshgrid(
        np.arange(-8, 9) * 0.3, np.arange(-10, 11) * 0.1, np.arange(-9, 10) * 0.1, indexing="ij"
    )
    return VolumePsf.measured(factor * gaussian().value(z, y, x), (0.3, 0.1, 0.1), VOXEL)


def offsets(count: int = 60) -> np.ndarray:
    return np.random.default_rng(1).uniform(-0.6, 0.6, (3, count))


def in_file(psf: VolumePsf) -> VolumePsf:
    with h5py.File("psf.h5", "w", driver="core", backing_store=False) as file:
        psf.save(file.create_group("psf"))
        return VolumePsf.load(file["psf"])


def test_a_gaussian_that_was_measured_is_that_gaussian() -> None:
    np.testing.assert_allclose(measured(7.0).value(*offsets()), gaussian().value(*offsets()), atol=2e-3)
    np.testing.assert_allclose(measured().sigma_um, gaussian().sigma_um, rtol=1e-3)


@pytest.mark.parametrize("psf", [gaussian(), measured()], ids=["gaussian", "measured"])
def test_derivatives_are_the_change_when_the_point_moves(psf: VolumePsf) -> None:
    at, step = offsets(), 1e-5
    for axis, derivative in enumerate(psf.derivatives(*at)):
        moved = [a - step * (axis == n) for n, a in enumerate(at)]
        back = [a + step * (axis == n) for n, a in enumerate(at)]
        np.testing.assert_allclose(derivative, (psf.value(*moved) - psf.value(*back)) / (2 * step), atol=1e-4)


def test_the_peak_of_a_measured_psf_is_one_wherever_its_nodes_lie() -> None:
    z, y, x = np.meshgrid(*(np.arange(-9, 10) * s + 0.4 * s for s in (0.3, 0.1, 0.1)), indexing="ij")
    psf = VolumePsf.measured(500 * gaussian().value(z, y, x), (0.3, 0.1, 0.1), VOXEL, (8.6, 8.6, 8.6))
    assert psf.value(0, 0, 0) == pytest.approx(1, abs=2e-3)


def test_beyond_its_grid_a_measured_psf_is_nothing() -> None:
    assert (measured().value([9.0, 0, 0], [0, 3.0, 0], [0, 0, -3.0]) == 0).all()


@pytest.mark.parametrize("psf", [gaussian(), measured()], ids=["gaussian", "measured"])
def test_a_psf_is_the_same_after_a_file_and_after_text(psf: VolumePsf) -> None:
    for again in (in_file(psf), VolumePsf.from_json(psf.to_json())):
        assert (again.voxel_um, again.sigma_um, again.centre) == (psf.voxel_um, psf.sigma_um, psf.centre)
        np.testing.assert_array_equal(again.value(*offsets()), psf.value(*offsets()))


@given(SIZES, SIZES, SIZES, st.tuples(SIZES, SIZES, SIZES))
@settings(max_examples=30, deadline=None)
def test_any_gaussian_is_the_same_after_text(
    x: float, y: float, z: float, voxel: tuple[float, float, float]
) -> None:
    again = VolumePsf.from_json(VolumePsf.gaussian(x, y, z, voxel).to_json())
    assert again.voxel_um == voxel
    assert (again.sigma_x_um, again.sigma_y_um, again.sigma_z_um) == (x, y, z)


def test_other_voxels_change_the_size_in_voxels_only() -> None:
    psf = gaussian().with_voxel((0.6, 0.1, 0.1))
    assert psf.sigma_um == gaussian().sigma_um
    assert psf.sigma_voxels == pytest.approx((1.0, 2.5, 2.0))


@pytest.mark.parametrize(
    "change",
    [
        {"version": 99},
        {"voxel_um": [0.1, 0.1]},
        {"sigma_um": [0.1, float("nan"), 0.1]},
        {"sigma_um": [0.1, -1, 0.1]},
        {"shape": [3, 3, 3]},
        {"coefficients": "AAAA"},
        {"centre": [0, 0, 500]},
    ],
)
def test_a_damaged_text_is_refused_in_one_line(change: dict[str, object]) -> None:
    fields = json.loads(measured().to_json()) | change
    with pytest.raises(ConfigurationError, match="is damaged") as caught:
        VolumePsf.from_json(json.dumps(fields))
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_refused() -> None:
    with h5py.File("psf.h5", "w", driver="core", backing_store=False) as file:
        group = file.create_group("psf")
        measured().save(group)
        group["coefficients"][0, 0, 0] = np.nan
        with pytest.raises(ConfigurationError, match="calibrate again"):
            VolumePsf.load(group)
        del group.attrs["sigma_um"]
        with pytest.raises(ConfigurationError, match="calibrate again"):
            VolumePsf.load(group)


@pytest.mark.parametrize("image", [np.zeros((5, 5, 5)), np.ones((2, 5, 5)), np.full((5, 5, 5), np.inf)])
def test_what_has_no_peak_is_no_psf(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="a measured PSF"):
        VolumePsf.measured(image, VOXEL, VOXEL)
