from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.errors import ConfigurationError
from tracking.analysis.metrics import TrackPoints, link_scores, nearest_tracks, track_scores

GATE = 2.0


def tracks_of(table) -> TrackPoints:
    """{track: {frame: position}} on a line."""
    rows = [(t, f, x) for t, points in table.items() for f, x in points.items()]
    track, frame, x = np.array(rows, float).reshape(-1, 3).T
    return TrackPoints.of(track, frame, x[None])


def distance(one: dict, other: dict) -> float:
    """The challenge's distance of two trajectories, frame by frame."""
    total = 0.0
    for frame in one.keys() | other.keys():
        both = frame in one and frame in other
        total += min(abs(one[frame] - other[frame]), GATE) if both else GATE
    return total


def by_brute_force(truth: dict, found: dict):
    """Alpha, beta, JSC, JSC theta of the best of all ways to pair true with found ones or nothing, fewest pairs."""
    true_names, found_names = list(truth), list(found)
    slots = found_names + [None] * len(true_names)
    alone = sum(distance(points, {}) for points in truth.values())

    def total(chosen) -> float:
        return sum(
            distance(truth[t], found[c] if c is not None else {})
            for t, c in zip(true_names, chosen, strict=True)
        )

    best = min(
        set(permutations(slots, len(true_names))),
        key=lambda chosen: (round(total(chosen), 9), sum(c is not None for c in chosen)),
    )
    paired = [(truth[t], found[c]) for t, c in zip(true_names, best, strict=True) if c is not None]
    spurious = [found[c] for c in found_names if c not in best]
    extra = sum(distance(points, {}) for points in spurious)
    near = sum(abs(a[f] - b[f]) < GATE for a, b in paired for f in a.keys() & b.keys())
    points = sum(map(len, truth.values())) + sum(map(len, found.values())) - near
    tracks = len(truth) + len(found) - len(paired)
    saved = alone - total(best)
    return saved / alone, saved / (alone + extra), near / points, len(paired) / tracks


