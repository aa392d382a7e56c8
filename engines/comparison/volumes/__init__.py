"""The networks of Spilger et al. for particles in volumes, DetNet3D and DM-DetNet3D, as comparisons.

`hourglass` is their network, `targets` and `losses` are what they are trained with, `training` trains, `model`
writes and runs them as ONNX, `maxima` reads positions from their maps as the paper does: whole voxels.
"""
