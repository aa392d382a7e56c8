"""The video in a TIFF file with little metadata: which of its pages are the frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from acquisition.stacks.video_choice import Choice, choose
from stream.errors import SourceError

UNNAMED = "IQRP"
"""tifffile's names for axes without a name in the file."""


@dataclass(frozen=True, slots=True)
class Video:
    """The pages of a video, or the byte at which its images begin (`data`) if they are contiguous.

    `is_unnamed`: the axes have no names in the file. For a truncated file, `promised` is the number of planes that
    it should have (0 if unknown) and `end` the byte at which its content ends; both are 0 for a complete file.
    """

    pages: tuple[Any, ...]
    shape: tuple[int, ...]
    axes: str
    dtype: np.dtype[Any]
    data: int | None
    notes: tuple[str, ...] = ()
    is_unnamed: bool = False
    promised: int = 0
    end: int = 0


def find_video(path: Path, file: tifffile.TiffFile, choice: Choice) -> Video:
    """The only video in a file, or the chosen one.

    Single images of another size (a label, a thumbnail, an overview) are left out and reported. Raises
    `SourceError` if the file has no images, or several videos.
    """
    choice.refuse_rest(path, ("series", "position", "channel"))
    every = [series for series in file.series if series.dtype is not None]
    if not every:
        raise SourceError(f"{path} contains no images")
    first = every[0]
    given = choice.get("series", "position")
    if given is None and first.ndim == 2:
        alike = [series for series in every if (series.shape, series.dtype) == (first.shape, first.dtype)]
        if len(alike) > 1 and len(alike) >= len(every) - len(alike):
            # images written one by one
            pages = tuple(page for series in alike for page in series.pages)
            notes = _left_out(len(every) - len(alike)) + shades(
                path, first.keyframe, is_imagej=file.is_imagej
            )
            return Video(pages, (len(pages), *first.shape), "TYX", first.dtype, None, notes, is_unnamed=True)
    videos = [series for series in every if _planes(series) > 1 or given is not None]
    videos = videos or [max(every, key=lambda series: series.size)]
    sizes = [" x ".join(str(size) for size in series.shape) for series in videos]
    about = f": {', '.join(sizes)}" if given is None and len(videos) > 1 else ""
    series = videos[choose(path, "series", [str(n) for n in range(len(videos))], given, about)]
    notes = _left_out(len(every) - 1) if given is None else ()
    notes += shades(path, series.keyframe, is_imagej=file.is_imagej)
    pages = tuple(series.pages)
    shape, axes = tuple(series.shape), named_axes(str(series.axes), series.shape)
    planes = int(np.prod(shape[: axes.index("Y")])) if "Y" in axes else len(pages)
    data = None
    if len(pages) < planes:
        if series.dataoffset is None:
            raise SourceError(f"{path} has {len(pages)} pages for {planes} images")
        data = int(series.dataoffset)
    elif any(page is None for page in pages):
        raise SourceError(f"{path} names pages that do not exist; copy it again")
    names_none = is_unnamed(str(series.axes))
    return Video(pages, shape, axes, series.dtype, data, notes, names_none)


def unnamed_pages(pages: int, file: tifffile.TiffFile) -> tuple[str, ...]:
    """The remark about pages of a file that belong to no series."""
    return left_over(pages - sum(len(series.pages) for series in file.series))


def left_over(count: int) -> tuple[str, ...]:
    """The remark about images that the metadata of a file do not name."""
    if count <= 0:
        return ()
    return (f"the file has {count} more images than its metadata name: they are left out",)


def _planes(series: tifffile.TiffPageSeries) -> int:
    sizes = zip(str(series.axes), series.shape, strict=True)
    return math.prod(size for axis, size in sizes if axis not in "YXS")


def shades(path: Path, page: Any, *, is_imagej: bool) -> tuple[str, ...]:
    """The remark about colour tables and inverted grey values.

    Raises `SourceError` for a colour table, except ImageJ's, which only affects the display.
    """
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
        table = page.colormap
        is_grey = table is not None and bool((table[0] == table[1]).all() and (table[0] == table[2]).all())
        steps = np.diff(table[0].astype(np.int64)) if is_grey else np.empty(0)
        rises = is_grey and bool((steps >= 0).all() and (steps > 0).any())
        if not (is_imagej or rises):
            raise SourceError(f"{path} has a colour table; convert it to greyscale")
        return ("its colours only affect the display: the grey values are used",) if not rises else ()
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        return (
            "its metadata say that 0 is white: the values are used unchanged, so dark and bright are swapped",
        )
    return ()


def _left_out(count: int) -> tuple[str, ...]:
    return (f"{count} images of another size or type in the file are left out",) if count else ()


def is_unnamed(names: str) -> bool:
    """Whether one of the axes has no name in the file."""
    return bool(set(names) - set("TZCYX"))


def named_axes(own: str, shape: Sequence[int]) -> str:
    """tifffile's names, with unnamed axes (I, Q) taken as times, further ones as planes."""
    names = list(own)
    for name in "TZ":
        unnamed = [place for place, other in enumerate(names) if other in UNNAMED]
        longer = [place for place in unnamed if shape[place] > 1] or unnamed
        if longer and name not in names:
            names[longer[0]] = name
    axes = "".join(names)
    if axes.startswith("S") and "T" not in axes:
        # three or four frames, which tifffile takes for the colours of one
        axes = axes.replace("S", "T", 1)
    return axes
