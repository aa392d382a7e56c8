"""Of two depths that explain an image, the tracker finds the one that moves as particles do, and how sure it is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from flows import channel_flow, info
from hypothesis import given
from hypothesis import strategies as st
from mirror_depths import Depths, sides_of, track, two_sided

from stream.messages import Detections, Tracks
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker

MOVING = ["flow", "sinking", "scan", "steps"]


@pytest.mark.parametrize("motion", MOVING)
def test_single_wrong_images_are_put_right_by_motion(motion):
    run = two_sided(motion, wrong=0.08)
    found = sides_of(run, track(run))
    assert found.single < 0.925
    assert found.tracked > 0.985
    assert found.revised > 0.99
    assert found.right_if_sure > 0.985
    assert found.tracks < 1.12  # a wrong image does not end a track


@pytest.mark.parametrize("motion", ["sinking", "scan", "steps"])
@pytest.mark.parametrize("wrong", [0.08, 0.3])
def test_particles_whose_images_are_all_wrong_are_found_out_by_motion(motion, wrong):
    run = two_sided(motion, wrong=wrong, alike=True, seed=1)
    found = sides_of(run, track(run))
    assert found.single < 1.02 - wrong
    assert found.revised > 0.98
    assert found.right_if_sure > 0.97


def test_particles_whose_images_are_all_wrong_are_found_out_by_the_speed_of_the_flow_in_their_depth():
    run = two_sided("flow", alike=True, count=800, frames=120, seed=1)
    found = sides_of(run, track(run))
    assert found.single < 0.925
    assert found.revised > 0.98


@pytest.mark.parametrize("motion", ["scan", "steps"])
def test_a_moving_focus_needs_no_neighbours(motion):
    shares = [
        sides_of(run, track(run)).revised
        for run in (
            two_sided(motion, wrong=0.3, alike=True, count=5, seed=seed, frames=120) for seed in range(8)
        )
    ]
    assert np.mean(shares) > 0.97


def test_where_nothing_moves_the_images_decide_and_nobody_is_sure():
    run = two_sided("still", alike=True, wrong=0.3, p_other=0.3, count=100)
    found = sides_of(run, track(run))
    assert found.revised == pytest.approx(found.single, abs=0.05)
    assert found.sure < 0.1


def test_what_is_said_to_be_sure_is_right_as_often():
    for motion in MOVING:
        run = two_sided(motion, seed=3, count=200)
        p, right = [], []
        for found, tracks, true, mirrored in zip(
            run.detections, track(run), run.true_um, run.mirror_um, strict=True
        ):
            asked = np.isfinite(tracks.p_side) & (tracks.detection >= 0)
            j = tracks.detection[asked].astype(int)
            p.append(tracks.p_side[asked])
            z = tracks.z_um[asked]
            right.append(np.abs(z - true[j]) < np.abs(z - mirrored[j]))
            assert len(found)
        p, right = np.concatenate(p), np.concatenate(right)
        for low, high in [(0.8, 0.95), (0.95, 0.99), (0.99, 1.0)]:
            among = (p >= low) & (p < high)
            assert right[among].mean() > low - 0.05


def falling(frames: int, step_um: float = 0.5) -> Depths:
    """One particle that sinks through focus, among others far above that say how fast particles sink."""
    rng = np.random.default_rng(0)
    x, y, height = rng.uniform(0, 400, 200), rng.uniform(0, 400, 200), rng.uniform(20, 60, 200)
    x[0], y[0], height[0] = 600.0, 600.0, 12.0
    run = Depths([], [], [], [], [])
    for frame in range(frames):
        z = height - step_um * frame + rng.normal(0, 0.3, 200)
        two = (np.abs(z) > 1.5) & (np.arange(200) == 0)
        run.detections.append(
            Detections.from_columns(
                info(frame, focus_um=0.0), x_um=x, y_um=y, z_um=z, z_other_um=np.where(two, -z, np.nan),
                p_other=np.where(two, 0.5, np.nan), sigma_x_um=0.1, sigma_y_um=0.1, sigma_z_um=0.3,
                brightness=1.0, confidence=1.0,
            )
        )  # fmt: skip
        run.true_um.append(z)
        run.mirror_um.append(np.where(two, -z, z + 100))
        run.particles.append(np.arange(200))
        run.has_two.append(two)
    return run


def test_a_particle_that_sinks_through_focus_goes_on_sinking():
    run = falling(50)
    rows = track(run)
    assert sides_of(run, rows).revised > 0.97
    last = rows[-1]
    mine = np.flatnonzero(np.isfinite(last.z_other_um))
    assert len(mine) == 1
    assert last.z_um[mine[0]] == pytest.approx(-12.5, abs=2)
    assert last.vz_um_s[mine[0]] < 0
    assert last.p_side[mine[0]] > 0.9


def lone(frames: int, z_of, other_of, focus_of=lambda f: 0.0, p_other: float = 0.4) -> list[Detections]:
    """A particle that is seen at `z_of` with the second depth `other_of`, in focus `focus_of`, of each frame."""
    return [
        Detections.from_columns(
            info(f, focus_um=focus_of(f)), x_um=[5.0], y_um=[5.0], z_um=[z_of(f)], z_other_um=[other_of(f)],
            p_other=p_other, sigma_x_um=0.1, sigma_y_um=0.1, sigma_z_um=0.3, brightness=1.0, confidence=1.0,
        )
        for f in range(frames)
    ]  # fmt: skip


def through_focus(seed: int) -> float:
    """Share of 60 particles, sinking through the focus, that are below it in the end.

    Near the focus they are seen too far from it, on either side, with the errors that are stated.
    """
    rng = np.random.default_rng(seed)
    tracker, count = OnlineTracker(TrackerSettings()), 60
    x, y = (a.ravel() for a in np.meshgrid(np.arange(10) * 30.0, np.arange(6) * 30.0))
    start = rng.uniform(18.0, 24.0, count)
    for frame in range(25):
        true = start - 2.0 * frame
        sigma = 0.3 + 2.0 * np.exp(-((true / 5.0) ** 2))
        seen = np.copysign(np.hypot(true, 3.0), true) + sigma * rng.normal(size=count)
        seen *= np.where(rng.random(count) < np.where(np.abs(true) < 6.0, 0.35, 0.02), -1.0, 1.0)
        found = Detections.from_columns(
            info(frame), x_um=x + rng.normal(0, 0.1, count), y_um=y + rng.normal(0, 0.1, count), z_um=seen,
            z_other_um=-seen, p_other=0.3, sigma_x_um=0.1, sigma_y_um=0.1, sigma_z_um=sigma, brightness=1.0,
            confidence=1.0,
        )  # fmt: skip
        rows = tracker.step(found)
    return float((rows.z_um[rows.detection >= 0] < 0.0).mean())


def test_few_particles_turn_back_at_the_focus_where_their_depths_are_seen_too_far_from_it():
    assert np.mean([through_focus(seed) for seed in range(6)]) > 0.88


@pytest.mark.parametrize(("memory", "back"), [(200, 20), (7, 7), (0, math.nan)])
def test_the_track_is_revised_back_to_where_the_two_depths_parted_and_not_farther_than_is_set(memory, back):
    """Truly 8 um below focus and always taken for 8 um above; in frame 20 the focus rises by 3 um."""

    def focus(f):
        return 3.0 if f >= 20 else 0.0

    found = lone(30, lambda f: 8.0 + focus(f), lambda f: -8.0 - focus(f), focus)
    tracker = OnlineTracker(TrackerSettings(side_memory_frames=memory, diffusion_um2_s=0.0))
    rows = [tracker.step(d) for d in found]
    assert [float(t.z_um[0]) for t in rows[:20]] == [8.0] * 20
    assert float(rows[-1].z_um[0]) == -11.0
    assert float(rows[-1].z_other_um[0]) == 11.0
    changed = next(f for f, t in enumerate(rows) if t.z_um[0] < 0)
    assert 20 <= changed <= 22
    expected = back + changed - 20 if memory == 200 else back
    assert rows[changed].revised[0] == pytest.approx(expected, nan_ok=True)
    assert all(np.isnan(t.revised).all() for f, t in enumerate(rows) if f != changed)
    assert tracker.counts.get("revised", 0) == (memory > 0)


def test_a_focus_that_is_not_known_is_no_evidence():
    def focus(f):
        return 3.0 if f >= 20 else 0.0

    found = lone(30, lambda f: 8.0 + focus(f), lambda f: -8.0 - focus(f), lambda f: math.nan)
    rows = [t for tracker in [OnlineTracker(TrackerSettings())] for d in found for t in [tracker.step(d)]]
    assert all(t.z_um[0] > 0 for t in rows)
    assert all(np.isnan(t.revised).all() for t in rows)


def test_a_single_wrong_image_of_a_known_track_does_not_move_it():
    wrong = {12, 13, 25}
    found = lone(40, lambda f: -6.0 if f in wrong else 6.0, lambda f: 6.0 if f in wrong else -6.0)
    tracker = OnlineTracker(TrackerSettings())
    rows = [tracker.step(d) for d in found]
    assert all(t.z_um.tolist() == [6.0] and t.z_other_um.tolist() == [-6.0] for t in rows)
    assert {int(t.track[0]) for t in rows} == {0}


def test_a_predicted_row_has_the_other_side_as_well():
    found = lone(20, lambda f: 6.0, lambda f: -6.0)
    found[15] = Detections.empty(found[15].info)
    tracker = OnlineTracker(TrackerSettings())
    rows = [tracker.step(d) for d in found]
    assert rows[15].detection.tolist() == [-1.0]
    assert rows[15].z_um[0] == pytest.approx(6.0, abs=0.5)
    assert rows[15].z_other_um[0] == pytest.approx(-6.0, abs=0.5)
    assert rows[15].p_side[0] == rows[14].p_side[0]


def test_where_images_have_one_depth_again_there_is_no_question():
    found = lone(20, lambda f: 6.0, lambda f: -6.0 if f < 10 else math.nan)
    tracker = OnlineTracker(TrackerSettings())
    rows = [tracker.step(d) for d in found]
    assert rows[9].p_side[0] > 0.5
    assert all(np.isnan(t.p_side).all() and np.isnan(t.z_other_um).all() for t in rows[10:])


def same(a: Tracks, b: Tracks) -> bool:
    return np.array_equal(a.table, b.table, equal_nan=True)


def test_until_the_first_second_depth_nothing_is_different():
    sequence = channel_flow(300, 0.15, 40, seed=4)
    plain, sided = OnlineTracker(TrackerSettings()), OnlineTracker(TrackerSettings())
    for number, found in enumerate(sequence.detections):
        table = found.table.copy()
        if number >= 30:
            table[Detections.COLUMNS.index("z_other_um")] = 100.0 - found.z_um
        before, after = plain.step(found), sided.step(Detections(found.info, table))
        assert same(before, after) == (number < 30)
        assert np.isnan(before.table[[Tracks.COLUMNS.index(name) for name in Tracks.MORE]]).all()


@pytest.mark.parametrize("settings", [TrackerSettings(mode="hungarian"), TrackerSettings()])
def test_plain_linking_and_particles_without_depth_leave_second_depths_alone(settings):
    run = two_sided("still", count=50, frames=5)
    rows = []
    tracker = OnlineTracker(settings)
    for found in run.detections:
        table = found.table.copy()
        if settings.mode == "flow":
            table[2] = np.nan
        rows.append(tracker.step(Detections(found.info, table)))
    assert all(np.isnan(t.p_side).all() and np.isnan(t.revised).all() for t in rows)


def test_gaps_and_births_keep_each_track_with_its_own_evidence():
    """Half of the particles vanish for good in frame 20, and others appear: nobody inherits a side."""
    rng = np.random.default_rng(1)
    tracker = OnlineTracker(TrackerSettings())
    place = rng.uniform(0, 2000, (2, 120))
    for frame in range(50):
        shown = slice(0, 80) if frame < 20 else slice(40, 120)
        z = np.where(np.arange(120) % 2 == 0, 7.0, -7.0)[shown]
        found = Detections.from_columns(
            info(frame, focus_um=0.0), x_um=place[0, shown], y_um=place[1, shown], z_um=z, z_other_um=-z,
            p_other=0.2, sigma_x_um=0.1, sigma_y_um=0.1, sigma_z_um=0.3,
        )  # fmt: skip
        tracks = tracker.step(found)
        seen = tracks.detection >= 0
        assert tracks.z_um[seen].tolist() == z[tracks.detection[seen].astype(int)].tolist()
        assert tracks.z_other_um[seen].tolist() == (-tracks.z_um[seen]).tolist()
    assert len(tracks) == 80


NUMBER = st.one_of(
    st.floats(-60, 60), st.sampled_from([math.nan, math.inf, -math.inf, 1e300, -1e300, 0.0, 1e-300])
)
PARTICLE = st.tuples(st.floats(0, 50), st.floats(0, 50), *[NUMBER] * 4)


@given(st.lists(st.tuples(NUMBER, st.lists(PARTICLE, max_size=6)), max_size=10))
def test_no_second_depth_breaks_it(frames):
    tracker = OnlineTracker(TrackerSettings())
    for number, (focus_um, particles) in enumerate(frames):
        columns = np.array(particles, float).reshape(-1, 6).T
        names = ("x_um", "y_um", "z_um", "z_other_um", "p_other", "sigma_z_um")
        found = Detections.from_columns(
            info(number, focus_um=focus_um), **dict(zip(names, columns, strict=True))
        )
        tracks = tracker.step(found)
        rows = tracks.detection[tracks.detection >= 0]
        assert len(np.unique(rows)) == len(rows)
        asked = np.isfinite(tracks.p_side)
        assert ((tracks.p_side[asked] >= 0) & (tracks.p_side[asked] <= 1)).all()
        assert (np.isfinite(tracks.z_other_um) == asked).all()
        assert not (tracks.revised <= 0).any()
