"""Elapsed time and camera frames between the frames that the tracker receives, including lost ones."""

from __future__ import annotations

from collections import deque

from stream.messages import FrameInfo

SHORTEST_S, LONGEST_S = 1e-9, 1e6
"""Times between two frames that are believed, s. They are far outside what cameras do: only wrong or missing times
are replaced by `frame_rate_hz`."""
RECENT = 5
"""Steps between tracked frames of which the second longest is the typical one: a single long loss does not count,
and a change to every k-th frame does at the second step. More steps remember a change back for longer."""


class FrameClock:
    """Follows the frames' numbers and times.

    Elapsed frames are counted by the camera's image number if it increases, else by the frame number. `dt_s` comes
    from the frames' times if they increase (by `SHORTEST_S` to `LONGEST_S`), else from elapsed frames and
    `frame_rate_hz`. `typical` is how many frames the tracked ones are apart lately: 1, or k where only every k-th
    is tracked because the detector is slower than the camera.
    """

    def __init__(self, frame_rate_hz: float) -> None:
        self._frame_rate_hz = frame_rate_hz
        self._last: FrameInfo | None = None
        self._steps: deque[int] = deque(maxlen=RECENT)
        self.elapsed = 0
        self.typical = 1
        self.dt_s = 0.0
        self.frame_s = 0.0

    def advance(self, info: FrameInfo) -> bool:
        """Advance to a frame; False, without any effect, if its number is not greater than the last one's.

        Sets `elapsed` (frames since the first), `typical`, `dt_s` (since the last frame, 0 for the first) and
        `frame_s` (time between successive camera frames).
        """
        last = self._last
        if last is not None and info.frame <= last.frame:
            return False
        self._last = info
        if last is None:
            return True
        by_camera = info.camera_frame - last.camera_frame
        frames = by_camera if by_camera > 0 else info.frame - last.frame
        dt = info.time_s - last.time_s
        self.dt_s = dt if SHORTEST_S < dt < LONGEST_S else frames / self._frame_rate_hz
        self.frame_s = self.dt_s / frames
        self.elapsed += frames
        self._steps.append(frames)
        self.typical = sorted(self._steps)[-2:][0]
        return True
