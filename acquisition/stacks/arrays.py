"""Stacks in array files: OME-Zarr and HDF5."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any, Protocol, TypeGuard

import h5py
import numpy as np
import numpy.typing as npt
import zarr

from acquisition.stacks.axes import AxisEvidence, assumed_axes, decide_axes, given_axes
from acquisition.stacks.claimed_size import check_count, check_size
from acquisition.stacks.hdf5_facts import hdf5_axes, hdf5_scales
from acquisition.stacks.library_errors import plain
from acquisition.stacks.scales import NAN, Scales
from acquisition.stacks.stack import Layout, Plane, StackInfo, axes_of, layout_of, type_name
from acquisition.stacks.unwritten_frames import Written, check_blosc, hdf5_written, zarr_written
from acquisition.stacks.video_choice import Channel, Choice, choose_channel, file_of, parse_choice
from acquisition.stacks.zarr_facts import zarr_axes, zarr_scales
from stream.errors import ConfigurationError, SourceError
from stream.hdf5_reading import check_attributes, check_memory, find, reading

MOST_CHANNELS = 4
"""An axis without a name that is no longer than this, behind two longer ones, is colour or channels."""


class _Array(Protocol):
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __getitem__(self, index: tuple[int, ...]) -> Any: ...


class ArrayStack:
    """The planes of an array on disk."""

    damage = ""

    def __init__(
        self,
        path: Path,
        array: _Array,
        axes: str,
        scales: Scales,
        kind: str,
        *,
        written: Written | None = None,
        planes: dict[str, Any] | None = None,
        remarks: tuple[str, ...] = (),
        any_type: bool = False,
        channel: Channel | None = None,
    ) -> None:
        """`channel` is the one that is read, where `axes` has them. `planes` are lists by z of what was read back
        at each, as our own scans have them; `written` says which frames were stored at all.
        """
        self._path, self._array, self._scales = path, array, scales
        self._planes = planes or {}
        self._fixed = [
            channel.number if channel is not None and axis == channel.axis else None
            for axis in range(len(axes))
            if axes[axis] not in "YX"
        ]
        shape = array.shape
        if channel is not None:
            shape, axes = channel.without(shape), "".join(channel.without(axes))
        self._layout: Layout = layout_of(path, shape, axes)
        check_size(path, self._layout.height, self._layout.width)
        check_count(path, self._layout.planes)
        has_depth = self._layout.size("Z") > 1
        written = written or Written(self._layout.planes)
        count = written.frames
        if count < self._layout.planes and not self._layout.axes.startswith("T"):
            raise SourceError(f"{path} is damaged: {written.remark}")
        remarks = (*remarks, written.remark)
        self.info = StackInfo(
            planes=count,
            height=self._layout.height,
            width=self._layout.width,
            dtype=type_name(path, array.dtype, any_type=any_type),
            volume=self._layout.volume,
            pixel_size_um=scales.x.value,
            frame_rate_hz=scales.rate_hz,
            format=kind,
            axes=self._layout.axes,
            lead=self._layout.lead,
            pixel_size_y_um=scales.y.value,
            stamps_s=self._stamps(count),
            remarks=tuple(text for text in (*remarks, scales.z.remark if has_depth else "") if text),
            pixel_remarks=scales.pixel_remarks,
            time_remarks=tuple(text for text in (scales.interval.remark, *scales.remarks) if text),
        )

    def _stamps(self, count: int) -> npt.NDArray[np.float64] | None:
        """Time stamps of all planes, where they were read back."""
        said = self._planes.get("time_s")
        if said is None:
            return None
        stamps_s = np.full(count, NAN)
        for index in range(count):
            z, t = self._layout.position(index, "Z"), self._layout.position(index, "T")
            with contextlib.suppress(LookupError, TypeError, ValueError):  # reading that plane tells
                stamps_s[index] = float(said[z][t])
        return stamps_s

    def read(self, index: int) -> Plane:
        """Plane `index`. Raises `SourceError` if it cannot be read."""
        where = iter(np.unravel_index(index, self._layout.lead) if self._layout.lead else ())
        place = tuple(int(next(where)) if fixed is None else fixed for fixed in self._fixed)
        try:
            self._check_chunks(place)
            image = np.asarray(self._array[place])
        except SourceError:
            raise
        except Exception as error:
            raise SourceError(
                f"frame {index} of {self._path} cannot be read ({self._why(error)}); copy it again"
            ) from error
        pixels = np.ascontiguousarray(image, self.info.dtype)
        t, z = self._layout.position(index, "T"), self._layout.position(index, "Z")
        if not self._planes:
            focus_um = self._scales.z_first_um + z * self._scales.z.value
            return Plane(pixels, focus_um=focus_um if self._layout.size("Z") > 1 else NAN)
        try:
            said = self._planes
            return Plane(
                pixels,
                time_s=float(said["time_s"][z][t]),
                focus_um=float(said["focus_um"][z]),
                exposure_ms=float(said["exposure_ms"][z]),
            )
        except (LookupError, TypeError, ValueError) as error:
            raise SourceError(
                f"the attributes of {self._path} have no position of plane {z}; copy it again"
            ) from error

    def _why(self, error: Exception) -> str:
        """Why a plane cannot be read."""
        return plain(error)

    def _check_chunks(self, place: tuple[int, ...]) -> None:
        """Where the format's library does not notice that what a plane is made of is damaged."""

    def close(self) -> None:
        """Nothing is held open."""


