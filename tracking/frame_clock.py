"""Time between the frames that the tracker sees, whatever was lost in between."""

from __future__ import annotations

from stream.messages import FrameInfo

SHORTEST_S, LONGEST_S = 1e-9, 1e6


class FrameClock:
    """Follows the frames' numbers and times.

    Elapsed frames are counted by the camera's image number where it advances, else by ours. `dt_s` comes from
    the frames' times where they increase (by 1 ns to 10^6 s), else from elapsed frames and `frame_rate_hz`.
    """

    def __init__(self, frame_rate_hz: float) -> None:
        self._frame_rate_hz = frame_rate_hz
        self._last: FrameInfo | None = None
        self.elapsed = 0
        self.dt_s = 0.0
        self.frame_s = 0.0

    def advance(self, info: FrameInfo) -> bool:
        """Move on to a frame; False, and nothing happens, if its number is not greater than the last one's.

        Sets `elapsed` (frames since the first), `dt_s` (since the last frame, 0 for the first) and `frame_s`
        (time between successive camera frames).
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
        return True
