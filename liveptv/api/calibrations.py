"""A calibration for notebooks: its curves as a table, its PSF as an xarray, and the figure of both."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from calibration.calibration_file import read_calibration
from calibration.result import Calibration
from liveptv.api.axes import axes_or_new
from liveptv.api.optional import needs

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes

DEPTHS = 101


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationView(Calibration):
    """A calibration with tables and figures; all else is that of `calibration.result.Calibration`."""

    @classmethod
    def of(cls, found: Calibration) -> CalibrationView:
        """The view of a calibration."""
        return cls(**{each.name: getattr(found, each.name) for each in fields(Calibration)})

    def to_pandas(self) -> pd.DataFrame:
        """The PSF over depth: `z_um`, widths `sigma_x_um`, `sigma_y_um`, `masked_signal`, `local_variance`."""
        import pandas as pd

        names = ("z_um", "sigma_x_um", "sigma_y_um", "masked_signal", "local_variance")
        return pd.DataFrame({name: getattr(self.curves, name) for name in names})

    def beads(self) -> pd.DataFrame:
        """One row a particle that was found in the scan: place, standard errors, `used`, why it was left out."""
        import pandas as pd

        names = (
            "x_um",
            "y_um",
            "z_um",
            "sigma_x_um",
            "sigma_y_um",
            "sigma_z_um",
            "brightness",
            "misfit",
            "kind",
        )
        table = pd.DataFrame({name: getattr(self.particles, name) for name in names})
        return table.assign(used=self.particles.used, reason=self.particles.reason)

    def to_xarray(self) -> xr.DataArray:
        """The PSF, contrast over `z`, `y` and `x`, um. Raises `ConfigurationError` if xarray is not installed."""
        xarray = needs("xarray")
        z_um = np.linspace(self.model.z_min_um, self.model.z_max_um, DEPTHS)
        half = self.model.half_px
        across = np.arange(-half, half + 1) * self.model.pixel_size_um
        places = {"z": z_um, "y": across, "x": across}
        found: xr.DataArray = xarray.DataArray(
            self.model.images(z_um),
            dims=("z", "y", "x"),
            coords={name: (name, values, {"units": "um"}) for name, values in places.items()},
            name="contrast",
        )
        return found

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw the widths of the PSF along x and y over depth, with the focal planes; returns the axes."""
        from liveptv.reports.calibration_curves import draw_widths

        with axes_or_new(axes) as drawn:
            draw_widths(drawn, self)
        result: Axes = drawn
        return result


def open_calibration(path: str | os.PathLike[str]) -> CalibrationView:
    """Open a calibration file of `liveptv.calibrate` or `liveptv calibrate`.

    Raises
    ------
    SourceError
        If it is none, or damaged.

    Examples
    --------
    >>> liveptv.open_calibration("calibration.h5").plot()
    """
    return CalibrationView.of(read_calibration(Path(path)))
