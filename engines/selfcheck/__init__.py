"""Checks during a run whether the images of particles still are those of the calibration."""
