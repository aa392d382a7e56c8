"""Faults of a focus scan that show before any particle is found: flashes, saturation, gaps, copied images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from calibration.scan.planes import FocusScan, ScanPlane
from engines.robust_sigma import SIGMA_OF_MAD

FLASH = 6.0
"""Standard deviations of the images' brightness that are a flash."""
FLASH_PART = 0.005
"""The same as a part of the brightness: smaller changes do not matter for the contrast."""
SATURATED_PART = 2e-5
"""Part of the pixels at full scale that is reported; a few hot pixels are not."""
NEIGHBOURS = 7
"""Images on each side in time, the median of which is the typical brightness."""

Kind = Literal[
    "cut short",
    "flash",
    "saturated",
    "missing plane",
    "few images",
    "same image twice",
    "moved back",
    "focus wrong",
]


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of a scan, for the report. `plane` counts from 0; -1 if it is not about a single plane."""

    kind: Kind
    plane: int
    text: str


def brightness_faults(scan: FocusScan) -> tuple[list[Fault], set[int]]:
    """Images brighter or darker than their neighbours in time (median of 15), and saturated ones.

    Returns the faults and the numbers of the images to leave out.
    """
    median = np.array([facts.mean for facts in scan.facts])
    typical = _running_median(median)
    scatter = SIGMA_OF_MAD * float(np.median(np.abs(median - typical)))
    limit = np.maximum(FLASH * scatter, FLASH_PART * typical)
    bad = set(map(int, np.flatnonzero(np.abs(median - typical) > limit)))
    faults = []
    for number, plane in enumerate(scan.planes):
        flashed = sorted(bad.intersection(plane.images))
        if flashed:
            change = 100 * float(np.max(np.abs(median[flashed] / typical[flashed] - 1)))
            text = f"{_place(number, plane)}: {_images(flashed)} differ{'s' * (len(flashed) == 1)} in "
            text += f"brightness by {change:.1f} % from the images around; left out"
            faults.append(Fault("flash", number, text))
    faults += _saturation(scan)
    return faults, bad


def _saturation(scan: FocusScan) -> list[Fault]:
    part = np.array([facts.saturated for facts in scan.facts])
    found = []
    for number, plane in enumerate(scan.planes):
        worst = float(part[list(plane.images)].max())
        if worst > SATURATED_PART:
            found.append((worst, number, plane))
    if not found:
        return []
    worst, number, plane = max(found, key=lambda item: item[0])
    text = f"saturated pixels in {len(found)} of {len(scan.planes)} planes, most in {_place(number, plane)}: "
    text += f"{100 * worst:.2g} % of its pixels; take the scan again with less light or a shorter exposure"
    return [Fault("saturated", number, text)]


def position_faults(planes: list[ScanPlane]) -> list[Fault]:
    """Gaps, backward moves and repeated positions in the stated focus positions."""
    focus = np.array([plane.focus_um for plane in planes])
    moves = np.diff(focus)
    if not moves.size:
        return []
    step = float(np.median(np.abs(moves[moves != 0]))) if np.any(moves != 0) else 0.0
    direction = 1.0 if np.sum(np.sign(moves)) >= 0 else -1.0
    faults = []
    for number, move in enumerate(moves * direction):
        before, after = planes[number], planes[number + 1]
        if move > 1.5 * step > 0:
            missing = round(move / step) - 1
            text = f"between {_place(number, before)} and {_place(number + 1, after)} {missing} plane"
            faults.append(
                Fault("missing plane", number + 1, f"{text}{' is' if missing == 1 else 's are'} missing")
            )
        elif abs(move) < 0.25 * step:
            text = f"{_place(number + 1, after)} was taken at the same focus as the plane before it"
            faults.append(Fault("same image twice", number + 1, text))
        elif move < 0:
            text = f"before {_place(number + 1, after)} the focus moved back by {-move:.2f} um"
            faults.append(Fault("moved back", number + 1, text))
    return faults


def repetition_faults(scan: FocusScan) -> tuple[list[Fault], set[int]]:
    """Images that are bit for bit a copy of another one, and planes with fewer images than most."""
    faults: list[Fault] = []
    seen: dict[int, int] = {}
    copies: set[int] = set()
    expected = scan.repeats
    for number, plane in enumerate(scan.planes):
        for image in plane.images:
            fingerprint = scan.facts[image].fingerprint
            if fingerprint in seen:
                text = (
                    f"{_place(number, plane)}: image {image} is a copy of image {seen[fingerprint]}; left out"
                )
                faults.append(Fault("same image twice", number, text))
                copies.add(image)
            else:
                seen[fingerprint] = image
        if len(plane.images) < expected:
            text = f"{_place(number, plane)} has {len(plane.images)} of {expected} images"
            faults.append(Fault("few images", number, text))
    return faults, copies


def damage_fault(scan: FocusScan) -> list[Fault]:
    """The fault of a file whose end is missing; none for a whole one."""
    if not scan.damage:
        return []
    last = len(scan.planes) - 1
    text = f"the file is cut short at {_place(last, scan.planes[last])}: {scan.damage}"
    return [Fault("cut short", last, text)]


def _place(number: int, plane: ScanPlane) -> str:
    return f"plane {number} (focus {plane.focus_um:.2f} um)"


def _images(numbers: list[int]) -> str:
    return f"image{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


def _running_median(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if values.size <= NEIGHBOURS:
        return np.full_like(values, np.median(values))
    running: npt.NDArray[np.float64] = ndimage.median_filter(values, 2 * NEIGHBOURS + 1, mode="mirror")
    return running
