"""Laminar flow through a rectangular channel (Bruus, Theoretical Microfluidics, 2008, section 3.4.6)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
UM3_PER_UL = 1e9
_ODD = np.arange(1, 400, 2, dtype=float)
"""The odd n of the series. Terms fall as n^-3; those beyond 399 sum up to at most 2e-6 of the maximum velocity."""


def channel_velocity_um_s(
    y_um: npt.ArrayLike, z_um: npt.ArrayLike, width_um: float, depth_um: float, flow_ul_s: float
) -> FloatArray:
    """Return the velocity along the channel, um/s (eq. 3.48, scaled to the flow rate by eq. 3.57).

    With h = `depth_um`, w = `width_um` and U the mean velocity:

        v_x(y, z) = (48 / pi^3) U / B  sum_{n odd} n^-3 [1 - cosh(n pi y / h) / cosh(n pi w / 2 h)] sin(n pi z / h)

    where B is the bracket of eq. 3.57 (`_blunting`). In eq. 3.48 the factor is 4 h^2 dp / (pi^3 eta L); the mean of
    that over the section is h^2 dp B / (12 eta L), which gives 48 / (pi^3 B).

    Parameters
    ----------
    y_um, z_um
        Position from the middle of the width and from the floor; both broadcast. The velocity is zero outside.
    width_um, depth_um
        Width w and depth h of the channel.
    flow_ul_s
        Flow rate Q.
    """
    y, z = np.broadcast_arrays(np.asarray(y_um, float), np.asarray(z_um, float))
    a = np.pi * _ODD / depth_um
    shape = np.zeros(y.shape)
    for n, wave in zip(_ODD, a, strict=True):
        shape += (1 - _cosh_ratio(wave, y, width_um / 2)) * np.sin(wave * z) / n**3
    inside = (np.abs(y) < width_um / 2) & (z > 0) & (z < depth_um)
    scale = 48 / math.pi**3 / _blunting(width_um, depth_um)
    velocity: FloatArray = (
        np.where(inside, shape, 0.0) * scale * mean_velocity_um_s(width_um, depth_um, flow_ul_s)
    )
    return velocity


def mean_velocity_um_s(width_um: float, depth_um: float, flow_ul_s: float) -> float:
    """Return the flow rate over the cross-section, um/s."""
    return flow_ul_s * UM3_PER_UL / (width_um * depth_um)


def max_velocity_um_s(width_um: float, depth_um: float, flow_ul_s: float) -> float:
    """Return the velocity in the middle of the channel, um/s."""
    return float(channel_velocity_um_s(0.0, depth_um / 2, width_um, depth_um, flow_ul_s))


def _cosh_ratio(wave: float, y: FloatArray, half_width: float) -> FloatArray:
    """cosh(wave y) / cosh(wave half_width) without overflow."""
    distance = np.minimum(np.abs(y), half_width)
    ratio: FloatArray = (
        np.exp(wave * (distance - half_width))
        * (1 + np.exp(-2 * wave * distance))
        / (1 + np.exp(-2 * wave * half_width))
    )
    return ratio


def _blunting(width_um: float, depth_um: float) -> float:
    """B, the square bracket of eq. 3.57: the flow rate over that between parallel plates.

    B = 1 - sum_{n odd} (192 / (pi^5 n^5)) (h / w) tanh(n pi w / 2 h)
    """
    terms = np.tanh(_ODD * np.pi * width_um / (2 * depth_um)) / _ODD**5
    return float(1 - 192 / math.pi**5 * depth_um / width_um * terms.sum())
