"""Layout of the volume network's input and output, shared by training, export and decoding."""

from __future__ import annotations

STRIDE = 4
"""Pixels per cell, along x and y."""
STEP = 2
"""Slices per cell, along z: of a particle seen in three to four slices both have a part."""
BLOCK_PX = 8
"""Height and width of the input are multiples of it."""
LOGIT, X, Y, Z, BRIGHTNESS, SIGMA_X, SIGMA_Y, SIGMA_Z, SIGMA_BRIGHTNESS = range(9)
CHANNELS = 9
"""Values of a cell. x, y and z are off the cell's centre, in cells; the brightness is the natural logarithm of the
peak over the standard deviation of the background's noise; the standard errors are in the same units. A cell holds
one particle at most; where two have their centres in one, a neighbour tells of the second."""

LEAST_SIGMA = (0.004, 0.004, 0.008, 0.01)
"""The smallest standard errors of x, y, z and brightness that the network can state."""
LOG_SIGMA_RANGE = (-8.0, 3.0)
"""Planes hold the logarithms, clipped to this range, of the standard errors minus the smallest ones."""

ABSENT = -1000.0
"""Value of all voxels of a slice without an image. Those of one with an image are (grey value - background) over
the noise of the background, which is above -100 for any camera of 16 bits."""
LEAST_PRESENT = -500.0
"""A slice whose first voxel is below has no image."""