class ZarrStack(ArrayStack):
    """The planes of a Zarr array."""

    def _check_chunks(self, place: tuple[int, ...]) -> None:
        check_blosc(self._path, self._array, place)

    def _why(self, error: Exception) -> str:
        if "reshape" not in str(error):
            return plain(error)
        chunks = " x ".join(map(str, getattr(self._array, "chunks", ())))
        return f"its chunk does not have the {chunks} pixels that the metadata say"


class Hdf5Stack(ArrayStack):
    """The one dataset of images in an HDF5 file, or the one named behind `::`."""

    def __init__(
        self, path: Path, axes: str | None = None, *, is_scan: bool = False, any_type: bool = False
    ) -> None:
        """Open `FILE.h5` or `FILE.h5::DATASET`. Raises `SourceError` if there is no single stack in it.

        `axes` takes precedence over what the file names; `is_scan` where it should be a focus scan; `any_type`
        where pixels need not be a camera's, as in references.
        """
        choice = parse_choice(path)
        file, name = file_of(path), choice.dataset
        Choice(choice.given).refuse_rest(file, ("channel",))
        if not file.is_file():
            raise SourceError(f"there is no recording {file}")
        try:
            self._file = h5py.File(file, "r", locking=False)
        except (OSError, RuntimeError) as error:
            raise SourceError(f"cannot read {file} as HDF5: {plain(error)}") from error
        try:
            with reading(file):
                images = self._find(file, name, any_type)
                if images.external:
                    raise SourceError(f"{file}: its images lie in other files; copy them into one")
                check_plane(images, str(path))
                check_attributes(images)
                scales = hdf5_scales(images.attrs)
                named, remarks = _named_axes(file, images.shape, hdf5_axes(images), scales, axes, is_scan)
                channel = choose_channel(file, images.shape, named, choice)
                super().__init__(
                    path, images, named, scales, "HDF5", written=hdf5_written(path, images, channel),
                    remarks=remarks, any_type=any_type, channel=channel,
                )  # fmt: skip
        except BaseException:
            self._file.close()
            raise

    def _find(self, file: Path, name: str, any_type: bool) -> h5py.Dataset:
        if name:
            chosen = find(self._file, name)
            if not isinstance(chosen, h5py.Dataset):
                raise SourceError(f"there is no dataset {name!r} in {file}")
            return chosen
        every: list[h5py.Dataset] = []
        try:
            self._file.visititems(
                lambda _, item: every.append(item) if isinstance(item, h5py.Dataset) else None
            )
        except (OSError, RuntimeError, KeyError) as error:
            raise SourceError(f"{file} is damaged ({error}); use a copy of it if there is one") from error
        found = [dataset for dataset in every if _is_stack(dataset, any_type)]
        others = [dataset for dataset in every if _has_planes(dataset)]
        if not found and len(others) == 1:
            return others[0]  # whose type is told
        if len(found) != 1:
            names = ", ".join(dataset.name.lstrip("/") for dataset in found) or "none"
            raise SourceError(
                f"{file} has not one stack of images (uint8 or uint16, 3 or 4 axes) but: {names}; "
                f"name one as {file.name}::DATASET"
            )
        return found[0]

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()


def check_plane(images: h5py.Dataset, place: str) -> None:
    """Raise `SourceError` if one plane of a stack, or what must be read for one, does not fit into memory."""
    pieces = images.chunks or images.shape
    plane = math.prod(images.shape[-2:])
    read = math.prod(pieces) if images.chunks else plane
    check_memory(max(plane, read) * images.dtype.itemsize, f"{place}: one of its planes")


def _is_stack(item: object, any_type: bool) -> bool:
    if any_type:
        return isinstance(item, h5py.Dataset) and item.ndim in {2, 3, 4} and item.dtype.kind in "iuf"
    return _has_planes(item) and item.dtype.newbyteorder("=") in (np.uint8, np.uint16)


