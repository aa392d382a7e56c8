"""A folder of stacks, each of which is one volume of a recording."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from acquisition.stacks.file_set import member_files
from acquisition.stacks.image_files import TIFF
from acquisition.stacks.image_order import sort_images
from acquisition.stacks.library_errors import told_in_a_line
from acquisition.stacks.ndtiff import ndtiff_index
from acquisition.stacks.plane_table import select
from acquisition.stacks.stack import Plane, StackInfo
from acquisition.stacks.tiff import TiffStack
from acquisition.stacks.tiff_pages import TiffMembers
from acquisition.stacks.video_choice import Choice
from stream.errors import SourceError


def volume_files(folder: Path, choice: Choice) -> list[Path] | None:
    """The stacks of a folder of which each file is one; None if it has no or one such file, or other images.

    Raises `SourceError` if the first one cannot be read.
    """
    if ndtiff_index(folder) is not None:
        return None
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in TIFF and path.name[0] != ".")
    if len(files) < 2 or choice.get("position", "series") is not None:
        return None
    members = TiffMembers()
    try:
        with told_in_a_line(f"cannot read {files[0]}", "copy it again"):
            alone = len(member_files(files[0], members)) == 1
            return files if alone and len(members.file(files[0]).pages) > 1 else None
    finally:
        members.close()


class VolumeFiles:
    """One volume per file, in the order of the numbers in their names; a gap in these is volumes that were lost.

    One file is open at a time. All must have the slices, size and pixel type of the first; the last may end early.
    """

    def __init__(self, folder: Path, files: list[Path], choice: Choice, axes: str | None) -> None:
        """Sort the files and open the first and the last. Raises `SourceError` if they are not alike."""
        self._folder, self._axes = folder, axes
        found = sort_images(folder, files, choice.get("files"))
        own = {"files"} | ({"channel"} if len(found.table.channels) > 1 else set())
        self._inside = Choice({key: value for key, value in choice.given.items() if key not in own})
        chosen = select(
            folder, found.table, Choice({key: choice.given[key] for key in own & set(choice.given)})
        )
        if chosen.axes not in {"", "T"}:
            raise SourceError(
                f"by their names the stacks in {folder} have several heights; give one folder of volumes, or merge "
                "them into one file"
            )
        self._files = [place.file for place in chosen.planes if place is not None]
        self._at = [t for t, _ in chosen.at]
        self.damage = ""
        self._open: tuple[int, TiffStack] | None = None
        first = self._stack(0).info
        self._depth = first.planes
        if first.axes != "Z":
            raise SourceError(
                f"{self._files[0]} is {first.axes or 'one image'} and not one volume; give that file itself, or "
                "--axes ZYX if its pages are slices"
            )
        last = len(self._files) - 1
        ends = self._stack(last)
        self.damage = ends.damage
        slices = min(ends.info.planes, self._depth) if last else self._depth
        times = self._at[-1] - self._at[0] + 1
        stored = np.zeros((times, self._depth), bool)
        stored[np.subtract(self._at, self._at[0])] = True
        stored[-1, slices:] = False
        planes = (times - 1) * self._depth + slices
        lost = times - len(self._files)
        self.info = StackInfo(
            planes=planes,
            height=first.height,
            width=first.width,
            dtype=first.dtype,
            volume=self._depth,
            pixel_size_um=first.pixel_size_um,
            frame_rate_hz=first.frame_rate_hz,
            format=f"folder of volumes, {first.format}",
            axes="TZ",
            lead=(times, self._depth),
            pixel_size_y_um=first.pixel_size_y_um,
            remarks=(
                *found.notes,
                *first.remarks,
                *(
                    (f"{lost} volumes are missing by their numbers: they are counted as lost",)
                    if lost
                    else ()
                ),
            ),
            pixel_remarks=first.pixel_remarks,
            time_remarks=first.time_remarks,
            z_step_um=first.z_step_um,
            z_step_remark=first.z_step_remark,
            absent=np.flatnonzero(~stored.ravel()[:planes]),
        )

    def _stack(self, number: int) -> TiffStack:
        """The stack of one file; that of another is closed."""
        if self._open is None or self._open[0] != number:
            self.close()
            path = self._files[number]
            self._open = number, TiffStack(path, self._axes, choice=self._inside, is_scan=True)
        return self._open[1]

    def read(self, index: int) -> Plane:
        """Plane `index`, counted over all files. Raises `SourceError` if it cannot be read or differs."""
        volume, z = divmod(index, self._depth)
        try:
            number = self._at.index(volume + self._at[0])
        except ValueError as error:
            raise SourceError(f"volume {volume} of {self._folder} is missing") from error
        stack = self._stack(number)
        found, wanted = stack.info, self.info
        if (found.height, found.width, found.dtype) != (wanted.height, wanted.width, wanted.dtype) or (
            found.planes != self._depth and number < len(self._files) - 1
        ):
            raise SourceError(
                f"{self._files[number]} has {found.planes} slices of {found.width} x {found.height} {found.dtype}, "
                f"the first file has {self._depth} of {wanted.width} x {wanted.height} {wanted.dtype}; remove it "
                "or copy it again"
            )
        return stack.read(z)

    def close(self) -> None:
        """Close the open file. Idempotent."""
        if self._open is not None:
            self._open[1].close()
            self._open = None
