"""Detects that particles move farther between two frames than links can resolve.

Links then join different particles and look like slow particles with large random steps: the median velocity may
come out as 2 instead of 150 um/s. The criterion is the size of the random step (what the predicted motion does not
explain) over the mean distance between neighbours: it is below 0.05 where links are right and above 0.25 where they
are wrong, in flow and in diffusion (tests/tracking/test_displacements.py). If no links are found at all, most
detections of each frame are new.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from stream.messages import TrackFlag, Tracks
from tracking.analysis.robust import SIGMA_OF_MAD

FloatArray = npt.NDArray[np.float64]

UNRESOLVED_SPACINGS = 0.23
"""Random step for each frame and axis, over the mean distance between neighbours, above which links are not
resolved. It lies in the gap between right links (below 0.05; diffusion can be followed up to 0.2) and wrong ones
(above 0.25), so that a change by a tenth of it hardly matters."""
DOUBTFUL_SPACINGS, DOUBTFUL_NEW, DOUBTFUL_MISSED = 0.08, 0.12, 0.2
"""Smaller random steps are too large as well if more than these shares of the detections are new and of the
predictions missed: in a sheared flow some links are right, others not. In diffusion with as large a step few
are."""
MOST_NEW, FEWEST_FOLLOWED = 0.3, 0.6
"""More than this share of detections new, and less than this share in confirmed tracks: most are not followed. With
right links both are far off (3 % false detections, 5 % new ones)."""
FEWEST_PARTICLES = 5
"""Detections in a frame that are judged; shares and medians of fewer are too uncertain."""
PERSISTENT_FRAMES = 6
"""Frames in a row beyond the limit before it is reported; twice as many for the doubtful criteria. The first frames
always have large steps, because motion is still being learnt; more frames only report later."""
ADVICE = "increase the frame rate or use fewer particles; these velocities are not reliable"


class DisplacementWatch:
    """Judges each frame's tracks; `remark` is one line once the result is sure, "" before.

    `unresolved` counts the frames with displacements beyond what links can resolve. `is_flow` says whether
    velocities come from the filter or are differences between two frames.
    """

    def __init__(self, *, is_flow: bool) -> None:
        self.unresolved = 0
        self.remark = ""
        self._is_flow = is_flow
        self._in_a_row = 0
        self._before: Tracks | None = None

    def look(self, tracks: Tracks, spacing_um: float, step_um: float, frame_s: float, born: int) -> None:
        """Judge a frame.

        Parameters
        ----------
        tracks
            Its tracks.
        spacing_um
            Mean distance between neighbours.
        step_um
            Random step of a frame and axis as learnt by the filter (without a filter it comes from the tracks).
        frame_s
            Time since the frame before.
        born
            Number of tracks that began in it.
        """
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
        """Random step, um, from the change of linked particles' displacements from frame to frame; or NaN."""
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
        return SIGMA_OF_MAD * float(np.median(sizes)) / math.sqrt(2.0)


def _remark(tracks: Tracks, large: bool, step_um: float, spacing_um: float, new: float) -> str:
    frame = tracks.info.frame
    if large:
        return (
            f"particles seem to jump at random by {step_um:.3g} um per frame, {step_um / spacing_um:.2f} of the "
            f"mean distance between neighbours (frame {frame}): they move farther than links can resolve; {ADVICE}"
        )
    return (
        f"{100 * new:.0f} % of the particles in frame {frame} continue no track: they move farther than links can "
        "resolve, or many detections are false; increase the frame rate, or check the detections"
    )


def summary_of(counts: Mapping[str, int]) -> str:
    """One line on frames that links could not resolve and rows that were left out; "" if there were none."""
    said = {
        "unresolved": "displacements beyond what links can resolve in {n} frames",
        "rows_left_out": "{n} predicted rows left out",
    }
    return "; ".join(text.format(n=counts[name]) for name, text in said.items() if counts.get(name))
