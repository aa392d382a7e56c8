"""Whether all particles diffuse alike: one, two or three kinds of D among the tracks, and which do not move.

Each track has a likelihood for each D of a grid (all of its segments, all axes). A mixture of m values of D is
fitted by expectation-maximisation (Dempster, Laird & Rubin 1977), and m is chosen by the Bayesian information
criterion (Schwarz 1978).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from tracking.physics.diffusion.likelihood import likeliest, log_likelihood
from tracking.physics.diffusion.segments import Segments

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MOST_KINDS = 3
CERTAIN = 10.0
"""By how much the criterion must fall for another kind ("very strong", Kass & Raftery, JASA 90, 773, 1995)."""
FACTOR = 1.1  # between two values of the grid; between them a parabola is put through the likelihood
REACH = 300.0  # the grid reaches from the mean D over this to the mean D times a tenth of it; and 0
ROUNDS = 200  # of expectation and maximisation at most; it converges in 10 to 50
MOST_TRACKS = 2000  # judged, evenly chosen: D of a kind is then known to a percent, and no more time is spent
STUCK_SHARE = 0.01
"""D over that of the fastest kind below which a kind counts as at rest: particles on a wall, dirt on the camera."""
FEWEST_TRACKS = 5
LARGEST_WIDTH = 3.0  # of ln D, beyond which a spread is not told more exactly
LONG_ENOUGH = 20  # displacements of a track that says how they are distributed


@dataclass(frozen=True, slots=True)
class Kind:
    """Particles that diffuse alike: their D, um^2/s, with its standard error, and their share of the tracks."""

    um2_s: float
    standard_error_um2_s: float
    share: float
    standard_error_share: float
    stuck: bool


@dataclass(frozen=True, slots=True, eq=False)
class Populations:
    """The kinds from slow to fast; `track` and `kind` (T,): the more likely kind of each track that was judged.

    `criterion` is by how much the information criterion is better than with one kind (0 with one). `spread` is the
    relative standard deviation of D among the tracks where it varies but not in kinds (Bayesian comparison with a
    log-normal distribution); 0 where tracks of a kind diffuse alike.
    """

    kinds: tuple[Kind, ...]
    track: IntArray
    kind: IntArray
    criterion: float
    spread: float


def populations(
    segments: Segments,
    um2_s: float,
    localisation_um: FloatArray,
    chosen: npt.NDArray[np.bool_],
    *,
    exposure_s: float,
    drift: bool,
) -> Populations | None:
    """The kinds among the tracks; None with fewer than five. `chosen` are the axes used, `um2_s` is the mean D."""
    names = np.unique(segments.track)
    if names.size < FEWEST_TRACKS or not um2_s > 0:
        return None
    names = names[:: -(-names.size // MOST_TRACKS)]
    used = segments.of(np.isin(segments.track, names))
    _, track = np.unique(used.track, return_inverse=True)
    low, high = math.log(um2_s / REACH), math.log(um2_s * REACH / 10.0)
    grid = np.exp(np.linspace(low, high, round((high - low) / math.log(FACTOR)) + 1))
    grid = np.concatenate([[1e-3 * grid[0]], grid])
    table = np.zeros((names.size, grid.size))
    for axis in np.flatnonzero(chosen):
        sigma2 = max(localisation_um[axis] ** 2, 1e-3 * um2_s * used.interval_s) * used.noise[axis]
        for at, d in enumerate(grid):
            s = sigma2 - d * exposure_s / 3.0
            each = log_likelihood(used.moved_um[axis], used.over_s, used.steps, float(d), s, drift=drift)
            table[:, at] += np.bincount(track, each, names.size)
    table *= _information(used, track, chosen)
    fits = [_mixture(table, kinds) for kinds in range(1, MOST_KINDS + 1)]
    cost = [(2 * m - 1) * math.log(names.size) - 2.0 * fit[2] for m, fit in enumerate(fits, start=1)]
    best = 0
    for more in range(1, MOST_KINDS):
        if cost[best] - cost[more] > CERTAIN:
            best = more
    spread, total = _spread(table, grid)
    spread_cost = 2 * math.log(names.size) - 2.0 * total
    if best and cost[best] > spread_cost - CERTAIN:
        best = 0
    if cost[0] - spread_cost <= CERTAIN or best:
        spread = 0.0
    places, shares, _ = fits[best]
    belongs = _responsibilities(table, places, shares)
    fastest = grid[places[-1]]
    kinds = tuple(
        _kind(table, grid, place, float(share), belongs[:, m], float(fastest))
        for m, (place, share) in enumerate(zip(places, shares, strict=True))
    )
    if best:
        more_likely = belongs.argmax(axis=1)
        kinds = tuple(
            _by_itself(kind, used.of((more_likely == m)[track]), chosen, float(fastest), exposure_s, drift)
            for m, kind in enumerate(kinds)
        )
    return Populations(kinds, names, belongs.argmax(axis=1).astype(np.int64), cost[0] - cost[best], spread)


def _by_itself(
    kind: Kind,
    segments: Segments,
    chosen: npt.NDArray[np.bool_],
    fastest: float,
    exposure_s: float,
    drift: bool,
) -> Kind:
    """A kind with its own localisation error, which that of all tracks need not be."""
    if segments.steps.size == 0:
        return kind
    found = []
    for axis in np.flatnonzero(chosen):
        square = float((segments.moved_um[axis] ** 2).sum() / max(2 * int(segments.steps.sum()), 1))
        found.append(likeliest(segments, int(axis), kind.um2_s, square, exposure_s=exposure_s, drift=drift))
    d = np.array([one.um2_s for one in found])
    error = np.array([one.standard_error_um2_s for one in found])
    known = np.isfinite(error)
    mean = float(np.nanmean(d)) if np.isfinite(d).any() else kind.um2_s
    own = float(np.sqrt((error[known] ** 2).sum()) / known.sum()) if known.any() else math.nan
    stuck = mean < STUCK_SHARE * fastest
    return Kind(mean, own, kind.share, kind.standard_error_share, stuck=stuck)


def _spread(table: FloatArray, grid: FloatArray) -> tuple[float, float]:
    """Relative spread of D if it is log-normal among the tracks, and the log-likelihood of that."""
    ln = np.log(grid[1:])
    own = np.log(grid[table.argmax(axis=1)])

    def cost(free: FloatArray) -> float:
        width = math.exp(free[1])
        weight = -0.5 * ((ln - free[0]) / width) ** 2
        weight -= weight.max() + math.log(float(np.exp(weight - weight.max()).sum()))
        inside = table[:, 1:] + weight
        most = inside.max(axis=1)
        return -float((most + np.log(np.exp(inside - most[:, None]).sum(axis=1))).sum())

    start = np.array([float(np.median(own)), math.log(0.3)])
    best = minimize(cost, start, method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-2})
    width = math.exp(float(best.x[1]))
    return math.sqrt(math.expm1(min(width, LARGEST_WIDTH) ** 2)), -float(best.fun)


def _information(segments: Segments, track: IntArray, chosen: npt.NDArray[np.bool_]) -> float:
    """What the displacements say of a track's D over what normal ones would: 2 / (kurtosis - 1), at most 1.

    From the displacements over their own track's mean square, so that several kinds of tracks do not count.
    """
    d = segments.moved_um[chosen]
    total = segments.over_s.sum(axis=1)
    d = d - (d.sum(axis=2) / total)[..., None] * segments.over_s
    size = np.bincount(track, segments.steps)
    square = np.stack([np.bincount(track, row) for row in (d**2).sum(axis=2)])
    fourth = np.stack([np.bincount(track, row) for row in (d**4).sum(axis=2)])
    long_enough = (size >= LONG_ENOUGH) & (square > 0).all(axis=0)
    if not long_enough.any():
        return 1.0
    size, square, fourth = size[long_enough], square[:, long_enough], fourth[:, long_enough]
    kurtosis = float(((size + 2.0) * size * fourth / square**2).sum() / (size.sum() * len(d)))
    return min(1.0, 2.0 / max(kurtosis - 1.0, 1e-3))


def _mixture(table: FloatArray, kinds: int) -> tuple[list[int], FloatArray, float]:
    """Places in the grid, shares and log-likelihood of the best mixture, from starts at quantiles and at rest."""
    own = np.sort(table.argmax(axis=1))
    starts = [[int(own[int((m + 0.5) / kinds * own.size)]) for m in range(kinds)]]
    if kinds > 1:
        starts.append([0, *(int(own[int((m + 0.5) / (kinds - 1) * own.size)]) for m in range(kinds - 1))])
        starts.append([int(v) for v in np.linspace(own[own.size // 50], own[-1 - own.size // 50], kinds)])
    best: tuple[list[int], FloatArray, float] | None = None
    for start in starts:
        places, shares = start, np.full(kinds, 1.0 / kinds)
        before = -math.inf
        for _ in range(ROUNDS):
            belongs = _responsibilities(table, places, shares)
            shares = belongs.mean(axis=0)
            places = [int((belongs[:, m] @ table).argmax()) for m in range(kinds)]
            total = _total(table, places, shares)
            if total - before < 1e-6 * abs(total) and total - before < 1e-3:
                break
            before = total
        order = np.argsort(places)
        fit = ([places[m] for m in order], shares[order], _total(table, places, shares))
        if best is None or fit[2] > best[2]:
            best = fit
    assert best is not None
    return best


def _weighted(table: FloatArray, places: list[int], shares: FloatArray) -> FloatArray:
    found: FloatArray = table[:, places] + np.log(np.maximum(shares, 1e-300))
    return found


def _responsibilities(table: FloatArray, places: list[int], shares: FloatArray) -> FloatArray:
    """Probability of each kind for each track (T, kinds)."""
    weighted = _weighted(table, places, shares)
    part = np.exp(weighted - weighted.max(axis=1, keepdims=True))
    belongs: FloatArray = part / part.sum(axis=1, keepdims=True)
    return belongs


def _total(table: FloatArray, places: list[int], shares: FloatArray) -> float:
    weighted = _weighted(table, places, shares)
    most = weighted.max(axis=1)
    return float((most + np.log(np.exp(weighted - most[:, None]).sum(axis=1))).sum())


def _kind(
    table: FloatArray, grid: FloatArray, place: int, share: float, belongs: FloatArray, fastest: float
) -> Kind:
    """A kind, with D from the parabola through the likelihood in ln D at its place in the grid."""
    told = float(np.var(belongs)) * table.shape[0]
    error_share = share * (1.0 - share) / math.sqrt(told) if told > 0 else 0.0
    if not 2 <= place < grid.size - 1:
        d = 0.0 if place <= 1 else float(grid[place])
        return Kind(d, math.nan, share, error_share, stuck=place <= 1)
    low, middle, high = (float(belongs @ table[:, place + step]) for step in (-1, 0, 1))
    bend = 2.0 * middle - low - high
    width = math.log(FACTOR)
    offset = 0.5 * (high - low) / bend if bend > 0 else 0.0
    d = float(grid[place]) * math.exp(offset * width)
    error = d * width / math.sqrt(bend) if bend > 0 else math.nan
    return Kind(d, error, share, error_share, stuck=d < STUCK_SHARE * fastest)
