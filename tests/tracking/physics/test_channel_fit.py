"""The flow fitted to tracks is that of the channel they flow through, within the stated errors."""

from dataclasses import replace

import numpy as np
import pytest
from channel_tracks import Channel, simulate, velocities

from stream.errors import ConfigurationError
from tracking.physics.channel.classes import STUCK, WRONG
from tracking.physics.channel.derived import (
    flow_rate_ul_s,
    pressure_gradient_pa_m,
    velocity_along,
    velocity_over_section,
    wall_shear,
)
from tracking.physics.channel.extended import explanation, with_one_more
from tracking.physics.channel.fit import fit_channel
from tracking.physics.channel.misfit import misfit, residual_map
from tracking.physics.channel.model import velocity_at, within_walls
from tracking.physics.channel.over_time import over_time, steadied
from tracking.physics.channel.parameters import PARAMETERS, UNKNOWN, Known, prior_of
from tracking.physics.sections.shapes import Ellipse, Rectangle, polygon
from tracking.physics.tracks.velocities import track_velocities

TILTED = Channel(center_y_um=7.0, floor_um=12.0, yaw_deg=1.0, pitch_deg=0.5, roll_deg=-0.4)
ANY_SIZE = {"width_um": Known(385.0, UNKNOWN), "depth_um": Known(106.0, UNKNOWN)}
BLOCKED = polygon([(-200, 0), (120, 0), (120, 40), (200, 40), (200, 100), (-200, 100)])
VISCOSITY_PA_S = 1e-3


def fitted(channel, tracks=800, seed=0, known=None):
    found = velocities(channel, tracks, seed)
    return fit_channel(found, channel.section, prior_of(channel.section, known), reference_x_um=0.0)


def errors(fit, channel):
    """Error over standard error of each parameter that was fitted."""
    free = fit.prior.free
    return (fit.theta - channel.theta)[free] / np.sqrt(np.diag(fit.covariance))[free]


def test_walls_direction_size_and_velocity_are_found_with_right_standard_errors():
    fit = fitted(TILTED, 1500, known=ANY_SIZE)
    assert fit.settled
    assert np.abs(errors(fit, TILTED)).max() < 4
    for name, limit in [("floor_um", 0.2), ("depth_um", 0.3), ("center_y_um", 0.7), ("yaw_deg", 0.05)]:
        assert fit.standard_error(name) < limit
        assert fit.told(name)
    assert not fit.told("slip_um")


def test_over_many_seeds_errors_are_as_large_as_stated():
    all_errors = np.array([errors(fitted(TILTED, 300, seed), TILTED) for seed in range(25)])
    assert np.sqrt((all_errors**2).mean(axis=0)) == pytest.approx(1.0, abs=0.45)


@pytest.mark.parametrize(
    "section", [Ellipse(120.0, 120.0), polygon([(-150, 0), (150, 0), (80, 60), (-80, 60)])], ids=["pipe",
    "trapezoid"] )  # fmt: skip
def test_pipes_and_polygons_are_fitted_alike(section):
    is_round = isinstance(section, Ellipse)
    channel = replace(TILTED, section=section, roll_deg=0.0 if is_round else TILTED.roll_deg)
    fit = fitted(channel)
    assert fit.settled
    assert np.abs(errors(fit, channel)).max() < 4
    assert fit.standard_error("center_y_um") < 0.5  # whatever the roll is, which a round pipe has none of
    assert (fit.standard_error("roll_deg") == 0.0) == is_round


def test_an_ellipse_of_unknown_width_has_a_roll():
    pipe = Ellipse(120.0, 120.0)
    assert prior_of(pipe).sigma[PARAMETERS.index("roll_deg")] == 0.0
    assert prior_of(pipe, {"width_um": Known(120.0, UNKNOWN)}).sigma[PARAMETERS.index("roll_deg")] > 0.0


@pytest.mark.parametrize("times", [1e-6, 1e3])
def test_tracks_in_another_unit_than_the_section_are_refused(times):
    found = velocities(TILTED, 60, 1)
    wrong = replace(found, position_um=times * found.position_um)
    with pytest.raises(ConfigurationError, match=r"100 um deep; give the section in um, and .* depths in um"):
        fit_channel(wrong, TILTED.section, prior_of(TILTED.section))


def test_particles_that_do_not_move_have_no_flow():
    found = velocities(TILTED, 60, 1)
    resting = replace(found, velocity_um_s=np.zeros_like(found.velocity_um_s))
    with pytest.raises(ConfigurationError, match="none of the 55 trajectories moves along x"):
        fit_channel(resting, TILTED.section, prior_of(TILTED.section))


