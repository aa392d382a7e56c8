"""The benchmark of prediction moves its particles as it says, and its scores count what they say."""

import sys
from pathlib import Path

import numpy as np
import pytest
from flows import info

from stream.messages import Detections, TrackFlag, Tracks

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from moving_particles import (
    BROWNIAN_UM,
    DEPTH_UM,
    EVENT_FRAME,
    JUMP_UM,
    LOST_FRAMES,
    OPTICS,
    Flow,
    Truth,
    moments,
)
from prediction_scores import detection_scores, ghost_tracks, pair, recovery, track_scores, tracked

SHAPE = (720, 1280)


def steps(flow):
    """Displacements along x, depths and frames of the particles that stay, for all pairs of successive frames."""
    dx, z, frame, last = [], [], [], None
    for number, now in enumerate(moments(flow)):
        if last is not None:
            _, i, j = np.intersect1d(last.particle, now.particle, return_indices=True)
            dx.append(now.x_um[j] - last.x_um[i])
            z.append(last.z_um[i])
            frame.append(np.full(i.size, number))
        last = now
    return np.concatenate(dx), np.concatenate(z), np.concatenate(frame)


@pytest.mark.parametrize("spacings", [0.15, 1.2])
def test_the_profile_is_a_parabola_of_the_wanted_mean(spacings):
    flow = Flow(SHAPE, 400, spacings, 12)
    dx, z, _ = steps(flow)
    wanted = spacings * flow.spacing_um * 1.5 * (1 - (2 * z / DEPTH_UM) ** 2)
    assert np.abs(dx - wanted).max() < 6 * BROWNIAN_UM
    depth = np.concatenate([at.z_um for at in moments(flow)])
    assert np.mean(1.5 * (1 - (2 * depth / DEPTH_UM) ** 2)) == pytest.approx(1.0, abs=0.05)


def test_particles_enter_and_leave_out_of_sight_with_the_number_kept():
    flow = Flow(SHAPE, 200, 0.15, 40)
    known, inside, entered = None, [], 0
    for at in moments(flow):
        within = (at.x_um >= 0) & (at.x_um < SHAPE[1] * OPTICS.pixel_size_um)
        within &= (at.y_um >= 0) & (at.y_um < SHAPE[0] * OPTICS.pixel_size_um)
        inside.append(within.sum())
        if known is not None:
            new = ~np.isin(at.particle, known)
            entered += new.sum()
            assert not within[new].any()
        known = at.particle
    assert entered > 40
    assert np.mean(inside) == pytest.approx(200, rel=0.1)
    assert np.ptp(inside) < 60


@pytest.mark.parametrize(("event", "factor"), [("step", 2.0), ("reversed", -1.0), ("stopped", 0.0)])
def test_a_step_changes_the_flow_from_its_frame_on(event, factor):
    flow = Flow(SHAPE, 200, 0.15, EVENT_FRAME + 4, event)
    dx, _, frame = steps(flow)
    before, after = dx[frame < EVENT_FRAME].mean(), dx[frame >= EVENT_FRAME].mean()
    assert after / before == pytest.approx(factor, rel=0.05, abs=0.02)


@pytest.mark.parametrize(("event", "shown"), [("focus", 0.0), ("focus announced", JUMP_UM)])
def test_a_jump_of_the_focus_moves_all_depths_and_the_reading_only_if_announced(event, shown):
    at = list(moments(Flow(SHAPE, 100, 0.15, EVENT_FRAME + 1, event)))[-2:]
    _, i, j = np.intersect1d(at[0].particle, at[1].particle, return_indices=True)
    moved = at[1].z_um[j] - at[0].z_um[i]
    assert np.abs(moved + JUMP_UM).max() < 6 * BROWNIAN_UM
    assert at[1].focus_um - at[0].focus_um == shown


def test_lost_frames_are_missing_in_the_cameras_numbers_while_the_flow_goes_on():
    at = list(moments(Flow(SHAPE, 100, 0.02, EVENT_FRAME + 1, "lost")))
    assert np.diff([one.camera_frame for one in at]).tolist() == [1] * (EVENT_FRAME - 1) + [1 + LOST_FRAMES]


# Two particles, 6 um apart across the flow, at depths of -60 and 60 um, that pass each other along x.
FRAMES = 20
DEPTHS = np.array([-60.0, 60.0])


def positions(frame):
    return np.array([[50.0 + frame, 100.0], [70.0 - frame, 106.0]])


