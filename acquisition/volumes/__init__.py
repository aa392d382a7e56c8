"""Volumes from a microscope: the z plan, scanning the focus with the camera, and putting slices in their places."""
