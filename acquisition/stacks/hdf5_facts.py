"""Axes and scales in the attributes of an HDF5 dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from acquisition.stacks.scales import NEARLY, Said, Scales, interval, length, rate
from acquisition.stacks.tiff_facts import PIXEL, STEP
from acquisition.stacks.zarr_facts import zarr_axes
from stream.errors import SourceError


def hdf5_axes(dataset: h5py.Dataset) -> str | None:
    """The axes of a dataset, from labels of its dimensions or an attribute `axes`; None without."""
    labels = [dimension.label for dimension in dataset.dims]
    said = _text(dataset.attrs.get("axes"))
    names = labels if all(labels) else list(said) if said and len(said) == dataset.ndim else None
    if names is None:
        return None
    try:
        axes = zarr_axes({"axes": [{"name": name} for name in names]}, dataset.ndim)
    except SourceError:
        return None
    return axes if {"Y", "X"} <= set(axes) and len(set(axes)) == len(axes) and "Q" not in axes else None


def hdf5_scales(attributes: Mapping[str, Any]) -> Scales:
    """Scales from `pixel_size_um`, `frame_rate_hz` or `frame_interval_s`, `z_step_um`, or `element_size_um`.

    The last is written by ImageJ's HDF5 plugin and ilastik (z, y, x); the pixel size may be given as (y, x).
    """
    size, element = _values(attributes.get("pixel_size_um")), _values(attributes.get("element_size_um"))
    y, x = (size[-2], size[-1]) if len(size) > 1 else (size[0], size[0]) if size else (None, None)
    z = attributes.get("z_step_um")
    if x is None and len(element) == 3:
        z, y, x = element
    by_rate = rate(_one(attributes.get("frame_rate_hz")), place="frame_rate_hz")
    by_interval = interval(_one(attributes.get("frame_interval_s")), "s", place="frame_interval_s")
    between = by_rate or by_interval
    remarks = [
        text.remark for text in (by_rate, by_interval) if text.remark and not (text and text is between)
    ]
    if by_rate and by_interval and abs(by_rate.value / by_interval.value - 1) > NEARLY:
        remarks.append(
            f"frame_rate_hz is {1 / by_rate.value:.4g} and frame_interval_s {by_interval.value:.4g}, which is "
            f"{1 / by_interval.value:.4g} frames/s: {1 / by_rate.value:.4g} frames/s is used"
        )
    return Scales(
        length(x, "um", PIXEL),
        length(y, "um", PIXEL),
        length(z, "um", STEP) if z is not None else Said(),
        between if between else Said(),
        remarks=tuple(remarks),
    )


def _one(value: Any) -> Any:
    """The value of an attribute with a single entry."""
    entries = _values(value)
    return entries[0] if len(entries) == 1 else value


def _values(value: Any) -> list[Any]:
    """The entries of an attribute with one value or several."""
    if value is None:
        return []
    entries: list[Any] = np.asarray(value).ravel().tolist()
    return entries


def _text(value: Any) -> str:
    return (
        value.decode("utf-8", "replace")
        if isinstance(value, bytes)
        else value
        if isinstance(value, str)
        else ""
    )
