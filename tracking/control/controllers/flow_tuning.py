"""How slow hold_flow must be for the delays of its loop."""

from __future__ import annotations

import math

from tracking.control.controllers.loop_delay import LoopDelay
from tracking.control.settings import PumpLoopSettings

RESPONSE_S = 1.5
"""Time constant with which tracks are expected to follow a step of the flow, s: their velocities take up to a
second to show it. Too short, the integral grows during a step and the velocity overshoots; too long, the loop is
slow to correct a wrong gain."""
RESPONSE = 2.2
"""The same in delays of the measurement (of the tracks' velocities and of `filter_time_s`), if that is longer: at
60 frames/s both are equal. At low frame rates the tracks' velocities follow in seconds."""
VELOCITY_FRAMES = 28.0
"""Delay of a track's velocity, in frames, when every frame is tracked: sqrt(2) `tracker.velocity_memory_frames`
(20), the delay of a filter for a velocity that wanders (poles at (-1 +- i) / sqrt(2) of 1 / 20 frames). If only
every k-th frame is tracked, it is k^(1/4) times as long. With a longer memory, set a longer `integral_time_s`."""
DEAD_TIMES = 1.5
"""Shortest integral time, in delays of the loop T. If all delay is dead time, the gain margin is 1.5 pi / 2 = 2.36;
with the proportional action reduced to match, the margin is above 2.3 and the peak sensitivity (Ms) below 2 for any
age, 10 to 200 frames/s, every to every tenth frame tracked, and a pump's lag of 0.3 s
(tests/tracking/test_late_loops.py). Larger is slower in proportion; at 1 the margin is 1.57."""


def measurement_s(settings: PumpLoopSettings, delay: LoopDelay) -> float:
    """Delay of the measured velocity behind the particles', s: of the tracks' velocities and of the average."""
    tracks_s = VELOCITY_FRAMES * math.sqrt(delay.frame_s * math.sqrt(delay.frame_s * delay.interval_s))
    return settings.filter_time_s + tracks_s


def integral_time_s(settings: PumpLoopSettings, delay: LoopDelay) -> float:
    """`settings.integral_time_s`, or longer where the loop has more delay, s.

    T, the sum of the delays, is that of the measurement, the age of the results, the time until a command shows,
    and half the time for which a command holds. Ti is at least `DEAD_TIMES` T, and the controller reduces its
    proportional action as it lengthens Ti. This is the SIMC rule (Skogestad 2003, J. Process Control 13, 291,
    https://doi.org/10.1016/S0959-1524(02)00062-8), in which both actions fall with the closed-loop time constant
    plus the dead time.
    """
    holds_s = max(settings.period_s, delay.interval_s)
    delay_s = measurement_s(settings, delay) + delay.longest_dead_s + 0.5 * holds_s
    return max(settings.integral_time_s, DEAD_TIMES * delay_s)


def response_s(settings: PumpLoopSettings, delay: LoopDelay) -> float:
    """Time constant with which tracks are expected to follow a step of the flow, s."""
    return max(RESPONSE_S, RESPONSE * measurement_s(settings, delay))
