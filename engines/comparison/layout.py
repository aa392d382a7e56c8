"""Layout of the paper's detector's output, shared by the network, its loss and its reading."""

from __future__ import annotations

REGION_PX = 32
"""Pixels of a region, along x and y; images are padded to multiples of it."""
HALF_REGION_PX = REGION_PX / 2
CENTRE_PX = (REGION_PX - 1) / 2
"""Centre of the first region, from the centre of its first pixel."""
OUTPUTS = 4
"""Particles that a region can output."""
FIRST, CORRECTED = range(2)
"""Answers of an output: that of the LSTM, and the one corrected by the interpolated early features."""
LOGIT, X, Y, Z = range(4)
"""Values of an answer: logit of its confidence; x and y from the region's centre, in half regions; z from the
middle of the depth range, in half ranges."""
