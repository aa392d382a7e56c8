"""A focus drive and a camera that misbehave on demand, in a time of their own."""

import numpy as np

from acquisition.scan.burst import Burst

SHAPE = (12, 16)


class FakeTime:
    """Passes only where somebody sleeps, or a device takes its time."""

    def __init__(self):
        self.now_s = 0.0

    def clock(self):
        return self.now_s

    def sleep(self, seconds):
        self.now_s += seconds


class FakeDrive:
    """Moves at `speed_um_s` after `delay_s`, and stops `off_um` from its target; `says_done` is a lie."""

    def __init__(self, time, *, speed_um_s=1000.0, delay_s=0.0, off_um=0.0, says_done=False):
        self.time, self.speed_um_s, self.delay_s = time, speed_um_s, delay_s
        self.off_um, self.says_done = off_um, says_done
        self.from_um = self.to_um = 0.0
        self.since_s = -1e9
        self.targets_um = []

    def move_focus(self, position_um):
        self.from_um = self.read_focus()
        self.to_um, self.since_s = position_um + self.off_um, self.time.now_s + self.delay_s
        self.targets_um.append(position_um)

    def focus_moves(self):
        return not self.says_done and self.time.now_s >= self.since_s and self.read_focus() != self.to_um

    def read_focus(self):
        travelled = self.speed_um_s * max(0.0, self.time.now_s - self.since_s)
        way_um = self.to_um - self.from_um
        return self.to_um if travelled >= abs(way_um) else self.from_um + np.sign(way_um) * travelled


class FakeCamera:
    """Images that say where the focus was and which of the burst they are; `misfortunes` by burst number.

    A misfortune is called with the burst and may change it, or raise.
    """

    def __init__(self, time, drive, misfortunes=None):
        self.time, self.drive, self.misfortunes = time, drive, misfortunes or {}
        self.bursts = 0

    def take(self, count, stopping):
        number, self.bursts = self.bursts, self.bursts + 1
        burst = Burst(exposure_ms=2.0)
        for image in range(count):
            self.time.sleep(0.01)
            burst.images.append(picture(self.drive.read_focus(), image))
            burst.arrived_ns.append(round(1e9 * self.time.now_s))
        if number in self.misfortunes:
            self.misfortunes[number](burst)
        return burst


def picture(focus_um, image):
    """What the camera sees at a focus position: the same whenever it looks."""
    rng = np.random.default_rng([round(1e6 * (focus_um + 1e5)), image])
    return rng.integers(1, 256, SHAPE, np.uint8)


def loses(count):
    """A misfortune: the burst is short."""

    def happen(burst):
        del burst.images[-count:], burst.arrived_ns[-count:]
        burst.problem = "none came for 5 s"

    return happen


def gap(count):
    """A misfortune: as many images as asked for, but the camera's numbers tell of others between them."""

    def happen(burst):
        burst.lost = count

    return happen
