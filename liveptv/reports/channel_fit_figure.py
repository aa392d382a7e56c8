"""The fit of a channel's flow: velocity over the height with the trajectories behind it, and over the section."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from liveptv.reports.look import ONE, QUIET, TWO
from tracking.physics.channel.classes import FOLLOWS
from tracking.physics.channel.derived import velocity_over_section
from tracking.physics.channel.fit import ChannelFit
from tracking.physics.channel.model import in_section, section_of

FloatArray = npt.NDArray[np.float64]

POINTS = 120
NEAR = 0.25
"""Trajectories within this part of the width from the middle are drawn beside the profile through the middle."""
SIGMAS = 1.96
FOLLOWING = 0.5


def draw_fit(axes: Axes, fit: ChannelFit) -> None:
    """Velocity along the channel over the height above its floor, through the middle, and the trajectories near it.

    The band is two standard errors of the fit to each side. Trajectories that do not follow the flow are crosses.
    """
    section = section_of(fit.section, fit.theta)
    height = np.linspace(0.0, section.depth_um, POINTS)
    velocity, error = velocity_over_section(fit, np.zeros(POINTS), height)
    place = in_section(fit.theta, fit.reference_x_um, fit.tracks.position_um)
    near = np.abs(place[1]) <= NEAR * section.width_um
    follows = fit.classes.probability[FOLLOWS] > FOLLOWING
    along = fit.tracks.velocity_um_s[0]
    for chosen, style in ((near & follows, "."), (near & ~follows, "x")):
        label = f"trajectory, {2 * NEAR:.0%} of the width" if style == "." else "one that does not follow"
        if chosen.any():
            axes.plot(along[chosen], place[2][chosen], style, ms=4, color=QUIET, alpha=0.5, label=label)
    axes.plot(velocity, height, color=ONE, label="fit, in the middle")
    axes.fill_betweenx(
        height, velocity - SIGMAS * error, velocity + SIGMAS * error, color=ONE, alpha=0.25, lw=0
    )
    for wall in (0.0, section.depth_um):
        axes.axhline(wall, color=TWO, lw=1, ls="--", label="wall" if wall == 0.0 else None)
    axes.set(xlabel="velocity along the channel (µm/s)", ylabel="height above the floor (µm)")
    axes.legend(frameon=False, fontsize=9, loc="center left")
    axes.grid(visible=True, alpha=0.25)


def over_section(fit: ChannelFit, points: int) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Places y, z (N,) over the section's box, velocity along the channel and its error (z, y); NaN outside."""
    section = section_of(fit.section, fit.theta)
    share = (np.arange(points) + 0.5) / points
    y, z = (share - 0.5) * section.width_um, share * section.depth_um
    across, up = np.meshgrid(y, z)
    velocity, error = velocity_over_section(fit, across, up)
    spans = section.spans_um(across.ravel(), up.ravel())
    inside = (across.ravel() >= spans[0, 0]) & (across.ravel() <= spans[0, 1])
    inside &= (up.ravel() >= spans[1, 0]) & (up.ravel() <= spans[1, 1])
    outside = ~inside.reshape(across.shape)
    velocity[outside], error[outside] = np.nan, np.nan
    return y, z, velocity, error
