"""Stokes flow in a region with given walls, and its fit to tracks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import legendre
from region_tracks import BEND, DEPTH_UM, Liquid, anywhere, detections

from stream.errors import ConfigurationError
from tracking.physics.region.depth import clamped_functions, projected
from tracking.physics.region.derived import inflows_ul_s, pressures_pa, velocity_at, wall_shear
from tracking.physics.region.fit import fit_region
from tracking.physics.region.geometry import region_from, region_of
from tracking.physics.region.inflow import region_flows
from tracking.physics.region.inflow_prior import integrated, likeliest, mixed, prior_of
from tracking.physics.region.misfit import cell_residuals
from tracking.physics.region.pieces import pieces_of
from tracking.physics.region.stokes import coarser_of, domain_of, solve
from tracking.physics.region.walls import shear_rates, wall_pieces
from tracking.physics.sections.rectangle import RectangleProfile

COARSE = {"cells_across": 1.0, "most_triangles": 20, "functions": 5}
COARSER = {"cells_across": 0.5, "most_triangles": 5, "functions": 4}
BOX = region_of([(0, 0), (300, 0), (300, 200), (0, 200)],
                {"in": [(0, 0), (0, 200)], "out": [(300, 200), (300, 0)]}, 100.0, 20.0)  # fmt: skip


@pytest.fixture(scope="module")
def box():
    return tuple(region_flows(domain, (2, 1, 1)) for domain in (domain_of(BOX), coarser_of(BOX)))


@pytest.fixture(scope="module")
def bend():
    return tuple(region_flows(domain_of(BEND, **mesh), (4, 3, 1)) for mesh in (COARSE, COARSER))


@pytest.fixture(scope="module")
def flows_by_other_elements():
    """Flows through the bend by quartic elements, with an inflow of more shapes than those that are fitted."""
    return region_flows(domain_of(BEND, **COARSE, degree=4), (5, 4, 2))


def papkovich_fadle(x, z):
    """A Stokes flow between plates at z = -1 and 1 that dies out along x: the first even eigenfunction.

    Stream function (cos(k) sin(kz) - sin(k) z cos(kz)) exp(-kx) with sin(2k) = 2k (Fadle, Ing.-Arch. 11, 1940).
    """
    k = 3.748838138888 + 1.384339141494j
    a, b, fade = np.cos(k), -np.sin(k), np.exp(-k * x) / 30.0
    along = a * k * np.cos(k * z) + b * (np.cos(k * z) - k * z * np.sin(k * z))
    up = k * (a * np.sin(k * z) + b * z * np.cos(k * z))
    return np.stack([(along * fade).real, np.zeros(np.broadcast(x, z).shape), (up * fade).real])


def hele_shaw(x, y, z):
    """(1 - z^2) grad h with the harmonic h = x^3 - 3 x y^2: it is a Stokes flow as it is."""
    flat = np.stack([3 * x**2 - 3 * y**2, -6 * x * y, 0 * x * y]) / 50.0
    return (1 - z**2) * flat


def curl(x, y, z):
    """Curl about z of exp(-a x) cos(y) sin(pi z), a^2 = pi^2 + 1: odd about the middle, without pressure."""
    k, m = np.pi, 1.0
    along = np.sqrt(k**2 + m**2)
    fade = np.exp(-along * x) * np.sin(k * z)
    return np.stack([-m * np.sin(m * y) * fade, along * np.cos(m * y) * fade, 0 * x * y * z])


@pytest.mark.parametrize(("functions", "triangles", "allowed"), [(5, 40, 0.16), (7, 100, 0.03)])
def test_flows_that_are_known_in_closed_form_are_found_and_finer_meshes_find_them_better(
    functions, triangles, allowed
):
    domain = domain_of(BOX, functions=functions, most_triangles=triangles)
    x, y = domain.velocity_basis.doflocs[..., None]
    z, weight = legendre.leggauss(20)
    true = [papkovich_fadle(x + 0 * y, z), hele_shaw(x, y, z), curl(x, y, z)]
    flows = solve(
        domain, np.stack([projected(one, z, weight, functions) for one in true], -1).reshape(3, -1, 3)
    )
    place = anywhere(BOX, 500, np.random.default_rng(0))
    matrix, known = domain.interpolation(place)
    assert known.all()
    x, y, z = (place - [[0], [0], [70]]) / 50.0
    for flow, one in enumerate([papkovich_fadle(x, z), hele_shaw(x, y, z), curl(x, y, z)]):
        found = (matrix @ flows.velocity[..., flow].T).T
        assert np.sqrt(np.mean((found - one) ** 2) / np.mean(one**2)) < allowed


def test_a_developed_flow_stays_that_of_a_rectangular_channel(box):
    box, _ = box
    domain = box.flows.domain
    place = anywhere(BOX, 500, np.random.default_rng(0))
    matrix, _ = domain.interpolation(place)
    true = RectangleProfile(200.0, 100.0)
    speed = true.at(place[1] - 100.0, place[2] - 20.0)
    found = matrix @ box.flows.velocity[0, :, 0]
    assert np.abs(found - speed).max() < 0.01 * speed.max()
    assert np.sqrt(np.mean((found - speed) ** 2)) < 0.001 * speed.max()
    pressure = box.flows.pressure[:: domain.functions, 0]
    slope = np.polyfit(domain.pressure_basis.doflocs[0], pressure, 1)[0]
    assert -slope == pytest.approx(true.resistance * domain.unit_um**2, rel=2e-3)


@given(st.floats(60, 400), st.floats(60, 400), st.floats(-80, 80), st.floats(50, 200), st.floats(0, 360))
@settings(max_examples=8, deadline=None)
def test_no_flow_leaks_through_walls_and_each_carries_what_it_says(width, length, lean, depth, turn):
    corners = np.array([(0, 0), (length, lean), (length, lean + width), (0, width)], float)
    angle = np.radians(turn)
    corners = corners @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    region = region_of(corners, {"a": corners[[3, 0]], "b": corners[[1, 2]]}, depth)
    flows = region_flows(domain_of(region, cells_across=1.0, most_triangles=10, functions=3), (2, 2, 1))
    domain = flows.flows.domain
    assert flows.inflow_um2[0, 0] == pytest.approx(width * depth)
    assert np.abs(flows.inflow_um2.sum(axis=0)).max() < 1e-6 * width * depth
    assert (flows.inflow_um2[:, flows.carrying :] == 0).all()
    drain = sum(m @ v for m, v in zip(domain.divergence, flows.flows.velocity, strict=True))
    assert np.abs(drain).max() < 1e-6
    walls = np.hstack([np.stack(region.side_um(side)).mean(axis=0)[:, None] for side in region.walls])
    at_wall, _ = domain.interpolation(np.vstack([walls, np.full((1, walls.shape[1]), depth / 2)]))
    assert max(np.abs(at_wall @ one).max() for one in flows.flows.velocity) < 1e-9


def test_no_liquid_that_flows_in_is_drawn_from_a_wall(bend):
    z = np.array([-1.0, -1.0 + 1e-5, 1.0 - 1e-5, 1.0])
    values = clamped_functions(z, 5)
    assert np.abs(values).max() < 1e-7  # 1e-5 times a slope would be more
    inside = clamped_functions(np.linspace(-1.0, 1.0, 50), 5)
    assert np.linalg.matrix_rank(inside) == 5
    flows, _ = bend
    _, axis, *_ = flows.shapes
    middle = [np.stack(BEND.side_um(side)).mean(axis=0) for _, side in BEND.openings]
    floor = np.array([[*one, height] for one in middle for height in (0.0, DEPTH_UM)]).T
    slope, _ = flows.flows.domain.interpolation(floor, 1)
    up = np.abs(slope @ flows.flows.velocity[2])[:, axis == 2]
    normal = np.abs(slope @ flows.flows.velocity[0])[:, axis == 0]
    assert up.max() < 1e-9 < normal.max()


def test_exact_velocities_give_flow_rate_pressure_and_shear_of_the_channel(box):
    true = RectangleProfile(200.0, 100.0)
    rng = np.random.default_rng(1)
    place = anywhere(BOX, 300, rng)
    speed = 30.0 * true.at(place[1] - 100.0, place[2] - 20.0)
    time_s = np.tile(np.arange(6) / 100.0, 300)
    position = np.repeat(place, 6, axis=1)
    position[0] += np.repeat(speed, 6) * (time_s - 0.025)
    sigma = np.full_like(position, 0.001)
    pieces = pieces_of(BOX, np.repeat(np.arange(300), 6), time_s, position, sigma, 1e-6)
    fit = fit_region(pieces, *box)
    rates = inflows_ul_s(fit)
    assert rates["in"].value == pytest.approx(30.0 * 200 * 100 / 1e9, rel=1e-3)
    assert rates["out"].value == pytest.approx(-rates["in"].value)
    fall = 30.0 * true.resistance * 300.0 * 1e-3
    assert pressures_pa(fit, 1e-3)["in"].value == pytest.approx(fall, rel=5e-3)
    shear = wall_shear(fit, 1e-3)
    assert shear.area_um2.sum() == pytest.approx(2 * 300 * 200 + 2 * 300 * 100)
    wall = true.wall()
    mean = 30.0 * np.average(wall.shear_per_um, weights=wall.length_um) * 1e-3
    assert shear.mean.value == pytest.approx(mean, rel=3e-3)
    assert shear.maximum.value == pytest.approx(30.0 * wall.shear_per_um.max() * 1e-3, rel=0.01)


def test_the_walls_hold_the_liquid_with_the_force_that_the_pressure_has(box):
    box, coarser = box
    for flows in (box, coarser):
        walls = wall_pieces(flows.flows.domain)
        force = walls.area_um2 @ shear_rates(flows.flows, walls)[0, :, 0]
        pressure = flows.flows.pressure[:: flows.flows.domain.functions, 0] / flows.flows.domain.unit_um
        x = flows.flows.domain.pressure_basis.doflocs[0]
        fall = pressure[x < x.min() + 1e-9].mean() - pressure[x > x.max() - 1e-9].mean()
        assert force == pytest.approx(fall * 200.0 * 100.0, rel=3e-3)


@pytest.fixture(scope="module")
def small():
    """Flows of few shapes, and what some velocities in them tell of their amplitudes."""
    flows = region_flows(domain_of(BOX, cells_across=0.5, most_triangles=5, functions=4), (3, 3, 2))
    matrix, _ = flows.flows.domain.interpolation(anywhere(BOX, 100, np.random.default_rng(3)))
    return flows, np.stack([matrix @ one for one in flows.flows.velocity]).reshape(-1, flows.shapes.shape[1])


def test_errors_of_flows_as_the_prior_takes_them_are_the_stated_ones(small):
    flows, design = small
    rng = np.random.default_rng(6)
    noise, speed = 1.0, 60.0
    prior = prior_of(flows, speed)
    curvature = design.T @ design / noise**2
    scaled = []
    for _ in range(25):
        numbers = rng.normal(size=prior.mean.size)
        amplitude = rng.normal(size=len(curvature)) / np.sqrt(prior.confidence(numbers))
        pull = design.T @ (design @ amplitude + rng.normal(0.0, noise, len(design))) / noise**2
        points = integrated(prior, curvature, pull, likeliest(prior, curvature, pull, 0.0 * numbers))
        found, covariance = mixed(*points, curvature, pull, curvature, curvature)
        scaled.append((found - amplitude) / np.sqrt(np.diag(covariance)))
    assert np.sqrt(np.mean(np.square(scaled))) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("lopsided", [False, True])
def test_whether_a_flow_is_the_same_mirrored_at_the_middle_of_the_depth_is_learnt(small, lopsided):
    flows, design = small
    rng = np.random.default_rng(3)
    prior = prior_of(flows, 60.0)
    odd = prior.share[-2] > 0
    amplitude = rng.normal(size=odd.size) / np.sqrt(prior.confidence(np.zeros(prior.mean.size)))
    amplitude[odd] *= 8.0 if lopsided else 0.0
    pull = design.T @ (design @ amplitude + rng.normal(0.0, 0.3, len(design))) / 0.09
    number = likeliest(prior, design.T @ design / 0.09, pull, np.zeros(prior.mean.size))[-2]
    assert number > 0.3 if lopsided else number < -0.3


def test_tracks_through_a_bend_give_the_flow_and_its_error(bend, flows_by_other_elements):
    place = anywhere(BEND, 200, np.random.default_rng(9))
    off, stated, rates = [], [], []
    for seed in range(4):
        liquid = liquid_with(flows_by_other_elements, seed)
        seen = detections(liquid, BEND, 250, seed, longest=30, substeps=1)
        fit = fit_region(pieces_of(BEND, **seen, diffusion_um2_s=0.2), *bend)
        velocity, error = velocity_at(fit, place)
        off.append(velocity - liquid.at(place))
        stated.append(error)
        rate = inflows_ul_s(fit)["in"]
        rates.append((rate.value - liquid.inflow_ul_s) / rate.standard_error)
        assert fit.settled
        assert not cell_residuals(fit).told.any()
    # Half of the difference between meshes is more than the error of such coarse ones.
    assert 0.35 < np.sqrt(np.mean(np.square(off)) / np.mean(np.square(stated))) < 1.5
    assert np.abs(rates).max() < 4.0
    assert np.sqrt(np.mean(np.square(off))) < 0.02 * np.abs(liquid.at(place)).max()


def liquid_with(flows, seed):
    """50 um/s, and an inflow that is not developed: each detail half as strong as the one before."""
    _, axis, across, up = flows.shapes
    amplitude = 10.0 * np.random.default_rng(seed).normal(size=axis.size) * 0.5**across * 0.2**up
    amplitude[axis == 2] *= 0.2
    amplitude[0] = 50.0
    return Liquid(flows.flows.domain, flows.flows.velocity @ amplitude, 50.0 * flows.inflow_um2[0, 0] / 1e9)


def test_a_vortex_that_no_stokes_flow_has_is_told_where_it_is(bend, flows_by_other_elements):
    liquid = liquid_with(flows_by_other_elements, 0)
    seen = detections(liquid, BEND, 300, 0, stuck=0.0, wrong=0.0, longest=30, substeps=1)
    pieces = pieces_of(BEND, **seen, diffusion_um2_s=0.2)
    x, y, _ = pieces.velocities.position_um
    there = np.exp(-((x - 300.0) ** 2 + (y - 100.0) ** 2) / 50.0**2)
    pieces.velocities.velocity_um_s[0] += 20.0 * there * (y - 100.0) / 50.0
    pieces.velocities.velocity_um_s[1] -= 20.0 * there * (x - 300.0) / 50.0
    cells = cell_residuals(fit_region(pieces, *bend))
    assert cells.told.any()
    middle = (cells.low_um + cells.high_um)[:2, cells.told] / 2.0
    assert np.hypot(*(middle - [[300.0], [100.0]])).min() < 110.0


def test_regions_that_cannot_be_are_refused():
    square = [(0, 0), (100, 0), (100, 100), (0, 100)]
    ends = {"in": [(0, 0), (0, 100)], "out": [(100, 0), (100, 100)]}
    for corners, openings, depth, why in [
        (square, ends, 0.0, "depth above 0"),
        ([(0, 0), (100, 100), (100, 0), (0, 100)], ends, 50.0, "cross"),
        (square, {"in": ends["in"]}, 50.0, "two or more"),
        (square, {**ends, "in": [(0, 0), (0, 50)]}, 50.0, "is no side"),
        (square, {**ends, "again": ends["in"]}, 50.0, "same side"),
        (square, {**ends, "top": [(0, 100), (100, 100)]}, 50.0, "no wall lies between"),
    ]:
        with pytest.raises(ConfigurationError, match=why):
            region_of(corners, openings, depth)
    for table, why in [
        ({"corners_um": square, "depth_um": 1}, "lacks openings"),
        ({"corners_um": square, "depth_um": 1, "openings": 3}, "not a table"),
        ({"corners_um": square, "depth_um": "deep", "openings": ends}, "no number"),
        ({"corners": square}, "no setting 'corners'"),
    ]:
        with pytest.raises(ConfigurationError, match=why):
            region_from(table)
    few = np.full((3, 10), [[150.0], [100.0], [70.0]])
    pieces = pieces_of(BOX, np.zeros(10), np.arange(10) / 10.0, few, np.ones((3, 10)), 0.1)
    flows = region_flows(domain_of(BOX, most_triangles=20, functions=3), (0, 0, 0))
    with pytest.raises(ConfigurationError, match="too few"):
        fit_region(pieces, flows, flows)
