"""The trajectory file: its writer and its readers, to import from one place. `schema` says what it holds."""

from tracking.trajectories.annotation import annotate
from tracking.trajectories.columns import Trajectories
from tracking.trajectories.reader import TrajectoryFile, read_trajectories
from tracking.trajectories.writer import TrajectoryWriter

__all__ = ["Trajectories", "TrajectoryFile", "TrajectoryWriter", "annotate", "read_trajectories"]
