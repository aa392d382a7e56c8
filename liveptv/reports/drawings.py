"""Data that a run's report draws with its scripts: profile, histograms, trajectories; JSON-able and small."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import numpy.typing as npt

from liveptv.reports.distributions import Histogram, distributions
from liveptv.reports.profile import FlowProfile
from tracking.trajectories.file import Trajectories
from tracking.trajectories.heights import heights_um

FloatArray = npt.NDArray[np.float64]

# Limits that keep the page at some MB (1200 x 24 points are 0.5 MB) and its drawing fast.
MOST_TRACKS, MOST_POINTS = 1200, 24  # trajectories, and points of each
SHORTEST = 3  # detections of a trajectory that is drawn
MOST_DOTS = 3000  # trajectories in the profile
THEORY_STEP = 4  # every 4th of the 201 points of the laminar profile


def drawings(trajectories: Trajectories, profile: FlowProfile) -> dict[str, Any]:
    """Everything that is drawn, in the form that the live page's scripts take."""
    return {
        "profile": profile_facts(profile),
        "histograms": {
            name: [_drawn(one) for one in kind] for name, kind in distributions(trajectories, profile).items()
        },
        "space": _paths(trajectories, deep=profile.over == "height"),
    }


def profile_facts(profile: FlowProfile) -> dict[str, Any]:
    """Bins with their standard errors, the laminar flow, and a dot for each trajectory."""
    measured, velocity = profile.measured, profile.tracks.velocity_um_s[0]
    every = max(1, -(-velocity.size // MOST_DOTS))
    facts: dict[str, Any] = {
        "over": profile.over,
        "height_um": _plain(measured.height_um),
        "velocity_um_s": _plain(measured.velocity_um_s),
        "error_um_s": _plain(measured.standard_error_um_s),
        "dots": {
            "height_um": _plain(profile.position_um[::every]),
            "velocity_um_s": _plain(velocity[::every]),
        },
    }
    if profile.theory is not None:
        theory = profile.theory
        facts["theory"] = {
            "height_um": _plain(theory.height_um[::THEORY_STEP]),
            "velocity_um_s": _plain(theory.velocity_um_s[::THEORY_STEP]),
        }
    return facts


def _drawn(one: Histogram) -> dict[str, Any]:
    return {
        "title": one.title,
        "edges": [float(f"{edge:.5g}") for edge in one.edges],
        "values": one.counts.astype(int).tolist(),
        "across": one.across,
        "up": one.up,
    }


def _paths(trajectories: Trajectories, *, deep: bool) -> dict[str, Any]:
    """The longest trajectories, thinned out: points in each, and float32 rows x, y, height (um) of all points."""
    order = np.lexsort((trajectories.frame, trajectories.track))
    _, first, count = np.unique(trajectories.track[order], return_index=True, return_counts=True)
    long = np.flatnonzero(count >= SHORTEST)
    shown = long[np.argsort(-count[long], kind="stable")[:MOST_TRACKS]]
    height = heights_um(trajectories) if deep else np.zeros(len(trajectories))
    positions = np.stack([trajectories.x_um, trajectories.y_um, height])[:, order]
    pieces = []
    for index in shown:
        steps = np.linspace(0, count[index] - 1, min(int(count[index]), MOST_POINTS))
        piece = positions[:, first[index] + np.round(steps).astype(int)]
        pieces.append(piece[:, np.isfinite(piece).all(axis=0)])
    points = np.concatenate(pieces, axis=1) if pieces else np.empty((3, 0))
    attributes = trajectories.attributes
    rows, columns = attributes.get("image_shape") or (1, 1)
    pixel_um = float(attributes.get("pixel_size_um", 1.0))
    low, high = np.percentile(points[2], (1, 99)) if points.size else (0.0, 1.0)
    return {
        "tracks": int(long.size),
        "counts": [piece.shape[1] for piece in pieces],
        "points": base64.b64encode(points.astype("<f4").tobytes()).decode(),
        "width_um": columns * pixel_um,
        "height_um": rows * pixel_um,
        "depth_um": [float(low), max(float(high), float(low) + 1.0)] if deep else None,
    }


def _plain(values: FloatArray) -> list[float | None]:
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]
