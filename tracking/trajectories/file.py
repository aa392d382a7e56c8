"""The trajectory file: what it holds (`trajectory_schema`), its writer, and its readers."""

from tracking.trajectories.reader import Trajectories, TrajectoryFile, read_trajectories
from tracking.trajectories.writer import TrajectoryWriter, annotate

__all__ = ["Trajectories", "TrajectoryFile", "TrajectoryWriter", "annotate", "read_trajectories"]
