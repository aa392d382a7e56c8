"""The joint fit in volumes finds what is there, as well as it can be found, and says how well."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest

from engines.volumes.fit.bound import bound, least_errors
from engines.volumes.fit.spots import Fitted, fit_spots
from engines.volumes.proposal import Proposals
from engines.volumes.psf import VolumePsf
from engines.volumes.surroundings.background import Background
from engines.volumes.surroundings.noise import Noise

SIGMA = (1.5, 1.2, 1.2)
PSF = VolumePsf.gaussian(SIGMA[2], SIGMA[1], SIGMA[0], (1, 1, 1))
LEVEL = 20.0
SHAPE = (10, 64, 64)
FloatArray = npt.NDArray[np.float64]


def light(places: npt.ArrayLike, amplitude: float, shape: tuple[int, int, int] = SHAPE) -> FloatArray:
    """Expected light of particles at places (N, 3)."""
    axes = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    total = np.full(shape, LEVEL)
    for place in np.atleast_2d(places):
        total += amplitude * PSF.value(*(a - p for a, p in zip(axes, place, strict=True)))
    return total


def fit(image: npt.ArrayLike, starts: npt.ArrayLike, amplitude: float = np.nan, **options: object) -> Fitted:
    """The fit from places (N, 3), with a background that is 10 % too high."""
    volume, at = np.asarray(image), np.atleast_2d(np.asarray(starts, float)).reshape(-1, 3)
    nothing = np.full(len(at), np.nan)
    proposals = Proposals(at[:, 2], at[:, 1], at[:, 0], np.full(len(at), amplitude), nothing, nothing)
    missing = np.asarray(options.pop("missing", np.zeros(len(volume), bool)))
    noise = options.pop("noise", Noise(1, 0, 0))
    psf = options.pop("psf", PSF)
    background = Background.flat(1.1 * LEVEL + noise.offset, len(volume))  # type: ignore[attr-defined]
    return fit_spots(volume, missing, proposals, psf, noise, background, **options)  # type: ignore[arg-type]


def places_of(found: Fitted) -> FloatArray:
    return np.stack([found.z, found.y, found.x], axis=1)


def lattice(z: tuple[float, float], seed: int, step: int = 14) -> FloatArray:
    rng = np.random.default_rng(seed)
    y, x = (a.ravel() for a in np.meshgrid(*2 * [np.arange(step // 2, SHAPE[1] - 4, step)], indexing="ij"))
    return np.stack(
        [rng.uniform(*z, y.size), y + rng.uniform(-0.5, 0.5, y.size), x + rng.uniform(-0.5, 0.5, x.size)], 1
    )


def errors(
    z: tuple[float, float], amplitude: float, volumes: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Errors, least errors and stated errors (N, 3) of lone particles."""
    off, least, stated, extra = [], [], [], 0
    for seed in range(volumes):
        places, rng = lattice(z, seed), np.random.default_rng(100 + seed)
        starts = places + rng.normal(0, 0.4, places.shape)
        found = fit(rng.poisson(light(places, amplitude)), starts, amplitude)
        extra += len(found) - len(places)
        found = found.take(found.source >= 0)
        off.append(places_of(found) - places[found.source])
        stated.append(np.stack([found.sigma_z, found.sigma_y, found.sigma_x], axis=1))
        for place in places[found.source]:
            least.append(
                least_errors(bound(place[None], np.array([amplitude]), LEVEL, PSF, Noise(1, 0, 0), SHAPE[0]))[
                    :, :3
                ]
            )
    assert abs(extra) <= 0.02 * len(least)
    return np.concatenate(off), np.concatenate(least), np.concatenate(stated)


@pytest.mark.parametrize(("z", "most"), [((3, 6), 1.15), ((-0.5, 1.0), 1.3)], ids=["middle", "end"])
def test_lone_particles_are_found_as_well_as_the_bound_allows_and_their_errors_are_true(
    z: tuple[float, float], most: float
) -> None:
    off, least, stated = errors(z, 40.0, 8)
    assert np.sqrt(((off / least) ** 2).mean()) < most
    assert 0.85 < np.sqrt(((off / stated) ** 2).mean()) < 1.15


