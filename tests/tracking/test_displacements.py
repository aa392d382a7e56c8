"""Displacements beyond what links can resolve are noticed; flow and diffusion that can be followed are not."""

from __future__ import annotations

import numpy as np
import pytest
from flows import SPACING, Sequence, channel_flow, info

from stream.messages import Detections
from tracking.displacements import summary_of
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker

PLAIN = TrackerSettings(mode="hungarian")


def followed(*sequences: Sequence, settings: TrackerSettings | None = None) -> OnlineTracker:
    tracker = OnlineTracker(settings or TrackerSettings())
    frame = 0
    for sequence in sequences:
        for found in sequence.detections:
            tracker.step(Detections(info(frame), found.table))
            frame += 1
    return tracker


@pytest.mark.parametrize("count", [36, 150, 500])
@pytest.mark.parametrize("spacings", [1.5, 2.0, 3.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_plug_flow_of_more_than_a_spacing_a_frame_is_noticed(
    count: int, spacings: float, seed: int
) -> None:
    tracker = followed(channel_flow(count, spacings, 40, seed=seed, plug=True, planar=True))
    assert "farther than links can resolve" in tracker.remark
    assert tracker.counts["unresolved"] > 5


@pytest.mark.parametrize(
    ("sequence", "settings"),
    [
        (channel_flow(200, 2.5, 40, seed=2, plug=True), None),
        (channel_flow(200, 3.0, 60, seed=2, planar=True), None),
        (channel_flow(200, 0.0, 40, seed=2, planar=True, brownian=0.5 * SPACING), None),
        (channel_flow(500, 1.5, 40, seed=2, planar=True, plug=True), PLAIN),
        (channel_flow(500, 1.0, 40, seed=2), PLAIN),
    ],
)
def test_so_are_depth_shear_large_diffusion_and_plain_links(
    sequence: Sequence, settings: TrackerSettings | None
) -> None:
    assert followed(sequence, settings=settings).remark


def test_a_short_recording_is_enough() -> None:
    assert followed(channel_flow(500, 2.0, 12, seed=0, plug=True, planar=True)).remark


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("count", [20, 100, 500])
@pytest.mark.parametrize("spacings", [0.0, 0.15, 0.5])
def test_flow_that_can_be_followed_is_not_remarked_on(count: int, spacings: float, planar: bool) -> None:
    for seed in range(2):
        tracker = followed(channel_flow(count, spacings, 60, seed=seed, planar=planar))
        assert tracker.remark == ""
        assert "unresolved" not in tracker.counts


@pytest.mark.parametrize("count", [1, 2, 5, 20, 200])
@pytest.mark.parametrize("step", [0.02, 0.05, 0.1, 0.15])
def test_diffusion_is_not_remarked_on(count: int, step: float) -> None:
    for planar in (False, True):
        sequence = channel_flow(count, 0.0, 60, seed=3, planar=planar, brownian=step * SPACING)
        assert followed(sequence).remark == ""


def test_nor_are_the_cases_of_the_benchmark() -> None:
    assert followed(channel_flow(2000, 0.15, 40, seed=1)).remark == ""
    assert followed(channel_flow(2000, 1.2, 40, seed=1)).remark == ""
    learnt = followed(channel_flow(2000, 1.2, 40, seed=77), channel_flow(2000, 1.2, 40, seed=1))
    assert learnt.remark == ""


@pytest.mark.parametrize("spacings", [0.05, 0.15, 0.3])
def test_plain_links_within_their_reach_are_not_remarked_on(spacings: float) -> None:
    assert followed(channel_flow(500, spacings, 60, seed=1), settings=PLAIN).remark == ""


def test_misses_and_false_detections_alone_are_no_displacements() -> None:
    sequence = channel_flow(200, 0.15, 60, seed=4, missed=0.2, false=0.3)
    assert followed(sequence).remark == ""


def test_an_empty_recording_and_single_particles_say_nothing() -> None:
    tracker = OnlineTracker(TrackerSettings())
    for frame in range(30):
        tracker.step(Detections.empty(info(frame)))
    assert tracker.remark == ""
    rng = np.random.default_rng(0)
    tracker = OnlineTracker(TrackerSettings())
    for frame in range(30):  # two particles that are somewhere else in each frame are too few to judge
        x, y = rng.uniform(0, 100, (2, 2))
        tracker.step(Detections.from_columns(info(frame), x_um=x, y_um=y))
    assert tracker.remark == ""


def test_the_summary_has_what_was_beyond_and_nothing_else() -> None:
    assert (
        summary_of({"unresolved": 4, "born": 9}) == "displacements beyond what links can resolve in 4 frames"
    )
    assert summary_of({"rows_left_out": 0, "linked": 3}) == ""
    assert summary_of({"unresolved": 1, "rows_left_out": 2}).endswith("; 2 predicted rows left out")
