"""During a run the flow is known as well as from all tracks afterwards."""

from dataclasses import replace

import numpy as np
import pytest
from channel_tracks import Channel, run_of

from stream.messages import FrameInfo, TrackFlag, Tracks
from tracking.physics.channel.fit import fit_channel
from tracking.physics.channel.parameters import prior_of
from tracking.physics.live.channel import LiveChannel
from tracking.physics.live.running_tracks import RunningTracks
from tracking.physics.tracks.velocities import joined, track_velocities

CHANNEL = Channel(center_y_um=3.0, floor_um=5.0, yaw_deg=0.5, pitch_deg=0.2)


def live_of(channel, seconds=10.0, seed=0, alive=200, **more):
    live = LiveChannel(
        channel.section, prior_of(channel.section), channel.diffusion_um2_s, reference_x_um=0.0, **more
    )
    running, parts, fits = RunningTracks(channel.diffusion_um2_s), [], []
    for message in run_of(channel, alive, seconds, seed):
        live.take_in(message)
        running.take_in(message)
        if message.info.frame % 20 == 19:
            fits.append(live.update())
            parts.append(running.ended())
    return live, joined(parts), fits


def test_the_live_fit_is_the_one_of_all_tracks_within_a_part_of_its_error():
    live, tracks, fits = live_of(CHANNEL)
    afterwards = fit_channel(tracks, CHANNEL.section, prior_of(CHANNEL.section), reference_x_um=0.0)
    assert live.tracks == len(tracks)
    assert fits[0] is None or fits[0].standard_error("floor_um") > live.fit.standard_error("floor_um")
    for name in ("velocity_um_s", "floor_um", "center_y_um", "yaw_deg", "pitch_deg", "roll_deg"):
        error = afterwards.standard_error(name)
        assert live.fit.standard_error(name) == pytest.approx(error, rel=0.3)
        assert live.fit.value(name) == pytest.approx(afterwards.value(name), abs=1.0 * error)
    free = live.fit.prior.free
    off = (live.fit.theta - CHANNEL.theta)[free] / np.sqrt(np.diag(live.fit.covariance))[free]
    assert np.abs(off).max() < 4


def test_a_clean_run_is_not_told_to_differ_and_slip_is():
    clean, _, _ = live_of(CHANNEL, seed=1)
    assert clean.misfit().told == ()
    slipping, _, _ = live_of(replace(CHANNEL, slip_um=5.0), seed=1)
    assert "slip_um" in slipping.misfit().told


def test_with_a_memory_the_fit_follows_a_change_of_the_flow():
    slow = replace(CHANNEL, velocity_um_s=80.0)
    live = LiveChannel(CHANNEL.section, prior_of(CHANNEL.section), 0.2, memory_s=2.0, reference_x_um=0.0)
    for part, channel in enumerate((CHANNEL, slow)):
        for message in run_of(channel, 150, 10.0, part):
            later = replace(message.info, time_s=message.info.time_s + 20.0 * part)
            table = message.table.copy()
            table[Tracks.COLUMNS.index("track")] += 100_000 * part
            live.take_in(Tracks(later, table))
            if message.info.frame % 20 == 19:
                live.update()
    assert live.fit.value("velocity_um_s") == pytest.approx(80.0, rel=0.02)


def message(frame, rows, flags=0):
    info = FrameInfo("run", frame, frame, frame / 10, 0, 0.0, focus_um=10.0)
    track, x = zip(*rows, strict=True) if rows else ((), ())
    return Tracks.from_columns(
        info, track=np.array(track, float), x_um=np.array(x, float), y_um=np.zeros(len(track)),
        z_um=np.ones(len(track)), sigma_x_um=np.full(len(track), 0.1), sigma_y_um=np.full(len(track), 0.1),
        sigma_z_um=np.full(len(track), 0.5), flags=np.full(len(track), float(flags)),
    )  # fmt: skip


def test_a_track_is_handed_over_when_it_ends_with_the_velocity_that_all_its_rows_give():
    rng = np.random.default_rng(0)
    found = {name: 5.0 * np.arange(12) / 10 + rng.normal(0, 0.1, 12) for name in (7, 3)}
    running = RunningTracks(0.1, refraction_factor=1.3)
    for frame in range(12):
        running.take_in(message(frame, [(7, found[7][frame]), (3, found[3][frame])]))
        assert len(running.ended()) == 0
    running.take_in(message(12, [(3, 6.0)]))
    ended = running.ended()
    time = np.arange(12) / 10
    expected = track_velocities(
        np.zeros(12), time, np.stack([found[7], 0 * time, 0 * time + 14.3]),
        np.tile([[0.1], [0.1], [0.65]], 12), 0.1,
    )  # fmt: skip
    assert ended.track.tolist() == [7]
    assert ended.velocity_um_s[:, 0] == pytest.approx(expected.velocity_um_s[:, 0])
    assert ended.velocity_sigma_um_s[:, 0] == pytest.approx(expected.velocity_sigma_um_s[:, 0])
    assert ended.position_um[:, 0] == pytest.approx(expected.position_um[:, 0])
    assert len(running) == 1


def test_predicted_rows_do_not_count_and_tracks_that_end_tentative_do_not_either():
    running = RunningTracks(0.1)
    for frame in range(10):
        running.take_in(
            message(frame, [(1, 1000.0 if frame == 5 else frame)], TrackFlag.PREDICTED * (frame == 5))
        )
    running.take_in(message(10, []))
    ended = running.ended()
    assert ended.length.tolist() == [9]
    assert ended.velocity_um_s[0, 0] == pytest.approx(10.0, abs=1e-6)
    for frame in range(11, 20):
        running.take_in(message(frame, [(2, frame)], TrackFlag.TENTATIVE))
    running.take_in(message(20, []))
    assert len(running.ended()) == 0


def test_a_long_track_is_handed_over_in_pieces():
    running = RunningTracks(0.1, longest_s=1.0)
    for frame in range(35):
        running.take_in(message(frame, [(1, frame)]))
    assert running.ended().length.tolist() == [11, 11, 11]