def test_stuck_particles_and_wrong_links_are_told_apart_and_do_not_matter():
    channel = replace(TILTED, stuck=0.08, wrong=0.08)
    fit = fitted(channel, 1500)
    assert np.abs(errors(fit, channel)).max() < 4
    assert fit.classes.shares[STUCK] == pytest.approx(0.08, abs=0.03)
    assert fit.classes.shares[WRONG] == pytest.approx(0.08, abs=0.03)


def test_a_detector_that_overstates_its_errors_changes_neither_the_flow_nor_its_error():
    rows = simulate(TILTED, 800, 3)
    right = track_velocities(**rows, diffusion_um2_s=TILTED.diffusion_um2_s)
    rows["sigma_um"] = 2.0 * rows["sigma_um"]
    overstated = track_velocities(**rows, diffusion_um2_s=TILTED.diffusion_um2_s)
    prior = prior_of(TILTED.section)
    a, b = (fit_channel(t, TILTED.section, prior, reference_x_um=0.0) for t in (right, overstated))
    assert b.standard_error("velocity_um_s") == pytest.approx(a.standard_error("velocity_um_s"), rel=0.2)
    assert np.abs(errors(b, TILTED)).max() < 4


def test_what_is_known_beforehand_counts_by_its_error():
    known = {"floor_um": Known(12.5, 0.01), "width_um": Known(400.0, UNKNOWN)}
    fit = fitted(TILTED, known=known)
    assert 12.3 < fit.value("floor_um") < 12.5
    assert not fit.told("floor_um")
    fixed = fitted(TILTED, known={"floor_um": Known(12.0)})
    assert fixed.value("floor_um") == 12.0
    assert fixed.standard_error("floor_um") == 0.0


def test_depth_errors_do_not_flatten_the_profile():
    deep = replace(TILTED, section=Rectangle(400.0, 30.0), sigma_um=(0.1, 0.1, 6.0), longest=12, floor_um=0.0)
    fit = fitted(deep, 3000, known={"depth_um": Known(30.0, UNKNOWN)})
    assert fit.value("depth_um") == pytest.approx(30.0, abs=4 * fit.standard_error("depth_um") + 0.3)
    assert fit.value("velocity_um_s") == pytest.approx(100.0, rel=0.01)


def test_a_distribution_cut_off_at_walls_is_that_of_scipy():
    from scipy.stats import truncnorm

    centre = np.array([-4.0, 0.0, 0.5, 50.0, 99.5, 104.0, 60.0])
    sigma = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 50.0])
    spans = np.stack([np.zeros((2, 7)), np.full((2, 7), 100.0)], axis=1)
    mean, variance = within_walls(np.stack([centre] * 2), np.stack([sigma**2] * 2), spans)
    exact = truncnorm(-centre / sigma, (100 - centre) / sigma, centre, sigma)
    assert mean[1] == pytest.approx(exact.mean(), rel=1e-6)
    assert variance[0] == pytest.approx(exact.var(), rel=1e-5)


def test_flow_rate_shear_and_pressure_are_those_of_the_channel():
    fit = fitted(TILTED, 1500)
    rate = flow_rate_ul_s(fit)
    assert rate.value == pytest.approx(100 * 400 * 100 * 1e-9, abs=4 * rate.standard_error)
    gradient = pressure_gradient_pa_m(fit, VISCOSITY_PA_S)
    shear = wall_shear(fit, VISCOSITY_PA_S)
    balance = shear.mean.value * 1000 / (400 * 100) * 1e6
    assert gradient.value == pytest.approx(balance, rel=2e-3)
    assert shear.mean.standard_error / shear.mean.value == pytest.approx(
        rate.standard_error / rate.value, rel=1e-3
    )
    assert shear.maximum.value == shear.stress_pa.max() > shear.mean.value


def test_velocity_along_a_line_has_its_error():
    fit = fitted(TILTED, 1500)
    line = np.stack([np.zeros(9), np.full(9, 7.0), np.linspace(15, 108, 9)])
    velocity, error = velocity_along(fit, line)
    true = velocity_at(TILTED.section, TILTED.theta, 0.0, line)
    assert (np.abs(velocity - true) < 4.5 * error).all()
    along, _ = velocity_over_section(fit, np.zeros((1, 3)), np.array([[0.0, 50.0, 200.0]]))
    assert along[0, 1] > 170
    assert along[0, [0, 2]] == pytest.approx(0.0, abs=1e-6)


def test_a_pipe_carries_what_hagen_and_poiseuille_say():
    pipe = replace(TILTED, section=Ellipse(120.0, 120.0))
    fit = fitted(pipe)
    gradient = pressure_gradient_pa_m(fit, VISCOSITY_PA_S)
    exact = 8 * VISCOSITY_PA_S * fit.value("velocity_um_s") / 60.0**2 * 1e6
    assert gradient.value == pytest.approx(exact, rel=1e-9)
    assert wall_shear(fit, VISCOSITY_PA_S).maximum.value == pytest.approx(exact * 60e-6 / 2, rel=1e-9)


