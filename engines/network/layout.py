"""Layout of the network's output, shared by training, export and decoding."""

from __future__ import annotations

STRIDE = 4
"""Pixels per cell, along x and y."""
BLOCKS: dict[str, tuple[int, int, int]] = {"small": (1, 1, 2), "large": (2, 2, 4)}
"""Residual blocks, one convolution of 3 x 3 cells each, at a quarter, an eighth and a sixteenth of the
resolution."""
SLOTS = 2
"""Particles a cell can hold."""
SLOT_DEPTH = (-0.5, 0.5)
"""Depth that each slot starts from, in half depth ranges: it makes the slots unlike one another."""

LOGIT, X, Y, Z, BRIGHTNESS, SIGMA_X, SIGMA_Y, SIGMA_Z, SIGMA_BRIGHTNESS = range(9)
CHANNELS = 9
"""Values of a slot. x and y are off the cell's centre, in cells; z off the middle of the depth range, in half
ranges; the brightness relative to the mean particle's; the standard errors in the same units."""

MOST_KINDS = 3
"""Classes of particles that one network tells apart. With two or three, planes with the logit of each class follow
the values of all slots: those of the first slot, then those of the second. A network for one kind has none."""

MOST_LEARNT = 8
"""Numbers that a network learns beside x, y, z, brightness and class, such as a radius. With some, planes follow
all others: their values of the first slot, the logarithms of their standard errors, then those of the second slot.
Their units are half ranges off the middle of each range."""
LEAST_LEARNT_SIGMA = 0.004
"""The smallest standard error that the network can state of them, as of x and y."""

LEAST_SIGMA = (0.004, 0.004, 0.002, 0.02)
"""The smallest standard errors of x, y, z and brightness that the network can state."""

LOG_SIGMA_RANGE = (-8.0, 3.0)
"""A model file gives planes (slots x values, H/4, W/4). The last four values of a slot are the logarithms, clipped
to this range, of the standard errors minus the smallest ones."""


def class_values(kinds: int) -> int:
    """Values that a slot has more, for its class."""
    return kinds if kinds > 1 else 0


def planes_of(kinds: int, learnt: int) -> int:
    """Planes of a network for so many kinds and learnt numbers."""
    return SLOTS * (CHANNELS + class_values(kinds) + 2 * learnt)
