"""Measuring detected particles at the limit of the noise: the calibrated PSF model fitted to the pixels."""
