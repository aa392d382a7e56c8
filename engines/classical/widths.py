"""Depth from the two widths of an astigmatic image, by a table of the widths over depth.

After Huang et al. 2008 (Science 319, 810): the depth is where the table comes closest to the measured pair
of widths. Distances are in the logarithms of the widths, weighted with the covariance of the fit. The squared
distance is therefore a chi-square with one degree of freedom; if it is large, the pair of widths does not belong to
a particle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, cast

import h5py
import numpy as np
import numpy.typing as npt
from numba import njit

from stream.errors import ConfigurationError
from stream.hdf5_reading import check_file, values

FloatArray = npt.NDArray[np.float64]
Polarity = Literal["dark", "bright"]

SCHEMA = 1
KIND = "liveptv width curve"
MOST_BYTES = 1 << 30
"""No part of a curve's file that is read at once is larger."""
COLUMNS = ("z_um", "sigma_x_um", "sigma_y_um", "amplitude")
TABLE_STEPS = 512
"""Depths of the table: for a range of 300 um one every 0.6 um, below the depth's standard error."""
MOST_COLUMN_BYTES = 1 << 20
"""Of a column of a curve: 100,000 depths."""
WIDTH_SCATTER = 0.015
"""Relative scatter of the widths between particles and with the position in the image; it keeps the depth's
standard error from vanishing for bright particles."""


@dataclass(frozen=True, eq=False)
class WidthCurve:
    """Gaussian widths of a particle's image over depth.

    `z_um` (N,) rises; z is the particle's height minus the focus position. `sigma_x_um`, `sigma_y_um` (N,)
    are the widths that `engines.classical.centre.fit_gaussian` measures, `amplitude` (N,) its amplitude
    relative to the largest. `pixel_size_um` is that of the images it was made from, `provenance` says what
    those were.
    """

    z_um: FloatArray
    sigma_x_um: FloatArray
    sigma_y_um: FloatArray
    amplitude: FloatArray
    pixel_size_um: float
    polarity: Polarity
    provenance: dict[str, str | float] = field(default_factory=dict)

    GROUP: ClassVar[str] = "width_curve"
    """Where in a calibration file a curve lies."""

    def __post_init__(self) -> None:
        columns = [np.asarray(getattr(self, name)) for name in COLUMNS]
        if any(column.ndim != 1 or column.shape != columns[0].shape for column in columns):
            raise ConfigurationError("a width curve needs four columns of equal length")
        if columns[0].size < 4 or not all(np.isfinite(column).all() for column in columns):
            raise ConfigurationError("a width curve needs at least four depths and no missing values")
        if not (np.diff(columns[0]) > 0).all():
            raise ConfigurationError("the depths of a width curve must rise")
        if not all((column > 0).all() for column in columns[1:]):
            raise ConfigurationError("the widths and amplitudes of a width curve must be positive")
        if not self.pixel_size_um > 0 or self.polarity not in ("dark", "bright"):
            raise ConfigurationError("a width curve needs a pixel size and a polarity, dark or bright")

    def table(self, pixel_size_um: float) -> FloatArray:
        """Return (3, TABLE_STEPS): depth in um, ln of both widths in pixels of `pixel_size_um`."""
        z_um = np.linspace(self.z_um[0], self.z_um[-1], TABLE_STEPS)
        return np.stack(
            [z_um]
            + [
                np.interp(z_um, self.z_um, np.log(sigma_um / pixel_size_um))
                for sigma_um in (self.sigma_x_um, self.sigma_y_um)
            ]
        )

    def save(self, path: Path, *, overwrite: bool = False) -> None:
        """Write the curve as HDF5; raises `ConfigurationError` if the file exists or cannot be written."""
        try:
            with h5py.File(path, "w" if overwrite else "x") as file:
                self.write(file)
        except FileExistsError as error:
            raise ConfigurationError(f"{path} exists; name another file or overwrite it") from error
        except OSError as error:
            raise ConfigurationError(f"cannot write the width curve {path}: {error}") from error

    def write(self, group: h5py.Group) -> None:
        """Write the curve into an open file or a group of one."""
        group.attrs.update(kind=KIND, schema=SCHEMA, pixel_size_um=self.pixel_size_um, polarity=self.polarity)
        for name in COLUMNS:
            dataset = group.create_dataset(name, data=getattr(self, name))
            dataset.attrs["unit"] = "relative" if name == "amplitude" else "um"
        group["z_um"].attrs["meaning"] = "particle height minus focus position"
        group.create_group("provenance").attrs.update(self.provenance)

    @classmethod
    def load(cls, path: Path) -> WidthCurve:
        """Read a curve written by `save`, or that of a calibration; else raises `ConfigurationError`."""
        try:
            with h5py.File(path, "r", locking=False) as whole:
                check_file(whole, most_bytes=MOST_BYTES, in_pieces=("traces",))
                file = whole.get(cls.GROUP, whole)
                if file.attrs.get("kind") != KIND:
                    raise ConfigurationError(
                        f"{path} is not a width curve; make one with a scan or the optics"
                    )
                if int(file.attrs["schema"]) > SCHEMA:
                    raise ConfigurationError(
                        f"{path} has schema {file.attrs['schema']}, newer than this program reads ({SCHEMA})"
                    )
                columns = {
                    name: values(file, name, ndim=1, most_bytes=MOST_COLUMN_BYTES).astype(np.float64)
                    for name in COLUMNS
                }
                provenance = {
                    key: value if isinstance(value, str) else float(value)
                    for key, value in file["provenance"].attrs.items()
                }
                return cls(
                    **columns,
                    pixel_size_um=float(file.attrs["pixel_size_um"]),
                    polarity=cast(Polarity, file.attrs["polarity"]),
                    provenance=provenance,
                )
        except FileNotFoundError as error:
            raise ConfigurationError(f"no width curve at {path}") from error
        except (
            OSError,
            LookupError,
            TypeError,
            ValueError,
            RuntimeError,
            AttributeError,
            ArithmeticError,
        ) as error:
            if isinstance(error, ConfigurationError):
                raise
            raise ConfigurationError(f"cannot read {path} as a width curve: {error}") from error


