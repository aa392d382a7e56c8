"""Diffusion in trajectories, from Python."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from liveptv.api.axes import axes_or_new
from liveptv.workflows.diffusion import FileDiffusion, diffusion_of_file, exponents, msd_table, track_table
from stream.errors import ConfigurationError
from tracking.physics.diffusion.msd import LAGS, MeanSquaredDisplacements, anomalous_exponent

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


class Diffusion:
    """Diffusion in a trajectory file; `liveptv.diffusion` makes it.

    `um2_s` and `standard_error_um2_s` are D of all tracks, um^2/s; `facts` are all numbers by name, as `liveptv
    diffusion --json` prints them.
    """

    def __init__(self, found: FileDiffusion) -> None:
        self._found = found
        self.um2_s: float = found.findings.result.um2_s
        self.standard_error_um2_s: float = found.findings.result.standard_error_um2_s
        self.facts: dict[str, Any] = found.findings.to_dict()

    def axes(self) -> pd.DataFrame:
        """One row an axis: D, its standard error, localisation error, signal-to-noise ratio, method."""
        import pandas as pd

        return pd.DataFrame(self.facts["axes"])

    def tracks(self) -> pd.DataFrame:
        """One row a track: D along each axis and its mean, um^2/s, with standard errors, and the kind of track."""
        return track_table(self._found.findings)

    def map(self) -> pd.DataFrame:
        """One row a bin of height (in 2D of y): D with its standard error."""
        import pandas as pd

        return pd.DataFrame(self.facts["map"])

    def msd(
        self, *, lags: int = LAGS, track: int | None = None, kind: int | None = None, drift: bool = True
    ) -> pd.DataFrame:
        """Mean squared displacements along each axis, um^2, with standard errors.

        Parameters
        ----------
        lags : int
            Longest lag, frames.
        track : int, optional
            One track alone; left out: all.
        kind : int, optional
            Particles of one class of the detector alone (column `kind` of the trajectories).
        drift : bool
            Subtract the mean velocity of the tracks.

        Returns
        -------
        pandas.DataFrame
            `lag_s`, `pairs`, and `x_um2`, `x_standard_error_um2` and so on. Its `attrs["exponents"]` are the
            anomalous exponents of each axis and of all, as (value, standard error).

        Raises
        ------
        ConfigurationError
            If there is no such track or kind, or it has no two frames.
        """
        curves = self._curves(lags=lags, track=track, kind=kind, drift=drift)
        table = msd_table(curves)
        found = {axis: (one.alpha, one.standard_error_alpha) for axis, one in exponents(curves).items()}
        together = anomalous_exponent(curves)
        table.attrs["exponents"] = {**found, "all": (together.alpha, together.standard_error_alpha)}
        return table

    def to_pandas(self) -> pd.DataFrame:
        """The same as `axes()`."""
        return self.axes()

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw D over the height (over y in 2D) with standard errors; returns the matplotlib axes."""
        from liveptv.reports.diffusion_figure import draw_over_place

        with axes_or_new(axes) as drawn:
            draw_over_place(drawn, self._found.findings)
            drawn.set_title(f"D = {self.um2_s:.3g} ± {self.standard_error_um2_s:.1g} µm²/s")
        result: Axes = drawn
        return result

    def plot_msd(
        self,
        axes: Axes | None = None,
        *,
        lags: int = LAGS,
        track: int | None = None,
        kind: int | None = None,
        drift: bool = True,
    ) -> Axes:
        """Draw the mean squared displacements of `msd` with their power laws; returns the matplotlib axes."""
        from liveptv.reports.diffusion_figure import draw_msd

        curves = self._curves(lags=lags, track=track, kind=kind, drift=drift)
        with axes_or_new(axes) as drawn:
            draw_msd(drawn, curves)
        result: Axes = drawn
        return result

    def _curves(
        self, *, lags: int, track: int | None, kind: int | None, drift: bool
    ) -> MeanSquaredDisplacements:
        rows = self._found.trajectories
        chosen = np.ones(len(rows), np.bool_)
        if track is not None:
            chosen &= rows.track == track
        if kind is not None:
            chosen &= rows.kind == kind
        if not chosen.any():
            raise ConfigurationError(
                f"there are no rows of track {track}, kind {kind}; leave one of them out"
            )
        return self._found.msd(lags=lags, drift=drift, rows=chosen)

    def __repr__(self) -> str:
        words = ", ".join(text for name, text in self._found.findings.lines() if name in {"D", "from"})
        return f"<Diffusion {words}>"


def diffusion(
    path: str | os.PathLike[str], *, exposure_ms: float | None = None, **settings: Any
) -> Diffusion:
    """Diffusion coefficients in a trajectory file, with standard errors, as `liveptv diffusion` shows them.

    Parameters
    ----------
    path : path
        A trajectory file of `run`, `replay` or `track`.
    exposure_ms : float, optional
        Exposure time; left out: that of the frames.
    **settings
        Fields of `[diffusion]` in place of the file's, such as `temperature_c`, `viscosity_mpa_s`,
        `particle_diameter_um`, `water`; see docs/settings.md.

    Returns
    -------
    Diffusion
        `.um2_s`, `.standard_error_um2_s`, `.axes()`, `.tracks()`, `.map()`, `.msd()`, `.facts`.

    Raises
    ------
    SourceError
        If the file cannot be read or has no displacement.
    ConfigurationError
        For settings that cannot be used together.

    Examples
    --------
    >>> found = liveptv.diffusion("tracks.h5", temperature_c=21.5, water=True)
    >>> found.facts["diameter"]
    """
    return Diffusion(diffusion_of_file(Path(path), settings, exposure_ms=exposure_ms))
