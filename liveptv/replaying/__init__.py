"""Replays of recorded runs: which files belong together, and whether the result must be that of the run."""
