"""Truncated TIFF files: the number of images that they should have, and those that exist."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from acquisition.stacks.claimed_size import check_count
from acquisition.stacks.tiff_pages import entry_of
from acquisition.stacks.tiff_series import Video, is_unnamed, named_axes, shades
from acquisition.stacks.video_choice import Choice

BLOCK_BYTES = 2**20  # read at a time when looking for the last byte that is not zero
LARGEST_PAGE_BYTES = 4096
"""Most bytes between the images and the page behind them."""


@dataclass(frozen=True, slots=True)
class Break:
    """The end of the usable part of a file: `good` pages exist, `end` is the byte behind the last one."""

    good: int
    end: int


def find_break(file: tifffile.TiffFile) -> Break | None:
    """Where the list of pages leads behind the end of the file or into zeros only; None if it is complete.

    Zeros are left by an interrupted copy or a full disk.
    """
    size, count = file.filehandle.size, len(file.pages)
    try:
        tags, following = entry_of(file, file.pages[count - 1].offset)
    except tifffile.TiffFileError:
        return None  # reading that page raises the error
    if tags == 0 and count > 1:
        return Break(count - 1, _written(file))
    if following >= size:
        return Break(count, size)
    return Break(count, _written(file)) if following and entry_of(file, following)[0] == 0 else None


def rest_of_video(path: Path, file: tifffile.TiffFile, choice: Choice) -> Video | None:
    """The images in a truncated file; None for a complete one.

    Also None if the file does not say how many images it should have and only its end is missing: the existing
    pages are read normally.
    """
    found = find_break(file)
    if found is None:
        return None
    first = file.pages.first
    nbytes = first.imagelength * first.imagewidth * (0 if first.dtype is None else first.dtype.itemsize)
    if first.samplesperpixel > 1 or not nbytes:
        return None
    promised = _promised(file, first)
    planes = 0 if promised is None else math.prod(promised[0][:-2])
    check_count(path, planes)
    if first.is_contiguous:
        # one page, then all images in a row, then the other pages
        data = int(first.dataoffsets[0])
        in_row, rest = divmod(max(0, entry_of(file, first.offset)[1] - data), nbytes)
        if promised is None and in_row > 1 and rest < LARGEST_PAGE_BYTES:
            return _video(
                path, file, choice, (first,), ((in_row, *first.shape), "IYX"), data, in_row, found.end
            )
        if promised is not None and in_row >= planes > 1:
            return _video(path, file, choice, (first,), promised, data, planes, found.end)
    pages: tuple[Any, ...] = tuple(file.pages[number] for number in range(found.good))
    alike = all((page.shape, page.dtype) == (first.shape, first.dtype) for page in pages)
    if not alike or (promised is None and found.end == file.filehandle.size) or 0 < planes <= found.good:
        return None
    names = "IYX" if promised is None or len(promised[1]) != first.ndim + 1 else promised[1]
    return _video(path, file, choice, pages, ((found.good, *first.shape), names), None, planes, found.end)


def _video(
    path: Path,
    file: tifffile.TiffFile,
    choice: Choice,
    pages: tuple[Any, ...],
    form: tuple[tuple[int, ...], str],
    data: int | None,
    planes: int,
    end: int,
) -> Video:
    choice.refuse_rest(path, ("series", "position", "channel"))
    shape, names = form
    dtype = np.dtype(file.pages.first.dtype)
    notes = shades(path, file.pages.first, is_imagej=file.is_imagej)
    return Video(pages, shape, named_axes(names, shape), dtype, data, notes, is_unnamed(names), planes, end)


def _promised(file: tifffile.TiffFile, first: tifffile.TiffPage) -> tuple[tuple[int, ...], str] | None:
    """The full shape and tifffile's names of the axes, from the metadata of ImageJ or tifffile; None without."""
    lead: list[tuple[str, int]] = []
    if file.is_imagej:
        facts = file.imagej_metadata or {}
        counts = {"T": facts.get("frames", 1), "Z": facts.get("slices", 1), "C": facts.get("channels", 1)}
        order = str(facts.get("order", "czt")).upper()[::-1]
        lead = [(axis, counts[axis]) for axis in (order if sorted(order) == ["C", "T", "Z"] else "TZC")]
        if all(size == 1 for _, size in lead):
            lead = [("I", facts.get("images", 1))]
    elif file.is_shaped and file.shaped_metadata:
        facts = file.shaped_metadata[0]
        shape, names = facts.get("shape", ()), str(facts.get("axes", ""))
        if tuple(shape[-2:]) != first.shape[-2:]:
            return None
        names = names if len(names) == len(shape) else "Q" * (len(shape) - 2) + "YX"
        lead = list(zip(names[:-2], shape[:-2], strict=True))
    if not lead or not all(isinstance(size, int) and size > 0 for _, size in lead):
        return None
    lead = [(axis, size) for axis, size in lead if size > 1]
    return (*(size for _, size in lead), *first.shape[-2:]), "".join(axis for axis, _ in lead) + "YX"


def _written(file: tifffile.TiffFile) -> int:
    """The byte behind the last one of a file that is not zero."""
    handle, end = file.filehandle, file.filehandle.size
    while end > 0:
        start = max(0, end - BLOCK_BYTES)
        handle.seek(start)
        kept = handle.read(end - start).rstrip(b"\0")
        if kept:
            return int(start + len(kept))
        end = start
    return 0
