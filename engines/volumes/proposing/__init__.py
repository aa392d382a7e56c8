"""Proposals without training: matched filter, and Laplacian of Gaussian (SEF3D)."""
