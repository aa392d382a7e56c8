"""Stacks in array files: OME-Zarr and HDF5."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import zarr

from acquisition.stacks.stack import (
    NAN,
    Layout,
    Plane,
    StackInfo,
    axes_of,
    check_pixels,
    layout_of,
    to_s,
    to_um,
)
from stream.errors import SourceError

SEPARATOR = "::"


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
        facts: dict[str, float],
        kind: str,
        planes: dict[str, Any] | None = None,
        *,
        any_type: bool = False,
    ) -> None:
        """`planes` are lists by z of what was read back at each, as our own scans have them.

        `any_type`: pixels need not be a camera's, as in references.
        """
        self._path, self._array, self._facts = path, array, facts
        self._planes = planes or {}
        self._kept = [axis for axis in range(len(axes)) if axes[axis] not in "YX"]
        self._layout: Layout = layout_of(path, array.shape, axes)
        self._singles = [array.shape[axis] == 1 and axes[axis] == "C" for axis in self._kept]
        self.info = StackInfo(
            planes=self._layout.planes,
            height=self._layout.height,
            width=self._layout.width,
            dtype=_type_of(path, np.dtype(array.dtype), any_type),
            volume=self._layout.volume,
            pixel_size_um=facts.get("pixel_um", NAN),
            frame_rate_hz=facts.get("rate_hz", NAN),
            format=kind,
            axes=self._layout.axes,
            lead=self._layout.lead,
        )

    def read(self, index: int) -> Plane:
        """Plane `index`. Raises `SourceError` if it cannot be read."""
        where = iter(np.unravel_index(index, self._layout.lead) if self._layout.lead else ())
        place = tuple(0 if single else int(next(where)) for single in self._singles)
        try:
            image = np.asarray(self._array[place])
        except Exception as error:
            raise SourceError(
                f"frame {index} of {self._path} cannot be read ({' '.join(str(error).split())}); copy it again"
            ) from error
        pixels = np.ascontiguousarray(image, self.info.dtype)
        t, z = self._layout.position(index, "T"), self._layout.position(index, "Z")
        if not self._planes:
            step_um = self._facts.get("z_um", NAN)
            return Plane(pixels, focus_um=z * step_um if self._layout.size("Z") > 1 else NAN)
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

    def close(self) -> None:
        """Nothing is held open."""


class Hdf5Stack(ArrayStack):
    """The one dataset of images in an HDF5 file, or the one named behind `::`."""

    def __init__(self, path: Path, *, any_type: bool = False) -> None:
        """Open `FILE.h5` or `FILE.h5::DATASET`. Raises `SourceError` if there is no single stack in it."""
        text, _, name = str(path).partition(SEPARATOR)
        file = Path(text)
        if not file.is_file():
            raise SourceError(f"there is no recording {file}")
        try:
            self._file = h5py.File(file, "r", locking=False)
        except OSError as error:
            raise SourceError(f"cannot read {file} as HDF5: {' '.join(str(error).split())}") from error
        try:
            dataset = self._find(file, name, any_type)
            facts = {
                "pixel_um": float(dataset.attrs.get("pixel_size_um", NAN)),
                "rate_hz": float(dataset.attrs.get("frame_rate_hz", NAN)),
            }
            super().__init__(path, dataset, axes_of(dataset.ndim), facts, "HDF5", any_type=any_type)
        except BaseException:
            self._file.close()
            raise

    def _find(self, file: Path, name: str, any_type: bool) -> h5py.Dataset:
        if name:
            if not isinstance(self._file.get(name), h5py.Dataset):
                raise SourceError(f"there is no dataset {name!r} in {file}")
            return self._file[name]
        found: list[h5py.Dataset] = []
        try:
            self._file.visititems(lambda _, item: found.append(item) if _is_stack(item, any_type) else None)
        except (OSError, RuntimeError, KeyError) as error:
            raise SourceError(f"{file} is damaged ({error}); use a copy of it if there is one") from error
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


def _type_of(path: Path, dtype: np.dtype[Any], any_type: bool) -> str:
    """The name of the pixel type, which must be a camera's but in references."""
    return dtype.newbyteorder("=").name if any_type and dtype.kind in "iuf" else check_pixels(path, dtype)


def _is_stack(item: object, any_type: bool) -> bool:
    if not isinstance(item, h5py.Dataset):
        return False
    if any_type:
        return item.ndim in {2, 3, 4} and item.dtype.kind in "iuf"
    return item.ndim in {3, 4} and item.dtype in (np.uint8, np.uint16)


def open_zarr(path: Path, *, any_type: bool = False) -> ArrayStack:
    """Open an OME-Zarr image (0.4 or 0.5) at full resolution, or a plain Zarr array.

    Raises `SourceError` if it is neither.
    """
    try:
        node = zarr.open(str(path), mode="r")
        attributes: dict[str, Any] = dict(node.attrs)
        scales = (attributes.get("ome") or attributes).get("multiscales")
        if isinstance(node, zarr.Array):
            return ArrayStack(path, _as_array(node), axes_of(node.ndim), {}, "Zarr", any_type=any_type)
        if not scales:
            raise SourceError(f"{path} is a Zarr group without an image; name the array in it")
        axes = "".join(
            str(axis["name"] if isinstance(axis, dict) else axis).upper() for axis in scales[0]["axes"]
        )
        level = scales[0]["datasets"][0]
        array = node[level["path"]]
        if not isinstance(array, zarr.Array):
            raise SourceError(f"{path} has no array {level['path']!r}")
        planes = (attributes.get("liveptv") or {}).get("planes")
        facts = _scales(scales[0], level, axes)
        return ArrayStack(path, _as_array(array), axes, facts, "OME-Zarr", planes, any_type=any_type)
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(f"cannot read {path} as OME-Zarr: {' '.join(str(error).split())}") from error


def _as_array(array: Any) -> _Array:
    found: _Array = array
    return found


def _scales(image: dict[str, Any], level: dict[str, Any], axes: str) -> dict[str, float]:
    scale = next(
        (t["scale"] for t in level.get("coordinateTransformations", []) if t["type"] == "scale"), None
    )
    if scale is None:
        return {}
    units = [axis.get("unit", "") if isinstance(axis, dict) else "" for axis in image["axes"]]
    by_axis = {name: (float(size), unit) for name, size, unit in zip(axes, scale, units, strict=True)}
    facts = {}
    if by_axis.get("X", (0, ""))[1]:
        facts["pixel_um"] = to_um(*by_axis["X"])
    if by_axis.get("Z", (0, ""))[1]:
        facts["z_um"] = to_um(*by_axis["Z"])
    if by_axis.get("T", (0, ""))[1] and by_axis["T"][0] > 0:
        facts["rate_hz"] = 1 / to_s(*by_axis["T"])
    return facts
