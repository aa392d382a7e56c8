"""The trajectory file: what it holds (`trajectory_schema`), its writer, and its readers."""

from tracking.trajectories.annotation import annotate
from tracking.trajectories.columns import Trajectories
from tracking.trajectories.reader import TrajectoryFile, read_trajectories
from tracking.trajectories.writer import TrajectoryWriter

__all__ = ["Trajectories", "TrajectoryFile", "TrajectoryWriter", "annotate", "read_trajectories"]
