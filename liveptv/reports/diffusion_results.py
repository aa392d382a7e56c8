"""Diffusion in a trajectory file: D, its kinds, its map, what it says of the liquid; as numbers and in words."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from liveptv.config.sections import ChannelSettings
from liveptv.flow_fit.run_settings import channel_of
from liveptv.reports.profile import floor_height_um
from stream.errors import ConfigurationError
from tracking.physics.channel.derived import velocity_gradient
from tracking.physics.channel.fit import fit_channel
from tracking.physics.channel.parameters import prior_of
from tracking.physics.diffusion.estimate import DiffusionResult, diffusion_of, plain
from tracking.physics.diffusion.lasting import AXES
from tracking.physics.diffusion.maps import DiffusionMap, FarFromWalls, along, far_from_walls
from tracking.physics.diffusion.plane_map import PlaneMap, plane_map
from tracking.physics.diffusion.settings import DiffusionSettings
from tracking.physics.diffusion.stokes_einstein import Derived
from tracking.physics.sections.shapes import Rectangle
from tracking.physics.tracks.from_trajectories import velocities_of
from tracking.trajectories.file import Trajectories
from tracking.trajectories.heights import factor_of, heights_um

FloatArray = npt.NDArray[np.float64]

MOST_BINS, TRACKS_A_BIN = 12, 15  # of the map; with 15 tracks of 30 frames in a bin D is known to 10 %
DIFFER = 0.01  # probability below which the axes are said to differ


@dataclass(frozen=True, slots=True, eq=False)
class DiffusionFindings:
    """What a file says of diffusion.

    `map` has D in bins of `edges_um` over the `over` ("height", or "y" in 2D). `third` follows from two known
    quantities, `far` from the walls of the channel and the particles' size; None where they are not known.
    """

    result: DiffusionResult
    over: str
    edges_um: FloatArray
    map: DiffusionMap
    far: FarFromWalls | None
    third: Derived | None
    walls_um: tuple[float, float] | None
    settings: DiffusionSettings

    def lines(self) -> list[tuple[str, str]]:
        """The findings in words: a name and a text each."""
        result = self.result
        found = [("D", _in_words(result.um2_s, result.standard_error_um2_s, "µm²/s"))]
        for axis in result.axes:
            text = _in_words(axis.um2_s, axis.standard_error_um2_s, "µm²/s")
            if axis.at_most:
                text = (
                    f"at most {axis.limit_um2_s:.2g} µm²/s: errors that last over frames look like diffusion"
                )
                if axis.axis != AXES[-1]:
                    text += ", as does what holds particles"
            text += f"; localisation error {axis.localisation_um:.3g} µm, by {_METHODS[axis.method]}"
            if axis.frames > 1 and not axis.at_most:
                text += f"; errors last over frames: in cells D is from means over {axis.frames}"
            if axis.shear_um2_s > 0:
                text += f"; the sheared flow had added {axis.shear_um2_s:.2g} µm²/s"
            if not axis.used:
                text += "; not used for D"
            found.append((f"along {axis.axis}", text))
        if result.anisotropy_p < DIFFER:
            found.append(
                (
                    "axes",
                    f"D differs between the axes (by chance with a probability of {result.anisotropy_p:.1g})",
                )
            )
        found += self._kinds_in_words()
        if self.far is not None:
            text = _in_words(self.far.um2_s, self.far.standard_error_um2_s, "µm²/s")
            found.append(
                ("far from walls", f"{text}; the walls leave {100 * self.far.mean_factor:.1f} % of it")
            )
        if self.third is not None:
            text = _in_words(self.third.value, self.third.standard_error, _UNITS[self.third.quantity])
            found.append((self.third.quantity, text))
        if result.drift == "common":
            found.append(("drift", "the common drift of all particles was removed"))
        cut = f", {result.cut} taken for wrong links" if result.cut else ""
        found.append(("from", f"{result.displacements} displacements of {result.tracks} tracks{cut}"))
        return found

    def _kinds_in_words(self) -> list[tuple[str, str]]:
        among = self.result.populations
        if among is None:
            return []
        if len(among.kinds) == 1:
            spread = (
                f"D varies from track to track by {100 * among.spread:.0f} %, beyond its errors, not in kinds"
            )
            return [("kinds", spread if among.spread else "all tracks diffuse alike")]
        parts = [
            f"{100 * kind.share:.0f} ± {100 * kind.standard_error_share:.0f} % "
            + (
                "at rest"
                if kind.stuck
                else f"with {_in_words(kind.um2_s, kind.standard_error_um2_s, 'µm²/s')}"
            )
            for kind in among.kinds
        ]
        return [("kinds", f"{len(parts)} among the tracks: {'; '.join(parts)}")]

    def over_image(self) -> PlaneMap | None:
        """D over the image, if something is known of particles or liquid; None where there are too few tracks.

        Axes whose errors last over frames are left out: means over frames are too few for a map.
        """
        if not self.settings.asked_for:
            return None
        of_frames = np.array([axis.frames == 1 for axis in self.result.axes[: self.result.in_plane.size]])
        return plane_map(self.result.sums, self.result.segments.place_um, self.result.in_plane & of_frames)

    def to_dict(self) -> dict[str, Any]:
        """All numbers by name, in plain types."""
        found = self.result.to_dict()
        bins = self.map
        found["map"] = [
            {
                f"{self.over}_um": plain(float(bins.place_um[self._map_axis, at])),
                "um2_s": plain(float(bins.in_plane_um2_s[at])),
                "standard_error_um2_s": plain(float(bins.in_plane_standard_error_um2_s[at])),
                "displacements": int(bins.displacements[at]),
                "tracks": int(bins.tracks[at]),
                **{
                    f"{axis.axis}_um2_s": plain(float(bins.um2_s[number, at]))
                    for number, axis in enumerate(self.result.axes)
                },
            }
            for at in range(bins.tracks.size)
        ]
        if self.far is not None:
            found["far_from_walls"] = {
                "um2_s": plain(self.far.um2_s),
                "standard_error_um2_s": plain(self.far.standard_error_um2_s),
                "mean_factor": self.far.mean_factor,
            }
        if self.third is not None:
            found[self.third.quantity] = {
                "value": plain(self.third.value),
                "standard_error": plain(self.third.standard_error),
                "unit": self.third.unit,
            }
        return found

    @property
    def _map_axis(self) -> int:
        return map_axis(len(self.result.axes))


_METHODS = {
    "covariance": "covariance",
    "likelihood": "maximum likelihood",
    "averages": "means over frames",
}
_UNITS = {"viscosity": "mPa s", "diameter": "µm", "temperature": "°C"}


def map_axis(axes: int) -> int:
    """The axis that D is mapped over: the height, in 2D y."""
    return axes - 1


def diffusion_findings(
    trajectories: Trajectories,
    settings: DiffusionSettings | None = None,
    *,
    exposure_ms: float | None = None,
) -> DiffusionFindings | None:
    """Diffusion in the trajectories; None without any displacement.

    `settings` left out: those of the file; `exposure_ms` left out: that of its frames.
    """
    attributes = trajectories.attributes
    known = settings_of(attributes) if settings is None else settings
    position, sigma = positions_um(trajectories)
    channel = channel_of(attributes)
    result = diffusion_of(
        trajectories.track,
        trajectories.time_s + np.nan_to_num(trajectories.time_offset_s),
        position,
        sigma,
        exposure_s=1e-3 * (exposure_of(trajectories) if exposure_ms is None else exposure_ms),
        localisation=known.localisation_um,
        gradient=None if channel is None else gradient_of_flow(trajectories, channel),
    )
    if result.displacements == 0:
        return None
    axis = map_axis(len(result.axes))
    walls = None
    if channel is not None and len(result.axes) == len(AXES):
        floor = floor_height_um(channel, attributes)
        walls = (floor, floor + channel.depth_um)
    edges = _edges(result.segments.place_um[axis], result.tracks, walls)
    far, d, error = None, result.um2_s, result.standard_error_um2_s
    if result.populations is not None and len(result.populations.kinds) > 1:
        moving = [kind for kind in result.populations.kinds if not kind.stuck]
        main = max(moving, key=lambda kind: kind.share)
        d, error = main.um2_s, main.standard_error_um2_s
    elif walls is not None and known.particle_diameter_um is not None:
        far = far_from_walls(result, known.particle_diameter_um / 2.0, *walls)
        if far is not None:
            d, error = far.um2_s, far.standard_error_um2_s
    over = "height" if len(result.axes) == len(AXES) else AXES[axis]
    return DiffusionFindings(
        result, over, edges, along(result, axis, edges), far, known.third(d, error), walls, known
    )


def gradient_of_flow(
    trajectories: Trajectories, channel: ChannelSettings
) -> Callable[[FloatArray], FloatArray] | None:
    """The gradient of the flow that fits the tracks, at places (3, K); None where they are too few, or in 2D."""
    section = Rectangle(channel.width_um, channel.depth_um)
    try:
        fit = fit_channel(velocities_of(trajectories), section, prior_of(section))
    except ConfigurationError:  # few tracks, or no depths: shear is then looked for in the tracks alone
        return None
    return partial(velocity_gradient, fit) if fit.settled else None


def settings_of(attributes: dict[str, Any]) -> DiffusionSettings:
    """What the configuration in the file knows of particles and liquid."""
    return DiffusionSettings.model_validate((attributes.get("configuration") or {}).get("diffusion") or {})


def positions_um(trajectories: Trajectories) -> tuple[FloatArray, FloatArray]:
    """x, y and, if any is known, the absolute height of each row, (axes, N), and their standard errors."""
    t = trajectories
    position, sigma = [t.x_um, t.y_um], [t.sigma_x_um, t.sigma_y_um]
    if np.isfinite(t.z_um).any():
        position.append(heights_um(t))
        sigma.append(factor_of(t.attributes) * t.sigma_z_um)
    return np.stack(position), np.stack(sigma).astype(np.float64)


def exposure_of(trajectories: Trajectories) -> float:
    """Median exposure time of the frames, ms; 0 where it is not known."""
    exposure = trajectories.frames["exposure_ms"]
    exposure = exposure[np.isfinite(exposure) & (exposure > 0)]
    return float(np.median(exposure)) if exposure.size else 0.0


def _edges(place_um: FloatArray, tracks: int, walls: tuple[float, float] | None) -> FloatArray:
    bins = int(min(max(tracks // TRACKS_A_BIN, 1), MOST_BINS))
    low, high = walls or (float(place_um.min()), float(place_um.max()))
    edges: FloatArray = np.linspace(low, high if high > low else low + 1.0, bins + 1)
    return edges


def _in_words(value: float, error: float, unit: str) -> str:
    """A value with its standard error, to two digits of the error."""
    if not math.isfinite(value):
        return "not known"
    if not (math.isfinite(error) and error > 0):
        return f"{value:.3g} {unit}"
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{digits}f} ± {error:.{digits}f} {unit}"
