"""How fast links are found, beside scipy, lapx and trackpy in the same run, and how fast the tracker steps.

One frame pair: N particles, 10 um apart on average in the plane and 50 um deep, that moved by 1.5 um with
standard errors of 0.1, 0.1 and 1 um; 3 % missed, 3 % false; links up to 5 um. Every case builds its own
candidates and solves the same problem: least sum of squared distances, `RADIUS_UM`^2 for a particle left
unlinked. `total` is that sum; `gap` is what it exceeds ours by (0 for every exact solver). The best of some
repetitions is reported.

Whole tracker: channel flow of tests/tracking/flows.py; times of `OnlineTracker.step` after the first frames;
`p99_cpu_ms` leaves out what other programs took of the core meanwhile.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lap
import numpy as np
import numpy.typing as npt
import trackpy
from reporting import save
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from scipy.spatial import cKDTree

from tracking.assignment import AssignmentWorkspace, assign
from tracking.candidates import CandidateWorkspace, within_distance
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "tracking"))
from flows import channel_flow, link_f1, links_of

Points = npt.NDArray[np.float64]
Links = npt.NDArray[np.integer[Any]]

SPACING_UM, DEPTH_UM, RADIUS_UM, STEP_UM = 10.0, 50.0, 5.0, 1.5
COUNTS = (200, 2_000, 10_000, 50_000)
TRACKED = (2_000, 10_000)
DISPLACEMENTS = (0.15, 1.2)
FRAMES, SETTLED = 80, 15
DENSE_LIMIT, SPARSE_LIMIT = 10_000, 50_000
EPSILON = 1e-9


def frame_pair(count: int, seed: int = 0) -> tuple[Points, Points]:
    """Positions (3, N) and (3, M) of two successive frames."""
    rng = np.random.default_rng(seed)
    side = SPACING_UM * math.sqrt(count)
    size = np.array([[side], [side], [DEPTH_UM]])
    before = rng.uniform(0, size, (3, count))
    after = before + np.array([[STEP_UM], [0], [0]]) + rng.normal(0, [[0.1], [0.1], [1.0]], (3, count))
    after = after[:, rng.random(count) > 0.03]
    false = rng.uniform(0, size, (3, int(0.03 * count)))
    after = np.concatenate([after, false], axis=1)
    return before, np.ascontiguousarray(after[:, rng.permutation(after.shape[1])])


class Ours:
    """Grid hash and sparse assignment, in memory kept between frames."""

    def __init__(self) -> None:
        self.candidates, self.assignment = CandidateWorkspace(), AssignmentWorkspace()

    def __call__(self, before: Points, after: Points) -> Links:
        rows = within_distance(before, after, RADIUS_UM, self.candidates)
        return assign(*rows, RADIUS_UM**2, self.assignment, after.shape[1])


def neighbours(before: Points, after: Points) -> csr_matrix:
    """Sparse squared distances up to the radius, with a k-d tree."""
    near = cKDTree(before.T).sparse_distance_matrix(cKDTree(after.T), RADIUS_UM, output_type="coo_matrix")
    squares = csr_matrix((np.maximum(near.data**2, EPSILON), (near.row, near.col)), near.shape)
    squares.sort_indices()
    return squares


def scipy_sparse(before: Points, after: Points) -> Links:
    """A column of its own for each row, then scipy's sparse matching."""
    costs = neighbours(before, after).tocoo()
    n, m = costs.shape
    own = np.arange(n)
    full = csr_matrix(
        (
            np.concatenate([costs.data, np.full(n, RADIUS_UM**2)]),
            (np.concatenate([costs.row, own]), np.concatenate([costs.col, m + own])),
        ),
        (n, m + n),
    )
    _, columns = min_weight_full_bipartite_matching(full)
    return np.where(columns < m, columns, -1)


def scipy_dense(before: Points, after: Points) -> Links:
    """All distances, cut off at the radius, then scipy's dense assignment."""
    squares = np.zeros((before.shape[1], after.shape[1]))
    for axis in range(3):
        squares += (before[axis][:, None] - after[axis][None, :]) ** 2
    np.minimum(squares, RADIUS_UM**2, out=squares)
    rows, columns = linear_sum_assignment(squares)
    found = np.full(before.shape[1], -1)
    linked = squares[rows, columns] < RADIUS_UM**2
    found[rows[linked]] = columns[linked]
    return found


def lapx_sparse(before: Points, after: Points) -> Links:
    """The usual square extension of Jaqaman et al. (2008), then lapx's sparse solver."""
    costs = neighbours(before, after)
    n, m = costs.shape
    near = costs.tocoo()
    rows, columns = np.arange(n), np.arange(m)
    full = csr_matrix(
        (
            np.concatenate(
                [near.data, np.full(n, RADIUS_UM**2), np.full(m, EPSILON), np.full(near.nnz, EPSILON)]
            ),
            (
                np.concatenate([near.row, rows, n + columns, n + near.col]),
                np.concatenate([near.col, m + rows, columns, m + near.row]),
            ),
        ),
        (n + m, n + m),
    )
    full.sort_indices()
    _, found, _ = lap.lapmod(n + m, full.data, full.indptr, full.indices)
    return np.where(found[:n] < m, found[:n], -1)


