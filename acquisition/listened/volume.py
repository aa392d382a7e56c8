"""What a sender says about the slices of a volume, and the `VolumeInfo` that follows from it."""

from __future__ import annotations

from typing import Any

import msgspec

from stream.errors import WireError
from stream.messages import ImageArray
from stream.safe_text import one_line
from stream.volume_info import MOST_SLICES, VolumeInfo

NAME_LENGTH = 120  # characters of what is shown of a wrong value


class SaidSlices(msgspec.Struct, frozen=True):
    """`info.volume` of a header, as far as it is said: see `docs/streaming.md`."""

    z_um: tuple[float, ...] = ()
    time_s: tuple[float, ...] = ()
    missing: tuple[int, ...] = ()
    upwards: bool = True


NOTHING = SaidSlices()


def slices_said(info: dict[str, Any] | None) -> SaidSlices:
    """What `info` of a header says about the slices. Raises `WireError` if it is not of the right types."""
    said = None if info is None else info.get("volume")
    if said is None:
        return NOTHING
    try:
        return msgspec.convert(said, SaidSlices)
    except (msgspec.ValidationError, ValueError, OverflowError, RecursionError) as error:
        raise WireError(f"info.volume cannot be used: {one_line(str(error), NAME_LENGTH)}") from error


def volume_of(
    said: SaidSlices, slices: int, step_um: float | None, before: VolumeInfo | None
) -> VolumeInfo | None:
    """How a volume of so many slices was taken; None where no heights are known.

    Heights are even if the user gives `step_um`, else those said, else those of the volume `before`. Raises
    `WireError` for what cannot be, with the reason.
    """
    for name, given in (("z_um", said.z_um), ("time_s", said.time_s)):
        if given and len(given) != slices:
            raise WireError(f"info.volume.{name} has {len(given)} values, but the shape {slices} slices")
    if step_um is not None:
        heights_um = tuple(step_um * k for k in range(slices))
    else:
        heights_um = said.z_um or (() if before is None else before.z_um)
    if not heights_um:
        return None
    try:
        volume = VolumeInfo(heights_um, said.time_s, said.missing, said.upwards)
    except ValueError as error:
        raise WireError(f"info.volume cannot be used: {error}") from error
    if len(volume.missing) == slices:
        raise WireError(f"all {slices} slices are missing, by info.volume")
    return volume


def check_slices(shape: list[int]) -> None:
    """Raise `WireError` for the shape of what is no volume."""
    if not 2 <= shape[0] <= MOST_SLICES:
        raise WireError(
            f"shape {shape}; volumes have 2 to {MOST_SLICES} slices, and an image has the shape [height, width]"
        )


def without_missing(image: ImageArray, volume: VolumeInfo) -> ImageArray:
    """The volume (Z, H, W) with zeros in the slices that are missing, whatever the sender put there."""
    missing = list(volume.missing)
    if not missing or not image[missing].any():
        return image
    cleared: ImageArray = image.copy()
    cleared[missing] = 0
    cleared.flags.writeable = False
    return cleared
