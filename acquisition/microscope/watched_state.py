"""Microscope settings that can be changed from outside during a run, and how changes are reported."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WatchedState:
    """Values read from the core; None if unknown or without such a device."""

    pixel_size_um: float | None
    exposure_ms: float
    bit_depth: int
    shutter_open: bool | None


def changes(
    before: WatchedState, now: WatchedState, *, fixed_pixel_size_um: float | None, commanded: bool
) -> list[str]:
    """One line for the user for each change.

    `fixed_pixel_size_um` is the pixel size in the settings, which takes precedence over the core's. With
    `commanded`, exposure and shutter were changed by a command, which is reported elsewhere.
    """
    lines = []
    if before.pixel_size_um != now.pixel_size_um:
        was, new = _size(before.pixel_size_um), _size(now.pixel_size_um)
        text = f"the pixel size of the microscope changed from {was} to {new} (another objective?)"
        if fixed_pixel_size_um is not None:
            text += f"; microscope.pixel_size_um = {fixed_pixel_size_um:g} is set and is still used"
        elif now.pixel_size_um is None:
            text += f"; frames still get {was}: end the run, or set microscope.pixel_size_um"
        else:
            text += "; frames have the new one from now on"
        lines.append(text)
    if before.bit_depth != now.bit_depth:
        lines.append(
            f"the camera's bit depth changed from {before.bit_depth} to {now.bit_depth}: grey values before and "
            "after it cannot be compared"
        )
    if not commanded and before.exposure_ms != now.exposure_ms:
        lines.append(
            f"the exposure was changed from outside, from {before.exposure_ms:g} to {now.exposure_ms:g} ms"
        )
    if not commanded and before.shutter_open != now.shutter_open:
        lines.append(f"the shutter was {'opened' if now.shutter_open else 'closed'} from outside")
    return lines


def _size(size_um: float | None) -> str:
    return "unknown" if size_um is None else f"{size_um:g} um"
