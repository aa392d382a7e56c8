"""Developed flows through sections agree with closed forms, published values and an independent method."""

import numpy as np
import pytest
from harmonic_series import HarmonicSeries
from hypothesis import given, settings
from hypothesis import strategies as st

from acquisition.physics.channel_flow import channel_velocity_um_s
from stream.errors import ConfigurationError
from tracking.physics.sections.choice import profile_of
from tracking.physics.sections.finite_elements import element_profile
from tracking.physics.sections.rectangle import RectangleProfile
from tracking.physics.sections.shapes import Ellipse, Rectangle, polygon

TRAPEZOID = [(-150.0, 0.0), (150.0, 0.0), (80.0, 60.0), (-80.0, 60.0)]
L_SHAPE = [(0, 0), (200, 0), (200, 40), (100, 40), (100, 100), (0, 100)]


def points_in(section, count=2000, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.uniform(-section.width_um / 2, section.width_um / 2, count)
    return y, rng.uniform(0, section.depth_um, count)


@settings(max_examples=25, deadline=None)
@given(width=st.floats(20, 2000), aspect=st.floats(0.1, 10))
def test_a_rectangles_flow_is_the_published_series(width, aspect):
    section = Rectangle(width, width / aspect)
    y, z = points_in(section, 300)
    found = profile_of(section).at(y, z)
    published = channel_velocity_um_s(y, z, width, section.depth_um, section.area_um2 * 1e-9)
    assert found == pytest.approx(published, abs=2e-4)


def test_a_flow_is_the_same_whatever_was_asked_of_it_before():
    y, z = points_in(Rectangle(400.0, 100.0), 3000)
    fresh, asked = RectangleProfile(400.0, 100.0, 2.0), RectangleProfile(400.0, 100.0, 2.0)
    whole = asked.at(y, z)
    assert (fresh.at(y[:7], z[:7]) == whole[:7]).all()
    assert (asked.at(y[:7], z[:7]) == whole[:7]).all()


@settings(max_examples=25, deadline=None)
@given(width=st.floats(20, 2000), aspect=st.floats(0.2, 5), slip=st.floats(0, 50))
def test_the_pressure_balances_the_friction_at_the_wall(width, aspect, slip):
    section = Rectangle(width, width / aspect)
    profile = profile_of(section, slip_um=slip)
    wall = profile.wall()
    friction = (wall.shear_per_um * wall.length_um).sum()
    assert friction == pytest.approx(profile.resistance * section.area_um2, rel=2e-3)


@pytest.mark.parametrize(
    "section", [Rectangle(300, 100), Rectangle(50, 400), Ellipse(100, 100), Ellipse(200, 80)], ids=str
)
def test_finite_elements_agree_with_series_and_closed_forms(section):
    y, z = points_in(section)
    elements, exact = element_profile(section), profile_of(section)
    assert elements.resistance == pytest.approx(exact.resistance, rel=4e-4)
    assert elements.at(y, z) == pytest.approx(exact.at(y, z), abs=4e-3)
    assert np.sqrt(np.mean((elements.at(y, z) - exact.at(y, z)) ** 2)) < 6e-4
    assert elements.wall().shear_per_um.max() == pytest.approx(exact.wall().shear_per_um.max(), rel=5e-3)


@pytest.mark.parametrize("section", [Rectangle(300, 100), Ellipse(100, 100)], ids=str)
def test_with_slip_finite_elements_agree_with_series_and_closed_form(section):
    y, z = points_in(section)
    elements, exact = element_profile(section, slip_um=5.0), profile_of(section, slip_um=5.0)
    assert elements.resistance == pytest.approx(exact.resistance, rel=4e-4)
    assert elements.at(y, z) == pytest.approx(exact.at(y, z), abs=2e-3)


@pytest.mark.parametrize("index", [0.3, 0.6, 1.4])
def test_a_power_law_liquid_in_a_pipe_flows_as_its_closed_form_says(index):
    pipe = Ellipse(100.0, 100.0)
    y, z = points_in(pipe)
    elements, exact = element_profile(pipe, index=index), profile_of(pipe, index=index)
    assert elements.resistance == pytest.approx(exact.resistance, rel=5e-4)
    assert elements.at(y, z) == pytest.approx(exact.at(y, z), abs=5e-3)


def test_a_trapezoids_flow_agrees_with_harmonic_polynomials():
    section = polygon(TRAPEZOID)
    series = HarmonicSeries(np.array(TRAPEZOID))
    assert series.error < 1e-4
    y, z = points_in(section, 4000)
    found = profile_of(section)
    inside = found.at(y, z) > 0
    mean = series.mean_um2()
    assert found.resistance == pytest.approx(1 / mean, rel=1e-3)
    expected = series.phi(np.stack([y, z], axis=1)[inside]) / mean
    assert found.at(y[inside], z[inside]) == pytest.approx(expected, abs=5e-3 * expected.max())


@pytest.mark.parametrize(
    ("corners", "published"),
    [
        ([(0, 0), (3, 0), (1.5, 1.5 * np.sqrt(3))], 13.333),  # Shah & London (1978), equilateral triangle
        ([(0, 0), (1, 0), (1, 1), (0, 1)], 14.227),  # square
        ([(np.cos(k * np.pi / 3), np.sin(k * np.pi / 3)) for k in range(6)], 15.054),  # hexagon
    ],
    ids=["triangle", "square", "hexagon"],
)
def test_the_friction_factor_is_the_published_one(corners, published):
    section = polygon(corners)
    hydraulic_um = 4 * section.area_um2 / section.perimeter_um
    assert profile_of(section).resistance * hydraulic_um**2 / 2 == pytest.approx(published, rel=5e-4)


def test_two_halves_of_a_square_joined_flow_as_the_square():
    around = polygon([(-50, 0), (0, 0), (50, 0), (50, 100), (0, 100), (-50, 100)])
    y, z = points_in(around)
    square = profile_of(Rectangle(100, 100))
    assert profile_of(around).at(y, z) == pytest.approx(square.at(y, z), abs=4e-3)


def test_there_is_no_flow_in_the_missing_corner_of_an_l_shape_and_less_beside_it():
    section = polygon(L_SHAPE)
    profile = profile_of(section)
    assert profile.at(np.array([50.0]), np.array([70.0])) == 0
    wide, narrow = profile.at(np.array([-50.0, 60.0]), np.array([50.0, 20.0]))
    assert wide > 3 * narrow > 0
    y, z = points_in(section, 60_000)
    inside = profile.at(y, z) > 0
    assert inside.mean() == pytest.approx(section.area_um2 / (200 * 100), abs=0.01)
    assert profile.at(y, z)[inside].mean() == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("section", [Rectangle(200, 100), Ellipse(200, 100), polygon(L_SHAPE)], ids=str)
def test_a_line_through_a_point_inside_leaves_the_section_at_its_spans(section):
    profile = profile_of(section)
    y, z = points_in(section, 400)
    inside = profile.at(y, z) > 0
    y, z = y[inside], z[inside]
    (left, right), (low, high) = section.spans_um(y, z)
    assert (left < y).all()
    assert (y < right).all()
    assert (low < z).all()
    assert (z < high).all()
    for share in (0.01, 0.99):
        assert (profile.at(left + share * (right - left), z) > 0).all()
        assert (profile.at(y, low + share * (high - low)) > 0).all()
    assert (profile.at(y, high + 0.1) == 0).all()


def test_stretching_keeps_the_mean_velocity_and_changes_the_flow_smoothly():
    section = polygon(TRAPEZOID)
    y, z = np.array([10.0]), np.array([25.0])
    depths = np.linspace(55.0, 65.0, 11)
    speeds = np.array([profile_of(section.resized(300.0, d)).at(y, z)[0] for d in depths])
    assert np.abs(np.diff(speeds, 3)).max() < 2e-3


@pytest.mark.parametrize(
    "corners",
    [
        [(0, 0), (1, 0)],
        [(0, 0), (1, 1), (2, 2)],
        [(0, 0), (1, 1), (1, 0), (0, 1)],
        [(0, 0), (0, 0), (1, 1)],
    ],
)
def test_what_is_no_outline_is_refused(corners):
    with pytest.raises(ConfigurationError, match="outline"):
        polygon(corners)


@pytest.mark.parametrize(("slip_um", "index"), [(5.0, 0.8), (1.5, 1.2), (12.0, 0.6)])
def test_a_power_law_liquid_that_slips_in_a_pipe_flows_as_its_closed_form_says(slip_um, index):
    pipe = Ellipse(100.0, 100.0)
    y, z = points_in(pipe)
    elements, exact = element_profile(pipe, slip_um, index), profile_of(pipe, slip_um, index)
    assert elements.resistance == pytest.approx(exact.resistance, rel=1e-3)
    inside = exact.at(y, z) > 0
    assert elements.at(y, z)[inside] == pytest.approx(exact.at(y, z)[inside], abs=5e-3)


def test_lengths_slip_and_index_must_be_positive():
    with pytest.raises(ConfigurationError, match="depth of the channel's section is 0 um"):
        Rectangle(10.0, 0.0)
    with pytest.raises(ConfigurationError, match="index above 0"):
        profile_of(Rectangle(10.0, 10.0), index=-0.5)
