"""Velocity over the channel's cross-section and errors of the detector, from the trajectories of a file.

Their figures follow Figs. 10 to 12 of Franchini & Krevor (2020).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from acquisition.physics.channel_flow import channel_velocity_um_s
from calibration.evaluation import LONE_UM
from liveptv.flow_fit.run_settings import channel_of, steady_flow_ul_s
from liveptv.reports.profile import (
    FlowProfile,
    channel_center_um,
    floor_height_um,
)
from tracking.analysis.grid import VelocityField, velocity_field
from tracking.analysis.residuals import (
    DisplacementResiduals,
    displacement_residuals,
    error_map,
    nearest_offsets,
)
from tracking.trajectories.file import Trajectories
from tracking.trajectories.heights import factor_of, heights_um

FloatArray = npt.NDArray[np.float64]

FIELD_ACROSS, FIELD_HEIGHTS = (
    8,
    20,
)  # cells at most; velocity varies more over the height
TRACKS_A_CELL = (
    10  # on average; fewer cells are smoother, more have larger standard errors (as 1 / square root)
)
SHORTEST = (
    100,
    30,
)  # displacements: the paper's choice, or 30, whose scatter is known to 13 % instead of 7 %
FEWEST_TRACKS = 10  # below, medians over depth are not worth a figure
# um: beyond, neighbours no longer change the errors (evaluation calls a particle lone from there on); bins of 4 um
NEIGHBOURHOOD_UM, NEIGHBOUR_BINS = LONE_UM, 14


@dataclass(frozen=True, slots=True, eq=False)
class SectionField:
    """Velocity along the channel over its cross-section, and the laminar flow at the same places if it is known.

    `field` has heights as a and y as b; `theory_um_s` has its shape, or is None. `deviation_rms` is the root mean
    square over cells of the difference, relative to the theory's maximum; NaN without a theory.
    """

    field: VelocityField
    theory_um_s: FloatArray | None
    deviation_rms: float


@dataclass(frozen=True, slots=True, eq=False)
class LocationErrors:
    """Errors by trajectory and by neighbour: see `analysis.residuals`; `edges_um` and `map_um` of `error_map`."""

    residuals: DisplacementResiduals
    shortest: int
    edges_um: FloatArray
    map_um: FloatArray


def section_field(trajectories: Trajectories, profile: FlowProfile) -> SectionField | None:
    """The field on a grid over y and height; None in 2D or with too few trajectories."""
    tracks = profile.tracks
    if profile.over != "height" or tracks.track.size < FEWEST_TRACKS:
        return None
    height, y = profile.position_um, tracks.y_um
    columns, layers = _cells(tracks.track.size)
    heights, across = _edges(height, layers), _edges(y, columns)
    field = velocity_field(height, y, tracks.velocity_um_s[0], heights, across, tracks.sigma_um_s[0])
    channel = channel_of(trajectories.attributes)
    flow_ul_s = steady_flow_ul_s(trajectories)
    if channel is None or flow_ul_s is None:
        return SectionField(field, None, math.nan)
    center_um = channel_center_um(channel, trajectories.attributes)
    theory = channel_velocity_um_s(
        np.nan_to_num(field.b_um) - center_um,
        np.nan_to_num(field.a_um) - floor_height_um(channel, trajectories.attributes),
        channel.width_um,
        channel.depth_um,
        flow_ul_s,
    )
    theory = np.where(np.isfinite(field.velocity_um_s), theory, np.nan)
    most = profile.theory.max_um_s if profile.theory is not None else math.nan
    enough = field.tracks >= FEWEST_TRACKS // 2
    off = (field.velocity_um_s - theory)[enough] / abs(most) if most else np.empty(0)
    return SectionField(field, theory, float(np.sqrt(np.mean(off**2))) if off.size else math.nan)


def location_errors(trajectories: Trajectories) -> LocationErrors | None:
    """Errors from trajectories of 100 displacements and more, of 30 where these are few; None without any."""
    t = trajectories
    height = heights_um(t)
    positions = np.stack([t.x_um, t.y_um, height])
    sigma = np.stack([t.sigma_x_um, t.sigma_y_um, factor_of(t.attributes) * t.sigma_z_um]).astype(np.float64)
    for shortest in SHORTEST:
        found = displacement_residuals(t.track, t.frame, positions, sigma, t.z_um, shortest)
        if found.track.size >= FEWEST_TRACKS:
            offset = nearest_offsets(t.frame, t.x_um, t.y_um)[:, found.row]
            edges, errors = error_map(offset, found.residual_um, NEIGHBOURHOOD_UM, NEIGHBOUR_BINS)
            return LocationErrors(found, shortest, edges, errors)
    return None


def _cells(tracks: int) -> tuple[int, int]:
    """Number of cells across the image and over the height, for ten tracks in each on average."""
    cells = tracks / TRACKS_A_CELL
    across = max(min(round((cells * FIELD_ACROSS / FIELD_HEIGHTS) ** 0.5), FIELD_ACROSS), 1)
    return across, max(min(round(cells / across), FIELD_HEIGHTS), 1)


def _edges(values: FloatArray, cells: int) -> FloatArray:
    low, high = float(values.min()), float(values.max())
    edges: FloatArray = np.linspace(low, high + 1e-9 * max(abs(high), 1.0), cells + 1)
    return edges
