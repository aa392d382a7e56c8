"""TIFF stacks: plain, ImageJ, OME, Micro-Manager's and NDTiff, in one file or several."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from acquisition.stacks.axes import AxisEvidence, assumed_axes, decide_axes, given_axes
from acquisition.stacks.claimed_size import check_count
from acquisition.stacks.file_set import FileSet, open_file_set
from acquisition.stacks.library_errors import kept_quiet, plain
from acquisition.stacks.ome import OmeFacts, OmePlane, ome_facts
from acquisition.stacks.ome_files import ome_problem
from acquisition.stacks.scales import Scales
from acquisition.stacks.stack import NAN, Layout, Plane, StackInfo, layout_of, type_name
from acquisition.stacks.tiff_broken import rest_of_video
from acquisition.stacks.tiff_facts import (
    PlaneColumns,
    imagej_scales,
    micromanager_planes,
    micromanager_scales,
    plain_scales,
)
from acquisition.stacks.tiff_pages import CutShortError, TiffMembers, where_it_ends
from acquisition.stacks.tiff_series import Video, find_video, unnamed_pages
from acquisition.stacks.video_choice import Channel, Choice, choose_channel
from stream.errors import SourceError

DAMAGE = ("invalid page offset", "corrupt", "invalid value offset", "failed to reshape", "truncated")
MICROMANAGER = ("Micro-Manager", "NDTiff")


class TiffStack:
    """The planes of one video in a TIFF file, or in the files of a set."""

    def __init__(
        self,
        path: Path,
        axes: str | None = None,
        *,
        choice: Choice | None = None,
        is_scan: bool = False,
        any_type: bool = False,
        whole: bool = False,
    ) -> None:
        """Open a TIFF, an OME companion file or an NDTiff index.

        `axes` takes precedence over the file; `choice` selects one of several videos; `is_scan` if it should be a
        focus scan; `any_type` if pixels may have any numeric type, as in references; `whole` if the folder was
        opened, not this file.

        Raises `SourceError` if it is not a TIFF or has no images that can be read, `ConfigurationError` for `axes`
        that do not fit.
        """
        self._path, self._choice, self._any_type, self._whole = path, choice or Choice(), any_type, whole
        self.damage = ""
        self._complaints: list[str] = []
        self._members = TiffMembers()
        try:
            with kept_quiet(self._complaints):
                self._open(axes, is_scan)
        except BaseException:
            self._members.close()
            raise

    def _open(self, given: str | None, is_scan: bool) -> None:
        self._set: FileSet | None = open_file_set(
            self._path,
            self._members,
            self._choice,
            whole=self._whole,
            all_channels=self._has_all_channels(given),
        )
        self._video: Video | None = None if self._set is not None else self._lone_file()
        found: FileSet | Video | None = self._set or self._video
        assert found is not None
        shape, axes = found.shape, found.axes
        if given is not None:
            axes = given_axes(self._path, shape, given)
        own_axes = found.axes
        self._channel: Channel | None = None
        if self._set is None or "C" in axes:
            self._channel = choose_channel(self._path, shape, axes, self._choice)
        if self._channel is not None:
            sizes = shape[: max(own_axes.find("Y"), 0)]
            every = np.arange(math.prod(sizes)).reshape(sizes)
            self._taken = every.take(self._channel.number, self._channel.axis).ravel()
            shape = self._channel.without(shape)
            axes, own_axes = ("".join(self._channel.without(names)) for names in (axes, own_axes))
        layout = layout_of(self._path, shape, axes)  # raises errors about what cannot be read first
        check_count(self._path, layout.planes)
        dtype = type_name(self._path, found.dtype, any_type=self._any_type)
        lead = max(own_axes.find("Y"), 0)
        named = Layout(shape[:lead], own_axes[:lead], layout.height, layout.width)
        self._at = self._set.chosen.at if self._set is not None else _places(named)
        if self._set is not None and self._channel is not None:
            self._at = tuple(self._at[place] for place in self._taken.tolist())
        self._ome = (
            ome_facts(self._set.ome_xml) if self._set is not None and self._set.ome_xml else OmeFacts()
        )
        scales, kind = self._facts()
        self._columns = self._micromanager_columns(kind)
        focus_um, stamps_s = self._positions_and_stamps()
        decided = ""
        if given is None:
            if self._video is not None and kind == "TIFF" and self._video.is_unnamed:
                decided = assumed_axes(axes, "its pages")
            else:
                evidence = AxisEvidence(scales.interval.value, scales.z.value, scales.x.value, focus_um)
                axes, decided = decide_axes(axes, shape, evidence, is_scan=is_scan)
        self._layout: Layout = layout_of(self._path, shape, axes)
        self._spacing_um = scales.z.value if self._layout.size("Z") > 1 else NAN
        has_depth = self._layout.size("Z") > 1
        planes = len(self._at)
        self.info = StackInfo(
            planes=planes,
            height=self._layout.height,
            width=self._layout.width,
            dtype=dtype,
            volume=self._layout.volume,
            pixel_size_um=scales.x.value,
            frame_rate_hz=scales.rate_hz,
            format=kind,
            axes=self._layout.axes,
            lead=self._layout.lead,
            pixel_size_y_um=scales.y.value,
            stamps_s=stamps_s,
            remarks=tuple(t for t in (*found.notes, decided, scales.z.remark if has_depth else "") if t),
            pixel_remarks=scales.pixel_remarks,
            pixel_change=self._columns.pixel_change,
            time_remarks=tuple(
                t for t in (scales.interval.remark, *scales.remarks, self._columns.remark) if t
            ),
            lost_before=0 if self._set is None else self._set.chosen.lost_before,
            lost_after=0 if self._set is None else self._set.chosen.lost_after,
            z_step_um=scales.z.value,
            z_step_remark=scales.z.remark,
            focus_um=focus_um if np.isfinite(focus_um).any() else None,
            absent=self._absent(planes),
        )
        self._expected = planes + (0 if self._set is None else self._set.absent)
        problem = next((text for text in self._complaints if any(word in text for word in DAMAGE)), "")
        if self._video is not None and self._video.end:
            self._expected = self._video.promised // (1 if self._channel is None else self._channel.count)
            self.damage = str(
                self._cut_short(self._whole_planes(), where_it_ends(self._file, self._video.end))
            )
        elif problem or self._expected > planes:
            self.damage = str(self._cut_short(planes, problem or "pages are missing"))

    def _absent(self, planes: int) -> npt.NDArray[np.int64] | None:
        """The planes of a set that were never stored."""
        if self._set is None:
            return None
        stored = self._set.chosen.planes
        return np.array([at for at in range(planes) if stored[self._in_file(at)] is None], np.int64)

    def _has_all_channels(self, given: str | None) -> bool:
        """Whether the channels of a set are an axis: the user names it or says that they are times."""
        if given is None:
            return False
        return self._choice.get("channel") is None or "C" in given.upper()

    def _in_file(self, index: int) -> int:
        """The index of a plane among those of all channels."""
        return index if self._channel is None else int(self._taken[index])

    def _lone_file(self) -> Video:
        self._file: tifffile.TiffFile = self._members.file(self._path)
        video = rest_of_video(self._path, self._file, self._choice)
        if video is not None:
            return video
        video = find_video(self._path, self._file, self._choice)
        problem = ome_problem(self._file)
        if problem:
            video = replace(video, notes=(*video.notes, f"its OME metadata cannot be read ({problem})"))
        pages = len(self._file.pages)  # visits all pages, which logs errors
        return replace(video, notes=(*video.notes, *unnamed_pages(pages, self._file)))

    def _whole_planes(self) -> int:
        """Number of complete planes at the beginning of a truncated file."""
        video = self._video
        assert video is not None
        whole = self._whole_images(video)
        return whole if self._channel is None else int(np.searchsorted(self._taken, whole))

    def _whole_images(self, video: Video) -> int:
        """The same for the images of all channels."""
        if video.data is None:
            pages = video.pages
            ends = (
                max(map(sum, zip(page.dataoffsets, page.databytecounts, strict=False)), default=0)
                for page in pages
            )
            return next((number for number, end in enumerate(ends) if end > video.end), len(pages))
        nbytes = int(np.prod(video.shape[-2:])) * video.dtype.itemsize
        return max(0, video.end - video.data) // nbytes

    def _facts(self) -> tuple[Scales, str]:
        if self._set is not None and self._set.kind == "OME-TIFF":
            return self._ome.scales, self._set.kind
        if self._set is not None:
            return micromanager_scales(self._set.summary, self._plane_facts(0)), self._set.kind
        file = self._file
        if file.is_micromanager:
            summary = (file.micromanager_metadata or {}).get("Summary", {})
            return micromanager_scales(
                summary if isinstance(summary, dict) else {}, self._plane_facts(0)
            ), "Micro-Manager"
        tags = file.pages.first.tags
        x_per_unit, y_per_unit = _ratio(tags.get("XResolution")), _ratio(tags.get("YResolution"))
        if file.is_imagej:
            return imagej_scales(file.imagej_metadata or {}, x_per_unit, y_per_unit), "ImageJ TIFF"
        unit = tags.get("ResolutionUnit")
        return plain_scales(x_per_unit, y_per_unit, 0 if unit is None else int(unit.value)), "TIFF"

    def _micromanager_columns(self, kind: str) -> PlaneColumns:
        """Micro-Manager's metadata of each plane, read once."""
        count = len(self._at) if kind in MICROMANAGER else 0
        return micromanager_planes(count, (self._plane_facts(index) for index in range(count)))

    def _positions_and_stamps(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Focus positions, um, and time stamps, s, of all planes."""
        focus_um, stamps_s = np.full((2, len(self._at)), NAN)
        if self._ome.by_plane:
            planes = [self._ome_plane(index) for index in range(len(self._at))]
            focus_um, stamps_s = np.array([(plane.focus_um, plane.time_s) for plane in planes]).T
        if self._columns.time_s.size:
            columns = self._columns
            focus_um = np.where(np.isfinite(columns.focus_um), columns.focus_um, focus_um)
            stamps_s = np.where(np.isfinite(columns.time_s), columns.time_s, stamps_s)
        return focus_um, stamps_s

    def _ome_plane(self, index: int) -> OmePlane:
        return self._ome.plane(*self._at[index])

    def read(self, index: int) -> Plane:
        """Plane `index`. Raises `SourceError`, also if the file is truncated."""
        try:
            with kept_quiet(self._complaints):
                image = self._pixels(index)
        except CutShortError as cut:
            raise self._cut_short(index, str(cut), cut.file) from cut
        except SourceError:
            raise
        except Exception as error:
            raise self._cut_short(index, plain(error)) from error
        if image.shape != (self.info.height, self.info.width) or image.dtype.name != self.info.dtype:
            raise SourceError(
                f"frame {index} of {self._path} is {image.shape[-2]} x {image.shape[-1]} pixels of "
                f"{image.dtype.name}, the first was {self.info.height} x {self.info.width} {self.info.dtype}"
            )
        ome, said = self._ome_plane(index), self._columns
        has_said = index < said.time_s.size
        by_spacing_um = self._layout.position(index, "Z") * self._spacing_um
        return Plane(
            image=np.ascontiguousarray(image, self.info.dtype),
            time_s=_first(said.time_s[index] if has_said else NAN, ome.time_s),
            focus_um=_first(said.focus_um[index] if has_said else NAN, ome.focus_um, by_spacing_um),
            exposure_ms=_first(said.exposure_ms[index] if has_said else NAN, ome.exposure_ms),
            camera_frame=self.camera_frame(index),
        )

    def camera_frame(self, index: int) -> int | None:
        """The camera frame number of a plane; it rises at least as much as the place in the recording."""
        numbers = self._columns.camera_frame
        said = int(numbers[index]) if index < numbers.size and numbers[index] >= 0 else None
        if self._set is None:
            return said
        if self._layout.axes != "T":
            return None
        place, first = sum(self._at[index]), sum(self._at[0])
        if not self._set.chosen.single or not numbers.size or numbers[0] < 0:
            return place
        by_place = int(numbers[0]) + place - first
        return by_place if said is None else max(said, by_place)

    def _pixels(self, index: int) -> npt.NDArray[Any]:
        if self._set is None:
            assert self._video is not None
            return self._members.read_page(self._file, self._video, self._in_file(index))
        place = self._set.chosen.planes[self._in_file(index)]
        if place is None:
            raise SourceError(
                f"frame {index} of {self._path} is missing, or its file is; keep all files of the "
                "recording in one folder"
            )
        return self._members.read(place, self._set.shape[-2:], self._set.dtype)

    def _plane_facts(self, index: int) -> dict[str, Any]:
        """Micro-Manager's metadata of a plane; empty if the file ends before it (reading it raises the error)."""
        if self._set is None:
            return self._members.page_facts(self._file, self._in_file(index))
        place = self._set.chosen.planes[self._in_file(index)]
        try:
            return {} if place is None else self._members.facts(place)
        except (CutShortError, tifffile.TiffFileError):
            return {}

    def _cut_short(self, index: int, why: str, file: Path | None = None) -> SourceError:
        of = f" of {self._expected}" if self._expected > index else ""
        return SourceError(
            f"{file or self._path} is damaged or truncated at frame {index}{of} ({why}); copy it again from where "
            "it was recorded"
        )

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._members.close()


def _places(named: Layout) -> tuple[tuple[int, int], ...]:
    """Indices of time and height of all planes of a layout."""
    return tuple(zip(named.positions("T").tolist(), named.positions("Z").tolist(), strict=True))


def _ratio(tag: tifffile.TiffTag | None) -> float:
    """The value of a resolution tag; NaN if there is none."""
    value = None if tag is None else tag.value
    try:
        return float(value[0] / value[1]) if isinstance(value, tuple) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ZeroDivisionError, IndexError):
        return NAN


def _first(*values: float) -> float:
    return next((float(value) for value in values if np.isfinite(value)), NAN)
