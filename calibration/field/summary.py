"""The cross-validation in a few numbers: found, on the right side of focus, bias, scatter, and what is stated."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.field.cross_validation import Validation
from calibration.psf_model import PsfModel

FloatArray = npt.NDArray[np.float64]

DEPTHS = 8
"""Bins of depth of the summary."""
FEWEST = 5
"""Images below which a bin says nothing."""


def stated_sigmas(rows: Validation, model: PsfModel) -> FloatArray:
    """Standard errors (M, 3), um, that a detection like each image of the validation states."""
    sigma: FloatArray = rows.sigmas()
    if model.misfit is None:
        return sigma
    pixel = model.pixel_size_um
    more = model.misfit.at(rows.x_um / pixel, rows.y_um / pixel, rows.z_um)
    return np.asarray(np.sqrt(sigma**2 + more), np.float64)


def summary_of(rows: Validation, model: PsfModel) -> dict[str, Any]:
    """Numbers of the whole validation, and of bins of depth under `depths`. Lengths in um, parts of 1."""
    depth_um = model.z_max_um - model.z_min_um
    stated = stated_sigmas(rows, model)
    edges = np.linspace(model.z_min_um, model.z_max_um, DEPTHS + 1)
    bins = []
    for low, high in pairwise(edges):
        here = (rows.z_um >= low) & (rows.z_um < high)
        if here.sum() >= FEWEST:
            bins.append({"z_um": float((low + high) / 2), **_numbers(rows, stated, here, depth_um)})
    every = np.ones(len(rows), np.bool_)
    return {
        "particles": int(np.unique(rows.particle).size),
        **_numbers(rows, stated, every, depth_um),
        "depths": bins,
    }


def _numbers(
    rows: Validation, stated: FloatArray, some: npt.NDArray[np.bool_], depth_um: float
) -> dict[str, Any]:
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