def crossing_truth(frames=FRAMES, count=2):
    """Overlapped in frames 8 to 12."""
    parts = []
    for frame in range(frames):
        x, y = positions(frame).T
        other = DEPTHS[::-1] if 8 <= frame <= 12 else np.full(2, np.nan)
        ones = np.ones(2)
        parts.append(
            Truth(np.full(2, frame), np.arange(2), x, y, DEPTHS, ones, ones > 0, np.full(2, 50.0), other)
        )
    return Truth(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def perfect(frames=FRAMES):
    """Each frame's positions (2, 3), tracks and particles."""
    return [(np.column_stack([positions(n), DEPTHS]), np.array([7, 9])) for n in range(frames)]


def paired_of(rows, truth=None):
    detections, tracks = [], []
    for frame, (where, name) in enumerate(rows):
        x, y, z = where.T
        detections.append(
            Detections.from_columns(
                info(frame), x_um=x, y_um=y, z_um=z, sigma_x_um=0.1, sigma_y_um=0.1, sigma_z_um=1.0
            )
        )
        flags = np.where(frame < 2, float(TrackFlag.TENTATIVE), 0.0) * np.ones(name.size)
        tracks.append(
            Tracks.from_columns(
                info(frame), track=name, x_um=x, y_um=y, z_um=z, detection=np.arange(name.size), flags=flags
            )
        )
    truth = crossing_truth() if truth is None else truth
    return pair(truth, detections, tracks), tracks


def test_perfect_detections_and_tracks_have_no_faults():
    paired, tracks = paired_of(perfect())
    found, followed = detection_scores(paired, np.full((4, 3), 0.1), 0), track_scores(paired, tracks, 0)
    assert found["missed"] == found["false"] == found["crossing_missed"] == 0
    assert found["crossing"] == 10
    assert found["lone_over_bound"] == [0, 0, 0]
    faults = ("extra_fragments", "wrong_links", "depth_flips", "ghost_tracks")
    assert [followed[name] for name in faults] == [0, 0, 0, 0]
    assert followed["untracked"] == pytest.approx(2 / FRAMES)


def test_tracks_that_exchange_their_particles_at_a_crossing_flip_their_depths():
    rows = perfect()
    rows[10:] = [(where, name[::-1]) for where, name in rows[10:]]
    paired, tracks = paired_of(rows)
    scores = track_scores(paired, tracks, 0)
    assert scores["depth_flips"] == 2
    assert scores["wrong_links"] == 2
    assert scores["extra_fragments"] == 2


def test_a_track_that_has_the_others_depth_for_some_frames_flips_once():
    rows = perfect()
    for where, _ in rows[9:12]:
        where[0, 2] = 55.0
    paired, tracks = paired_of(rows)
    assert track_scores(paired, tracks, 0)["depth_flips"] == 1
    assert track_scores(paired, tracks, 10)["depth_flips"] == 0


def test_a_missed_particle_of_a_crossing_is_counted_there():
    rows = perfect()
    rows[9] = (rows[9][0][1:], rows[9][1][1:])
    rows[15] = (rows[15][0][:1], rows[15][1][:1])
    paired = paired_of(rows)[0]
    found = detection_scores(paired, np.empty((0, 3)), 0)
    assert detection_scores(paired.until(15), np.empty((0, 3)), 0)["missed"] == pytest.approx(
        1 / 30, abs=1e-5
    )
    assert found["crossing_missed"] == 0.1
    assert found["missed"] == 2 / (2 * FRAMES)


def with_ghost(frames):
    return [
        (np.vstack([where, [200.0, 200.0, 0.0]]), np.append(name, 33)) if n in frames else (where, name)
        for n, (where, name) in enumerate(perfect())
    ]


def test_three_detections_of_a_track_without_a_particle_are_a_ghost_and_two_are_none():
    assert ghost_tracks(paired_of(with_ghost((4, 5)))[0]) == []
    assert ghost_tracks(paired_of(with_ghost((4, 6, 7, 8)))[0]) == [4]
    assert detection_scores(paired_of(with_ghost((4, 5)))[0], np.empty((0, 3)), 0)["false_detections"] == 2


def test_a_track_that_goes_on_without_its_particle_is_a_ghost():
    truth = crossing_truth()
    gone = (truth.particle == 0) & (truth.frame >= 12)
    paired, _ = paired_of(perfect(), truth.where(~gone))
    assert ghost_tracks(paired) == [12]


def test_particles_out_of_the_picture_may_be_found_but_need_not():
    truth = crossing_truth()
    out = truth._replace(seen=truth.particle == 1)
    assert detection_scores(paired_of(perfect(), out)[0], np.empty((0, 3)), 0)["false"] == 0
    one = [(where[1:], name[1:]) for where, name in perfect()]
    assert detection_scores(paired_of(one, out)[0], np.empty((0, 3)), 0)["missed"] == 0


@pytest.mark.parametrize(("lost", "frames"), [((), 0), ((10, 11), 2), ((10, 11, 14), 5)])
def test_recovery_takes_until_no_more_is_missed_than_before_for_good(lost, frames):
    rows = [
        (where[:0], name[:0]) if n in lost else (where, name) for n, (where, name) in enumerate(perfect())
    ]
    paired, _ = paired_of(rows)
    assert recovery(paired.truth, paired.row >= 0, 10, 2) == frames
    assert recovery(paired.truth, tracked(paired), 10, 2) == frames


def test_what_never_recovers_is_said_so():
    rows = [(where[:0], name[:0]) if n >= 10 else (where, name) for n, (where, name) in enumerate(perfect())]
    paired, _ = paired_of(rows)
    assert recovery(paired.truth, paired.row >= 0, 10, 2) is None


def test_particles_that_have_just_come_into_view_do_not_count_against_tracks():
    truth, late = crossing_truth(), 12
    good = truth.frame < late  # nothing is tracked from then on,
    coming = truth._replace(particle=np.where(truth.frame < late, truth.particle, 2 + 2 * truth.frame))
    assert recovery(truth, good, late, 0, 3) is None
    assert recovery(coming, good, late, 0, 3) == 0  # but no particle is in view for longer than a frame
    assert recovery(coming, good, late, 0) is None


@pytest.mark.parametrize("seen", [True, False])
def test_a_trajectory_that_begins_anew_is_told_from_one_whose_particle_was_out_of_view(seen):
    rows = perfect()
    for frame in range(9, 14):
        rows[frame] = (rows[frame][0][:1], rows[frame][1][:1])
    for frame in range(14, FRAMES):
        rows[frame] = (rows[frame][0], np.array([7, 11]))
    truth = crossing_truth()
    truth = truth._replace(seen=truth.seen & (seen | (truth.frame != 11) | (truth.particle == 0)))
    scores = track_scores(*paired_of(rows, truth), 0)
    assert scores["extra_fragments"] == 1
    assert scores["of_them_out_of_view"] == (0 if seen else 1)