WHERE = st.floats(-4, 4).map(lambda x: round(x, 2))
LINE = st.dictionaries(st.integers(0, 4), WHERE, min_size=1)
TABLE = st.dictionaries(st.integers(0, 9), LINE, min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(TABLE, TABLE)
def test_the_challenges_measures_are_those_of_the_best_of_all_pairings(truth, found):
    alpha = by_brute_force(truth, found)[0]
    scores = track_scores(tracks_of(truth), tracks_of(found), GATE)
    assert scores.alpha == pytest.approx(alpha, abs=1e-9)
    assert 0 <= scores.beta <= scores.alpha <= 1
    if scores.paired == len(found):
        assert scores.beta == pytest.approx(scores.alpha)
    assert scores.true_points == sum(map(len, truth.values()))
    assert scores.matched <= min(scores.true_points, scores.found_points)
    assert scores.paired <= min(scores.true_tracks, scores.found_tracks)
    assert scores.jsc == scores.matched / (scores.true_points + scores.found_points - scores.matched)
    assert scores.jsc_tracks == scores.paired / (scores.true_tracks + scores.found_tracks - scores.paired)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_all_four_measures_equal_brute_force_on_random_tracks(seed):
    rng = np.random.default_rng(seed)

    def some(count):
        frames = [np.sort(rng.choice(6, rng.integers(1, 7), replace=False)) for _ in range(count)]
        return {t: {int(f): float(rng.uniform(-3, 3)) for f in frames[t]} for t in range(count)}

    truth, found = some(rng.integers(1, 4)), some(rng.integers(1, 5))
    expected = by_brute_force(truth, found)
    scores = track_scores(tracks_of(truth), tracks_of(found), GATE)
    assert (scores.alpha, scores.beta, scores.jsc, scores.jsc_tracks) == pytest.approx(expected)


def test_perfect_tracks_score_one_and_no_tracks_score_zero():
    truth = tracks_of({0: {0: 0.0, 1: 1.0}, 1: {1: 9.0, 2: 9.5}})
    perfect = track_scores(truth, truth, GATE)
    assert (perfect.jsc, perfect.jsc_tracks, perfect.rmse) == (1, 1, 0)
    assert (perfect.alpha, perfect.beta) == pytest.approx((1, 1))
    nothing = track_scores(truth, TrackPoints.of([], [], np.empty((1, 0))), GATE)
    assert (nothing.alpha, nothing.beta, nothing.jsc, nothing.jsc_tracks) == (0, 0, 0, 0)
    assert np.isnan(nothing.rmse)
    assert nothing.to_dict()["rmse"] is None


def test_a_spurious_track_costs_beta_and_not_alpha():
    truth = {0: {0: 0.0, 1: 1.0}}
    scores = track_scores(tracks_of(truth), tracks_of({**truth, 1: {0: 50.0, 1: 50.0}}), GATE)
    assert (scores.alpha, scores.beta) == pytest.approx((1.0, 0.5))
    assert (scores.jsc, scores.jsc_tracks) == (0.5, 0.5)


def test_the_error_is_that_of_the_matched_points():
    truth, found = {0: {0: 0.0, 1: 1.0, 2: 2.0}}, {5: {0: 0.3, 1: 1.4, 2: 90.0}}
    scores = track_scores(tracks_of(truth), tracks_of(found), GATE)
    assert scores.matched == 2
    assert scores.rmse == pytest.approx(np.sqrt((0.3**2 + 0.4**2) / 2))
    assert scores.alpha == pytest.approx(1 - (0.3 + 0.4 + GATE) / (3 * GATE))


def test_a_track_broken_in_two_counts_once_and_its_rest_is_spurious():
    truth = {0: dict.fromkeys(range(10), 0.0)}
    halves = {0: dict.fromkeys(range(6), 0.0), 1: dict.fromkeys(range(6, 10), 0.0)}
    scores = track_scores(tracks_of(truth), tracks_of(halves), GATE)
    assert (scores.alpha, scores.jsc, scores.jsc_tracks) == pytest.approx((0.6, 6 / 14, 0.5))


def test_points_that_cannot_be_scored_are_refused():
    with pytest.raises(ConfigurationError, match="two points in frame 3"):
        TrackPoints.of([1, 1], [3, 3], [[0.0, 1.0]])
    with pytest.raises(ConfigurationError, match="not finite"):
        TrackPoints.of([1], [3], [[np.nan]])
    with pytest.raises(ConfigurationError, match="differ in length"):
        TrackPoints.of([1, 2], [3], [[0.0]])
    one = TrackPoints.of([1], [3], [[0.0]])
    with pytest.raises(ConfigurationError, match="gate must be positive"):
        track_scores(one, one, 0.0)


def test_links_across_a_missed_frame_are_links():
    scores = link_scores([0, 1, 3], [7, 7, 7], [2, 2, 2])
    assert (scores.found_links, scores.true_links, scores.f1, scores.fragments) == (2, 2, 1.0, 1.0)


def test_wrong_links_false_detections_and_fragments_are_counted():
    frame = [0, 0, 1, 1, 1, 2]
    particle = [7, 8, 7, 8, -1, 7]
    track = [0, 1, 1, 0, 2, 3]
    scores = link_scores(frame, particle, track)
    assert (scores.true_links, scores.found_links, scores.wrong_links) == (3, 2, 2)
    assert (scores.precision, scores.recall) == (0.0, 0.0)
    assert scores.fragments == 2.5


NAMES = st.integers(-1, 3)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), NAMES, NAMES), max_size=20))
def test_links_are_those_that_a_loop_over_frames_finds(rows):
    once: dict = {}
    for frame, particle, track in rows:
        taken = {(frame, "p", particle), (frame, "t", track)} - {(frame, "p", -1), (frame, "t", -1)}
        if not any(taken & t for t in once.values()):
            once[len(once)] = taken | {(frame, particle, track)}
    kept = [next(iter(x for x in t if x[1] not in {"p", "t"})) for t in once.values()]
    links: dict[str, set] = {"p": set(), "t": set()}
    last: dict = {}
    for row, (_, particle, track) in sorted(enumerate(kept), key=lambda item: item[1][0]):
        for kind, name in (("p", particle), ("t", track)):
            if name >= 0:
                if (kind, name) in last:
                    links[kind].add((last[kind, name], row))
                last[kind, name] = row
    frame, particle, track = np.array(kept, int).reshape(-1, 3).T
    scores = link_scores(frame, particle, track)
    assert (scores.true_links, scores.found_links) == (len(links["p"]), len(links["t"]))
    assert scores.wrong_links == len(links["t"] - links["p"])


def test_points_are_paired_one_to_one_with_most_pairs_first():
    truth = TrackPoints.of([0, 1], [0, 0], [[0.0, 1.5]])
    found = TrackPoints.of([0, 1], [0, 0], [[1.0, 3.0]])
    mine, theirs = nearest_tracks(truth, found, GATE)
    assert list(zip(mine.tolist(), theirs.tolist(), strict=True)) == [(0, 0), (1, 1)]
