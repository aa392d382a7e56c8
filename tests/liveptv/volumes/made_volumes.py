"""A source of volumes at a clock's pace, whose particles are known, and what a run makes of it."""

import time
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

import numpy as np

from acquisition.source import SourceInfo
from liveptv.session import sources
from liveptv.session.sources import OpenedSource
from stream.messages import Frame, FrameInfo
from stream.volume_info import VolumeInfo

SHAPE = (6, 64, 80)
PIXEL_UM, Z_STEP_UM = 0.2, 0.4
BACKGROUND, PEAK, SIGMA_PX, SIGMA_Z = 20.0, 400.0, 1.4, 1.2
GRID_PX = 20
VELOCITY_UM_S = (1.0, 0.5, 0.3)


def truth_um(time_s):
    """Positions (N, 3), um, of particles that move together: x, y, z above the first slice."""
    _, height, width = SHAPE
    y, x = (axis.ravel() for axis in np.mgrid[10:height:GRID_PX, 10:width:GRID_PX])
    z = 1.2 + 2.4 * ((np.arange(x.size) % 5) / 5)
    start = np.column_stack([x * PIXEL_UM, y * PIXEL_UM, z * Z_STEP_UM])
    return start + np.asarray(VELOCITY_UM_S) * time_s


def drawn(positions_um, seed, missing=()):
    """The volume (Z, H, W) of particles at these positions, with Poisson noise; slices in `missing` are 0."""
    z, y, x = (np.arange(float(size)) for size in SHAPE)
    image = np.full(SHAPE, BACKGROUND)
    for x_um, y_um, z_um in positions_um:
        along = [
            np.exp(-0.5 * ((axis - at) / sigma) ** 2)
            for axis, at, sigma in (
                (z, z_um / Z_STEP_UM, SIGMA_Z), (y, y_um / PIXEL_UM, SIGMA_PX), (x, x_um / PIXEL_UM, SIGMA_PX),
            )
        ]  # fmt: skip
        image += PEAK * along[0][:, None, None] * along[1][:, None] * along[2]
    image = np.random.default_rng(seed).poisson(image).astype(np.uint16)
    image[list(missing)] = 0
    return image


class MadeVolumes:
    """A `Source` of `count` volumes at `rate_hz`; `missing` names the slices without an image, by volume."""

    def __init__(self, run_id, count, rate_hz, missing):
        depth, height, width = SHAPE
        self.info = SourceInfo(
            height,
            width,
            depth,
            "uint16",
            PIXEL_UM,
            rate_hz,
            None,
            "made",
            "made volumes",
            z_step_um=Z_STEP_UM,
        )
        self._run_id, self._count, self._rate_hz, self._missing = run_id, count, rate_hz, missing
        self._next = 0
        self._began_ns = 0
        self._stopped = False

    @property
    def ended(self):
        return self._stopped or self._next >= self._count

    def start(self):
        self._began_ns = time.perf_counter_ns()

    def read(self, timeout_s):
        number = self._next
        due_ns = self._began_ns + round(1e9 * (number + 1) / self._rate_hz)
        wait_s = 1e-9 * (due_ns - time.perf_counter_ns())
        if wait_s > timeout_s:
            time.sleep(timeout_s)
            return None
        time.sleep(max(0.0, wait_s))
        self._next += 1
        time_s, missing = number / self._rate_hz, self._missing.get(number, ())
        slices = range(SHAPE[0])
        each_s = 0.8 / self._rate_hz / SHAPE[0]
        upwards = number % 2 == 0
        about = VolumeInfo(
            tuple(Z_STEP_UM * k for k in slices),
            tuple(each_s * (k if upwards else SHAPE[0] - 1 - k) for k in slices),
            missing,
            upwards,
        )
        info = FrameInfo(
            self._run_id, number, number, time_s, due_ns, time.time(), focus_um=30.0, exposure_ms=2.0,
            pixel_size_um=PIXEL_UM, volume=about,
        )  # fmt: skip
        return Frame(info, drawn(truth_um(time_s), number, missing))

    def stop(self):
        self._stopped = True

    def pause(self):
        pass

    def resume(self):
        pass

    def counts(self):
        partial = sum(number < self._next for number in self._missing)
        return {"received": self._next, "lost_in_camera": 0, "partial": partial}

    def gauges(self):
        return {}

    def close(self):
        pass


@contextmanager
def volumes_in_place_of_the_microscope(count, rate_hz=20.0, missing=None):
    """Runs in this process take made volumes instead of opening the microscope that they name."""

    def opened(experiment, run_id, *_others):
        source = MadeVolumes(run_id, count, rate_hz, missing or {})
        return OpenedSource(source, None, source.close, keeps_time=True)

    with mock.patch.object(sources, "open_source", opened):
        yield


def moved(frame, **changes):
    """The same frame with other facts."""
    return Frame(replace(frame.info, **changes), frame.image)
