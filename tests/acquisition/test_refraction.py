"""Height per focus travel where the sample's index is not the lens's."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from acquisition.physics.refraction import refraction_factor, refraction_in_words

indices = st.floats(1.0, 1.8)
apertures = st.floats(0.01, 1.6)


def over_the_pupil(sample, immersion, aperture, rays=20_000):
    """The mean of tan(theta_i) / tan(theta_s) over equal areas of the pupil, by Snell's law, ray by ray."""
    s = min(aperture, sample) * np.sqrt((np.arange(rays) + 0.5) / rays)
    inside, outside = np.arcsin(s / sample), np.arcsin(s / immersion)
    return float(np.mean(np.tan(outside) / np.tan(inside)))


@given(indices, st.floats(0.01, 1.0))
def test_matching_indices_need_no_correction(index, aperture):
    assert refraction_factor(index, index) == 1
    assert refraction_factor(index, index, aperture) == 1


@given(indices, indices)
def test_small_apertures_give_the_paraxial_ratio(sample, immersion):
    assert refraction_factor(sample, immersion) == pytest.approx(sample / immersion)
    for aperture in (1e-6, 1e-4, 1e-3, 3e-3):
        found = refraction_factor(sample, immersion, aperture)
        assert found == pytest.approx(sample / immersion, rel=2 * aperture**2 + 1e-9)


@given(indices, indices, apertures)
def test_the_factor_is_the_mean_of_the_rays_and_lies_between_the_axis_and_the_edge(
    sample, immersion, aperture
):
    assume(aperture < 0.98 * immersion)
    found = refraction_factor(sample, immersion, aperture)
    assert found == pytest.approx(over_the_pupil(sample, immersion, aperture), rel=2e-3)
    edge = min(aperture, sample)
    marginal = math.sqrt((sample**2 - edge**2) / (immersion**2 - edge**2))
    low, high = sorted((sample / immersion, marginal))
    assert low - 1e-9 <= found <= high + 1e-9


@given(indices, indices, st.floats(0.05, 0.9), st.floats(0.05, 0.9))
def test_larger_apertures_are_further_from_matching(sample, immersion, one, other):
    small, large = sorted((one, other))
    near, far = (refraction_factor(sample, immersion, aperture) for aperture in (small, large))
    assert abs(near - 1) <= abs(far - 1) + 1e-9


@pytest.mark.parametrize("aperture", [0.3, 0.5, 0.7, 0.85, 0.95])
def test_the_factor_is_the_defocus_of_least_aberration_within_2_percent(aperture):
    """Stallinga (2005): the wave n cos(theta) of the sample, fitted over the pupil by that of the immersion."""
    s2 = aperture**2 * (np.arange(200_000) + 0.5) / 200_000
    sample, immersion = np.sqrt(1.33**2 - s2), np.sqrt(1 - s2)
    least = np.var(immersion) / np.mean((immersion - immersion.mean()) * (sample - sample.mean()))
    assert refraction_factor(1.33, 1.0, aperture) == pytest.approx(least, rel=0.02)


def test_light_beyond_the_samples_index_does_not_come_through():
    assert refraction_factor(1.33, 1.515, 1.49) == refraction_factor(1.33, 1.515, 1.33)


@pytest.mark.parametrize(
    ("sample", "immersion", "aperture"),
    [(0.9, 1.0, None), (1.33, 0.0, None), (1.33, 1.0, 1.2), (1.33, 1.0, 0.0), (math.nan, 1.0, None)],
)
def test_what_no_microscope_has_is_refused(sample, immersion, aperture):
    with pytest.raises(ValueError, match=r"indices|aperture"):
        refraction_factor(sample, immersion, aperture)


def test_the_words_say_which_factor_was_used():
    assert "given as 1.2" in refraction_in_words(1.2, None, None, None)
    assert "paraxial" in refraction_in_words(1.33, 1.33, 1.0, None)
    said = refraction_in_words(refraction_factor(1.33, 1, 0.5), 1.33, 1.0, 0.5)
    assert "averaged over the pupil" in said
    assert "1.33 on the axis, 1.423 at the edge" in said
    assert "-0.27" in said
