"""Rows of tracks say whether their detection was reduced."""

from __future__ import annotations

import numpy as np

from stream.messages import DetectionFlag, Detections, FrameInfo, TrackFlag
from tracking.settings import TrackerSettings
from tracking.tracker import OnlineTracker


def test_a_row_is_reduced_where_its_detection_is_and_counts_like_any_other() -> None:
    tracker = OnlineTracker(TrackerSettings())
    x = np.array([10.0, 60.0, 110.0])
    for frame in range(8):
        flags = np.array([0.0, 1.0, float(frame % 2)]) * int(DetectionFlag.REDUCED)
        info = FrameInfo("run", frame, frame, 0.02 * frame, 0, 0.0)
        found = Detections.from_columns(info, x_um=x + 0.1 * frame, y_um=20.0, z_um=5.0, flags=flags)
        tracks = tracker.step(found)
        reduced = (tracks.flags.astype(int) & TrackFlag.REDUCED) > 0
        np.testing.assert_array_equal(reduced, flags[tracks.detection.astype(int)] > 0)
    assert ((tracks.flags.astype(int) & ~int(TrackFlag.REDUCED)) == 0).all()


def test_a_predicted_row_is_not_reduced() -> None:
    tracker = OnlineTracker(TrackerSettings())
    for frame in range(6):
        info = FrameInfo("run", frame, frame, 0.02 * frame, 0, 0.0)
        tracks = tracker.step(Detections.from_columns(info, x_um=[10.0], y_um=20.0, z_um=5.0, flags=1.0))
    info = FrameInfo("run", 6, 6, 0.12, 0, 0.0)
    tracks = tracker.step(Detections.empty(info))
    assert tracks.flags.tolist() == [float(TrackFlag.PREDICTED)]
