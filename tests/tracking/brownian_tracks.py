"""Brownian tracks with a flow, localisation errors, motion blur and missing frames."""

from __future__ import annotations

import numpy as np

PARTS = 8  # of an exposure whose mean position is seen


def brownian_tracks(
    seed,
    tracks=100,
    frames=30,
    um2_s=0.4,
    interval_s=0.04,
    sigma_um=0.05,
    exposure_s=0.0,
    velocity_um_s=3.0,
    missing=0.05,
    axes=3,
):
    """Track, time and positions (axes, N) of every detection."""
    rng = np.random.default_rng(seed)
    start_s = np.arange(frames) * interval_s
    parts = (np.arange(PARTS) + 0.5) / PARTS * exposure_s if exposure_s else np.zeros(1)
    times = (start_s[:, None] + parts).ravel()
    steps = np.diff(times, prepend=times[0])
    shape = (axes, tracks, times.size)
    x = np.cumsum(rng.normal(size=shape) * np.sqrt(2.0 * um2_s * steps), axis=2) + velocity_um_s * times
    x += rng.uniform(0.0, 100.0, (axes, tracks, 1))
    x = x.reshape(axes, tracks, frames, parts.size).mean(axis=3)
    x += sigma_um * rng.normal(size=x.shape)
    seen = rng.random((tracks, frames)) >= missing
    track = np.repeat(np.arange(tracks), frames).reshape(tracks, frames)
    time_s = np.broadcast_to(start_s, (tracks, frames))
    return track[seen], time_s[seen], x[:, seen]


def together(*parts):
    """Tracks of several populations, with numbers that do not meet."""
    track = np.concatenate([1000 * at + part[0] for at, part in enumerate(parts)])
    return track, np.concatenate([part[1] for part in parts]), np.concatenate([p[2] for p in parts], axis=1)
