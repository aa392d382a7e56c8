"""Detections against true positions, from Python."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.evaluation import Evaluation, GroupScore, score
from calibration.matching import GATE_XY_UM, GATE_Z_UM, Matched, match_tables
from liveptv.api.axes import axes_or_new
from stream.errors import ConfigurationError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


class Scores:
    """How many particles were found, and how well; `liveptv.evaluate` makes it.

    `missed` (1 - recall) is the part of the true particles without a detection, `false` (1 - precision) the part of
    the detections without a true particle. `facts` are all numbers by name, as `liveptv evaluate --json` has them.
    """

    def __init__(self, matched: Matched) -> None:
        self._matched = matched
        self._found: Evaluation = score(matched)
        self.missed: float = self._found.missed
        self.false: float = self._found.false
        self.facts: dict[str, Any] = self._found.to_dict()

    def to_pandas(self) -> pd.DataFrame:
        """One row an axis: `bias_um`, `rms_um`, `median_um` of the errors, and true over stated errors."""
        import pandas as pd

        return pd.DataFrame({axis: asdict(errors) for axis, errors in self._found.errors.items()}).T

    def by_depth(self) -> pd.DataFrame:
        """One row a part of the true depths: `from_um`, `to_um`, `particles`, `missed`, rms errors."""
        return _groups(self._found.by_depth)

    def by_distance(self) -> pd.DataFrame:
        """The same by the distance to the nearest neighbour in the plane."""
        return _groups(self._found.by_distance)

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw the errors of depth over the true depth; in 2D those in the plane. Returns the axes."""
        from liveptv.reports.depth_figures import error_over_depth
        from liveptv.reports.look import ONE

        with axes_or_new(axes) as drawn:
            title = f"{100 * self.missed:.1f} % missed, {100 * self.false:.1f} % false"
            if self._matched.depth:
                error_over_depth(drawn, self._matched)
            else:
                drawn.plot(*self._matched.error_um[:2], ".", ms=3, alpha=0.4, color=ONE)
                drawn.set(xlabel="error of x (µm)", ylabel="error of y (µm)", aspect="equal")
                drawn.grid(visible=True, alpha=0.25)
            drawn.set_title(title)
        result: Axes = drawn
        return result

    def plot_recall(self, axes: Axes | None = None) -> Axes:
        """Draw recall over the true depth; returns the axes.

        Raises `ConfigurationError` in 2D, or with few particles.
        """
        from calibration.evaluation import depth_edges
        from liveptv.reports.depth_figures import recall_over_depth

        edges = depth_edges(self._matched.position_um[2])
        if not edges.size:
            raise ConfigurationError("recall over depth needs 80 true particles with depths")
        with axes_or_new(axes) as drawn:
            recall_over_depth(drawn, self._matched, edges)
        result: Axes = drawn
        return result

    def __repr__(self) -> str:
        return (
            f"<Scores: {self._found.true_particles} true particles, {100 * self.missed:.1f} % missed, "
            f"{100 * self.false:.1f} % false>"
        )


def evaluate(
    found: pd.DataFrame | str | os.PathLike[str],
    truth: pd.DataFrame | str | os.PathLike[str],
    *,
    gate_xy_um: float = GATE_XY_UM,
    gate_z_um: float = GATE_Z_UM,
) -> Scores:
    """Compare detections with true positions, as `liveptv evaluate` does.

    Parameters
    ----------
    found, truth : pandas.DataFrame or path
        Detections (or trajectories) and true positions: `frame`, `x_um`, `y_um`, `z_um` where known; or files.
    gate_xy_um, gate_z_um : float
        A detection is at most so far from its particle in the plane and in depth.

    Returns
    -------
    Scores
        `.missed`, `.false`, `.to_pandas()`, `.by_depth()`, `.by_distance()`, `.plot()`, `.plot_recall()`, `.facts`.

    Raises
    ------
    LivePTVError
        For tables that cannot be used.

    Examples
    --------
    >>> liveptv.evaluate(found, truth).plot()
    """
    return Scores(match_tables(_points(truth), _points(found), gate_xy_um=gate_xy_um, gate_z_um=gate_z_um))


def _points(table: pd.DataFrame | str | os.PathLike[str]) -> Mapping[str, Any]:
    from liveptv.api.dataframes import detection_table
    from liveptv.tables.reader import COLUMNS
    from liveptv.track_scores import read_points

    if isinstance(table, str | os.PathLike):
        return read_points(Path(table))
    columns = detection_table(table)
    return {name: np.asarray(getattr(columns, name)) for name in COLUMNS}


def _groups(groups: list[GroupScore]) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for group in groups:
        rms = {f"{axis}_rms_um": errors.rms_um for axis, errors in group.errors.items()}
        rows.append(
            {
                "from_um": group.from_um,
                "to_um": group.to_um,
                "particles": group.particles,
                "missed": group.missed,
                **rms,
            }
        )
    return pd.DataFrame(rows)
