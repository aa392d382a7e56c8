"""Regions of which an image shows a part, with the liquid of all of the channel and what it really does there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.polynomial import legendre

from tracking.physics.region.derived import NEAR_CORNER
from tracking.physics.region.geometry import Region, region_of
from tracking.physics.region.inflow import UM3_PER_UL, RegionFlows, region_flows
from tracking.physics.region.stokes import Domain
from tracking.physics.region.walls import WallPieces, shear_rates, wall_pieces
from tracking.physics.sections.mesh import CORNER_ROUNDS, distance_from, filled

FloatArray = npt.NDArray[np.float64]

DEPTH_UM = 100.0
TYPICAL_UM3_S = 150.0 * 200.0 * 100.0
"""Flow rate: 150 um/s through 200 x 100 um, times 0.7 to 1.4 by the seed."""
VISCOSITY_PA_S = 1e-3
POINTS_ON_A_LINE = 40
SIDE = 1.5
"""Of the triangles of the true flow, in half depths."""
WALL_REACH, WALL_ROUNDS = 0.5, 2
"""They are halved so often within this many sides of a wall that is seen."""
CORNER_REACH, FINER_AT_CORNERS = 0.8, 1
"""The same at corners, beside the rounds of every mesh."""
FUNCTIONS = 9
"""Polynomials over the depth of the true flow."""
HEIGHTS_UM = (25.0, 50.0)
ACROSS, OVER_DEPTH = 60, 12
"""Gauss points over an opening."""


@dataclass(frozen=True)
class Case:
    """What the image shows (`seen`); all of the channel, with two openings by which liquid comes in and two by
    which it leaves (in this order; the last one takes the rest); corners (K, 2) of a line through the image."""

    seen: Region
    whole: Region
    line_um: tuple[tuple[float, float], ...]


CASES = {
    "bend": Case(
        region_of(
            [(0, 0), (200, 0), (200, -300), (400, -300), (400, 200), (0, 200)],
            {"in": [(0, 0), (0, 200)], "out": [(200, -300), (400, -300)]},
            DEPTH_UM,
        ),
        region_of(
            [(-300, 0), (200, 0), (200, -500), (400, -500), (400, -420), (500, -420), (500, -340), (400, -340),
             (400, 200), (-60, 200), (-60, 300), (-160, 300), (-160, 200), (-300, 200)],
            {"left": [(-300, 0), (-300, 200)], "top": [(-60, 300), (-160, 300)],
             "side": [(500, -420), (500, -340)], "bottom": [(200, -500), (400, -500)]},
            DEPTH_UM,
        ),
        ((20, 100), (280, 100), (300, 80), (300, -280)),
    ),
    "junction": Case(
        region_of(
            [(0, 0), (300, 0), (300, -250), (450, -250), (450, 0), (750, 0), (750, 200), (0, 200)],
            {"left": [(0, 0), (0, 200)], "branch": [(300, -250), (450, -250)], "right": [(750, 0), (750, 200)]},
            DEPTH_UM,
        ),
        region_of(
            [(-250, 0), (300, 0), (300, -450), (450, -450), (450, 0), (950, 0), (950, 200), (-50, 200), (-50, 300),
             (-150, 300), (-150, 200), (-250, 200)],
            {"left": [(-250, 0), (-250, 200)], "top": [(-50, 300), (-150, 300)],
             "branch": [(300, -450), (450, -450)], "right": [(950, 0), (950, 200)]},
            DEPTH_UM,
        ),
        ((20, 100), (730, 100)),
    ),
    "constriction": Case(
        region_of(
            [(200, 0), (400, 0), (400, 150), (600, 150), (600, 0), (800, 0), (800, 400), (600, 400), (600, 250),
             (400, 250), (400, 400), (200, 400)],
            {"in": [(200, 0), (200, 400)], "out": [(800, 0), (800, 400)]},
            DEPTH_UM,
        ),
        region_of(
            [(0, -200), (100, -200), (100, 0), (400, 0), (400, 150), (600, 150), (600, 0), (1200, 0), (1200, 400),
             (950, 400), (950, 500), (850, 500), (850, 400), (600, 400), (600, 250), (400, 250), (400, 400),
             (0, 400), (0, 300), (0, 100)],
            {"below": [(0, -200), (100, -200)], "left": [(0, 300), (0, 100)],
             "side": [(950, 500), (850, 500)], "right": [(1200, 0), (1200, 400)]},
            DEPTH_UM,
        ),
        ((220, 200), (780, 200)),
    ),
}  # fmt: skip


def whole_flows(case: Case) -> RegionFlows:
    """The developed flows through all of the channel, by other elements than the fit's: quartic ones, and more
    polynomials over the depth; smaller at the walls that are seen."""
    unit = case.whole.depth_um / 2.0
    mesh = filled(case.whole.outline_um / unit, SIDE, CORNER_REACH)
    walls = [np.array(case.seen.side_um(side)) / unit for side in case.seen.walls]
    for step in range(WALL_ROUNDS):
        apart = np.min([distance_from(wall, _middles(mesh)) for wall in walls], axis=0)
        near = apart < WALL_REACH * SIDE / 2.0**step
        mesh = mesh.refined(np.flatnonzero(near & (_sides(mesh) > 0.7 * SIDE / 2.0**step)))
    for step in range(CORNER_ROUNDS, CORNER_ROUNDS + FINER_AT_CORNERS):
        apart = np.linalg.norm(_middles(mesh)[:, None] - case.seen.reentrant_um / unit, axis=2).min(axis=1)
        mesh = mesh.refined(np.flatnonzero(apart < CORNER_REACH * SIDE / 2.0**step))
    return region_flows(Domain(case.whole, mesh, FUNCTIONS, 4), (0, 0, 0))


def _middles(mesh: Any) -> FloatArray:
    """Middles (N, 2) of the triangles."""
    middles: FloatArray = mesh.p[:, mesh.t].mean(axis=1).T
    return middles


def _sides(mesh: Any) -> FloatArray:
    """Side of an equilateral triangle of each one's area."""
    (ax, ay), (bx, by) = (mesh.p[:, mesh.t[i]] - mesh.p[:, mesh.t[0]] for i in (1, 2))
    return np.sqrt(np.abs(ax * by - ay * bx) * 2.0 / np.sqrt(3.0))


