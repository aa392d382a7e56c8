"""The cross-validation in a few numbers: found, on the right side of focus, bias, scatter, and what is stated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from calibration.result import Calibration

FloatArray = npt.NDArray[np.float64]

DEPTHS = 8
"""Bins of depth of the summary."""
FEWEST = 5
"""Images below which a bin says nothing."""


def stated_sigmas(found: Calibration) -> FloatArray:
    """Standard errors (M, 3), um, that a detection like each image of the validation states."""
    rows = found.validation
    if rows is None:
        raise ValueError("a calibration without a validation states nothing")
    sigma: FloatArray = rows.sigmas()
    if found.model.misfit is None:
        return sigma
    pixel = found.model.pixel_size_um
    more = found.model.misfit.at(rows.x_um / pixel, rows.y_um / pixel, rows.z_um)
    return np.sqrt(sigma**2 + more)


def summary_of(found: Calibration) -> dict[str, Any]:
    """Numbers of the whole validation, and of bins of depth under `depths`. Lengths in um, parts of 1."""
    rows = found.validation
    if rows is None:
        raise ValueError("a calibration without a validation has no summary")
    depth_um = found.model.z_max_um - found.model.z_min_um
    stated = stated_sigmas(found)
    edges = np.linspace(found.model.z_min_um, found.model.z_max_um, DEPTHS + 1)
    bins = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        here = (rows.z_um >= low) & (rows.z_um < high)
        if here.sum() >= FEWEST:
            bins.append({"z_um": float((low + high) / 2), **_numbers(found, stated, here, depth_um)})
    every = np.ones(len(rows), np.bool_)
    return {
        "particles": int(np.unique(rows.particle).size),
        **_numbers(found, stated, every, depth_um),
        "depths": bins,
    }


def _numbers(
    found: Calibration, stated: FloatArray, some: npt.NDArray[np.bool_], depth_um: float
) -> dict[str, Any]:
    rows = found.validation
    assert rows is not None
    measured = some & np.isfinite(rows.error_z_um)
    right = measured & rows.right_side(depth_um)
    error = rows.errors()[right]
    numbers: dict[str, Any] = {
        "images": int(some.sum()),
        "measured": float(measured.sum() / max(some.sum(), 1)),
        "right_side": float(right.sum() / max(measured.sum(), 1)),
    }
    if not right.any():
        return numbers
    for axis, name in enumerate("xyz"):
        numbers[f"bias_{name}_um"] = float(np.mean(error[:, axis]))
        numbers[f"rms_{name}_um"] = float(np.sqrt(np.mean(error[:, axis] ** 2)))
        numbers[f"stated_{name}_um"] = float(np.sqrt(np.mean(stated[right, axis] ** 2)))
        numbers[f"noise_{name}_um"] = float(np.sqrt(np.mean(rows.sigmas()[right, axis] ** 2)))
    numbers["chi_square"] = float(np.median(rows.chi_square[right]))
    return numbers
