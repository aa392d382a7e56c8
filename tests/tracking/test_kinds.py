"""A track has the kind of particle that most of its detections say, and is surer of it than one of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from flows import channel_flow, info

from stream.messages import Detections, Tracks
from tracking.control.controllers import PulseOnEntry
from tracking.control.settings import PulseOnEntrySettings
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker

KIND, P_KIND = Detections.COLUMNS.index("kind"), Detections.COLUMNS.index("p_kind")


def classed(
    classes: int, wrong: float, seed: int = 0, frames: int = 30
) -> tuple[list[Detections], list[np.ndarray]]:
    """A channel flow of several kinds of particles; a share of single detections says another one."""
    rng = np.random.default_rng(seed)
    sequence = channel_flow(200, 0.15, frames, seed=seed)
    of_particle = rng.integers(0, classes, 5000)
    found, truth = [], []
    for detections, who in zip(sequence.detections, sequence.truth, strict=True):
        kind = of_particle[who]
        err = rng.random(who.size) < wrong
        table = detections.table.copy()
        table[KIND] = np.where(err, (kind + rng.integers(1, max(classes, 2), who.size)) % classes, kind)
        table[P_KIND] = 1.0 - wrong
        found.append(Detections(detections.info, table))
        truth.append(np.where(who >= 0, kind, -1))
    return found, truth


@pytest.mark.parametrize("mode", ["flow", "hungarian"])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_tracks_are_right_where_single_detections_err(classes, mode):
    found, truth = classed(classes, 0.2)
    tracker = OnlineTracker(TrackerSettings(mode=mode))
    rows = [tracker.step(d) for d in found]
    single, right, p = [], [], []
    for d, tracks, kind in zip(found[10:], rows[10:], truth[10:], strict=True):
        old = (tracks.age_frames >= 8) & (tracks.detection >= 0)
        j = tracks.detection[old].astype(int)
        real = kind[j] >= 0
        single.append((d.table[KIND, j] == kind[j])[real])
        right.append((tracks.kind[old] == kind[j])[real])
        p.append(tracks.p_kind[old][real])
    right, p = np.concatenate(right), np.concatenate(p)
    assert np.concatenate(single).mean() < 0.83
    assert right.mean() > 0.97
    assert p.mean() > 0.9
    assert right[p > 0.95].mean() > 0.97


def one(frame: int, kind: float, p_kind: float = 0.75) -> Detections:
    return Detections.from_columns(
        info(frame), x_um=[5.0], y_um=[5.0], z_um=[1.0], sigma_x_um=0.1, kind=kind, p_kind=p_kind
    )


def test_a_track_whose_detections_say_nothing_has_no_kind():
    tracker = OnlineTracker(TrackerSettings())
    assert all(np.isnan(tracker.step(one(f, math.nan)).kind).all() for f in range(5))
    named = tracker.step(one(5, 1.0))
    assert named.kind.tolist() == [1.0]
    assert 0.5 < named.p_kind[0] <= 0.75
    later = tracker.step(one(6, math.nan))
    assert later.kind.tolist() == [1.0]
    assert later.p_kind.tolist() == named.p_kind.tolist()


def test_a_sure_detection_outweighs_several_doubtful_ones():
    tracker = OnlineTracker(TrackerSettings())
    for f in range(3):
        assert tracker.step(one(f, 0.0, 0.55)).kind.tolist() == [0.0]
    assert tracker.step(one(3, 1.0, 0.99)).kind.tolist() == [1.0]


def test_a_predicted_row_keeps_the_kind_and_a_new_track_inherits_none():
    tracker = OnlineTracker(TrackerSettings())
    for f in range(5):
        tracker.step(one(f, 1.0))
    missed = tracker.step(Detections.empty(info(5)))
    assert missed.kind.tolist() == [1.0]
    two = Detections.from_columns(info(6), x_um=[5.0, 90.0], y_um=[5.0, 90.0], z_um=1.0, kind=[1.0, math.nan])
    assert np.array_equal(tracker.step(two).kind, [1.0, math.nan], equal_nan=True)


@pytest.mark.parametrize("kind", [-1.0, 0.5, 1e9, math.inf, -math.inf])
def test_what_is_no_class_is_not_known(kind):
    tracker = OnlineTracker(TrackerSettings())
    assert np.isnan(tracker.step(one(0, kind)).kind).all()


@pytest.mark.parametrize("p_kind", [math.nan, -1.0, 7.0, 0.0, 1.0])
def test_any_stated_probability_gives_one(p_kind):
    tracker = OnlineTracker(TrackerSettings())
    for f in range(3):
        tracks = tracker.step(one(f, float(f % 2), p_kind))
    assert 0.0 <= tracks.p_kind[0] <= 1.0
    assert tracks.kind[0] in {0.0, 1.0}


def entering(frame: int) -> Tracks:
    """Four particles on their way into a region: of class 0, of class 1, of class 1 by chance, and of none."""
    return Tracks.from_columns(
        info(frame), track=np.arange(4), x_um=[100.0 + 4.0 * frame] * 4, y_um=np.arange(4) * 50.0, z_um=0.0,
        vx_um_s=200.0, vy_um_s=0.0, vz_um_s=0.0, sigma_vx_um_s=1.0, age_frames=frame, detection=0,
        kind=[0, 1, 1, math.nan], p_kind=[0.99, 0.99, 0.6, math.nan],
    )  # fmt: skip


@pytest.mark.parametrize(("kind", "pulses"), [(None, 4), (0, 1), (1, 1), (2, 0)])
def test_only_particles_of_the_chosen_class_get_a_pulse(kind, pulses):
    controller = PulseOnEntry(PulseOnEntrySettings(min_x_um=200.0, max_x_um=230.0, kind=kind))
    assert sum(len(controller.update(entering(frame))) for frame in range(40)) == pulses


def test_a_track_that_changes_side_is_placed_where_it_is_now():
    """A region above focus: a particle that turns out to be below has not entered."""
    controller = PulseOnEntry(
        PulseOnEntrySettings(min_x_um=200.0, max_x_um=230.0, min_height_um=10.0, max_height_um=40.0)
    )
    fired = []
    for frame in range(40):
        height = -20.0 if frame >= 20 else 20.0
        tracks = Tracks.from_columns(
            info(frame, focus_um=0.0), track=[0], x_um=[100.0 + 4.0 * frame], y_um=0.0, z_um=height,
            vx_um_s=200.0, vy_um_s=0.0, vz_um_s=0.0, sigma_vx_um_s=1.0, age_frames=frame, detection=0,
            revised=20.0 if frame == 20 else math.nan,
        )  # fmt: skip
        fired += controller.update(tracks)
    assert fired == []
