"""Positions of the particles: a first batch without overlaps, and a second one that overlaps part of the first.

Franchini & Krevor (2020), section 2.1.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from calibration.errors import CalibrationError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

PAPER_DENSITY = 200 / (1440 * 2560)
_TRIES = 24


@dataclass(frozen=True, slots=True)
class Layout:
    """Number and positions of the particles in an image.

    `density_per_px`: particles a pixel, both batches together, drawn for every image evenly from this range;
    their number is Poisson. `overlapped`: the fraction of the first batch that is overlapped by particles of
    the second, by `partners` of them on average, one at least. Their offset is, with probability
    `uniform_part`, uniform within `limit_px` along x and y, otherwise normal with `near_variance_px2` along
    each and within the same limit. A source puts the paper's values where these two are None: half the
    cut-out's size, and as many px^2 as the largest particle image is px long.
    """

    density_per_px: tuple[float, float] = (PAPER_DENSITY, PAPER_DENSITY)
    overlapped: float = 0.5
    partners: float = 1.0
    uniform_part: float = 0.4
    near_variance_px2: float | None = None
    limit_px: float | None = None

    def __post_init__(self) -> None:
        low, high = self.density_per_px
        if not 0 <= low <= high:
            raise CalibrationError(f"a density rises from 0 or more, unlike {low}, {high}")
        if not (0 <= self.overlapped <= 1 and 0 <= self.uniform_part <= 1 and self.partners >= 1):
            raise CalibrationError("overlapped and uniform_part are from 0 to 1, partners is 1 or more")
        for name in ("near_variance_px2", "limit_px"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise CalibrationError(f"{name} must be positive, not {value}")

    def numbers(self, rng: np.random.Generator, area_px: float) -> tuple[int, int]:
        """Particles of the first and of the second batch on so many pixels."""
        count = rng.poisson(rng.uniform(*self.density_per_px) * area_px)
        first = int(count / (1 + self.overlapped * self.partners) + rng.random())
        first = min(max(first, 1), count)
        return first, count - first


class Spread(NamedTuple):
    """The second batch's offsets in px: variance of the normal part, and their limit."""

    near_variance_px2: float
    limit_px: float

    @classmethod
    def of(cls, layout: Layout, reach_px: FloatArray, half_px: int) -> Spread:
        """A layout's, or the paper's for particles that reach so far (J, 2) in cut-outs of this half size."""
        return cls(
            layout.near_variance_px2 or 2.0 * float(reach_px.max()),
            layout.limit_px or float(half_px),
        )


def positions(
    rng: np.random.Generator,
    layout: Layout,
    spread: Spread,
    shape: tuple[int, int],
    margin_px: float,
    first: int,
    half_px: FloatArray,
) -> FloatArray:
    """Centres (N, 2) as y, x in px, the `first` ones of them the first batch.

    They lie in the image or within `margin_px` of it, with the same density everywhere: the area is
    periodic, and distances are measured accordingly. `half_px` (N, 2) is how far each image
    reaches along y and x. The boxes of the first batch do not overlap, unless there is no room (24 places are
    tried): then they are as far apart as the best of these.
    """
    count = half_px.shape[0]
    start = -0.5 - margin_px
    size = np.array(shape) + 2.0 * margin_px
    centres = np.empty((count, 2))
    spread_out(rng.uniform(0.0, size, (first, _TRIES, 2)), half_px, size, centres)
    if count > first:
        hosts = overlapped_hosts(rng, layout, first, count - first)
        moved = centres[hosts] + offsets(rng, layout, spread, count - first)
        centres[first:] = moved % size
    return centres + start


def overlapped_hosts(rng: np.random.Generator, layout: Layout, first: int, second: int) -> IntArray:
    """Which of the `first` particles each of the second batch overlaps, (second,)."""
    chosen = rng.permutation(first)[: max(1, round(second / layout.partners))]
    hosts = rng.choice(chosen, second)
    hosts[: chosen.size] = chosen[:second]
    return hosts


def offsets(rng: np.random.Generator, layout: Layout, spread: Spread, count: int) -> FloatArray:
    """Offsets (count, 2) of the second batch, px along y and x."""
    limit = spread.limit_px
    far = rng.random(count) < layout.uniform_part
    found = rng.uniform(-limit, limit, (count, 2))
    near = rng.normal(0.0, np.sqrt(spread.near_variance_px2), (count, 2))
    while (beyond := np.abs(near) > limit).any():
        near[beyond] = rng.normal(0.0, np.sqrt(spread.near_variance_px2), np.count_nonzero(beyond))
    found[~far] = near[~far]
    return found


@njit(cache=True, nogil=True)
def spread_out(candidates: FloatArray, half_px: FloatArray, size: FloatArray, centres: FloatArray) -> None:
    """Fill the first centres with the first candidate that is free, or the one with the widest gap."""
    for n in range(candidates.shape[0]):
        best = -np.inf
        for k in range(candidates.shape[1]):
            gap = np.inf
            for m in range(n):
                apart_y = abs(candidates[n, k, 0] - centres[m, 0])
                apart_y = min(apart_y, size[0] - apart_y) - half_px[n, 0] - half_px[m, 0]
                apart_x = abs(candidates[n, k, 1] - centres[m, 1])
                apart_x = min(apart_x, size[1] - apart_x) - half_px[n, 1] - half_px[m, 1]
                gap = min(gap, max(apart_y, apart_x))
                if gap <= best:
                    break
            if gap > best:
                best = gap
                centres[n] = candidates[n, k]
            if best >= 0:
                break
