"""The path over which the velocity of a piece of a track is compared with the flow."""

import numpy as np
from region_tracks import BEND

from tracking.physics.region.pieces import pieces_of


def test_where_the_flow_speeds_up_between_detections_its_mean_along_the_path_is_the_measured_velocity():
    rate_hz, growth = 20.0, 6.0  # 1/s: the velocity, growth times x, is a third larger after each frame
    time_s = np.arange(6) / rate_hz
    x = 20.0 * np.exp(growth * time_s)
    position = np.stack([x, np.full(6, 100.0), np.full(6, 50.0)])
    pieces = pieces_of(BEND, np.zeros(6), time_s, position, np.full((3, 6), 0.1), 0.5)
    along = growth * (pieces.share * pieces.path_um[0]).sum(axis=0)
    measured = pieces.velocities.velocity_um_s[0]
    assert np.abs(along / measured - 1.0).max() < 2e-3  # of the mean of both detections: 7e-3
