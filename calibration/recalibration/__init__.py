"""Updates the named terms of a PSF model from recorded particles: no scan, a new version of the model."""