def test_the_bound_is_that_of_the_literature() -> None:
    # facts of the stand-in scene: at SNR 4 .095 voxels in the middle, .17 along z at the first slice
    psf, noise = VolumePsf.gaussian(1.3, 1.3, 1.3, (1, 1, 1)), Noise(1, 0, 0)
    middle, end = (
        least_errors(bound(np.array([[z, 20.0, 20.0]]), np.array([22.966]), 10.0, psf, noise, 10))[0]
        for z in (4.5, 0)
    )
    assert middle[:3] == pytest.approx(0.0946, abs=2e-4)
    assert end[:3] == pytest.approx([0.1726, 0.1133, 0.1133], abs=2e-4)


def test_two_particles_that_were_proposed_as_one_are_two() -> None:
    places = np.array([[4.5, 30.0, 30.0], [4.9, 31.6, 31.6]])
    image = np.random.default_rng(1).poisson(light(places, 150.0))
    found = fit(image, places.mean(axis=0), 250.0)
    assert len(found) == 2
    order = np.argsort(found.x)
    assert np.abs(places_of(found)[order] - places).max() < 0.3
    assert found.log_likelihood_ratio.min() > 30


def test_a_single_particle_stays_one_whatever_its_brightness() -> None:
    for seed in range(6):
        places = lattice((0, 9), seed)
        amplitude = (15.0, 40.0, 400.0)[seed % 3]
        found = fit(np.random.default_rng(seed).poisson(light(places, amplitude)), places, amplitude)
        assert len(found) == len(places)


def test_several_proposals_of_one_particle_become_one() -> None:
    place = np.array([4.2, 30.3, 29.8])
    image = np.random.default_rng(2).poisson(light(place, 60.0))
    found = fit(image, place + np.array([[0.5, 0.5, -0.5], [-0.5, -0.8, 0.3], [0, 0.6, 0.9]]), 40.0)
    assert len(found) == 1
    assert np.abs(places_of(found)[0] - place).max() < 0.4


def test_a_faint_particle_beside_a_bright_one_is_found_in_the_residual() -> None:
    bright, faint = np.array([4.5, 30.0, 28.0]), np.array([4.0, 30.5, 33.0])
    image = np.random.default_rng(3).poisson(light(bright, 300.0) + light(faint, 60.0) - LEVEL)
    found = fit(image, bright, 300.0, density=1e-4)
    assert sorted(found.source) == [-1, 0]
    assert np.abs(places_of(found)[found.source == -1] - faint).max() < 0.5


def test_what_a_missing_slice_holds_does_not_count() -> None:
    places = np.array([[4.3, 20.0, 20.0], [7.0, 40.0, 41.0]])
    image = np.random.default_rng(4).poisson(light(places, 80.0))
    missing = np.arange(SHAPE[0]) == 5
    found = []
    for value in (0, 9999):
        image[5] = value
        found.append(fit(image, places, 80.0, missing=missing))
    np.testing.assert_array_equal(places_of(found[0]), places_of(found[1]))
    assert np.abs(places_of(found[0]) - places).max() < 0.4
    whole = fit(np.random.default_rng(4).poisson(light(places, 80.0)), places, 80.0)
    assert found[0].sigma_z[0] > 1.05 * whole.sigma_z[0]


def test_particles_outside_the_first_slice_are_found_and_said_to_lie_at_an_end() -> None:
    places = np.array([[-0.5, 20.0, 20.0], [4.5, 20.0, 45.0], [9.4, 45.0, 20.0]])
    found = fit(np.random.default_rng(5).poisson(light(places, 200.0)), places + 0.3, 200.0)
    assert np.abs(places_of(found) - places).max() < 0.4
    assert found.at_end.tolist() == [True, False, True]
    assert found.sigma_z[0] > 1.5 * found.sigma_z[1]


