"""TIFF stacks: plain, ImageJ, OME, Micro-Manager's and NDTiff, in one file or several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from acquisition.stacks.choice import Choice
from acquisition.stacks.file_set import FileSet, open_file_set
from acquisition.stacks.library import kept_quiet, plain
from acquisition.stacks.ome import OmeFacts, ome_facts
from acquisition.stacks.sizes import check_count
from acquisition.stacks.stack import NAN, Layout, Plane, StackInfo, check_pixels, layout_of, to_s, to_um
from acquisition.stacks.tiff_pages import Cut, TiffMembers
from acquisition.stacks.tiff_series import Video, find_video
from stream.errors import SourceError

DAMAGE = ("invalid page offset", "corrupt", "invalid value offset", "failed to reshape", "truncated")
FOCUS_KEYS = ("ZPositionUm", "ZPosition_um_Intended", "Z-um")
EXPOSURE_KEYS = ("Exposure-ms", "Exposure")


class TiffStack:
    """The planes of one video in a TIFF file, or in the files of a set."""

    def __init__(
        self, path: Path, choice: Choice | None = None, *, any_type: bool = False, whole: bool = False
    ) -> None:
        """Open the file, an OME companion or an NDTiff index. Raises `SourceError` if it has no images that we read.

        `any_type`: pixels need not be a camera's, as in references. `whole`: the folder was opened, not this file.
        """
        self._path = path
        self._any_type, self._whole = any_type, whole
        self._choice = choice or Choice()
        self.damage = ""
        self._complaints: list[str] = []
        self._members = TiffMembers()
        try:
            with kept_quiet(self._complaints):
                self._open()
        except BaseException:
            self._members.close()
            raise

    def _open(self) -> None:
        self._set = open_file_set(self._path, self._members, self._choice, whole=self._whole)
        self._video = None if self._set is not None else self._lone_file()
        found: FileSet | Video | None = self._set or self._video
        assert found is not None
        self._layout: Layout = layout_of(self._path, found.shape, found.axes)
        check_count(self._path, self._layout.planes)
        dtype = (
            np.dtype(found.dtype).newbyteorder("=").name
            if self._any_type
            else check_pixels(self._path, np.dtype(found.dtype))
        )
        self._ome = ome_facts(self._set.ome_xml) if self._set is not None and self._set.ome_xml else OmeFacts()
        self._first_number: int | None = None
        pixel_um, rate_hz, kind = self._facts()
        self._spacing_um = self._spacing() if self._layout.size("Z") > 1 else NAN
        self.info = StackInfo(
            planes=self._set.chosen_planes if self._set is not None else self._layout.planes,
            height=self._layout.height,
            width=self._layout.width,
            dtype=dtype,
            volume=self._layout.volume,
            pixel_size_um=pixel_um,
            frame_rate_hz=rate_hz,
            format=kind,
            axes=self._layout.axes,
            lead=self._layout.lead,
            remarks=found.notes,
            lost_before=0 if self._set is None else self._set.chosen.lost_before,
            lost_after=0 if self._set is None else self._set.chosen.lost_after,
        )
        self._expected = self.info.planes + (0 if self._set is None else self._set.absent)
        problem = next((text for text in self._complaints if any(word in text for word in DAMAGE)), "")
        if problem or self._expected > self.info.planes:
            self.damage = str(self._cut_short(self.info.planes, problem or "pages are missing"))

    def _lone_file(self) -> Video:
        file = self._members.file(self._path)
        self._file = file
        video = find_video(self._path, file, self._choice)
        _ = len(file.pages)  # walks through them all, and complains where that fails
        return video

    def _facts(self) -> tuple[float, float, str]:
        kind = "" if self._set is None else self._set.kind
        if kind in {"Micro-Manager", "NDTiff"} or (self._video is not None and self._file.is_micromanager):
            summary = self._summary()
            pixel_um = _number(summary.get("PixelSize_um", summary.get("PixelSizeUm")))
            interval_ms = _number(summary.get("Interval_ms"))
            first = self._plane_facts(0)
            pixel_um = pixel_um if pixel_um > 0 else _number(first.get("PixelSizeUm"))
            return (
                pixel_um if pixel_um > 0 else NAN,
                1e3 / interval_ms if interval_ms > 0 else NAN,
                kind or "Micro-Manager",
            )
        if kind == "OME-TIFF":
            return self._ome.pixel_size_um, self._ome.frame_rate_hz, kind
        if self._file.is_imagej:
            facts = self._file.imagej_metadata or {}
            interval_s = to_s(_number(facts.get("finterval")), str(facts.get("tunit", "s")))
            rate_hz = 1 / interval_s if interval_s > 0 else _number(facts.get("fps"))
            return self._resolution_um(str(facts.get("unit", ""))), rate_hz, "ImageJ TIFF"
        return NAN, NAN, "TIFF"

    def _summary(self) -> dict[str, Any]:
        if self._set is not None:
            return self._set.summary
        summary = (self._file.micromanager_metadata or {}).get("Summary", {})
        return summary if isinstance(summary, dict) else {}

    def _spacing(self) -> float:
        if self._set is not None or not self._file.is_imagej:
            return NAN
        facts = self._file.imagej_metadata or {}
        return to_um(_number(facts.get("spacing")), str(facts.get("unit", "")))

    def _resolution_um(self, unit: str) -> float:
        tag = self._file.pages.first.tags.get("XResolution")
        if tag is None or not tag.value[0]:
            return NAN
        return to_um(tag.value[1] / tag.value[0], unit)

    def read(self, index: int) -> Plane:
        """Plane `index`. Raises `SourceError`, also where the file is cut short."""
        try:
            with kept_quiet(self._complaints):
                image, facts = self._pixels(index)
        except Cut as cut:
            raise self._cut_short(index, str(cut), cut.file) from cut
        except SourceError:
            raise
        except Exception as error:
            raise self._cut_short(index, plain(error)) from error
        if image.shape != (self.info.height, self.info.width) or image.dtype.name != self.info.dtype:
            raise SourceError(
                f"frame {index} of {self._path} is {image.shape[-2]} x {image.shape[-1]} pixels {image.dtype.name}, "
                f"the first was {self.info.height} x {self.info.width} {self.info.dtype}"
            )
        t, z = self._layout.position(index, "T"), self._layout.position(index, "Z")
        if self._set is not None:
            t, z = self._set.chosen.at[index]
        ome = self._ome.plane(t, z)
        elapsed_ms = _number(facts.get("ElapsedTime-ms"))
        return Plane(
            image=np.ascontiguousarray(image, self.info.dtype),
            time_s=1e-3 * elapsed_ms if np.isfinite(elapsed_ms) else ome.time_s,
            focus_um=_first(
                *(_number(facts.get(key)) for key in FOCUS_KEYS), ome.focus_um, z * self._spacing_um
            ),
            exposure_ms=_first(*(_number(facts.get(key)) for key in EXPOSURE_KEYS), ome.exposure_ms),
            camera_frame=self._camera_frame(index, facts),
        )

    def _camera_frame(self, index: int, facts: dict[str, Any]) -> int | None:
        """The camera's number of a plane, which rises at least by as much as its time index does."""
        said = str(facts.get("ImageNumber", ""))
        if self._set is None:
            return int(said) if said.isdigit() else None
        chosen = self._set.chosen
        if not chosen.single:
            return chosen.at[index][0] if self._layout.axes == "T" else None
        if self._first_number is None:
            first = str(self._plane_facts(0).get("ImageNumber", ""))
            self._first_number = int(first) if first.isdigit() else chosen.at[0][0]
        by_time = self._first_number + chosen.at[index][0] - chosen.at[0][0]
        return max(int(said), by_time) if said.isdigit() else by_time

    def _pixels(self, index: int) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        if self._set is not None:
            place = self._set.chosen.planes[index]
            if place is None:
                raise SourceError(
                    f"frame {index} of {self._path} lies in a file that is missing; keep all files of the "
                    "recording in one folder"
                )
            return self._members.read(place, self._set.shape[-2:], self._set.dtype)
        assert self._video is not None
        return self._members.read_page(self._file, self._video, index), self._plane_facts(index)

    def _plane_facts(self, index: int) -> dict[str, Any]:
        if self._set is not None:
            place = self._set.chosen.planes[index]
            return {} if place is None else self._members.facts(place)
        return self._members.page_facts(self._file, index) if self._file.is_micromanager else {}

    def _cut_short(self, index: int, why: str, file: Path | None = None) -> SourceError:
        of = f" of {self._expected}" if self._expected > index else ""
        return SourceError(
            f"{file or self._path} is damaged or cut short at frame {index}{of} ({why}); copy it again from where "
            "it was recorded"
        )

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._members.close()


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return NAN


def _first(*values: float) -> float:
    return next((value for value in values if np.isfinite(value)), NAN)