def test_a_clean_flow_is_not_told_to_be_another_one():
    for seed in range(4):
        found = misfit(fitted(TILTED, 500, seed))
        assert found.told == ()
        assert min(one.p for one in found.tests.values()) > 1e-3


def test_slip_is_told_measured_and_named():
    fit = fitted(replace(TILTED, slip_um=5.0))
    tests = misfit(fit)
    assert "slip_um" in tests.told
    why = explanation(fit, tests)
    slip, index = why.comparisons
    assert why.reason == "slip_um"
    assert slip.fit.value("slip_um") == pytest.approx(5.0, abs=4 * slip.fit.standard_error("slip_um"))
    assert slip.log_likelihood_ratio > index.log_likelihood_ratio
    assert slip.p < 1e-6


def test_shear_thinning_is_told_measured_and_named():
    fit = fitted(replace(TILTED, flow_index=0.8))
    tests = misfit(fit)
    assert "flow_index" in tests.told
    why = explanation(fit, tests)
    slip, index = why.comparisons
    assert why.reason == "flow_index"
    assert index.fit.value("flow_index") == pytest.approx(0.8, abs=4 * index.fit.standard_error("flow_index"))
    assert index.log_likelihood_ratio > slip.log_likelihood_ratio


def test_slip_and_shear_thinning_that_fit_equally_well_are_not_told_apart():
    fit = fitted(replace(TILTED, flow_index=0.8), 100, 2)
    tests = misfit(fit)
    assert explanation(fit, tests).reason == "flow_index"
    assert explanation(fit, tests, sure=1e-12).reason == "either"


def test_a_clean_flow_needs_no_explanation():
    fit = fitted(TILTED)
    assert explanation(fit, misfit(fit)) is None


def test_a_newtonian_liquid_that_sticks_is_not_improved_by_slip_or_another_index():
    fit = fitted(TILTED)
    for name in ("slip_um", "flow_index"):
        more = with_one_more(fit, name)
        off = more.fit.value(name) - TILTED.theta[PARAMETERS.index(name)]
        assert abs(off) < 4 * more.fit.standard_error(name)
        assert more.p > 1e-3


def test_a_blockage_is_told_and_the_map_shows_where():
    channel = replace(TILTED, flows_through=BLOCKED, image_um=(500.0, 450.0))
    fit = fitted(channel, 2000)
    tests = misfit(fit)
    assert "smooth" in tests.told
    assert explanation(fit, tests).reason == "other"
    residuals = residual_map(fit)
    assert residuals.significant[:3, -2:].any()
    clean = residual_map(fitted(replace(TILTED, image_um=(500.0, 450.0)), 2000))
    assert clean.significant.sum() <= 1


def test_a_steady_flow_is_steady_and_an_oscillating_one_is_followed():
    rows = simulate(TILTED, 1500, 5)
    pieces = track_velocities(**rows, diffusion_um2_s=0.2, longest_s=1.0)
    steady = over_time(fitted(TILTED, 1500, 5), pieces)
    assert steady.steady
    assert steady.smoothed == pytest.approx(1.0, abs=0.01)

    def swing(time_s):
        return 1.0 + 0.2 * np.sin(2 * np.pi * time_s / 20.0)

    rows = simulate(TILTED, 1500, 5, faster=swing)
    prior = prior_of(TILTED.section)
    tracks = track_velocities(**rows, diffusion_um2_s=0.2)
    rough = fit_channel(tracks, TILTED.section, prior, reference_x_um=0.0)
    flow = over_time(rough, track_velocities(**rows, diffusion_um2_s=0.2, longest_s=1.0))
    assert not flow.steady
    assert flow.memory_s < 5
    shape = flow.smoothed / flow.smoothed.mean()
    assert np.sqrt(np.mean((shape - swing(flow.time_s)) ** 2)) < 0.02
    fit = fit_channel(steadied(tracks, flow), TILTED.section, prior, reference_x_um=0.0)
    assert fit.standard_error("floor_um") < 0.7 * rough.standard_error("floor_um")
    assert fit.value("floor_um") == pytest.approx(12.0, abs=4 * fit.standard_error("floor_um"))


def test_too_few_tracks_and_strange_parameters_are_refused():
    with pytest.raises(ConfigurationError, match="too few for the flow's 6 unknowns"):
        fitted(TILTED, 10)
    with pytest.raises(ConfigurationError, match="no parameter height"):
        prior_of(TILTED.section, {"height": Known(1.0)})
    with pytest.raises(ConfigurationError, match="standard error -1"):
        prior_of(TILTED.section, {"floor_um": Known(1.0, -1.0)})