def amplitudes(flows: RegionFlows, seed: int) -> FloatArray:
    """How much flows through each opening in one experiment: shares of both inlets and both outlets are random."""
    rng = np.random.default_rng(1000 + seed)
    total = TYPICAL_UM3_S * rng.uniform(0.7, 1.4)
    first, side = rng.uniform(0.0, 1.0), rng.uniform(0.0, 0.6)
    rates = total * np.array([first, 1.0 - first, -side])
    return rates / np.diag(flows.inflow_um2[:3])


@dataclass(frozen=True, eq=False)
class Truth:
    """What each of the flows gives to the part that is seen: velocities (3, K, S) at `places_um` (3, K) of the
    line, slopes (3, W, S) at the pieces of `walls`, of which `far` (W,) are not beside a corner; flow rates, uL/s,
    and pressures over that at the last opening, Pa, (openings, S)."""

    places_um: FloatArray
    velocity: FloatArray
    walls: WallPieces
    slopes: FloatArray
    far: npt.NDArray[np.bool_]
    inflow_ul_s: FloatArray
    pressure_pa: FloatArray


def truth_of(case: Case, flows: RegionFlows, seen: Domain) -> Truth:
    """What the flows through all of the channel give to the part that is seen, at wall pieces of a mesh of it."""
    domain, region = flows.flows.domain, case.seen
    places = places_on(case)
    walls = wall_pieces(seen)
    apart = np.full(walls.area_um2.size, np.inf)
    for corner in region.reentrant_um:
        apart = np.minimum(apart, np.hypot(*(walls.place_um[:2] - corner[:, None])))
    rates, pressures = [], []
    for _, side in region.openings:
        start, end = region.side_um(side)
        rates.append(_rate(flows, start, end, region))
        middles = start[:, None] + (end - start)[:, None] * (np.arange(200) + 0.5) / 200
        probe = domain.pressure_basis.probes(middles / domain.unit_um)
        mean = np.asarray(probe @ flows.flows.pressure[:: domain.functions]).mean(axis=0)
        pressures.append(mean * VISCOSITY_PA_S / domain.unit_um)
    return Truth(
        places, velocities(flows, places), walls, shear_rates(flows.flows, walls),
        apart >= NEAR_CORNER * region.depth_um, np.array(rates) / UM3_PER_UL,
        np.array(pressures) - pressures[-1],
    )  # fmt: skip


def places_on(case: Case) -> FloatArray:
    """Places (3, K) on the line, at two heights."""
    corners = np.array(case.line_um)
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(corners, axis=0), axis=1))])
    along = np.linspace(0.0, length[-1], POINTS_ON_A_LINE)
    seen = np.stack([np.interp(along, length, corners[:, axis]) for axis in range(2)])
    return np.hstack([np.vstack([seen, np.full((1, along.size), height)]) for height in HEIGHTS_UM])


def velocities(flows: RegionFlows, places_um: FloatArray) -> FloatArray:
    """Velocity of each flow, (3, K, S)."""
    matrix, _ = flows.flows.domain.interpolation(places_um)
    return np.stack([matrix @ flows.flows.velocity[axis] for axis in range(3)])


def _rate(flows: RegionFlows, start: FloatArray, end: FloatArray, region: Region) -> FloatArray:
    """Flow (S,) through a line to its left, um^3/s."""
    width = float(np.linalg.norm(end - start))
    along = (end - start) / width
    (t, t_weight), (z, z_weight) = legendre.leggauss(ACROSS), legendre.leggauss(OVER_DEPTH)
    seen = start[:, None] + (end - start)[:, None] * (t + 1.0) / 2.0
    height = region.floor_um + region.depth_um * (z + 1.0) / 2.0
    places = np.vstack([np.repeat(seen, OVER_DEPTH, axis=1), np.tile(height, ACROSS)[None]])
    weight = np.outer(t_weight, z_weight).ravel() / 4.0 * width * region.depth_um
    vx, vy, _ = velocities(flows, places)
    rate: FloatArray = weight @ (-along[1] * vx + along[0] * vy)
    return rate
