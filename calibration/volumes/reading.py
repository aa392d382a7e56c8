"""Reads stacks of beads: their volumes, and the size of a voxel, which is asked for where the file does not say
it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from acquisition.recording import open_stack
from acquisition.stacks.scales import LEAST_UM, MOST_UM, pixel_size
from acquisition.stacks.stack import ImageStack, StackInfo
from calibration.errors import CalibrationError
from stream.errors import SourceError

FEWEST_SLICES = 3
"""Slices that show a size along z at all."""
MOST_BYTES = 4 << 30
"""Volumes held in memory at once; more are more beads than a calibration needs."""
UNEVEN = 0.05
"""Part of the spacing by which slices may be off their places: piezo drives are accurate to 1 %."""
PLAUSIBLE_UM = (0.005, 20.0)
"""Sizes of a voxel in object space: from below the sampling of super-resolution to above that of a 2x lens."""
PLAUSIBLE_RATIO = (0.1, 40.0)
"""Spacing of slices over the size of a pixel; beyond, one of the two is in another unit."""


@dataclass(frozen=True, slots=True, eq=False)
class BeadStacks:
    """Volumes (T, Z, H, W) with voxels of `voxel_um` (z, y, x), and lines about how they were read."""

    volumes: npt.NDArray[Any]
    voxel_um: tuple[float, float, float]
    remarks: tuple[str, ...]


def read_stacks(
    paths: Sequence[Path],
    *,
    pixel_size_um: float | None = None,
    z_step_um: float | None = None,
    axes: str | None = None,
) -> BeadStacks:
    """Read one or several stacks of one size. What is given takes precedence over what the files say.

    Raises `SourceError` for files that cannot be read, `CalibrationError` for stacks that cannot be used.
    """
    read = [_read(Path(path), pixel_size_um, z_step_um, axes) for path in paths]
    for path, one in zip(paths[1:], read[1:], strict=True):
        if one.volumes.shape[1:] != read[0].volumes.shape[1:] or one.volumes.dtype != read[0].volumes.dtype:
            raise CalibrationError(
                f"{path} has volumes of {_size(one)}, but {paths[0]} of {_size(read[0])}; calibrate them apart"
            )
        if not np.allclose(one.voxel_um, read[0].voxel_um, rtol=0.01):
            raise CalibrationError(
                f"the voxels of {path} are {_voxel(one)}, those of {paths[0]} {_voxel(read[0])}; give "
                "--pixel-size and --z-step if one is wrong, or calibrate them apart"
            )
    return BeadStacks(
        read[0].volumes if len(read) == 1 else np.concatenate([one.volumes for one in read]),
        read[0].voxel_um,
        tuple(
            f"{Path(path).name}: {text}"
            for path, one in zip(paths, read, strict=True)
            for text in one.remarks
        ),
    )


def _read(path: Path, pixel_um: float | None, step_um: float | None, axes: str | None) -> BeadStacks:
    stack = open_stack(path, axes, is_scan=True)
    try:
        info = stack.info
        times, slices = _places(path, info)
        if stack.damage:
            raise SourceError(f"{path} is damaged: {stack.damage}")
        nbytes = info.planes * info.height * info.width * np.dtype(info.dtype).itemsize
        if nbytes > MOST_BYTES:
            raise CalibrationError(
                f"{path} has {nbytes / 2**30:.1f} GiB of volumes; calibrate from a file with fewer time points"
            )
        volumes, focus_um = _planes(stack, times, slices)
        size_um, remarks = _pixel(path, info, pixel_um)
        spacing_um, falling = _spacing(path, focus_um, step_um)
        if falling:
            volumes = volumes[:, ::-1]
            remarks = (
                *remarks,
                "its focus falls from slice to slice: the slices are taken in the order of rising focus",
            )
        _check_voxel(path, size_um, spacing_um)
        return BeadStacks(volumes, (spacing_um, size_um, size_um), remarks)
    finally:
        stack.close()


def _places(path: Path, info: StackInfo) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The time point and the slice of each plane."""
    axes, lead = info.axes, info.lead
    depth = lead[axes.index("Z")] if "Z" in axes else 1
    if depth < FEWEST_SLICES:
        raise CalibrationError(
            f"{path} has {info.planes} images and no axis Z of {FEWEST_SLICES} slices or more"
            + (f" (its axes are {axes}YX)" if axes else "")
            + "; name its axes, as in --axes ZYX or --axes TZYX"
        )
    where = np.unravel_index(np.arange(math.prod(lead)), lead)
    slices = where[axes.index("Z")]
    others = [part for axis, part in zip(axes, where, strict=True) if axis != "Z"]
    sizes = [size for axis, size in zip(axes, lead, strict=True) if axis != "Z"]
    times = np.ravel_multi_index(others, sizes) if others else np.zeros_like(slices)
    whole = info.planes // depth * depth if axes.endswith("Z") else info.planes
    return times[:whole].astype(np.int64), slices[:whole].astype(np.int64)