def test_slices_that_are_not_evenly_spaced_are_taken_where_they_are() -> None:
    heights = np.array([0, 0.8, 2.1, 2.9, 4.0, 5.2, 5.9, 7.0, 8.1, 9.0])
    axes = np.meshgrid(heights, *(np.arange(n) for n in SHAPE[1:]), indexing="ij")
    place = np.array([4.6, 30.2, 31.1])
    mean = LEVEL + 200 * PSF.value(*(a - p for a, p in zip(axes, place, strict=True)))
    found = fit(np.random.default_rng(6).poisson(mean), [4.5, 30, 31], 200.0, heights_um=heights)
    assert np.abs(places_of(found)[0] - place).max() < 4 * found.sigma_z[0]


def test_gain_offset_and_read_noise_change_the_errors_as_they_should() -> None:
    place, rng = np.array([[4.5, 30.0, 30.0]]), np.random.default_rng(7)
    noise = Noise(2.0, 100.0, 9.0)
    pulls = []
    for _ in range(25):
        image = np.rint(2 * rng.poisson(light(place, 100.0) / 2) + 100 + 3 * rng.standard_normal(SHAPE))
        found = fit(image, place, 100.0, noise=noise)
        pulls += [
            *((places_of(found) - place) / np.stack([found.sigma_z, found.sigma_y, found.sigma_x], 1)).ravel()
        ]
        assert abs(found.amplitude[0] - 100) < 5 * found.sigma_amplitude[0]
        assert found.chi_square[0] == pytest.approx(1, abs=0.25)
    assert 0.8 < np.sqrt(np.mean(np.square(pulls))) < 1.2


def test_a_measured_psf_is_fitted_as_the_gaussian_that_it_is() -> None:
    places = lattice((2, 7), 8)
    z, y, x = np.meshgrid(np.arange(-7, 8), *2 * [np.arange(-6, 7)], indexing="ij")
    grid = VolumePsf.measured(PSF.value(z, y, x), (1, 1, 1), (1, 1, 1))
    image = np.random.default_rng(8).poisson(light(places, 100.0))
    one, other = fit(image, places, 100.0), fit(image, places, 100.0, psf=grid)
    np.testing.assert_allclose(places_of(one), places_of(other), atol=0.03)
    np.testing.assert_allclose(one.sigma_x, other.sigma_x, rtol=0.03)


def test_a_crowd_is_fitted_in_bounded_groups() -> None:
    rng = np.random.default_rng(9)
    places = np.array([4.5, 32, 32]) + rng.uniform(-1, 1, (40, 3)) * (3.5, 14, 14)
    found = fit(rng.poisson(light(places, 100.0)), places, 100.0)
    assert 25 <= len(found) <= 45
    assert np.isfinite(places_of(found)).all()


def test_a_single_slice_is_fitted_along_x_and_y() -> None:
    place = np.array([0.0, 30.3, 29.6])
    found = fit(np.random.default_rng(12).poisson(light(place, 300.0))[:1], [0, 30, 30], 300.0)
    assert np.abs(places_of(found)[0] - place).max() < 0.3
    assert found.sigma_x[0] < 0.3
    assert np.isnan(found.sigma_z[0])


def test_nothing_proposed_is_nothing_found() -> None:
    assert len(fit(np.full(SHAPE, 20), np.empty((0, 3)))) == 0


def test_places_that_are_no_numbers_are_left_out() -> None:
    place = np.array([4.5, 30.0, 30.0])
    found = fit(np.random.default_rng(10).poisson(light(place, 100.0)), [place, [np.nan, 1, 1]], 100.0)
    assert found.source.tolist() == [0]


def test_threads_find_the_same_as_one() -> None:
    places = lattice((1, 8), 11)
    image = np.random.default_rng(11).poisson(light(places, 60.0))
    alone = fit(image, places, 60.0)
    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(lambda _: fit(image, places, 60.0), range(6)):
            np.testing.assert_array_equal(places_of(found), places_of(alone))


def test_a_volume_of_another_depth_than_its_background_is_refused() -> None:
    with pytest.raises(ValueError, match="slices"):
        fit_spots(
            np.zeros((4, 8, 8)),
            np.zeros(4, bool),
            Proposals.none(),
            PSF,
            Noise(1, 0, 0),
            Background.flat(1.0, 5),
        )