def trackpy_pair(before: Points, after: Points) -> Links:
    """trackpy's own linking of two frames."""
    levels = trackpy.link_iter(iter([before.T, after.T]), search_range=RADIUS_UM)
    (_, first), (_, second) = levels
    row_of = {particle: row for row, particle in enumerate(first)}
    found = np.full(before.shape[1], -1)
    for column, particle in enumerate(second):
        if particle in row_of:
            found[row_of[particle]] = column
    return found


PEERS: dict[str, tuple[Callable[[Points, Points], Links], int]] = {
    "lapx.lapmod + cKDTree": (lapx_sparse, SPARSE_LIMIT),
    "scipy sparse + cKDTree": (scipy_sparse, SPARSE_LIMIT),
    "scipy dense": (scipy_dense, DENSE_LIMIT),
    "trackpy": (trackpy_pair, SPARSE_LIMIT),
}


def total_cost(before: Points, after: Points, links: Links) -> float:
    """Sum of squared distances, the radius squared for each unlinked row."""
    linked = links >= 0
    squares = ((before[:, linked] - after[:, links[linked]]) ** 2).sum()
    return float(squares + RADIUS_UM**2 * np.count_nonzero(~linked))


def timed(
    link: Callable[[Points, Points], Links], before: Points, after: Points, repeats: int
) -> tuple[float, Links]:
    """Best time in ms, and the links."""
    best = math.inf
    for _ in range(repeats):
        start = time.perf_counter()
        links = link(before, after)
        best = min(best, time.perf_counter() - start)
    return 1e3 * best, links.copy()


def measure_pairs(counts: tuple[int, ...], peers: bool) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    ours = Ours()
    ours(*frame_pair(200))
    for count in counts:
        before, after = frame_pair(count)
        own_ms, links = timed(ours, before, after, 30)
        own_total = total_cost(before, after, links)
        rows.append({"case": "liveptv", "particles": count, "ms": own_ms, "times_ours": 1.0, "gap": 0.0})
        for name, (link, limit) in PEERS.items() if peers else ():
            if count > limit:
                continue
            ms, links = timed(link, before, after, 5 if count <= 2000 else 1)
            gap = total_cost(before, after, links) - own_total
            rows.append({"case": name, "particles": count, "ms": ms, "times_ours": ms / own_ms, "gap": gap})
            show(rows[-1])
    return rows


def measure_tracker(count: int, displacement: float) -> dict[str, Any]:
    sequence = channel_flow(count, displacement, FRAMES, seed=1)
    tracker = OnlineTracker(TrackerSettings())
    tracker.warmup()
    times, cpu_times, tracks = [], [], []
    for detections in sequence.detections:
        start, cpu_start = time.perf_counter(), time.thread_time()
        tracks.append(tracker.step(detections))
        times.append(1e3 * (time.perf_counter() - start))
        cpu_times.append(1e3 * (time.thread_time() - cpu_start))
    settled = np.array(times[SETTLED:])
    return {
        "case": "whole tracker",
        "particles": count,
        "displacement_spacings": displacement,
        "p50_ms": float(np.percentile(settled, 50)),
        "p99_ms": float(np.percentile(settled, 99)),
        "p99_cpu_ms": float(np.percentile(cpu_times[SETTLED:], 99)),
        "max_ms": max(times),
        "link_f1": link_f1(tracks, sequence.truth),
        "link_f1_settled": link_f1(tracks[SETTLED:], sequence.truth[SETTLED:]),
        "fragments": links_of(tracks, sequence.truth)[2],
    }


def show(row: dict[str, Any]) -> None:
    print(
        "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--tracked", type=int, nargs="*", default=TRACKED)
    parser.add_argument("--no-peers", action="store_true", help="only our own times")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    trackpy.quiet()
    rows = measure_pairs(tuple(options.counts), not options.no_peers)
    own = [row for row in rows if row["case"] == "liveptv"]
    for row in own:
        show(row)
    if len(own) > 1:
        first, last = own[0], own[-1]
        n, m = first["particles"], last["particles"]
        growth = last["ms"] / first["ms"] / (m * math.log(m) / (n * math.log(n)))
        rows.append({"case": "growth over N log N", "particles": m, "ratio": growth})
        show(rows[-1])
    for count in options.tracked:
        for displacement in DISPLACEMENTS:
            rows.append(measure_tracker(count, displacement))
            show(rows[-1])
    if options.json is not None:
        save(options.json, rows)


if __name__ == "__main__":
    main()
