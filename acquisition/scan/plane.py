"""One plane of a scan: move, wait, settle, read back, take images, check; retaken if anything fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from acquisition.scan.burst import Burst
from acquisition.settings import ScanSettings
from stream.errors import LivePTVError, SourceError

ARRIVE_S = 1.0  # s for a drive that rests in the wrong place to start late; adds to planes that fail
POLL_S = 0.002  # s between looks at the drive


class ScanStoppedError(LivePTVError):
    """The user stopped the scan; planes already taken are kept."""


class FocusDrive(Protocol):
    """The part of a focus drive that a scan uses; see `acquisition.microscope.microscope.Microscope`."""

    def move_focus(self, position_um: float) -> None:
        """Start a move, without waiting."""
        ...

    def focus_moves(self) -> bool:
        """Whether it still moves."""
        ...

    def read_focus(self) -> float:
        """Its position, um."""
        ...


class Camera(Protocol):
    """The part of a camera that a scan uses; see `acquisition.scan.burst.BurstCamera`."""

    def take(self, count: int, stopping: Callable[[], bool]) -> Burst:
        """Take images."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class PlaneImages:
    """The images (N, H, W) of one plane.

    `focus_um` is the mean of the positions read before and after the burst, which agree within the tolerance;
    `arrived_ns` (N,) is on `time.perf_counter_ns`. `retaken` has the reasons why earlier attempts failed.
    """

    images: npt.NDArray[Any]
    focus_um: float
    exposure_ms: float
    arrived_ns: tuple[int, ...]
    retaken: tuple[str, ...]


class _UnfitError(Exception):
    """Why an attempt failed."""


class PlaneTaker:
    """Takes planes; each is repeated until it is as planned, at most `tries` times."""

    def __init__(
        self,
        drive: FocusDrive,
        camera: Camera,
        settings: ScanSettings,
        *,
        stopping: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._drive, self._camera, self._settings = drive, camera, settings
        self._stopping, self._clock, self._sleep = stopping, clock, sleep

    def take(
        self,
        index: int,
        target_um: float,
        count: int,
        *,
        approach_um: float | None = None,
        anew: bool = False,
    ) -> PlaneImages:
        """Take `count` images at a focus position.

        A retaken plane, and the first one after a break (`anew`), is approached from `approach_um` if given. Raises
        `SourceError`, which names the plane, after the last attempt, and `ScanStoppedError`.
        """
        problems: list[str] = []
        while len(problems) < self._settings.tries:
            try:
                come_from_um = approach_um if anew or problems else None
                return self._try(target_um, count, come_from_um, tuple(problems))
            except (_UnfitError, SourceError) as problem:
                self._check_stop()
                problems.append(str(problem))
        times = f" in {len(problems)} tries" if len(problems) > 1 else ""
        raise SourceError(f"plane {index} at {target_um:g} um cannot be taken{times}: {problems[-1]}")

    def _try(
        self, target_um: float, count: int, come_from_um: float | None, problems: tuple[str, ...]
    ) -> PlaneImages:
        if come_from_um is not None:
            self._move(come_from_um)
        before_um = self._arrive(target_um)
        self._pause(self._settings.settle_s)
        before_um = self._check_position(self._drive.read_focus(), target_um, before_um)
        burst = self._camera.take(count, self._stopping)
        self._check_stop()
        if burst.lost or len(burst.images) != count:
            missing = burst.lost or count - len(burst.images)
            why = f" ({burst.problem})" if burst.problem else ""
            raise _UnfitError(f"{missing} of {count} images lost{why}")
        after_um = self._check_position(self._drive.read_focus(), target_um, before_um)
        return PlaneImages(
            np.stack(burst.images),
            (before_um + after_um) / 2,
            burst.exposure_ms,
            tuple(burst.arrived_ns),
            problems,
        )

    def _arrive(self, target_um: float) -> float:
        """Move, and wait until the drive rests at the target; a drive that rests elsewhere may start late."""
        position_um = self._move(target_um)
        deadline_s = self._clock() + ARRIVE_S
        while not self._is_near(position_um, target_um):
            if self._clock() > deadline_s:
                raise _UnfitError(self._off(position_um, target_um))
            self._check_stop()
            self._sleep(POLL_S)
            position_um = self._rest()
        return position_um

    def _move(self, target_um: float) -> float:
        self._check_stop()
        self._drive.move_focus(target_um)
        return self._rest()

    def _rest(self) -> float:
        timeout_s = self._settings.move_timeout_s
        deadline_s = self._clock() + timeout_s
        while self._drive.focus_moves():
            if self._clock() > deadline_s:
                raise _UnfitError(
                    f"the focus drive still moves after {timeout_s:g} s; check whether it is blocked"
                )
            self._check_stop()
            self._sleep(POLL_S)
        return self._drive.read_focus()

    def _check_position(self, position_um: float, target_um: float, before_um: float) -> float:
        if not self._is_near(position_um, target_um):
            raise _UnfitError(self._off(position_um, target_um))
        if not self._is_near(position_um, before_um):
            raise _UnfitError(
                f"the focus drive moved from {before_um:g} to {position_um:g} um during the images"
            )
        return position_um

    def _is_near(self, position_um: float, target_um: float) -> bool:
        return abs(position_um - target_um) <= self._settings.tolerated_um

    def _off(self, position_um: float, target_um: float) -> str:
        return (
            f"the focus drive is at {position_um:g} um, {abs(position_um - target_um):.3g} um off "
            f"(scan.tolerance_um is {self._settings.tolerated_um:g})"
        )

    def _pause(self, seconds: float) -> None:
        until_s = self._clock() + seconds
        while (left_s := until_s - self._clock()) > 0:
            self._check_stop()
            self._sleep(min(left_s, 0.05))

    def _check_stop(self) -> None:
        if self._stopping():
            raise ScanStoppedError("stopped by the user")
