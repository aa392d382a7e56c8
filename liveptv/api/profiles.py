"""The velocity profile of a trajectory file: a table, and the figure of a paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from liveptv.api.axes import axes_or_new
from liveptv.reports.profile import MIN_LENGTH, flow_profile
from stream.errors import ConfigurationError
from tracking.trajectories.file import Trajectories

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


class Profile:
    """Velocity along x over the height, over y in 2D; `TrajectoryView.profile` makes it.

    `deviation` is the largest difference of a bin from the laminar flow at the pump's set-point, over that flow's
    maximum; NaN where channel or flow are not known. Raises `ConfigurationError` if no trajectory is long enough.
    """

    def __init__(self, trajectories: Trajectories) -> None:
        self._found = flow_profile(trajectories)
        if not self._found.tracks.track.size:
            raise ConfigurationError(
                f"no trajectory has {MIN_LENGTH} detections, from which its velocity counts; measure longer"
            )
        self.deviation: float = self._found.deviation

    def to_pandas(self) -> pd.DataFrame:
        """One row a bin: `height_um` (`y_um` in 2D), `velocity_um_s`, `standard_error_um_s`, `tracks`."""
        import pandas as pd

        bins = self._found.measured
        return pd.DataFrame(
            {
                f"{self._found.over}_um": bins.height_um,
                "velocity_um_s": bins.velocity_um_s,
                "standard_error_um_s": bins.standard_error_um_s,
                "tracks": bins.tracks,
            }
        )

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw trajectories, bins with standard errors, and the laminar flow where known; returns the axes."""
        from liveptv.reports.drawn import draw_profile

        with axes_or_new(axes) as drawn:
            draw_profile(drawn, self._found)
        result: Axes = drawn
        return result

    def __repr__(self) -> str:
        return f"<Profile of {self._found.tracks.track.size} trajectories over {self._found.over}>"
