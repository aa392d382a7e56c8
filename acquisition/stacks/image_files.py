"""A recording of one image per file: PNG, BMP, JPEG, PGM or single-page TIFF."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from acquisition.stacks.axes import given_axes
from acquisition.stacks.claimed_size import check_size
from acquisition.stacks.image_order import sort_images
from acquisition.stacks.library_errors import plain
from acquisition.stacks.micromanager_text import read_metadata_text
from acquisition.stacks.plane_table import Place, select
from acquisition.stacks.scales import Said, Scales, number
from acquisition.stacks.stack import Plane, StackInfo, layout_of, type_name
from acquisition.stacks.tiff import TiffStack
from acquisition.stacks.tiff_facts import micromanager_planes, micromanager_scales
from acquisition.stacks.tiff_pages import CutShortError, TiffMembers
from acquisition.stacks.video_choice import Choice
from stream.errors import SourceError

TIFF = (".tif", ".tiff")
SUFFIXES = (*TIFF, ".png", ".bmp", ".jpg", ".jpeg", ".pgm")


class FolderStack:
    """One image per file; all must have the size and pixel type of the first."""

    damage = ""

    def __init__(
        self,
        folder: Path,
        images: list[Path],
        choice: Choice | None = None,
        axes: str | None = None,
        *,
        any_type: bool = False,
    ) -> None:
        """Sort the images. Raises `SourceError` for images of several file types, or of several videos."""
        self._folder, self._any_type = folder, any_type
        choice = choice or Choice()
        self._members = TiffMembers()
        kinds = sorted({_kind(path) for path in images})
        if len(kinds) > 1 and choice.get("files") is None:
            raise SourceError(
                f"{folder} has images of several types ({', '.join(kinds)}); keep one type, or select one, as in "
                f'"{folder}::files=*{kinds[0]}"'
            )
        found = sort_images(folder, images, choice.get("files"))
        self._chosen = select(folder, found.table, choice)
        self._one_height = choice.get("z") is not None
        self._first = found.first if self._chosen.axes in {"", "T"} else None
        image = self._pixels(self._file(0))
        self.info = self._describe(image, axes, (*found.notes, *self._gaps()))

    def _describe(self, image: npt.NDArray[Any], given: str | None, notes: tuple[str, ...]) -> StackInfo:
        first, chosen = self._file(0), self._chosen
        axes, lead = chosen.axes, chosen.lead
        if given is not None:
            layout = layout_of(
                self._folder, (*lead, *image.shape), given_axes(self._folder, (*lead, *image.shape), given)
            )
            axes, lead = layout.axes, layout.lead
        text = read_metadata_text(self._folder)
        said = [text.images.get(place.file.name, {}) if place is not None else {} for place in chosen.planes]
        if not any(said) and self._tag(first):
            said = [self._tag(place.file) if place is not None else {} for place in chosen.planes]
        self._columns = micromanager_planes(len(said), said)
        scales = (
            micromanager_scales(text.summary, said[0]) if text.summary or said[0] else self._own_scales(first)
        )
        return StackInfo(
            planes=len(chosen.planes),
            height=image.shape[0],
            width=image.shape[1],
            dtype=image.dtype.name,
            volume=lead[-1] if axes == "TZ" else 1,
            pixel_size_um=scales.x.value,
            frame_rate_hz=scales.rate_hz,
            format=f"folder of {_kind(first)} images",
            axes=axes,
            lead=lead,
            pixel_size_y_um=scales.y.value,
            stamps_s=self._columns.time_s if np.isfinite(self._columns.time_s).any() else None,
            remarks=(*notes, *self._planned(text.summary)),
            pixel_remarks=scales.pixel_remarks,
            pixel_change=self._columns.pixel_change,
            time_remarks=tuple(
                t for t in (scales.interval.remark, *scales.remarks, self._columns.remark) if t
            ),
            z_step_um=scales.z.value,
            z_step_remark=scales.z.remark,
            focus_um=self._columns.focus_um if np.isfinite(self._columns.focus_um).any() else None,
            absent=np.array([at for at, place in enumerate(chosen.planes) if place is None], np.int64),
            plane_remarks=self._heights(),
        )

    def _tag(self, path: Path) -> dict[str, Any]:
        """Micro-Manager's metadata in an image file; empty if there are none."""
        if path.suffix.lower() not in TIFF:
            return {}
        try:
            return self._members.facts(Place(path, ifd=0))
        except (CutShortError, OSError, ValueError, tifffile.TiffFileError):
            return {}
        finally:
            self._members.close()

    def _own_scales(self, path: Path) -> Scales:
        """The pixel size in the first image."""
        if path.suffix.lower() not in TIFF:
            return Scales()
        stack = TiffStack(path, any_type=True)
        stack.close()
        x, y = Said(stack.info.pixel_size_um), Said(stack.info.pixel_size_y_um)
        return Scales(x, y)

    def _file(self, index: int) -> Path:
        place: Place | None = self._chosen.planes[index]
        if place is None:
            t, z = self._chosen.at[index]
            raise SourceError(
                f"frame {index} of {self._folder} (time {t}, height {z}) is missing; copy it again"
            )
        return place.file

    def _heights(self) -> tuple[str, ...]:
        """The remark about several heights at each time."""
        if self._chosen.axes != "TZ":
            return ()
        times, heights = self._chosen.lead
        return (
            f"by their names there are {heights} heights (z) at each of {times} times: each is read as a frame",
        )

    def _planned(self, summary: Mapping[str, Any]) -> tuple[str, ...]:
        """The remark about images that Micro-Manager planned and that are missing."""
        frames, slices = (number(summary.get(key)) for key in ("Frames", "Slices"))
        wanted = frames * (slices if slices >= 1 and not self._one_height else 1)
        there = sum(place is not None for place in self._chosen.planes)
        if not math.isfinite(wanted) or wanted <= there + self._lost():
            return ()
        return (
            f"{wanted:.0f} images were planned, {there} exist: the recording was stopped early, or images were "
            "removed from the folder",
        )

    def _lost(self) -> int:
        """Number of images missing in gaps of the numbers."""
        times = [t for t, _ in self._chosen.at]
        return 0 if self._first is None else times[-1] - times[0] + 1 - len(times)

    def _gaps(self) -> tuple[str, ...]:
        """The remark about gaps in the numbers."""
        if self._first is None or len(self._chosen.at) < 2:
            return ()
        times = [t for t, _ in self._chosen.at]
        lost = self._lost()
        behind = next((place for place, t in enumerate(times[1:]) if t - times[place] > 1), None)
        if behind is None:
            return ()
        return (
            f"{lost} images are missing by their numbers, the first one after {self._file(behind).name}: they are "
            "counted as lost",
        )

    def read(self, index: int) -> Plane:
        """Image `index`. Raises `SourceError` if it cannot be read or has another format than the first."""
        path = self._file(index)
        image, said = self._pixels(path), self._columns
        if image.shape != (self.info.height, self.info.width) or image.dtype.name != self.info.dtype:
            raise SourceError(
                f"{path} (frame {index}) is {image.shape} {image.dtype}, the first image was "
                f"({self.info.height}, {self.info.width}) {self.info.dtype}; remove it or convert it"
            )
        return Plane(
            np.ascontiguousarray(image),
            time_s=float(said.time_s[index]),
            focus_um=float(said.focus_um[index]),
            exposure_ms=float(said.exposure_ms[index]),
            camera_frame=self.camera_frame(index),
        )

    def camera_frame(self, index: int) -> int | None:
        """The number of an image, by its name; None where names have none."""
        t, _ = self._chosen.at[index]
        return None if self._first is None else self._first + t

    def _pixels(self, path: Path) -> npt.NDArray[Any]:
        """An image (H, W) in native byte order."""
        try:
            image = self._tiff_page(path) if path.suffix.lower() in TIFF else read_single_image(path)
        except SourceError:
            raise
        except CutShortError as cut:
            raise SourceError(f"{path} is damaged or truncated ({cut}); copy it again") from cut
        except Exception as error:
            raise SourceError(f"cannot read {path}: {plain(error)}; copy it again") from error
        finally:
            self._members.close()
        if image.ndim == 3 and image.shape[2] in {2, 3, 4}:
            raise SourceError(f"{path} is a colour image; convert it to greyscale")
        if image.ndim != 2:
            raise SourceError(
                f"{path} contains an array {image.shape}, not one image; give the file itself, not its folder"
            )
        type_name(path, image.dtype, any_type=self._any_type)
        return image

    def _tiff_page(self, path: Path) -> npt.NDArray[Any]:
        """The one image of a file. Raises `SourceError` if it has more."""
        pages = len(self._members.file(path).pages)
        if pages > 1:
            raise SourceError(f"{path} contains {pages} images, not one; remove it from the folder")
        return self._members.read(Place(path, ifd=0), (), "uint8")

    def close(self) -> None:
        """Nothing is held open."""


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    return ".tif" if suffix in TIFF else ".jpg" if suffix == ".jpeg" else suffix


def read_single_image(path: Path) -> npt.NDArray[Any]:
    """A single grey image (H, W) in native byte order. Raises `SourceError` for a colour table."""
    with Image.open(path) as picture:
        check_size(path, picture.height, picture.width)
        if picture.mode == "P":
            raise SourceError(f"{path} has a colour table; convert it to greyscale")
        image = np.asarray(picture)
    if image.dtype == np.int32 and image.size and image.min() >= 0 and image.max() <= np.iinfo(np.uint16).max:
        # PIL reads a 16-bit PGM as int32
        return image.astype(np.uint16)
    return image if image.dtype.isnative else image.astype(image.dtype.newbyteorder("="))
