"""Diffusion in a trajectory file: what it says, its tracks and mean squared displacements as tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from liveptv.config import build_experiment
from liveptv.reports.diffusion_results import (
    DiffusionFindings,
    diffusion_findings,
    positions_um,
    settings_of,
)
from stream.errors import SourceError
from stream.unfinished_files import written_beside
from tracking.physics.diffusion.lasting import AXES
from tracking.physics.diffusion.maps import by_track
from tracking.physics.diffusion.msd import (
    LAGS,
    AnomalousExponent,
    MeanSquaredDisplacements,
    anomalous_exponent,
    mean_squared_displacements,
)
from tracking.physics.diffusion.settings import DiffusionSettings
from tracking.trajectories.file import Trajectories, read_trajectories

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, eq=False)
class FileDiffusion:
    """The trajectories of a file and what they say of diffusion."""

    trajectories: Trajectories
    findings: DiffusionFindings

    def msd(
        self, *, lags: int = LAGS, drift: bool = True, rows: npt.NDArray[np.bool_] | None = None
    ) -> MeanSquaredDisplacements:
        """Mean squared displacements of all trajectories, or of their `rows` (N,)."""
        t = self.trajectories
        position, _ = positions_um(t)
        chosen = slice(None) if rows is None else rows
        return mean_squared_displacements(
            t.track[chosen], t.frame[chosen], position[:, chosen], self.frame_s, lags=lags, drift=drift
        )

    @property
    def frame_s(self) -> float:
        """Median time between two successive frames, s."""
        frames = self.trajectories.frames
        number, time_s = frames["frame"].astype(np.float64), frames["time_s"]
        if number.size < 2:
            return float("nan")
        return float(np.median(np.diff(time_s) / np.diff(number)))


def diffusion_of_file(
    path: Path, given: dict[str, Any] | None = None, *, exposure_ms: float | None = None
) -> FileDiffusion:
    """Diffusion in a trajectory file; settings `given` take the place of the file's.

    Raises `SourceError` if the file cannot be read or has no displacement, `ConfigurationError` for settings that
    cannot be used together.
    """
    trajectories = read_trajectories(path)
    findings = diffusion_findings(
        trajectories, settings_with(settings_of(trajectories.attributes), given), exposure_ms=exposure_ms
    )
    if findings is None:
        raise SourceError(f"{path} has no track of two detections; there is no diffusion to measure")
    return FileDiffusion(trajectories, findings)


def settings_with(settings: DiffusionSettings, given: dict[str, Any] | None) -> DiffusionSettings:
    """The settings with those `given` (not None) in their place; raises `ConfigurationError`."""
    changed = {name: value for name, value in (given or {}).items() if value is not None}
    merged = settings.model_dump(exclude_unset=True) | changed
    return build_experiment({"diffusion": merged}, "diffusion").diffusion


def track_table(findings: DiffusionFindings) -> pd.DataFrame:
    """One row a track: `track`, `displacements`, D along each axis, mean D, their standard errors, and `kind`."""
    import pandas as pd

    tracks = by_track(findings.result)
    columns: dict[str, npt.NDArray[Any]] = {"track": tracks.track, "displacements": tracks.displacements}
    columns["um2_s"] = tracks.mean_um2_s
    columns["standard_error_um2_s"] = tracks.mean_standard_error_um2_s
    for at, axis in enumerate(findings.result.axes):
        columns[f"{axis.axis}_um2_s"] = tracks.um2_s[at]
        columns[f"{axis.axis}_standard_error_um2_s"] = tracks.standard_error_um2_s[at]
    columns["kind"] = tracks.kind
    return pd.DataFrame(columns)


def msd_table(found: MeanSquaredDisplacements) -> pd.DataFrame:
    """One row a lag: `lag_s`, `pairs`, and the mean squared displacement along each axis, with standard errors."""
    import pandas as pd

    columns: dict[str, npt.NDArray[Any]] = {"lag_s": found.lag_s, "pairs": found.pairs}
    for axis, msd, error in zip(AXES, found.msd_um2, found.standard_error_um2, strict=False):
        columns[f"{axis}_um2"] = msd
        columns[f"{axis}_standard_error_um2"] = error
    return pd.DataFrame(columns)


def exponents(found: MeanSquaredDisplacements) -> dict[str, AnomalousExponent]:
    """The anomalous exponent of each axis, by its name."""
    return {AXES[axis]: anomalous_exponent(found, (axis,)) for axis in range(len(found.msd_um2))}


def write_csv(table: pd.DataFrame, path: Path, *, overwrite: bool) -> None:
    """Write a table, complete or not at all. Raises `OutputError` if the file exists or cannot be written."""
    with written_beside(path, overwrite=overwrite) as part:
        table.to_csv(part, index=False, float_format="%.8g")