def _has_planes(item: object) -> TypeGuard[h5py.Dataset]:
    return isinstance(item, h5py.Dataset) and item.ndim in {3, 4} and item.dtype.kind in "iufbc"


def open_zarr(
    path: Path, axes: str | None = None, *, is_scan: bool = False, any_type: bool = False
) -> ArrayStack:
    """Open an OME-Zarr image (0.1 to 0.5) at full resolution, or a plain Zarr array.

    What is inside is named behind `::`: an image by its number or name, a group or an array by its path. `axes`
    takes precedence over what the file names; `is_scan` where it should be a focus scan.

    Raises `SourceError` if there is no single image, `ConfigurationError` for `axes` that it cannot have.
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
            found, remarks = _named_axes(path, node.shape, _dimension_names(node), Scales(), axes, is_scan)
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
        found, remarks = _named_axes(path, array.shape, own, scales, axes, is_scan, focus_um)
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
            why = "its metadata are not those of an array or an image"
        raise SourceError(f"cannot read {path} as OME-Zarr: {why}; copy it again") from error


def _positions(planes: Any) -> npt.NDArray[np.float64] | None:
    """The focus positions, um, that our own scans read back; None where there are none that can be read."""
    try:
        return np.array(planes["focus_um"], np.float64)
    except (LookupError, TypeError, ValueError):
        return None


def _channel_names(group: Any) -> list[str]:
    """The names of the channels of an image; nothing where it has none."""
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
    """Full resolution. Raises `SourceError` where the image names none."""
    levels = image.get("datasets")
    level = levels[0] if isinstance(levels, list) and levels else None
    if not isinstance(level, dict) or not isinstance(level.get("path"), str):
        raise SourceError(
            f"{path} names no array of its image (`datasets` is {str(levels)[:80]}); copy it again"
        )
    return level


def _is_choice(node: Any, inside: str) -> bool:
    """Whether `inside` is the number or the name of one of the images of a group."""
    images = [] if isinstance(node, zarr.Array) else _images(node)
    return any(inside in {str(number), image.get("name")} for number, image in enumerate(images))


def _one_image(path: str, node: Any, inside: str) -> tuple[dict[str, Any], Any]:
    """The image that is meant, with its group. Raises `SourceError` that asks which, where there are several."""
    images = _images(node)
    if inside:
        chosen = [image for number, image in enumerate(images) if inside in {str(number), image.get("name")}]
        return chosen[0], node
    if len(images) == 1:
        return images[0], node
    if images:
        names = ", ".join(str(image.get("name") or number) for number, image in enumerate(images))
        raise SourceError(f"{path} holds {len(images)} images ({names}); name one, as in {path}::0")
    children = [name for name, child in node.groups() if _images(child)]
    if len(children) == 1:
        return _one_image(f"{path}/{children[0]}", node[children[0]], "")
    if children:
        names = ", ".join(sorted(children))
        raise SourceError(
            f"{path} holds {len(children)} images ({names}); name one, as in {path}::{min(children)}"
        )
    raise SourceError(f"{path} is a Zarr group without an image; name the array in it, as in {path}::ARRAY")


def _named_axes(
    path: Path,
    shape: tuple[int, ...],
    own: str | None,
    scales: Scales,
    given: str | None,
    is_scan: bool,
    focus_um: npt.NDArray[np.float64] | None = None,
) -> tuple[str, tuple[str, ...]]:
    """The axes of an array: those given, its `own` or the default ones, and what is to be told of them."""
    if given is not None:
        return given_axes(path, shape, given), ()
    if own is None:
        axes = axes_of(len(shape))
        if len(shape) == 4 and shape[-1] <= MOST_CHANNELS < min(shape[-3:-1]):
            raise SourceError(
                f"{path} is an array of {' x '.join(map(str, shape))} without names for its axes: the last are "
                "channels or colours, not x; save one of them as an array of its own"
            )
        return axes, (assumed_axes(axes, "the array"),) if len(shape) > 2 else ()
    evidence = AxisEvidence(scales.interval.value, scales.z.value, scales.x.value, focus_um)
    axes, remark = decide_axes(own, shape, evidence, is_scan=is_scan)
    return axes, (remark,) if remark else ()


def _dimension_names(array: Any) -> str | None:
    """The axes that a plain Zarr array names: version 3 itself, version 2 as xarray writes them."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if not names or len(names) != array.ndim or not all(names):
        return None
    try:
        axes = zarr_axes({"axes": [{"name": str(name)} for name in names]}, array.ndim)
    except SourceError:
        return None
    return axes if {"Y", "X"} <= set(axes) and len(set(axes)) == len(axes) and "Q" not in axes else None


def _as_array(array: Any) -> _Array:
    found: _Array = array
    return found
