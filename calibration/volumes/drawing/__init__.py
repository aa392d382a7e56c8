"""Training volumes, drawn from the calibration's PSF, noise and background."""
