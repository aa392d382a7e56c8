"""Recalibration of a model from a run's own particles: what the command and a live run share."""
