"""Reads a bright or dark reference from a file or a folder: the mean of its images, of any numeric type.

The one rule for what the image is: axes of length 1 are left out, wherever they are; the last two that remain are
its rows and columns, all before them are repeats and are averaged. Colours and channels are refused.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from stream.errors import ConfigurationError, LivePTVError
from stream.hdf5_reading import find, open_hdf5

TIFF = (".tif", ".tiff")
PICTURES = (".png", ".bmp", ".jpg", ".jpeg", ".pgm")
HDF5 = (".h5", ".hdf5", ".hdf", ".he5")
DATASET = "::"
"""Between an HDF5 file and the name of its dataset."""
MOST_SQUEEZED = 2000
"""Largest ratio of image bytes to file bytes: deflate reaches 1032, LZW less than 1400; only a damaged
header claims more."""
MOST_PIXELS = 2**29
"""Largest image; the largest cameras on the market have 0.15 * 10^9."""
MOST_COLOURS = 4
"""A last axis that is no longer than this, behind two longer ones, holds colours: no camera is 4 px wide."""

FloatArray = npt.NDArray[np.float64]


class Planes(Protocol):
    """What is averaged: an array, or a dataset on disk."""

    shape: tuple[int, ...]

    def __getitem__(self, index: Any) -> Any: ...


def can_read(path: Path) -> bool:
    """Whether `read_reference_file` is for such a path: a TIFF, a picture, HDF5, or a folder with images in it."""
    file, _, choice = str(path).partition(DATASET)
    place = Path(file)
    suffix = place.suffix.lower()
    if suffix in HDF5 and not place.is_dir():
        return "=" not in choice
    if choice:
        return False
    if place.is_dir():
        return bool(_images(place)) and not any(child.suffix == ".index" for child in place.iterdir())
    return suffix in TIFF + PICTURES or not place.exists()


def read_reference_file(path: Path) -> FloatArray:
    """The mean (H, W) of all images in a TIFF, a picture, an HDF5 dataset (`FILE.h5::NAME`) or a folder.

    Integers of any width, signed ones without negative values, and floating-point numbers are read. Raises
    `ConfigurationError`, one line with the file and what to do.
    """
    with _in_a_line(path):
        plain = Path(str(path).partition(DATASET)[0])
        if plain.is_dir():
            return _folder(plain)
        suffix = plain.suffix.lower()
        if suffix in HDF5:
            return _hdf5(path)
        return _picture(path) if suffix in PICTURES else _tiff(path)


def mean_image(images: Planes, axes: str, dtype: np.dtype[Any], path: Path) -> FloatArray:
    """The mean (H, W) of an array by the rule of this module; `axes` has a letter for each axis, `?` without name.

    Raises `ConfigurationError` for colours, channels, negative integers, and arrays without an image in them.
    """
    shape = tuple(int(size) for size in images.shape)
    if dtype.kind not in "iufb":
        raise ConfigurationError(
            f"the flat-field reference {path} has {dtype.name} values; save real numbers"
        )
    if 0 in shape:
        raise ConfigurationError(f"the flat-field reference {path} is empty: its shape is {shape}")
    kept = [place for place, size in enumerate(shape) if size > 1]
    if len(kept) < 2 and "Y" in axes and "X" in axes:
        kept = sorted({*kept, axes.index("Y"), axes.index("X")})  # one row, one column or one pixel
    if len(kept) < 2 and len(shape) == 2:
        kept = [0, 1]
    if len(kept) < 2:
        raise ConfigurationError(f"the flat-field reference {path} is not an image but an array of {shape}")
    names, sizes = "".join(axes[place] for place in kept), [shape[place] for place in kept]
    if len(kept) > 2:
        _refuse_colours(names, sizes, path)
    height, width = sizes[-2:]
    if height * width > MOST_PIXELS:
        raise ConfigurationError(
            f"the flat-field reference {path} claims {width} x {height} pixels, more than any camera has; it is "
            "damaged"
        )
    total, count = np.zeros((height, width)), math.prod(sizes[:-2])
    whole: list[Any] = [slice(None) if place in kept else 0 for place in range(len(shape))]
    for repeat in np.ndindex(*sizes[:-2]):
        for place, number in zip(kept, repeat, strict=False):
            whole[place] = number
        plane = np.asarray(images[tuple(whole)])
        if dtype.kind == "i" and plane.min() < 0:
            raise ConfigurationError(
                f"the flat-field reference {path} has negative {dtype.name} values; save it in a type that "
                "holds its values, such as 32-bit"
            )
        total += plane
    return total / count


def _refuse_colours(names: str, sizes: list[int], path: Path) -> None:
    """Raise `ConfigurationError` where more than two axes are longer than 1 and one is of colours or channels."""
    last = sizes[-1] <= MOST_COLOURS < min(sizes[-3:-1])
    if last or names.endswith("S") or "C" in names:
        raise ConfigurationError(
            f"the flat-field reference {path} has colours or channels ({' x '.join(map(str, sizes))}); save a grey "
            "image, and where they are repeats, their mean"
        )


def _tiff(path: Path) -> FloatArray:
    with tifffile.TiffFile(path) as file:
        found = [series for series in file.series if series.dtype is not None and series.size]
        if not found:
            raise ConfigurationError(f"cannot read the flat-field reference {path}: it holds no images")
        largest = max(found, key=lambda series: series.size)
        alike = [part for part in found if (part.shape, part.dtype) == (largest.shape, largest.dtype)]
        means = [_series(file, series, path) for series in alike]
    return np.asarray(sum(means) / len(means), np.float64)


def _series(file: tifffile.TiffFile, series: tifffile.TiffPageSeries, path: Path) -> FloatArray:
    page: Any = series.keyframe
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE and not file.is_imagej and page.colormap is not None:
        table = np.asarray(page.colormap)
        if not (table == table[0]).all():
            raise ConfigurationError(f"the flat-field reference {path} has a colour table; save a grey image")
    dtype = np.dtype(series.dtype)
    claimed = math.prod(series.shape) * dtype.itemsize
    if claimed > MOST_SQUEEZED * file.filehandle.size:
        raise ConfigurationError(
            f"cannot read the flat-field reference {path}: it claims {claimed} bytes of images and has "
            f"{file.filehandle.size}; it is damaged"
        )
    shape, axes = tuple(series.shape), str(series.axes)
    images: Planes
    if series.dataoffset is not None and not file.filehandle.is_file:
        images = series.asarray()
    elif series.dataoffset is not None:
        stored = dtype.newbyteorder(file.byteorder)
        images = file.filehandle.memmap_array(stored, shape, series.dataoffset)
    else:
        images = _Pages(series) if _are_planes(series) else series.asarray()
    return mean_image(images, axes, dtype, path)


def _are_planes(series: tifffile.TiffPageSeries) -> bool:
    """Whether each page is one image, and the axes before the last two count them."""
    page = tuple(series.shape[-2:])
    counted = len(series.pages) == math.prod(series.shape[:-2]) > 1
    return counted and tuple(series.keyframe.shape) == page and min(page) > 1


class _Pages:
    """The pages of a TIFF as an array that is read page by page."""

    def __init__(self, series: tifffile.TiffPageSeries) -> None:
        self.shape = tuple(series.shape)
        self._pages = series.pages

    def __getitem__(self, index: Any) -> Any:
        lead = tuple(int(number) for number in index[:-2])
        page = self._pages[int(np.ravel_multi_index(lead, self.shape[:-2]))]
        if page is None:
            raise ValueError("a page is missing")
        return page.asarray()[index[-2:]]


def _picture(path: Path) -> FloatArray:
    with Image.open(path) as picture:
        if picture.mode == "P":
            raise ConfigurationError(f"the flat-field reference {path} has a colour table; save a grey image")
        image = np.asarray(picture)
    return mean_image(image, "YX" if image.ndim == 2 else "YXS", image.dtype, path)


def _hdf5(path: Path) -> FloatArray:
    file_name, _, name = str(path).partition(DATASET)
    with open_hdf5(Path(file_name)) as file:
        if name:
            found = [item for item in [find(file, name)] if isinstance(item, h5py.Dataset)]
        else:
            found = []
            file.visititems(lambda _, item: found.append(item) if _is_image(item) else None)
        if len(found) != 1:
            names = ", ".join(item.name.lstrip("/") for item in found) or name or "none"
            raise ConfigurationError(
                f"the flat-field reference {file_name} does not contain exactly one dataset of images ({names}); "
                f"name one as {Path(file_name).name}{DATASET}DATASET"
            )
        (images,) = found
        if images.external or images.is_virtual:
            raise ConfigurationError(
                f"the flat-field reference {file_name} has its images in other files; copy them into one"
            )
        return mean_image(images, "?" * images.ndim, images.dtype, path)


def _is_image(item: object) -> bool:
    return isinstance(item, h5py.Dataset) and item.ndim >= 2 and item.dtype.kind in "iuf"


def _folder(folder: Path) -> FloatArray:
    files = _images(folder)
    if not files:
        raise ConfigurationError(f"there are no images ({', '.join(TIFF + PICTURES)}) in the folder {folder}")
    total: FloatArray | None = None
    for file in files:
        image = read_reference_file(file)
        if total is not None and image.shape != total.shape:
            raise ConfigurationError(
                f"the flat-field reference {file} is {image.shape} and {files[0].name} is {total.shape}; keep "
                "images of one size in the folder"
            )
        total = image if total is None else total + image
    assert total is not None
    return total / len(files)


def _images(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in TIFF + PICTURES and not path.name.startswith(".") and path.is_file()
    )


@contextmanager
def _in_a_line(path: Path) -> Iterator[None]:
    """Turn whatever the libraries raise into a `ConfigurationError` of one line, and keep tifffile quiet."""
    logger = logging.getLogger("tifffile")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    except ConfigurationError:
        raise
    except LivePTVError as error:
        raise ConfigurationError(f"cannot read the flat-field reference {path}: {error}") from error
    except Exception as error:  # what libraries raise on a damaged file is of any type
        why = " ".join(str(error).split()) or type(error).__name__
        raise ConfigurationError(f"cannot read the flat-field reference {path}: {why}") from error
    finally:
        logger.disabled = before
