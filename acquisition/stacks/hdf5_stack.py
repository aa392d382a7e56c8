"""Stacks in HDF5 files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TypeGuard

import h5py
import numpy as np

from acquisition.stacks.array_stack import ArrayStack, named_axes
from acquisition.stacks.hdf5_facts import hdf5_axes, hdf5_scales
from acquisition.stacks.library_errors import plain
from acquisition.stacks.unwritten_frames import hdf5_written
from acquisition.stacks.video_choice import Choice, choose_channel, file_of, parse_choice
from stream.errors import SourceError
from stream.hdf5_checks import check_attributes, check_memory
from stream.hdf5_reading import find, reading


class Hdf5Stack(ArrayStack):
    """The only dataset of images in an HDF5 file, or the one named behind `::`."""

    def __init__(
        self, path: Path, axes: str | None = None, *, is_scan: bool = False, any_type: bool = False
    ) -> None:
        """Open `FILE.h5` or `FILE.h5::DATASET`. Raises `SourceError` if it does not contain exactly one stack.

        `axes` takes precedence over the file; `is_scan` if it should be a focus scan; `any_type` if pixels may have
        any numeric type, as in references.
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
                    raise SourceError(f"{file}: its images are in other files; copy them into one file")
                check_plane(images, str(path))
                check_attributes(images)
                scales = hdf5_scales(images.attrs)
                named, remarks = named_axes(file, images.shape, hdf5_axes(images), scales, axes, is_scan)
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
            return others[0]  # the error about its pixel type follows
        if len(found) != 1:
            names = ", ".join(dataset.name.lstrip("/") for dataset in found) or "none"
            raise SourceError(
                f"{file} does not contain exactly one stack of images (uint8 or uint16, 3 or 4 axes): {names}; "
                f"select one as {file.name}::DATASET"
            )
        return found[0]

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()


def check_plane(images: h5py.Dataset, place: str) -> None:
    """Raise `SourceError` if one plane of a stack, or the chunk that contains it, does not fit into memory."""
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