def _planes(
    stack: ImageStack, times: npt.NDArray[np.int64], slices: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    info = stack.info
    shape = (int(times.max()) + 1, int(slices.max()) + 1, info.height, info.width)
    volumes = np.zeros(shape, info.dtype)
    focus_um = np.full(shape[:2], np.nan)
    for index, (time, place) in enumerate(zip(times.tolist(), slices.tolist(), strict=True)):
        plane = stack.read(index)
        volumes[time, place] = plane.image
        focus_um[time, place] = plane.focus_um
    return volumes, focus_um


def _pixel(path: Path, info: StackInfo, given_um: float | None) -> tuple[float, tuple[str, ...]]:
    remarks = info.remarks
    if given_um is None:
        remarks += info.pixel_remarks
        if not (info.pixel_size_um > 0 or info.pixel_size_y_um > 0):
            why = f" ({'; '.join(info.pixel_remarks)})" if info.pixel_remarks else ""
            raise CalibrationError(f"{path} does not say how large a pixel is{why}; add --pixel-size UM")
    size_um, remark = pixel_size(info.pixel_size_um, info.pixel_size_y_um, path.name, given_um)
    return size_um, (*remarks, *([remark] if remark else []))


def _spacing(path: Path, focus_um: npt.NDArray[np.float64], given_um: float | None) -> tuple[float, bool]:
    """The spacing of the slices, um, and whether the focus falls from slice to slice."""
    if given_um is not None:
        steps = np.diff(focus_um[0])
        return given_um, bool(np.isfinite(steps).all() and np.median(steps) < 0)
    steps = np.diff(focus_um, axis=1)
    known = steps[np.isfinite(steps)]
    if not known.size or not LEAST_UM <= abs(float(np.median(known))) <= MOST_UM:
        raise CalibrationError(f"{path} does not say how far apart its slices are; add --z-step UM")
    step = float(np.median(known))
    off = np.abs(known - step).max() / abs(step)
    if off > UNEVEN:
        raise CalibrationError(
            f"the slices of {path} are unevenly spaced ({known.min():.3g} to {known.max():.3g} um apart); take a "
            "stack with even steps, or add --z-step UM if the file is wrong"
        )
    return abs(step), step < 0


def _check_voxel(path: Path, pixel_um: float, step_um: float) -> None:
    for size_um, what, option in (
        (pixel_um, "pixels", "--pixel-size"),
        (step_um, "slices that are apart by", "--z-step"),
    ):
        if not PLAUSIBLE_UM[0] <= size_um <= PLAUSIBLE_UM[1]:
            raise CalibrationError(
                f"{path} has {what} {size_um:g} um, which is implausible; add {option} UM".replace(
                    "pixels ", "pixels of "
                )
            )
    if not PLAUSIBLE_RATIO[0] <= step_um / pixel_um <= PLAUSIBLE_RATIO[1]:
        raise CalibrationError(
            f"{path} has pixels of {pixel_um:g} um and slices {step_um:g} um apart, which is implausible; add "
            "--pixel-size UM and --z-step UM"
        )


def _size(stacks: BeadStacks) -> str:
    return " x ".join(str(n) for n in stacks.volumes.shape[:0:-1]) + f" {stacks.volumes.dtype}"


def _voxel(stacks: BeadStacks) -> str:
    return " x ".join(f"{size:g}" for size in stacks.voxel_um[::-1]) + " um"


def read_dark(path: Path, shape: tuple[int, int]) -> tuple[float, float]:
    """The offset and the read noise, grey values, of a dark reference: images without light."""
    stack = open_stack(path, any_type=True)
    try:
        info = stack.info
        if (info.height, info.width) != shape:
            raise CalibrationError(
                f"{path} has images of {info.width} x {info.height} pixels, the stack of {shape[1]} x {shape[0]}"
            )
        images = np.stack(
            [stack.read(index).image.astype(np.float64) for index in range(min(info.planes, 32))]
        )
    finally:
        stack.close()
    height, width = shape[0] // 2 * 2, shape[1] // 2 * 2
    if len(images) > 1:
        spread = images[1:] - images[:-1]
        variance = float((spread**2).mean()) / 2
    else:
        v = images[:, :height, :width]
        square = (v[:, ::2, ::2] - v[:, 1::2, ::2] - v[:, ::2, 1::2] + v[:, 1::2, 1::2]) / 2
        variance = float((square**2).mean())
    return float(images.mean()), math.sqrt(variance)
