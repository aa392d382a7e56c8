"""Recordings in one or several files whose planes are found by metadata: Micro-Manager, NDTiff, OME."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tifffile

from acquisition.stacks.micromanager import micromanager_table, read_summary
from acquisition.stacks.ndtiff import ndtiff_index, ndtiff_table
from acquisition.stacks.ome_files import (
    OmeImage,
    is_ome_xml,
    main_root,
    ome_table,
    only_image,
    parse_ome,
    read_ome_xml,
)
from acquisition.stacks.plane_table import Chosen, PlaneTable, select
from acquisition.stacks.tiff_pages import TiffMembers
from acquisition.stacks.tiff_series import left_over
from acquisition.stacks.video_choice import Choice
from stream.errors import SourceError


@dataclass(frozen=True, slots=True)
class FileSet:
    """The planes of one video; `shape` and `axes` describe it as an array."""

    kind: str
    chosen: Chosen
    shape: tuple[int, ...]
    axes: str
    dtype: str
    summary: dict[str, Any] = field(default_factory=dict)
    ome_xml: str = ""
    notes: tuple[str, ...] = ()

    @property
    def chosen_planes(self) -> int:
        """Number of planes."""
        return len(self.chosen.planes)

    @property
    def absent(self) -> int:
        """Planes missing in existing files; 0 where the recording may have been stopped early."""
        return self.chosen.absent if self.kind == "OME-TIFF" else 0


def member_files(path: Path, members: TiffMembers) -> set[Path]:
    """The files of the set that a TIFF belongs to; only itself if it names no others."""
    file = members.file(path)
    table = micromanager_table(path, file)
    if table is None and file.is_ome and (root := parse_ome(file.ome_metadata)) is not None:
        table = ome_table(path, *main_root(path, root), file)[0]
    return {path, *(place.file for place in table.places.values())} if table is not None else {path}


def open_file_set(
    path: Path, members: TiffMembers, choice: Choice, *, whole: bool = False, all_channels: bool = False
) -> FileSet | None:
    """The planes selected by `choice` in the set that `path` belongs to; None for a file without such metadata.

    A file with a single position selects that position, unless the `whole` set was opened by its folder. With
    `all_channels` the channels are an axis whose meaning the user gives. Raises `SourceError` if files are missing
    or damaged, or if the choice is ambiguous.
    """
    if path.name.endswith(".index"):
        return _ndtiff(path, path, members, choice, all_channels)
    if is_ome_xml(path):
        return _ome(path, None, members, choice, all_channels)
    file = members.file(path)
    if file.is_ndtiff:
        index = ndtiff_index(path)
        if index is not None:
            return _ndtiff(path, index, members, choice, all_channels)
    table = micromanager_table(path, file)
    if table is not None:
        table.own = set() if whole else table.own
        return _finish(path, table, members, choice, all_channels, read_summary(file))
    return _ome(path, file, members, choice, all_channels, whole=whole) if file.is_ome else None


def _ndtiff(path: Path, index: Path, members: TiffMembers, choice: Choice, all_channels: bool) -> FileSet:
    table, first = ndtiff_table(index)
    return _finish(path, table, members, choice, all_channels, read_summary(members.file(first)))


def _ome(
    path: Path,
    file: tifffile.TiffFile | None,
    members: TiffMembers,
    choice: Choice,
    all_channels: bool,
    *,
    whole: bool = True,
) -> FileSet | None:
    own = read_ome_xml(path) if file is None else parse_ome(file.ome_metadata)
    if own is None:
        return None
    root, described_in = main_root(path, own)
    table, images, notes = ome_table(path, root, described_in, file)
    if not table.places:
        return None
    table.own = set() if whole else table.own
    found = _finish(path, table, members, choice, all_channels, {})
    image: OmeImage = images[found.chosen.position]
    if found.shape[-2:] != image.shape:
        return None
    xml = only_image(root, image, found.chosen.channel)
    if file is not None and not notes:
        named = {place.ifd for place in table.places.values() if place.file == path and place.ifd >= 0}
        notes = [*left_over(len(file.pages) - len(named))] if named else notes
    return FileSet(
        "OME-TIFF", found.chosen, found.shape, found.axes, found.dtype, {}, xml, (*notes, *found.notes)
    )


def _finish(
    path: Path,
    table: PlaneTable,
    members: TiffMembers,
    choice: Choice,
    all_channels: bool,
    summary: dict[str, Any],
) -> FileSet:
    chosen = select(path, table, choice, all_channels=all_channels)
    shape, dtype = table.shape, table.dtype
    if not table.dtype:
        first = next(place for place in chosen.planes if place is not None)
        page = members.page(first).keyframe
        if page.samplesperpixel > 1:
            raise SourceError(f"{path} has colour images; convert them to greyscale")
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            raise SourceError(f"{path} has a colour table; convert it to greyscale")
        if page.dtype is None:
            raise SourceError(
                f"{path} has pixels of {page.bitspersample} bits, which cannot be read; convert it to 16-bit"
            )
        shape, dtype = (page.imagelength, page.imagewidth), page.dtype.name
    # the full grid counts: the last volume may be incomplete
    lead = chosen.lead
    return FileSet(
        table.kind, chosen, (*lead, *shape), f"{chosen.axes}YX", dtype, summary, notes=chosen.notes
    )
