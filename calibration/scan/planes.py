"""A focus scan read plane by plane: which images belong to which focus position."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from acquisition.recording import open_stack
from acquisition.stacks.frame_numbers import RecordedNumbers
from acquisition.stacks.scales import pixel_size
from acquisition.stacks.stack import ImageStack, StackInfo
from calibration.errors import CalibrationError
from stream.errors import SourceError

FloatArray = npt.NDArray[np.float64]

SAME_POSITION = 0.25
"""Images belong to one plane if their focus differs by less than this part of the step."""
LOOK_EVERY_PX = 4
"""Rows and columns from one pixel of the statistics to the next: a sixteenth of the pixels is enough for them."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """Statistics of an image: grey values of every fourth pixel along rows and columns, saturation of all."""

    focus_um: float
    mean: float
    median: float
    saturated: float
    fingerprint: int


@dataclass(frozen=True, slots=True)
class ScanPlane:
    """The images (their numbers in the file) taken at one focus position."""

    focus_um: float
    images: tuple[int, ...]


class FocusScan:
    """A scan on disk. Planes are in the order in which they were taken; nothing is kept in memory."""

    def __init__(
        self,
        path: Path,
        *,
        z_step_um: float | None = None,
        repeats: int | None = None,
        pixel_size_um: float | None = None,
        axes: str | None = None,
        on_progress: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Read every image once. Arguments take precedence over what the file says.

        Raises `SourceError` if it cannot be read, `CalibrationError` if images cannot be assigned to planes.
        """
        self.path = Path(path)
        self._stack: ImageStack = open_stack(self.path, axes, is_scan=True)
        try:
            self.info: StackInfo = self._stack.info
            self.damage = self._stack.damage
            self.pixel_size_um, self.remarks = self._pixel_size(pixel_size_um)
            self.facts = self._look(on_progress)
            self.planes = group_images(
                [facts.focus_um for facts in self.facts], self.info, z_step_um=z_step_um, repeats=repeats
            )
        except BaseException:
            self._stack.close()
            raise

    def _pixel_size(self, given_um: float | None) -> tuple[float, tuple[str, ...]]:
        """The size of a pixel, um, and the remarks on the file."""
        found = self.info
        told = found.remarks
        if given_um is None:
            told += found.pixel_remarks
            if not (found.pixel_size_um > 0 or found.pixel_size_y_um > 0):
                why = f" ({'; '.join(found.pixel_remarks)})" if found.pixel_remarks else ""
                raise CalibrationError(
                    f"{self.path} does not say how large a pixel is{why}; add --pixel-size UM"
                )
        size_um, remark = pixel_size(found.pixel_size_um, found.pixel_size_y_um, self.path.name, given_um)
        return size_um, (*told, *([remark] if remark else []))

    def _look(self, on_progress: Callable[[float], None]) -> list[ImageFacts]:
        facts: list[ImageFacts] = []
        numbers = RecordedNumbers(self.info.lost_before)
        full = np.iinfo(np.dtype(self.info.dtype)).max
        for index in range(self.info.planes):
            try:
                plane = self._stack.read(index)
            except SourceError as error:
                if not facts:
                    raise
                self.damage = str(error)
                break
            numbers.take(plane.camera_frame)
            if numbers.lost and not math.isfinite(plane.focus_um):
                raise CalibrationError(
                    f"images of {self.path} are missing by their numbers before its image {index}, so images "
                    "cannot be assigned to planes; copy the scan again, or take it again"
                )
            seen = plane.image[::LOOK_EVERY_PX, ::LOOK_EVERY_PX]
            facts.append(
                ImageFacts(
                    plane.focus_um,
                    float(seen.mean()),
                    float(np.median(seen)),
                    float(np.mean(plane.image == full)),
                    hash(seen.tobytes()),
                )
            )
            on_progress((index + 1) / self.info.planes)
        return facts

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the images, px."""
        return self.info.height, self.info.width

    @property
    def repeats(self) -> int:
        """Images per plane, at most of the planes."""
        counts = [len(plane.images) for plane in self.planes]
        return int(np.bincount(counts).argmax())

    def read(self, images: tuple[int, ...]) -> npt.NDArray[Any]:
        """The images with these numbers, (R, H, W)."""
        return np.stack([self._stack.read(index).image for index in images])

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def group_images(
    focus_um: list[float], info: StackInfo, *, z_step_um: float | None, repeats: int | None
) -> list[ScanPlane]:
    """Assign images to planes: by `repeats`, by the file's z axis, or by consecutive equal focus positions.

    Raises `CalibrationError` if the positions are not known.
    """
    count = len(focus_um)
    focus = np.asarray(focus_um, np.float64)
    if repeats is not None:
        groups = [tuple(range(start, min(start + repeats, count))) for start in range(0, count, repeats)]
    elif "Z" in info.axes and info.lead[info.axes.index("Z")] > 1:
        z_index = np.unravel_index(np.arange(math.prod(info.lead)), info.lead)[info.axes.index("Z")][:count]
        groups = [tuple(map(int, np.flatnonzero(z_index == z))) for z in np.unique(z_index)]
        groups = [part for group in groups for part in _by_position(group, focus)]
    elif np.isfinite(focus).all() and np.ptp(focus) > 0:
        groups = _by_position(tuple(range(count)), focus)
    else:
        raise CalibrationError(
            "the scan does not say which images were taken at one focus position; add --repeats N and --z-step UM"
        )
    if z_step_um is not None:
        return [ScanPlane(number * z_step_um, group) for number, group in enumerate(groups)]
    if not np.isfinite(focus).all():
        raise CalibrationError("the scan does not say at which focus its images were taken; add --z-step UM")
    for number, group in enumerate(groups):
        if len(_by_position(group, focus)) > 1:
            low_um, high_um = focus[list(group)].min(), focus[list(group)].max()
            raise CalibrationError(
                f"with --repeats {repeats} plane {number} would hold images taken at focus {low_um:.2f} to "
                f"{high_um:.2f} um; leave --repeats out, or say --z-step if the file is wrong"
            )
    return [ScanPlane(float(np.mean(focus[list(group)])), group) for group in groups]


def _by_position(group: tuple[int, ...], focus_um: FloatArray) -> list[tuple[int, ...]]:
    """Split a run of images where the focus moves by more than a part of the typical step."""
    if not np.isfinite(focus_um).all():
        return [group]
    moves = np.abs(np.diff(focus_um))
    step = moves[moves > 0.1 * moves.max(initial=0.0)]
    limit_um = SAME_POSITION * float(np.median(step)) if step.size else math.inf
    parts, first = [], 0
    for place in range(1, len(group) + 1):
        if place == len(group) or abs(focus_um[group[place]] - focus_um[group[first]]) > limit_um:
            parts.append(group[first:place])
            first = place
    return parts
