"""D along an axis from positions averaged over several frames, where errors are large and may last over frames.

Errors that successive frames share, of covariance C(m) between positions m frames apart, look like diffusion: the
covariance-based D is D + (C(1) - C(2)) / u, and nothing in a few displacements tells one from the other. Of means
over blocks of b frames the same holds with their covariances one and two blocks apart, over b u: both become small
once a block is longer than errors last. Independent errors become smaller by b as well, so that where sqrt(D u) is
below them, D is known better, up to blocks in which the particle moves as far as the mean is uncertain.

Blocks of 1, 2, 4, 8 and 16 frames are looked at: of those from the best known on, the shortest whose D is not
larger than that of any longer ones counts (the idea of Lepski, Theory Probab. Appl. 35, 454, 1990), or, where
errors surely last, the next longer one. Two lengths are compared by the same tracks, those that are long enough for
both: particles that diffuse more leave sooner.

Particles that are held look the same: a trap makes D of longer blocks smaller, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tracking.physics.diffusion.covariance import Moments, moments, solve
from tracking.physics.diffusion.segments import Segments

FloatArray = npt.NDArray[np.float64]

BLOCKS = (1, 2, 4, 8, 16)
FEWEST_STEPS = 3
"""Displacements of block means in a segment at least: one is for the velocity, two tell D from errors."""
FEWEST_TRACKS = 30
"""Tracks from which a block length is looked at: their scatter knows the standard errors to 13 %."""
SURE = 3.0
"""Standard errors by which D of shorter blocks must be larger to show errors that last. A false alarm (one in a few
hundred) makes D less certain, no more; with 2 one in ten would."""
TOLD = 4.0
"""Standard errors by which D of shorter blocks must be larger than the one that counts before it is said: by chance
in one look of a thousand, as 20 parts know a standard error so well (four lengths, Student's t)."""
ABOVE = 2.0
"""Standard errors by which D must be above that in the plane to be an upper limit only, which is true all the same
in the one case of 40 in which chance does it."""
LEFT = 0.25
"""What errors add to D of blocks, over what they add to those half as long: a fourth if they last for half a block,
an eighth if they are soon forgotten (exponentially forgotten errors; D is then (C(1) - C(2)) / b u too large)."""
PARTS = 20  # groups of tracks of the jackknife: it then knows a standard error to 16 %
BOUND = 1.645  # standard errors above a normal value that 95 % are below


@dataclass(frozen=True, slots=True)
class AveragedDiffusion:
    """D, um^2/s, and its standard error, from means over `block` frames.

    `lasting`: whether shorter blocks surely show errors that last over frames. `at_most`: whether D is only an
    upper limit, as errors last as long as the longest blocks, or, of the depth, as it is larger than in the plane
    (`beside`).
    """

    um2_s: float
    standard_error_um2_s: float
    block: int
    lasting: bool
    at_most: bool

    def beside(self, plane: tuple[float, float]) -> AveragedDiffusion:
        """The same, judged by D across the axis and its standard error, um^2/s, NaN where not known.

        No wall, and nothing else that acts on a sphere at rest in its liquid, makes D along the depth larger.
        """
        d, error = plane
        if not (math.isfinite(d) and math.isfinite(error)):
            return self
        above = self.um2_s - d > ABOVE * math.hypot(self.standard_error_um2_s, error)
        return replace(self, at_most=above)

    @property
    def limit_um2_s(self) -> float:
        """What D is below with a probability of 95 %."""
        return limit_um2_s(self.um2_s, self.standard_error_um2_s)


def limit_um2_s(um2_s: float, standard_error_um2_s: float) -> float:
    """What D is below with a probability of 95 %, um^2/s."""
    return max(um2_s, 0.0) + BOUND * standard_error_um2_s


def block_moments(segments: Segments, *, drift: bool = True) -> list[Moments]:
    """The sums of the means over each of `BLOCKS`; without any segment where none is long enough."""
    return [moments(averaged(segments, block), drift=drift) for block in BLOCKS]


def averaged(segments: Segments, block: int) -> Segments:
    """Segments of the means over `block` successive positions, of segments that are long enough.

    What is left of a segment behind its last full block is not used. The time of a mean is the mean time: that
    particles diffuse within a block is part of s, as motion blur is.
    """
    steps = (segments.steps + 1) // block - 1
    long = steps >= FEWEST_STEPS
    steps = steps[long]
    count = int(steps.max(initial=FEWEST_STEPS)) + 1
    place = _means(segments.moved_um[:, long], count, block)
    time_s = _means(segments.over_s[long], count, block)
    inside = np.arange(count - 1) < steps[:, None]
    moved, over = (np.where(inside, np.diff(one), 0.0) for one in (place, time_s))
    middle = np.where(inside, (place[..., 1:] + place[..., :-1]) / 2.0, 0.0)
    return Segments(
        segments.track[long],
        steps,
        moved,
        middle,
        over,
        segments.place_um[:, long],
        np.ones((len(place), steps.size)),
        segments.kept,
        segments.cut,
    )


def _also_longer(sums: Moments, times: int) -> Moments:
    """Of the sums of a block length, those of segments that are long enough for blocks so many times as long."""
    return sums.of((sums.steps + 1) // times - 1 >= FEWEST_STEPS)


def _means(steps: FloatArray, count: int, block: int) -> FloatArray:
    """Means (..., count) over blocks of the sums of `steps` (..., L) so far, beginning at 0."""
    at = np.zeros((*steps.shape[:-1], count * block))
    known = min(steps.shape[-1], count * block - 1)
    at[..., 1 : known + 1] = np.cumsum(steps[..., :known], axis=-1)
    means: FloatArray = at.reshape(*steps.shape[:-1], count, block).mean(axis=-1)
    return means


def together(looks: Sequence[Sequence[Moments]]) -> list[Moments]:
    """The sums of each block length of several looks, as one."""
    return [_joined([look[at] for look in looks]) for at in range(len(BLOCKS))]


def _joined(parts: list[Moments]) -> Moments:
    longest = max(part.over_s.shape[1] for part in parts)
    over = [np.pad(part.over_s, ((0, 0), (0, longest - part.over_s.shape[1]))) for part in parts]
    return Moments(
        np.concatenate([part.found for part in parts], axis=-1),
        np.concatenate([part.expected for part in parts], axis=-1),
        np.concatenate(over),
        np.concatenate([part.track for part in parts]),
        np.concatenate([part.steps for part in parts]),
        parts[0].drift,
    )


def from_averages(of_blocks: Sequence[Moments], axis: int) -> AveragedDiffusion | None:
    """D along an axis from the sums of each block length; None where too few tracks are long enough for any."""
    along = [sums.along(np.array([axis])) for sums in of_blocks]
    some = [at for at, sums in enumerate(along) if np.unique(sums.track).size >= FEWEST_TRACKS]
    if not some:
        return None
    solved = [solve(along[at]) for at in some]
    d = np.array([float(one.um2_s[0, 0]) for one in solved])
    error = np.array([float(one.standard_error_um2_s[0, 0]) for one in solved])
    if not np.isfinite(error).any():
        return None
    chosen = int(np.nanargmin(error))
    while any(_larger_by(along, some[chosen], longer) > SURE for longer in some[chosen + 1 :]):
        chosen += 1
    lasting = any(_larger_by(along, shorter, some[chosen]) > TOLD for shorter in some[:chosen])
    at_most = lasting and chosen + 1 == len(some)  # no longer blocks say whether these are long enough
    known_to = float(error[chosen])
    if lasting and not at_most:  # the next ones are: what is less than `SURE` may still be there
        chosen += 1
        known_to = math.hypot(float(error[chosen]), LEFT * max(float(d[chosen - 1] - d[chosen]), 0.0))
    return AveragedDiffusion(float(d[chosen]), known_to, BLOCKS[some[chosen]], lasting, at_most)


def _larger_by(of_blocks: Sequence[Moments], shorter: int, longer: int) -> float:
    """By how many standard errors D of a block length is larger than that of a longer one, by the same tracks."""
    same = _also_longer(of_blocks[shorter], BLOCKS[longer] // BLOCKS[shorter])
    more = _without_each_part(same) - _without_each_part(of_blocks[longer])
    parts = more[:-1]
    error = math.sqrt((PARTS - 1) / PARTS * float(((parts - parts.mean()) ** 2).sum()))
    return float(more[-1]) / error if error > 0 else -math.inf  # that is also where one is not known


def _without_each_part(sums: Moments) -> FloatArray:
    """D (PARTS + 1,) from all tracks but those of each part, and from all."""
    _, track = np.unique(sums.track, return_inverse=True)
    part = track % PARTS
    found = np.stack([np.bincount(part, row, PARTS) for row in sums.found[0]])
    expected = np.array([[np.bincount(part, one, PARTS) for one in row] for row in sums.expected])
    found = found.sum(axis=-1, keepdims=True) - np.pad(found, ((0, 0), (0, 1)))
    expected = expected.sum(axis=-1, keepdims=True) - np.pad(expected, ((0, 0), (0, 0), (0, 1)))
    determinant = expected[0, 0] * expected[1, 1] - expected[0, 1] * expected[1, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        d: FloatArray = (found[0] * expected[1, 1] - found[1] * expected[0, 1]) / determinant
    return d
