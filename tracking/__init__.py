"""Detections to trajectories: assignment, online tracker, trajectory file, controllers."""
