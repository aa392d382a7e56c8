"""The recording in a folder: images in files of their own, or the files of one stack."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from acquisition.stacks.file_set import member_files
from acquisition.stacks.image_files import SUFFIXES, TIFF, FolderStack
from acquisition.stacks.library_errors import plain, told_in_a_line
from acquisition.stacks.micromanager import MARK
from acquisition.stacks.ndtiff import ndtiff_index
from acquisition.stacks.stack import ImageStack
from acquisition.stacks.tiff import TiffStack
from acquisition.stacks.tiff_pages import TiffMembers
from acquisition.stacks.video_choice import Choice, choose
from stream.errors import SourceError


def open_folder(
    folder: Path, choice: Choice, axes: str | None = None, *, is_scan: bool = False, any_type: bool = False
) -> ImageStack:
    """Open the only recording in a folder, or the chosen one; the options are those of `TiffStack`.

    It may be in the only subfolder with images, as Micro-Manager writes it. Raises `SourceError`.
    """
    index = ndtiff_index(folder)
    if index is not None:
        return TiffStack(index, axes, choice=choice, is_scan=is_scan, any_type=any_type)
    images = _images(folder)
    if not images:
        inner = [place for place in _subfolders(folder) if _images(place) or ndtiff_index(place)]
        if not inner:
            raise SourceError(f"there are no images ({', '.join(SUFFIXES)}) in the folder {folder}")
        names = [place.name for place in inner]
        place = inner[choose(folder, "position", names, choice.get("position") if len(inner) > 1 else None)]
        rest = {key: value for key, value in choice.given.items() if key != "position" or len(inner) == 1}
        return open_folder(place, replace(choice, given=rest), axes, is_scan=is_scan, any_type=any_type)
    found = _stack_files(folder, images, choice) if images[0].suffix.lower() in TIFF else None
    if found is None:
        return FolderStack(folder, images, choice, axes, any_type=any_type)
    return TiffStack(found[0], axes, choice=found[1], is_scan=is_scan, any_type=any_type, whole=True)


def _images(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise SourceError(f"cannot read the folder {folder}: {plain(error)}") from error
    return [
        path for path in entries if path.suffix.lower() in SUFFIXES and path.name[0] != "." and path.is_file()
    ]


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def _stack_files(folder: Path, files: list[Path], choice: Choice) -> tuple[Path, Choice] | None:
    """The first file of the stack in a folder and the rest of the choice; None if each file has one image."""
    files = [path for path in files if path.suffix.lower() in TIFF]
    members = TiffMembers()
    try:
        with told_in_a_line(f"cannot read {files[0]}", "copy it again"):
            first = member_files(files[0], members)
        if len(first) == 1 and len(members.file(files[0]).pages) == 1 and _planes(members, files[0]) == 1:
            return None
        sets = [first]
        for path in files:
            if not any(path in found for found in sets):
                sets.append(member_files(path, members))
    finally:
        members.close()
    leaders = [min(found, key=lambda path: (len(path.name), path.name)) for found in sets]
    key, names = _names_of(leaders)
    number = choose(folder, key, names, choice.get(key) if len(sets) > 1 else None)
    given = {name: value for name, value in choice.given.items() if name != key or len(sets) == 1}
    return leaders[number], replace(choice, given=given)


def _planes(members: TiffMembers, path: Path) -> int:
    series = members.file(path).series
    return int(np.prod(series[0].shape[:-2])) if series else 1


def _names_of(files: list[Path]) -> tuple[str, list[str]]:
    """Names of the stacks in a folder: Micro-Manager's positions, else the files."""
    labels = [path.name.partition(MARK)[2].partition(".")[0].strip("_") for path in files]
    if all(labels) and len(set(labels)) == len(files):
        return "position", labels
    return "files", [path.name for path in files]