@njit(cache=True, nogil=True)
def depth_from_widths(
    ln_sx: float, ln_sy: float, variance_x: float, covariance: float, variance_y: float, table: FloatArray
) -> tuple[float, float, float, bool]:
    """Return depth, its standard error, the squared distance to the curve, and whether the depth is inside.

    `table` is `WidthCurve.table`; variances are those of ln sx and ln sy. The standard error is that of the
    likelihood over depth, and at least that of the curve's slope. The depth is outside when the
    closest point is an end of the curve.
    """
    scatter = WIDTH_SCATTER * WIDTH_SCATTER
    vx = variance_x + scatter
    vy = variance_y + scatter
    determinant = vx * vy - covariance * covariance
    wx = vy / determinant
    wy = vx / determinant
    wxy = -covariance / determinant
    best = 0
    least = np.inf
    steps = table.shape[1]
    for index in range(steps):
        dx = ln_sx - table[1, index]
        dy = ln_sy - table[2, index]
        distance = wx * dx * dx + 2 * wxy * dx * dy + wy * dy * dy
        if distance < least:
            least = distance
            best = index
    inside = 0 < best < steps - 1
    index = min(max(best, 1), steps - 2)
    step_um = table[0, 1] - table[0, 0]
    slope_x = (table[1, index + 1] - table[1, index - 1]) / (2 * step_um)
    slope_y = (table[2, index + 1] - table[2, index - 1]) / (2 * step_um)
    information = wx * slope_x * slope_x + 2 * wxy * slope_x * slope_y + wy * slope_y * slope_y
    if information <= 0:
        return table[0, best], np.inf, least, False
    dx = ln_sx - table[1, best]
    dy = ln_sy - table[2, best]
    shift_um = (wx * slope_x * dx + wxy * (slope_x * dy + slope_y * dx) + wy * slope_y * dy) / information
    moved_um = min(step_um, max(-step_um, shift_um))
    nearest = max(0.0, least + information * moved_um * (moved_um - 2 * shift_um))
    z_um = table[0, best] + moved_um
    # Near a focal line the curve turns within one standard error: the spread of the likelihood itself.
    total = 0.0
    spread = 0.0
    for index in range(steps):
        dx = ln_sx - table[1, index]
        dy = ln_sy - table[2, index]
        weight = math.exp(-0.5 * (wx * dx * dx + 2 * wxy * dx * dy + wy * dy * dy - least))
        total += weight
        spread += weight * (table[0, index] - z_um) ** 2
    return z_um, math.sqrt(max(1 / information, spread / total)), nearest, inside
