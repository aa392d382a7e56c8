"""Calibration for volumes: PSF, noise, background and training."""
