"""Notices when particles move farther between two frames than links can resolve.

Then the links are between different particles, and look like slow particles with large random steps: the median
velocity can be 2 for 150. What gives them away is the size of the steps that the motion leaves unexplained: beside
the mean distance between neighbours it is below 0.05 where links are right and above 0.25 where they are not, in
flow and in diffusion (tests/tracking/test_displacements.py). Where no links at all are found, most detections are
new ones in each frame.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from stream.messages import TrackFlag, Tracks

FloatArray = npt.NDArray[np.float64]

UNRESOLVED_SPACINGS = 0.23
"""Random step a frame and axis, over the mean distance between neighbours."""
DOUBTFUL_SPACINGS, DOUBTFUL_NEW, DOUBTFUL_MISSED = 0.08, 0.12, 0.2
"""Smaller steps are too large as well where so many detections are new and so many predictions missed: some links
of a sheared flow are right, others not. In diffusion as large few are."""
MOST_NEW, FEWEST_FOLLOWED = 0.3, 0.6
"""More than this share of detections new, and less than this share in confirmed tracks: most are not followed."""
FEWEST_PARTICLES = 5
PERSISTENT_FRAMES = 6
"""So many frames in a row are beyond what links resolve before it is said, twice as many where it is less clear:
the first ones are learnt from."""
MEDIAN_TO_SIGMA = 1.4826
ADVICE = "take more frames a second, or fewer particles; such velocities are not to be trusted"


class DisplacementWatch:
    """Looks at each frame's tracks; `remark` is one line once it is sure, "" before that.

    `unresolved` counts the frames beyond what links can resolve. `is_flow` tells whether velocities are those of a
    filter, or differences between two frames.
    """

    def __init__(self, *, is_flow: bool) -> None:
        self.unresolved = 0
        self.remark = ""
        self._is_flow = is_flow
        self._in_a_row = 0
        self._before: Tracks | None = None

    def look(self, tracks: Tracks, spacing_um: float, step_um: float, frame_s: float, born: int) -> None:
        """Take a frame: its tracks, the mean distance of neighbours, the random step learnt (NaN: from the tracks),
        the time between frames, and how many tracks were born in it."""
        measured = tracks.detection >= 0
        count = int(measured.sum())
        if not self._is_flow:
            step_um = self._step_of(tracks, frame_s)
        before, self._before = self._before, tracks
        if before is None or count < FEWEST_PARTICLES or frame_s <= 0 or spacing_um <= 0:
            self._in_a_row = 0
            return
        confirmed = int(((tracks.flags[measured].astype(np.int64) & TrackFlag.TENTATIVE) == 0).sum())
        followed = confirmed / count if self._is_flow else 1.0 - born / count
        missed = len(tracks) - count
        doubtful = born > DOUBTFUL_NEW * count and missed > DOUBTFUL_MISSED * count
        clear = step_um > UNRESOLVED_SPACINGS * spacing_um
        large = clear or (doubtful and step_um > DOUBTFUL_SPACINGS * spacing_um)
        few = born > MOST_NEW * count and followed < FEWEST_FOLLOWED
        self._in_a_row = self._in_a_row + 1 if large or few else 0
        sure = self._in_a_row >= (PERSISTENT_FRAMES if clear else 2 * PERSISTENT_FRAMES)
        self.unresolved += sure
        if sure and not self.remark:
            self.remark = _remark(tracks, large, step_um, spacing_um, born / count)

    def _step_of(self, tracks: Tracks, frame_s: float) -> float:
        """Random step, um, from how the displacements of linked particles differ from frame to frame; NaN: none."""
        if self._before is None:
            return math.nan
        _, now, then = np.intersect1d(tracks.track, self._before.track, return_indices=True)
        changes = [
            (getattr(tracks, name)[now] - getattr(self._before, name)[then]) * frame_s
            for name in ("vx_um_s", "vy_um_s")
        ]
        sizes = np.abs(np.concatenate(changes))
        sizes = sizes[np.isfinite(sizes)]
        if sizes.size < 2 * FEWEST_PARTICLES:
            return math.nan
        return MEDIAN_TO_SIGMA * float(np.median(sizes)) / math.sqrt(2.0)


def _remark(tracks: Tracks, large: bool, step_um: float, spacing_um: float, new: float) -> str:
    frame = tracks.info.frame
    if large:
        return (
            f"particles seem to jump by {step_um:.3g} um a frame at random, {step_um / spacing_um:.2f} of the mean "
            f"distance between neighbours (frame {frame}): they move farther than links can resolve; {ADVICE}"
        )
    return (
        f"{100 * new:.0f} % of the particles in frame {frame} continue no track: they move farther than links can "
        "resolve, or many detections are false; take more frames a second, or check the detections"
    )


def summary_of(counts: Mapping[str, int]) -> str:
    """One line on what the counts of a tracking stage say was beyond links or messages; "" where nothing was."""
    said = {
        "unresolved": "displacements beyond what links can resolve in {n} frames",
        "rows_left_out": "{n} predicted rows left out",
    }
    return "; ".join(text.format(n=counts[name]) for name, text in said.items() if counts.get(name))
