"""Recordings in a folder and all folders below it; the files of one recording count once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from acquisition.recorded_run.places import recorded_files
from acquisition.recording import HDF5, ZARR_MARKS, open_stack
from acquisition.stacks.file_set import member_files
from acquisition.stacks.image_files import SUFFIXES, TIFF
from acquisition.stacks.library_errors import kept_quiet, told_in_a_line
from acquisition.stacks.ndtiff import ndtiff_index
from acquisition.stacks.tiff_pages import TiffMembers
from liveptv.replaying.recorded import is_trajectory_file
from stream.errors import LivePTVError

FRAME_TABLE = ".frames.jsonl"
"""Ending of the table of frames of a recorded run; it names the images beside it."""
LOOKED_AT = 8
"""Files that are opened to see whether the images of a folder are single ones; a folder may hold 100,000."""


@dataclass(slots=True)
class Found:
    """Recordings that were found, and lines about what looks like one and is none."""

    paths: list[Path] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def find_recordings(folder: Path, without: Path) -> Found:
    """All recordings below a folder, in order; the folder `without`, that of the results, is not searched."""
    found = Found()
    for place, folders, files in _walk(folder, without):
        images = [path for path in files if path.suffix.lower() in SUFFIXES]
        taken = _recorded_runs(place, files, found)
        for path in files:
            if path.suffix.lower() in HDF5 and path not in taken:
                _look_at_hdf5(path, found)
        found.paths += [path for path in folders if _is_zarr(path) and path not in taken]
        images = [path for path in images if path not in taken]
        index = ndtiff_index(place)
        if index is not None:
            found.paths.append(place)
        elif images:
            _look_at_images(place, images, found)
    found.paths.sort()
    return found


def _walk(folder: Path, without: Path) -> Iterator[tuple[Path, list[Path], list[Path]]]:
    """Each folder with the folders and files in it; hidden ones, and what lies within a Zarr, are left out."""
    for here, folders, files in os.walk(folder):
        place = Path(here)
        visible = sorted(name for name in folders if name[0] != ".")
        folders[:] = [
            name
            for name in visible
            if not _is_zarr(place / name) and (place / name).absolute() != without.absolute()
        ]
        yield (
            place,
            [place / name for name in visible],
            [place / name for name in sorted(files) if name[0] != "."],
        )


def _is_zarr(path: Path) -> bool:
    return path.is_dir() and (
        path.suffix.lower() == ".zarr" or any((path / mark).is_file() for mark in ZARR_MARKS)
    )


def _recorded_runs(place: Path, files: list[Path], found: Found) -> set[Path]:
    """Take the recorded runs in a folder: the images that belong to a table of frames; returns what they
    consist of.
    """
    taken: set[Path] = set()
    for table in (path for path in files if path.name.endswith(FRAME_TABLE)):
        try:
            run = recorded_files(table)
        except LivePTVError as error:
            found.left_out.append(f"{table} is left out: {error}")
            continue
        if run is not None:
            found.paths.append(run.images)
            taken |= {run.images, table}
    return taken


def _look_at_hdf5(path: Path, found: Found) -> None:
    """An HDF5 file may hold anything: results of ours, tables; only a stack of images is a recording."""
    if any(path.name.endswith(mark) for mark in (".partial.h5", ".before-recovery.h5")) or is_trajectory_file(
        path
    ):
        return
    try:
        stack = open_stack(path)
    except LivePTVError as error:
        found.left_out.append(f"{path} is left out: {error}")
        return
    stack.close()
    found.paths.append(path)


def _look_at_images(place: Path, images: list[Path], found: Found) -> None:
    """TIFF stacks are recordings by themselves; single images of a folder are one recording together."""
    tiffs = [path for path in images if path.suffix.lower() in TIFF]
    if not tiffs or _are_single(tiffs):
        if len(images) > 1:
            found.paths.append(place)
        else:
            found.left_out.append(f"{images[0]} is left out: it is a single image")
        return
    known: set[Path] = set()
    for path in tiffs:
        if path in known:
            continue
        members, planes = _set_of(path)
        known |= members
        if planes == 1 and len(members) == 1:
            found.left_out.append(f"{path} is left out: it is a single image beside recordings")
        else:
            found.paths.append(min(members & set(tiffs), key=lambda one: (len(one.name), one.name)))
    for path in images:
        if path not in tiffs:
            found.left_out.append(f"{path} is left out: it is a single image beside recordings")


def _are_single(tiffs: list[Path]) -> bool:
    """Whether each file has one image only, by some of them."""
    step = max(1, len(tiffs) // LOOKED_AT)
    return all(planes == 1 and len(members) == 1 for members, planes in map(_set_of, tiffs[::step]))


def _set_of(path: Path) -> tuple[set[Path], int]:
    """The files of the recording that a TIFF belongs to, and the images that this one has or should have.

    What cannot be read counts as two, so that it is tried as a recording and its fault told.
    """
    members, path = TiffMembers(), path.absolute()
    try:
        with kept_quiet(), told_in_a_line(f"cannot read {path}"):
            found = {one.absolute() for one in member_files(path, members)}
            pages = len(members.file(path).pages)
        return found | {path}, pages if pages > 1 else _images_in(path)
    except LivePTVError:
        return {path}, 2
    finally:
        members.close()


def _images_in(path: Path) -> int:
    """The images that a TIFF of one page has or, if it is cut short, should have."""
    stack = open_stack(path)
    try:
        return stack.info.planes + bool(stack.damage)
    finally:
        stack.close()
