"""Calibration from stacks of beads: PSF, noise, background and voxel size of volumes."""
