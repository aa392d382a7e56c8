"""The flow in a straight channel from a trajectory file, from Python."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from liveptv.api.axes import axes_or_new, colour_scale
from liveptv.api.optional import needs
from liveptv.flow_fit.channel_flow import FlowResult, flow_in
from liveptv.flow_fit.words import in_words
from tracking.physics.sections.section_text import section_from
from tracking.trajectories.file import read_trajectories

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes

MAP_POINTS = 61


class Flow:
    """The flow fitted to a trajectory file; `liveptv.flow` makes it.

    `facts` are all numbers by name, as `liveptv flow --json` prints them.
    """

    def __init__(self, found: FlowResult) -> None:
        self._fit = found.fit
        self.facts: dict[str, Any] = found.found

    def to_pandas(self) -> pd.DataFrame:
        """One row a quantity, by its name: `value`, `standard_error`.

        The parameters of the fit, the flow rate and, with a viscosity, wall shear and pressure gradient. A standard
        error of 0 is that of a parameter that was not fitted.
        """
        import pandas as pd

        rows = dict(self.facts["parameters"]) | {"flow_rate_ul_s": self.facts["flow_rate_ul_s"]}
        if "wall_shear_pa" in self.facts:
            shear = self.facts["wall_shear_pa"]
            rows |= {"wall_shear_mean_pa": shear["mean"], "wall_shear_maximum_pa": shear["maximum"]}
            rows["pressure_gradient_pa_m"] = self.facts["pressure_gradient_pa_m"]
        names = ("value", "standard_error")
        return pd.DataFrame({name: {key: row[name] for key, row in rows.items()} for name in names})

    def to_xarray(self, points: int = MAP_POINTS) -> xr.Dataset:
        """Velocity along the channel and its standard error over the section, um/s.

        `y` is from its middle, `z` from its floor; NaN outside the section. Raises `ConfigurationError` if
        xarray is not installed.
        """
        from liveptv.reports.channel_fit_figure import over_section

        xarray = needs("xarray")
        y, z, velocity, error = over_section(self._fit, points)
        about = {"units": "um/s"}
        found: xr.Dataset = xarray.Dataset(
            {
                "velocity": (("z", "y"), velocity, about | {"long_name": "velocity along the channel"}),
                "standard_error": (("z", "y"), error, about | {"long_name": "its standard error"}),
            },
            coords={"y": ("y", y, {"units": "um"}), "z": ("z", z, {"units": "um"})},
        )
        return found

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw the fitted velocity over the height with its errors, beside the trajectories; returns the axes."""
        from liveptv.reports.channel_fit_figure import draw_fit

        with axes_or_new(axes) as drawn:
            draw_fit(drawn, self._fit)
            rate = self.facts["flow_rate_ul_s"]
            drawn.set_title(f"flow rate {rate['value']:.4g} ± {rate['standard_error']:.1g} µL/s")
        result: Axes = drawn
        return result

    def plot_map(self, axes: Axes | None = None) -> Axes:
        """Draw the fitted velocity over the section; returns the axes."""
        from liveptv.reports.channel_fit_figure import over_section
        from liveptv.reports.drawn import SPEED_MAP

        y, z, velocity, _ = over_section(self._fit, MAP_POINTS)
        with axes_or_new(axes) as drawn:
            colours = drawn.pcolormesh(y, z, velocity, cmap=SPEED_MAP, shading="nearest")
            drawn.set(xlabel="y from the middle (µm)", ylabel="height above the floor (µm)", aspect="equal")
            colour_scale(drawn, colours, "velocity along the channel (µm/s)")
        result: Axes = drawn
        return result

    def __repr__(self) -> str:
        words = dict(in_words(self.facts))
        return f"<Flow {words['flow rate']}; {words['model']}>"


def flow(
    path: str | os.PathLike[str],
    channel: str | None = None,
    *,
    unknown: Sequence[str] = (),
    viscosity_mpa_s: float | None = None,
    diffusion_um2_s: float | None = None,
) -> Flow:
    """Fit the flow in a straight channel to all trajectories of a file, as `liveptv flow` does.

    Parameters
    ----------
    path : path
        A trajectory file with depths, of `run`, `replay` or `track`.
    channel : str, optional
        The section, um: `"rectangle:400x100"`, `"circle:80"`, `"ellipse:300x100"` or `"polygon:Y,Z;Y,Z;..."`; left
        out: that of the run's settings.
    unknown : sequence of str
        Fit these too: `"width_um"`, `"depth_um"`, `"slip_um"`, `"flow_index"`.
    viscosity_mpa_s : float, optional
        Of the liquid, for wall shear and pressure; left out: that of the run's settings.
    diffusion_um2_s : float, optional
        Of the particles; left out: from the tracks.

    Returns
    -------
    Flow
        `.to_pandas()`, `.to_xarray()`, `.plot()`, `.plot_map()`, `.facts`.

    Raises
    ------
    SourceError
        If the file cannot be read.
    ConfigurationError
        If no channel is known, or the file has no depths or too few trajectories.

    Examples
    --------
    >>> liveptv.flow("tracks.h5", viscosity_mpa_s=1.0).to_pandas()
    """
    return Flow(
        flow_in(
            read_trajectories(Path(path)),
            None if channel is None else section_from(channel),
            unknown=tuple(unknown),
            viscosity_pa_s=None if viscosity_mpa_s is None else 1e-3 * viscosity_mpa_s,
            diffusion_um2_s=diffusion_um2_s,
        )
    )
