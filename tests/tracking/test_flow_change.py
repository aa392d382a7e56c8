"""When the whole flow changes the tracker follows; by chance, or for a few particles, it unlearns nothing."""

from __future__ import annotations

import numpy as np
import pytest
from flows import DEPTH, SPACING, info

from stream.messages import Detections, TrackFlag
from tracking.flow_change import ChangeWatch
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker

EVENT = 30
SIGMA = (0.1, 0.1, 1.0)


def channel(
    frames: int,
    speed,
    *,
    count: int = 200,
    spacings: float = 0.5,
    seed: int = 0,
    shift=None,
    odd: float = 0.0,
) -> list[tuple[Detections, np.ndarray]]:
    """Detections of a channel flow, and their particles; the largest step is `spacings` times `speed(frame)`.

    `shift(frame)` moves what is seen by (3,) um. A share `odd` of the particles takes no part in changes of the
    speed.
    """
    rng = np.random.default_rng(seed)
    side = SPACING * np.sqrt(count)
    size = np.array([side, side, DEPTH])
    place, name, fresh = rng.uniform(0, size, (count, 3)), np.arange(count), count
    seen = []
    for frame in range(frames):
        if frame:
            depth = place[:, 2] / DEPTH
            factor = np.where(name % 100 < 100 * odd, speed(0), speed(frame))
            place[:, 0] += factor * spacings * SPACING * 4 * depth * (1 - depth)
            place += rng.normal(0, 0.2, place.shape)
            place[:, 2] = DEPTH - np.abs(DEPTH - np.abs(place[:, 2]))
            gone = np.any((place[:, :2] < 0) | (place[:, :2] > side), axis=1)
            place[gone] %= size
            name[gone], fresh = np.arange(fresh, fresh + gone.sum()), fresh + gone.sum()
        shown = place + (0.0 if shift is None else shift(frame))
        found, false = rng.random(count) >= 0.03, rng.poisson(0.03 * count)
        where = np.vstack(
            [shown[found] + rng.normal(0, SIGMA, (found.sum(), 3)), rng.uniform(0, size, (false, 3))]
        )
        errors = {f"sigma_{a}_um": s for a, s in zip("xyz", SIGMA, strict=True)}
        places = dict(zip(("x_um", "y_um", "z_um"), where.T, strict=True))
        detections = Detections.from_columns(info(frame), **places, **errors, brightness=1.0, confidence=1.0)
        seen.append((detections, np.concatenate([name[found], np.full(false, -1)])))
    return seen


def untracked(sequence) -> tuple[np.ndarray, OnlineTracker, list[dict[int, int]]]:
    """Share of the detected particles without a confirmed track in each frame, and the track of each particle."""
    tracker, shares, tracks_of = OnlineTracker(TrackerSettings()), [], []
    for detections, who in sequence:
        tracks = tracker.step(detections)
        use = tracks.detection >= 0
        owner = who[tracks.detection[use].astype(int)]
        sure = (tracks.flags[use].astype(int) & TrackFlag.TENTATIVE) == 0
        shares.append(1.0 - sure[owner >= 0].sum() / (who >= 0).sum())
        tracks_of.append(
            dict(zip(owner[sure].tolist(), tracks.track[use][sure].astype(int).tolist(), strict=True))
        )
    return np.array(shares), tracker, tracks_of


SPEEDS = {
    "twice as fast": lambda f: 1.0 + (f >= EVENT),
    "reversed": lambda f: 1.0 - 2.0 * (f >= EVENT),
    "stopped": lambda f: float(f < EVENT),
}


@pytest.mark.parametrize("change", SPEEDS)
@pytest.mark.parametrize(("count", "spacings"), [(200, 0.5), (1000, 0.15)])
def test_after_the_speed_of_the_flow_has_changed_particles_are_tracked_again_within_five_frames(
    change, count, spacings
):
    shares, tracker, _ = untracked(channel(46, SPEEDS[change], count=count, spacings=spacings))
    then = untracked(channel(30, lambda f: SPEEDS[change](EVENT), count=count, spacings=spacings))[0][
        20:
    ].mean()
    assert shares[EVENT + 5 : EVENT + 10].mean() < max(shares[20:EVENT].mean(), then) + 0.05
    assert tracker.changes > 0


@pytest.mark.parametrize("change", ["twice as fast", "reversed", "stopped"])
def test_a_change_of_the_speed_ends_hardly_any_track(change):
    _, _, tracks = untracked(channel(EVENT + 3, SPEEDS[change]))
    before, after = tracks[EVENT - 1], tracks[EVENT + 2]
    both = [w for w in before if w >= 0 and w in after]
    assert len(both) > 120
    assert np.mean([before[w] == after[w] for w in both]) > 0.97


@pytest.mark.parametrize("count", [20, 200])
def test_a_jump_of_the_focus_ends_hardly_any_track(count):
    jump = np.array([0.0, 0.0, 20.0])
    sequence = channel(
        EVENT + 3, lambda f: 1.0, count=count, spacings=0.15, shift=lambda f: jump * (f >= EVENT)
    )
    _, tracker, tracks = untracked(sequence)
    before, after = tracks[EVENT - 1], tracks[EVENT + 2]
    both = [w for w in before if w >= 0 and w in after]
    assert len(both) > 0.7 * count
    assert np.mean([before[w] == after[w] for w in both]) > 0.95
    assert tracker.changes == 1


@pytest.mark.parametrize(("count", "spacings"), [(10, 0.15), (100, 0.15), (100, 1.2)])
def test_in_a_steady_flow_nothing_is_unlearnt_in_2000_frames(count, spacings):
    _, tracker, _ = untracked(channel(2000, lambda f: 1.0, count=count, spacings=spacings, seed=5))
    assert tracker.changes == 0


def test_a_few_particles_that_go_another_way_change_nothing_for_the_others():
    def back(frame):
        return 1.0 if frame else -1.0  # the odd ones, a fifth, always go against the flow

    def turning(frame):
        return 1.0 if frame < EVENT else -1.0  # and here four fifths stay, a fifth turns round

    assert untracked(channel(60, back, odd=0.2))[1].changes == 0
    steady, turned = channel(60, lambda f: 1.0, seed=3), channel(60, turning, seed=3, odd=0.8)
    shares, tracker, _ = untracked(turned)
    assert tracker.changes == 0
    assert shares[EVENT + 5 :].mean() < untracked(steady)[0][EVENT + 5 :].mean() + 0.2


def test_when_the_light_fails_or_most_detections_are_false_nothing_is_unlearnt():
    sequence = channel(60, lambda f: 1.0)
    for frame in (40, 41, 50):
        detections, who = sequence[frame]
        sequence[frame] = (Detections(detections.info, detections.table[:, :10]), who[:10])
    _, tracker, _ = untracked(sequence)
    assert tracker.changes == 0


def test_an_alarm_is_as_rare_as_said_and_needs_particles_that_are_still_there():
    watch = ChangeWatch()
    rng = np.random.default_rng(0)
    for missed in rng.binomial(20, 0.1, 100_000):
        assert not watch.is_alarm(20, int(missed), 20)
    assert watch.is_alarm(20, 18, 18)
    assert not watch.is_alarm(20, 18, 4)
    assert not watch.is_alarm(0, 0, 0)
