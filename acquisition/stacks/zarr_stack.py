"""Stacks in OME-Zarr images (0.1 to 0.5) and plain Zarr arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from acquisition.stacks.array_stack import ArrayStack, DiskArray, named_axes
from acquisition.stacks.library_errors import plain
from acquisition.stacks.scales import Scales
from acquisition.stacks.unwritten_frames import check_blosc, zarr_written
from acquisition.stacks.video_choice import Choice, choose_channel, file_of, parse_choice
from acquisition.stacks.zarr_facts import zarr_axes, zarr_scales
from stream.errors import ConfigurationError, SourceError


class ZarrStack(ArrayStack):
    """The planes of a Zarr array."""

    def _check_chunks(self, place: tuple[int, ...]) -> None:
        check_blosc(self._path, self._array, place)

    def _why(self, error: Exception) -> str:
        if "reshape" not in str(error):
            return plain(error)
        chunks = " x ".join(map(str, getattr(self._array, "chunks", ())))
        return f"its chunk does not have the {chunks} pixels that the metadata say"


def open_zarr(
    path: Path, axes: str | None = None, *, is_scan: bool = False, any_type: bool = False
) -> ArrayStack:
    """Open an OME-Zarr image (0.1 to 0.5) at full resolution, or a plain Zarr array.

    `::` selects an image by number or name, a group or an array by path. `axes` takes precedence over the file;
    `is_scan` if it should be a focus scan.

    Raises `SourceError` if there is not exactly one image, `ConfigurationError` for `axes` that do not fit.
    """
    choice = parse_choice(path)
    text, inside = str(file_of(path)), choice.dataset
    Choice(choice.given).refuse_rest(file_of(path), ("channel",))
    try:
        node: Any = zarr.open(text, mode="r")
        while inside and not _is_choice(node, inside):
            name, _, inside = inside.partition("/")
            if isinstance(node, zarr.Array) or name not in node:
                raise SourceError(f"there is no image {name!r} in {text}")
            node = node[name]
        if isinstance(node, zarr.Array):
            found, remarks = named_axes(path, node.shape, _dimension_names(node), Scales(), axes, is_scan)
            channel = choose_channel(file_of(path), node.shape, found, choice)
            stored = zarr_written(path, node, channel)
            return ZarrStack(
                path,
                _as_array(node),
                found,
                Scales(),
                "Zarr",
                written=stored,
                remarks=remarks,
                any_type=any_type,
                channel=channel,
            )
        image, group = _one_image(text, node, inside)
        level = _first_level(path, image)
        array = group[level["path"]]
        if not isinstance(array, zarr.Array):
            raise SourceError(f"{path} has no array {level['path']!r}")
        try:
            own = zarr_axes(image, array.ndim)
        except SourceError as error:
            raise SourceError(f"{path}: {error}") from error
        scales = zarr_scales(image, level, own)
        planes = (dict(group.attrs).get("liveptv") or {}).get("planes")
        focus_um = _positions(planes)
        found, remarks = named_axes(path, array.shape, own, scales, axes, is_scan, focus_um)
        channel = choose_channel(file_of(path), array.shape, found, choice, _channel_names(group))
        return ZarrStack(
            path,
            _as_array(array),
            found,
            scales,
            "OME-Zarr",
            written=zarr_written(path, array, channel),
            planes=planes,
            remarks=remarks,
            any_type=any_type,
            channel=channel,
        )
    except (SourceError, ConfigurationError):
        raise
    except Exception as error:
        why = plain(error)
        if isinstance(error, AttributeError | TypeError | LookupError):
            why = "its metadata do not describe an array or an image"
        raise SourceError(f"cannot read {path} as OME-Zarr: {why}; copy it again") from error


def _positions(planes: Any) -> npt.NDArray[np.float64] | None:
    """The focus positions measured by our own scans, um; None if there are none."""
    try:
        return np.array(planes["focus_um"], np.float64)
    except (LookupError, TypeError, ValueError):
        return None


def _channel_names(group: Any) -> list[str]:
    """The names of the channels of an image; none if not all are named."""
    attributes = dict(group.attrs)
    own = attributes.get("ome") or attributes
    shown = own.get("omero") if isinstance(own, dict) else None
    channels = shown.get("channels") if isinstance(shown, dict) else None
    labels = [entry.get("label") if isinstance(entry, dict) else None for entry in channels or ()]
    names = [label for label in labels if isinstance(label, str) and label]
    return names if len(names) == len(labels) else []


def _images(node: Any) -> list[dict[str, Any]]:
    """The images of a group."""
    attributes: dict[str, Any] = dict(node.attrs)
    own = attributes.get("ome") or attributes
    images = own.get("multiscales") if isinstance(own, dict) else None
    return [image for image in images if isinstance(image, dict)] if isinstance(images, list) else []


def _first_level(path: Path, image: dict[str, Any]) -> dict[str, Any]:
    """The level of full resolution. Raises `SourceError` if the image names none."""
    levels = image.get("datasets")
    level = levels[0] if isinstance(levels, list) and levels else None
    if not isinstance(level, dict) or not isinstance(level.get("path"), str):
        raise SourceError(
            f"{path} names no array for its image (`datasets` is {str(levels)[:80]}); copy it again"
        )
    return level


def _is_choice(node: Any, inside: str) -> bool:
    """Whether `inside` is the number or the name of one of the images of a group."""
    images = [] if isinstance(node, zarr.Array) else _images(node)
    return any(inside in {str(number), image.get("name")} for number, image in enumerate(images))


def _one_image(path: str, node: Any, inside: str) -> tuple[dict[str, Any], Any]:
    """The selected image, with its group. Raises `SourceError` if several are possible."""
    images = _images(node)
    if inside:
        chosen = [image for number, image in enumerate(images) if inside in {str(number), image.get("name")}]
        return chosen[0], node
    if len(images) == 1:
        return images[0], node
    if images:
        names = ", ".join(str(image.get("name") or number) for number, image in enumerate(images))
        raise SourceError(f"{path} holds {len(images)} images ({names}); select one, as in {path}::0")
    children = [name for name, child in node.groups() if _images(child)]
    if len(children) == 1:
        return _one_image(f"{path}/{children[0]}", node[children[0]], "")
    if children:
        names = ", ".join(sorted(children))
        raise SourceError(
            f"{path} holds {len(children)} images ({names}); select one, as in {path}::{min(children)}"
        )
    raise SourceError(f"{path} is a Zarr group without an image; select an array in it, as in {path}::ARRAY")


def _dimension_names(array: Any) -> str | None:
    """The axes named by a plain Zarr array: by version 3 itself, in version 2 as xarray writes them."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if not names or len(names) != array.ndim or not all(names):
        return None
    try:
        axes = zarr_axes({"axes": [{"name": str(name)} for name in names]}, array.ndim)
    except SourceError:
        return None
    return axes if {"Y", "X"} <= set(axes) and len(set(axes)) == len(axes) and "Q" not in axes else None


def _as_array(array: Any) -> DiskArray:
    found: DiskArray = array
    return found
