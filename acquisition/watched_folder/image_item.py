"""Opens a file or Zarr folder that may still be growing, and says how many of its images are whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from acquisition.recording import open_stack
from acquisition.stacks.array_stack import ArrayStack
from acquisition.stacks.file_set import member_files
from acquisition.stacks.image_files import TIFF, read_single_image
from acquisition.stacks.library_errors import GuardedStack, kept_quiet, told_in_a_line
from acquisition.stacks.stack import ImageStack, Plane, StackInfo, check_pixels
from acquisition.stacks.tiff_pages import TiffMembers
from acquisition.stacks.zarr_stack import open_zarr
from acquisition.watched_folder.volumes_of_file import VolumeRules, VolumesOfFile
from stream.errors import SourceError
from stream.volume_info import VolumeInfo

ENDS = {".png": b"IEND\xaeB`\x82", ".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9"}
"""The last bytes of whole files."""
TAIL_BYTES = 64  # some programs add a few bytes behind the end


class OtherFilesNeededError(SourceError):
    """The file is a part of a recording in several files, which is not taken file by file, or holds volumes
    where images are wanted."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An open file with `planes` images, which are whole as far as the file tells; `grows` if it can get more.

    The last `together` of them may be written still. `damage` says why there should be more, or what is missing.
    With `volumes` these are counted, not their slices.
    """

    stack: ImageStack
    planes: int
    grows: bool
    together: int = 1
    damage: str = ""
    volumes: VolumesOfFile | None = None

    def is_whole(self, index: int) -> bool:
        """Whether the file says that nothing of an image or volume is lacking."""
        return self.volumes is None or self.volumes.is_whole(index)

    def read(self, index: int) -> tuple[Plane, VolumeInfo | None]:
        """An image, or a volume and how it was taken. Raises `SourceError` if it cannot be read."""
        return (self.stack.read(index), None) if self.volumes is None else self.volumes.read(index)


def open_item(path: Path, axes: str | None, rules: VolumeRules | None = None) -> Opened:
    """Open a file as it is now. Raises `SourceError` if it cannot be read (yet).

    Raises `UnknownVoxelError` for volumes whose voxels nobody knows.
    """
    rules = rules or VolumeRules()
    suffix = path.suffix.lower()
    if path.is_dir():
        return _open_zarr(path, axes, rules)
    if suffix not in TIFF:
        return Opened(GuardedStack(path, lambda: SingleImage(path)), 1, grows=False)
    _check_alone(path)
    stack = open_stack(path, axes, volumes=bool(rules.wanted))
    volumes = _volumes(path, stack, axes, rules)
    planes = stack.info.planes if volumes is None else volumes.planes
    return Opened(stack, planes, grows=True, damage=stack.damage, volumes=volumes)


def _open_zarr(path: Path, axes: str | None, rules: VolumeRules) -> Opened:
    found: list[ArrayStack] = []

    def open_it() -> ImageStack:
        found.append(open_zarr(path, axes, is_scan=bool(rules.wanted)))
        return found[0]

    stack = GuardedStack(path, open_it)
    volumes = _volumes(path, stack, axes, rules)
    together = found[0].planes_together
    if volumes is not None:
        return Opened(
            stack, volumes.planes, grows=True, together=max(1, together // volumes.depth), volumes=volumes
        )
    holes = next((text for text in stack.info.plane_remarks if "black frames" in text), "")
    return Opened(stack, stack.info.planes, grows=True, together=together, damage=holes)


def _volumes(path: Path, stack: ImageStack, axes: str | None, rules: VolumeRules) -> VolumesOfFile | None:
    """The volumes of a file; None if it holds images.

    Raises `OtherFilesNeededError` for slices of volumes that would be taken for images one after the other.
    """
    slices = dict(zip(stack.info.axes, stack.info.lead, strict=False)).get("Z", 1)
    try:
        if rules.wanted or (rules.wanted is None and slices > 1):
            return VolumesOfFile(path, stack, rules)
    except BaseException:
        stack.close()
        raise
    if slices > 1 and axes is None:
        stack.close()
        raise OtherFilesNeededError(
            f"{path.name} holds volumes of {slices} slices, and the detector is one for images; leave its settings "
            'out, or give source.axes = "TYX" if its planes are images one after the other'
        )
    return None


def _check_alone(path: Path) -> None:
    members = TiffMembers()
    try:
        with kept_quiet(), told_in_a_line(f"cannot read {path}"):
            others = member_files(path, members) - {path}
    finally:
        members.close()
    if others:
        raise OtherFilesNeededError(
            f"{path.name} belongs to a recording in several files, which cannot be taken while it is written; "
            "have the program write one file for each image, or send the frames (source.listen)"
        )


class SingleImage:
    """A PNG, BMP, JPEG or PGM as a stack of one image."""

    damage = ""

    def __init__(self, path: Path) -> None:
        """Read it. Raises `SourceError` (or an error of PIL) if it is not whole or not a grey image."""
        self._path = path
        end = ENDS.get(path.suffix.lower())
        if end is not None:
            with path.open("rb") as file:
                file.seek(0, 2)
                file.seek(max(0, file.tell() - TAIL_BYTES))
                if end not in file.read():
                    raise SourceError(f"{path} has no end yet")
        self._image = read_single_image(path)
        if self._image.ndim != 2:
            raise SourceError(f"{path} is a colour image; convert it to greyscale")
        height, width = self._image.shape
        self.info = StackInfo(1, height, width, check_pixels(path, self._image.dtype), format=path.suffix[1:])

    def read(self, index: int) -> Plane:
        """The image."""
        if index != 0:
            raise SourceError(f"{self._path} has one image")
        return Plane(np.ascontiguousarray(self._image))

    def close(self) -> None:
        """Nothing is held open."""
