"""Maps as a network would make them, for particles at known places."""

from __future__ import annotations

import numpy as np

from engines.network.layout import CHANNELS, LEAST_SIGMA, LOGIT, SIGMA_X, SLOTS, STRIDE, X


def empty_maps(height_px: int = 64, width_px: int = 96, classes: int = 0) -> np.ndarray:
    maps = np.zeros((height_px // STRIDE, width_px // STRIDE, SLOTS, CHANNELS + classes), np.float32)
    maps[..., LOGIT] = -9.0
    maps[..., SIGMA_X:CHANNELS] = 0.05
    return maps


def put(maps, x_px, y_px, z, *, p=1.0, slot=0, cell=None, sigma=0.05, brightness=1.0):
    """Say in one slot that a particle is there; `cell` (row, column) is its own unless given."""
    x, y = (x_px + 0.5) / STRIDE, (y_px + 0.5) / STRIDE
    row, column = cell or (int(y), int(x))
    values = maps[row, column, slot]
    p = min(p, 1 - 1e-4)
    values[LOGIT] = np.log(p / (1 - p))
    values[X : X + 4] = x - column - 0.5, y - row - 0.5, z, brightness
    values[SIGMA_X:CHANNELS] = sigma


def as_planes(maps: np.ndarray) -> np.ndarray:
    """The same as a model file answers it."""
    values = maps.copy()
    sigma = slice(SIGMA_X, CHANNELS)
    values[..., sigma] = np.log(maps[..., sigma] - np.array(LEAST_SIGMA, np.float32))
    parts = [values[..., :CHANNELS], values[..., CHANNELS:]]
    every = np.concatenate([part.reshape(*maps.shape[:2], SLOTS * part.shape[-1]) for part in parts], axis=2)
    return np.ascontiguousarray(every.transpose(2, 0, 1))
